"""The site builds without a warning, and its pages load nothing from the network."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .pages import ROOT

# What a browser fetches by itself: scripts, pictures, style sheets. Links to papers are for people to follow.
_ELSEWHERE = r"[\"']?((?:https?:)?//[^\"' >]+)"
_LOADED = re.compile(
    rf"<(?:script|img|iframe|source)\b[^>]*\bsrc={_ELSEWHERE}"
    rf"|<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next))[^>]*\bhref={_ELSEWHERE}"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"^WARNING", done.stderr, re.MULTILINE), done.stderr
    return folder


def test_site_builds_and_stays_off_the_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    loaded = {f"{page.name}: {a or b}" for page in pages for a, b in _LOADED.findall(page.read_text(encoding="utf-8"))}
    styles = {f"{css.name}: {url}" for css in site.rglob("*.css") for url in _imports(css)}
    assert not loaded | styles


@pytest.mark.parametrize("served", [False, True], ids=["from disk", "served"])
def test_the_search_finds_a_page(site: Path, browser: Any, served: bool) -> None:
    server = None
    address = (site / "index.html").as_uri()
    if served:
        handler = functools.partial(SimpleHTTPRequestHandler, directory=str(site))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/index.html"
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(address)
        page.locator("input.md-search__input").click()
        page.locator("input.md-search__input").type("staircase")
        found = page.locator("a.md-search-result__link[href*='measuring.html']").first
        found.wait_for(timeout=60_000)
        assert "measuring" in found.inner_text().lower()
    finally:
        page.close()
        if server:
            server.shutdown()
            server.server_close()
    assert [url for url in asked if not url.startswith(("file:", "http://127.0.0.1", "blob:", "data:"))] == []


def _imports(css: Path) -> list[str]:
    return re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", css.read_text(encoding="utf-8"))
