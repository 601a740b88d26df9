"""The page that walks through one token links to the lines that it speaks of."""

import re

import pytest

from .pages import DOCS, ROOT

PAGE = (DOCS / "how-a-token-is-made.md").read_text(encoding="utf-8")


def included(name: str) -> list[str]:
    """The lines of a file that the page shows, or of a section of it."""
    path, _, section = name.partition(":")
    text = (ROOT / path).read_text(encoding="utf-8")
    if section:
        text = text.partition(f"[start:{section}]\n")[2].partition(f"// --8<-- [end:{section}]")[0].rstrip(" ")
    return text.splitlines()


SHOWN = [included(name) for name in re.findall(r'^--8<-- "(.+)"$', PAGE, re.MULTILINE)]
LINKS = re.findall(r'<a href="#__codelineno-(\d+)-(\d+)"><code>([^<]+)</code></a>', PAGE)


def test_the_path_of_a_token_is_two_short_files_and_a_function() -> None:
    assert len(SHOWN) == 3
    assert all(SHOWN)
    assert sum(len(lines) for lines in SHOWN) <= 300


@pytest.mark.parametrize(("file", "line", "words"), LINKS)
def test_links_lead_to_their_lines(file: str, line: str, words: str) -> None:
    found = SHOWN[int(file)][int(line) - 1]
    assert words.rpartition(".")[2] in found


def test_there_are_links() -> None:
    assert len(LINKS) >= 10
