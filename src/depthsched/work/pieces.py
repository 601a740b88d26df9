"""What does work in pieces, and this process as the simplest of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class Loaded(NamedTuple):
    """A model and its tokenizer, in the process that works on a piece."""

    model: Any
    tokenizer: Any


Function = Callable[[Loaded, Any, Any], Any]
"""Of the model, what all pieces share, and a piece. It stands at the top of a module, so that a worker finds it."""


class Work(Protocol):
    """Does a function on pieces."""

    def map(self, function: Function, shared: Any, pieces: Sequence[Any]) -> Iterator[Any]:
        """The results, in the order of the pieces."""


class Local:
    """Work in this process, one piece after another."""

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        self.loaded = Loaded(model, tokenizer)

    def map(self, function: Function, shared: Any, pieces: Sequence[Any]) -> Iterator[Any]:
        return (function(self.loaded, shared, piece) for piece in pieces)
