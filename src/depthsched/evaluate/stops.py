"""Stops each row of a batch at its end-of-text token or at a text that ends an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria


class RowStops(StoppingCriteria):  # type: ignore[misc]
    """A stopping criterion of transformers that also keeps how long each row became.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    texts : sequence of str
        Texts of which the first ends a row.
    eos : sequence of int
        Tokens that end a row.
    prompt_tokens : int
        Length of the padded prompt.

    Attributes
    ----------
    lengths : list of int
        Generated tokens of each row up to and with the one that ended it; 0 while the row runs.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], eos: Sequence[int], prompt_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.texts = [text for text in texts if text]
        self.eos = frozenset(eos)
        self.prompt_tokens = prompt_tokens
        # A token holds at least one character of a text but for bytes of one, hence the room.
        self.window = max((len(text.encode()) for text in self.texts), default=0) + 2
        self.lengths: list[int] = []

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.lengths = self.lengths or [0] * len(input_ids)
        made = input_ids.shape[1] - self.prompt_tokens
        running = [row for row, length in enumerate(self.lengths) if not length]
        tails = input_ids[running, self.prompt_tokens :][:, -self.window :].tolist()
        texts = self.tokenizer.batch_decode(tails, skip_special_tokens=False)
        for row, tail, text in zip(running, tails, texts, strict=True):
            if tail[-1] in self.eos or any(stop in text for stop in self.texts):
                self.lengths[row] = made
        return torch.tensor([length > 0 for length in self.lengths], device=input_ids.device)
