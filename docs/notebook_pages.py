"""A hook of MkDocs: notebooks are pages of the site, with the outputs that they hold. Nothing runs in a build.

A notebook becomes Markdown, so that its code, headings, links and search are those of every other page, in its
colours, light and dark. Formulas become MathML, which browsers draw without a script.
"""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_BLOCK = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
_INLINE = re.compile(r"(?<![\\$\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?![\w$])")
_CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PICTURES = ("image/svg+xml", "image/png", "image/jpeg")


class NotebookFile(File):
    """A notebook that is a page."""

    def is_documentation_page(self) -> bool:
        return True


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Make pages of notebooks."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            made = NotebookFile(file.src_uri, config.docs_dir, config.site_dir, config.use_directory_urls)
            files.append(made)
    return files


def on_page_read_source(*, page: Page, config: MkDocsConfig) -> str | None:
    """The Markdown of a notebook; other pages are read as ever."""
    if not isinstance(page.file, NotebookFile):
        return None
    return page_text(nbformat.read(str(page.file.abs_src_path), as_version=4), Path(page.file.src_uri).name)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Put the notebooks beside their pages, for people to take."""
    for path in Path(config.docs_dir).rglob("*.ipynb"):
        target = Path(config.site_dir) / path.relative_to(config.docs_dir)
        if target.parent.is_dir():
            shutil.copyfile(path, target)


def page_text(book: Any, name: str) -> str:
    """A notebook as Markdown."""
    minutes = book.metadata.get("depthsched", {}).get("minutes")
    took = f" It takes about {minutes} minutes on two cores." if minutes else ""
    offer = f'<p><a href="{html.escape(name)}" download>This page is a notebook</a>: take it and run it.{took}</p>'
    parts = []
    for cell in book.cells:
        parts.append(with_formulas(cell.source) if cell.cell_type == "markdown" else _code(cell))
    title, _, rest = parts[0].partition("\n") if parts else ("", "", "")
    return "\n\n".join([title, offer, rest, *parts[1:]]) + "\n"


def with_formulas(text: str) -> str:
    """Markdown with TeX between dollar signs as MathML, but for code."""
    parts = _CODE.split(text)
    for place in range(0, len(parts), 2):
        block = _BLOCK.sub(lambda found: f"\n\n<div>{_formula(found[1], 'block')}</div>\n\n", parts[place])
        parts[place] = _INLINE.sub(lambda found: _formula(found[1], "inline"), block)
    return "".join(parts)


def _formula(tex: str, display: str) -> str:
    return str(convert(tex.strip(), display=display)).replace("\n", "")


def _code(cell: Any) -> str:
    if cell.cell_type != "code":
        return ""
    shown = [] if "hide" in cell.metadata.get("tags", ()) else [_fence(cell.source, "python")]
    return "\n\n".join([*shown, *(_output(output) for output in cell.outputs)])


def _output(output: Any) -> str:
    """What one output looks like: HTML as it is, a picture, or text."""
    if output.output_type == "stream":
        return _fence(_ANSI.sub("", output.text), "text")
    if output.output_type == "error":
        return _fence(_ANSI.sub("", "\n".join(output.traceback)), "text")
    data = output.data
    if "text/html" in data:
        return _raw(data["text/html"])
    for kind in _PICTURES:
        if kind in data:
            return _raw(_picture(kind, data[kind], str(data.get("text/plain", "picture"))))
    if "text/markdown" in data:
        return with_formulas(data["text/markdown"])
    return _fence(str(data.get("text/plain", "")), "text")


def _picture(kind: str, content: str, words: str) -> str:
    if kind == "image/svg+xml":
        return str(content[content.index("<svg") :])
    data = "".join(content.split())
    return f'<img src="data:{kind};base64,{data}" alt="{html.escape(words)}">'


def _raw(text: str) -> str:
    """HTML that Markdown leaves alone: in one block, with no empty line that would end it."""
    lines = "\n".join(line for line in text.splitlines() if line.strip())
    return f'<div class="notebook-output">\n{lines}\n</div>'


def _fence(text: str, language: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    body = text.rstrip()
    return f"{fence}{language}\n{body}\n{fence}" if body else ""
