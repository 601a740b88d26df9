"""The code blocks of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its title if it has one, and what it holds."""

    language: str
    title: str
    body: str
    line: int

    @property
    def is_output(self) -> bool:
        """Whether it shows what the Python block before it prints."""
        return self.title == "output"

    @property
    def is_file(self) -> bool:
        """Whether the reader saves it under its title."""
        return bool(self.title) and not self.is_output

    def commands(self, program: str) -> list[str]:
        """The lines of a shell block that start with ``program``."""
        lines = self.body.replace("\\\n", " ").splitlines() if self.language == "sh" else []
        return [line for line in lines if line.split(" ", 1)[0] == program]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        title = _TITLE.search(match["rest"])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(match["language"], title[1] if title else "", match["body"], line))
    return found


def pages_with(language: str) -> list[Path]:
    """The pages that have a block in a language, the README first."""
    pages = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return [page for page in pages if any(b.language == language for b in blocks(page))]
