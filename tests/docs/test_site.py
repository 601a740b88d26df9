"""The site builds without a warning, and its pages load nothing from the network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from .pages import ROOT

# What a browser fetches by itself: scripts, pictures, style sheets. Links to papers are for people to follow.
_ELSEWHERE = r"[\"']?((?:https?:)?//[^\"' >]+)"
_LOADED = re.compile(
    rf"<(?:script|img|iframe|source)\b[^>]*\bsrc={_ELSEWHERE}"
    rf"|<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next))[^>]*\bhref={_ELSEWHERE}"
)


def test_site_builds_and_stays_off_the_network(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search(r"^WARNING", done.stderr, re.MULTILINE), done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    loaded = {f"{page.name}: {a or b}" for page in pages for a, b in _LOADED.findall(page.read_text(encoding="utf-8"))}
    styles = {f"{css.name}: {url}" for css in tmp_path.rglob("*.css") for url in _imports(css)}
    assert not loaded | styles


def _imports(css: Path) -> list[str]:
    return re.findall(r"url\([\"']?((?:https?:)?//[^)\"']+)", css.read_text(encoding="utf-8"))
