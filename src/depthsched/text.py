"""Small pieces of text that several parts print."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_BLOCKS = "▁▂▃▄▅▆▇█"


def one_line(value: object, most: int = 300) -> str:
    """An error or anything else on one line of at most ``most`` characters, safe to print: see :func:`visible`."""
    text = visible(" ".join(str(value).split()))
    return text if len(text) <= most else text[: most - 3] + "..."


def visible(value: object) -> str:
    """A text whose control and bidirectional characters are written out, so that none acts on where it is shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def block(share: float) -> str:
    """A block character whose height is a share of the line, from 0 to 1."""
    return _BLOCKS[min(int(share * len(_BLOCKS)), len(_BLOCKS) - 1)]


def sparkline(values: Sequence[float], full: float, width: int) -> str:
    """Values as at most ``width`` blocks, each the mean of its share of them; ``full`` is the highest block."""
    width = min(width, len(values))
    each, longer = divmod(len(values), max(width, 1))
    edges = [i * each + min(i, longer) for i in range(width + 1)]
    return "".join(block(sum(values[a:b]) / (b - a) / full) for a, b in pairwise(edges))


def ranges(numbers: Sequence[int]) -> str:
    """Rising whole numbers with runs drawn together: ``[3, 4, 5, 9]`` -> ``3-5 9``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return " ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def span(value: float, low: float | None, high: float | None, digits: int, sign: bool = False) -> str:
    """A number with its interval: ``0.91 (0.90 to 0.92)``."""
    head = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return head if low is None or high is None else f"{head} ({low:.{digits}f} to {high:.{digits}f})"
