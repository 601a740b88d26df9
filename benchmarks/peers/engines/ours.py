"""depthsched, from ``ds.load_model`` and ``ds.generate`` as a user calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers  # noqa: F401  # counted with the imports, not with the loading

import depthsched as ds
from depthsched.encoding import model_inputs
from depthsched.environment import versions


class Engine:
    """A model with a plan."""

    def __init__(
        self, model: str, threads: int, context: int, dtype: str, weights: str, plan: str, backend: str
    ) -> None:
        torch.set_num_threads(threads)
        asked: dict[str, Any] = {} if weights == "dense" else {"weights": weights}
        self.model, self.tokenizer = ds.load_model(model, dtype=dtype, device="cpu", **asked)
        self.model.generation_config.eos_token_id = None  # as many tokens as asked
        self.plan, self.backend = plan, backend

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def generate(self, prompt: list[int], tokens: int, seen: Callable[[], None]) -> list[int]:
        run = ds.generate(
            self.model, model_inputs([prompt]), self.plan, max_new_tokens=tokens, backend=self.backend,
            do_sample=False, streamer=_Streamer(seen),
        )  # fmt: skip
        return list(run.tokens[0].tolist())

    def versions(self) -> dict[str, str]:
        return versions()


class _Streamer:
    """Tells of every token; what comes first is the prompt."""

    def __init__(self, seen: Callable[[], None]) -> None:
        self.seen, self.started = seen, False

    def put(self, tokens: Any) -> None:
        if self.started:
            self.seen()
        self.started = True

    def end(self) -> None:
        """Nothing is held back."""
