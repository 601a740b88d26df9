"""What several experiments share: kinds of options, a model that does not stop early, and a look at every token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import depthsched as ds
from depthsched.bench import bench_inputs
from depthsched.errors import SettingsError

Count = Annotated[int, typer.Option(min=1)]
Tokens = Annotated[int, typer.Option(min=2, help="The first comes out of the prefill.")]


def numbers(name: str, text: str) -> list[int]:
    """Whole numbers separated by commas, or a SettingsError."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(f"{name} {text!r} must be whole numbers from 1, separated by commas, such as 24,20")
    return [int(part) for part in parts]


def load(model: str, dtype: str, device: str, batch: int = 1, weights: str = "dense") -> tuple[Any, dict[str, Any]]:
    """A model without an end token, so that every run has the same length, and the inputs of a comparison."""
    loaded, tokenizer = ds.load_model(model, dtype=dtype, device=device, weights=weights)
    loaded.generation_config.eos_token_id = None
    return loaded, bench_inputs(tokenizer, batch, loaded.device)


class Watch:
    """A streamer that keeps what a function says at the prompt, which comes first, and at every token."""

    def __init__(self, look: Callable[[], Any]) -> None:
        self.look, self.seen = look, list[Any]()

    def put(self, tokens: Any) -> None:
        self.seen.append(self.look())

    def end(self) -> None:
        """Nothing is held back."""
