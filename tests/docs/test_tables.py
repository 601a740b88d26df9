"""Generated pages and pictures are those that the scripts make now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .pages import DOCS


@pytest.mark.parametrize("script", ["make_tables.py"])
def test_generated_pages_are_current(script: str) -> None:
    done = subprocess.run([sys.executable, str(DOCS / script), "--check"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["make_assets.py"])
def test_every_picture_is_used_and_drawn_by_the_script(script: str, tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(DOCS)!r}); import pathlib, make_assets as m; "
    code += f"m.ASSETS = pathlib.Path({str(tmp_path)!r}); m.main()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=300)
    drawn = {path.name for path in tmp_path.glob("*.svg")}
    committed = {path.name for path in (DOCS / "assets").glob("*.svg")} - {"favicon.svg"}
    assert drawn == committed, f"run python docs/{script}"
    pages = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    for name in sorted(drawn):
        assert name in pages, f"no page shows {name}"
