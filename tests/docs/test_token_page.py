"""The page that walks through one token links to the lines that it speaks of."""

import re

import pytest

from .pages import DOCS, ROOT

PAGE = (DOCS / "how-a-token-is-made.md").read_text(encoding="utf-8")
FILES = [ROOT / path for path in re.findall(r'^--8<-- "(.+)"$', PAGE, re.MULTILINE)]
LINKS = re.findall(r'<a href="#__codelineno-(\d+)-(\d+)"><code>([^<]+)</code></a>', PAGE)


def test_the_path_of_a_token_is_two_short_files() -> None:
    assert len(FILES) == 2
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in FILES) <= 300


@pytest.mark.parametrize(("file", "line", "words"), LINKS)
def test_links_lead_to_their_lines(file: str, line: str, words: str) -> None:
    found = FILES[int(file)].read_text(encoding="utf-8").splitlines()[int(line) - 1]
    assert words.rpartition(".")[2] in found


def test_there_are_links() -> None:
    assert len(LINKS) >= 10
