"""llama.cpp through llama-cpp-python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import llama_cpp


class Engine:
    """Its defaults but for the threads and the length of its context.

    With ``text`` it completes as a user calls it, every token made text in Python; without, it gives ids.
    """

    def __init__(self, model: str, threads: int, context: int, text: bool) -> None:
        self.text = text
        self.llama = _Heard(
            model, n_ctx=context, n_threads=threads, n_threads_batch=threads, logits_all=False, verbose=False
        )

    def encode(self, text: str) -> list[int]:
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def generate(self, prompt: list[int], tokens: int, seen: Callable[[], None]) -> list[int]:
        self.llama.reset()  # or it finds the prompt of the round before in its cache
        self.llama.heard, self.llama.seen = [], seen
        if self.text:
            self.llama.create_completion(prompt, max_tokens=tokens, temperature=0.0)
        else:
            stream = self.llama.generate(prompt, temp=0.0)
            for _ in range(tokens):
                next(stream)
        return self.llama.heard

    def versions(self) -> dict[str, str]:
        return {"llama-cpp-python": llama_cpp.__version__}


class _Heard(llama_cpp.Llama):  # type: ignore[misc]
    """Tells of every token, whoever asked for it."""

    heard: list[int]
    seen: Callable[[], None]

    def generate(self, *arguments: Any, **options: Any) -> Iterator[int]:
        for token in super().generate(*arguments, **options):
            self.heard.append(int(token))
            self.seen()
            yield token
