"""The page "Gallery" of the documentation, from a folder that ``depthsched gallery run`` filled."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from depthsched.gallery import load_gallery
from depthsched.gallery.page import write_page

from .process import ROOT

PROMPTS = "DATA/gsm8k/test-500.jsonl"
"""What the page says in place of the path on the machine that measured."""


def gallery_page(
    folder: Annotated[Path, typer.Argument(help="Of the gallery.")],
    page: Annotated[Path, typer.Option()] = ROOT / "docs" / "results" / "gallery.md",
) -> dict[str, Any]:
    """Write the page, with how to repeat it and the versions that measured."""
    found = load_gallery(folder)
    write_page(dataclasses.replace(found, inputs=dataclasses.replace(found.inputs, prompts=PROMPTS)), page)
    title, said, rest = page.read_text(encoding="utf-8").split("\n\n", 2)
    about = (
        "How it is measured, and what the verdict means: [A gallery](../how-to/gallery.md). `make evidence-gallery "
        f"DATA=...` repeats it. Measured with {_versions(folder)}."
    )
    page.write_text("\n\n".join([title, said, about, rest]), encoding="utf-8")
    return {"page": page.name, "rows": len(found.rows), "missing": len(found.missing)}


def _versions(folder: Path) -> str:
    """The versions of the cells, each with their number."""
    versions = [json.loads(path.read_text(encoding="utf-8"))["versions"] for path in (folder / "cells").glob("*.json")]
    found = Counter(f"torch {one['torch']} and transformers {one['transformers']}" for one in versions)
    return "; ".join(f"{what} ({count} cells)" for what, count in found.most_common())
