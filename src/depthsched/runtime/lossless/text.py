"""The rows of a batch, each as long as it is: their tokens, how they are chosen, and whether they go on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Rows:
    """Prompts with what was written behind them.

    Logits processors and stopping criteria see one row at a time, with the tokens that it would have in a plain run.

    Parameters
    ----------
    input_ids : Tensor
        ``[batch, tokens]``, padded on the left.
    processors, criteria, config
        As transformers' ``generate`` prepares them.
    """

    def __init__(self, input_ids: Tensor, processors: Any, criteria: Any, config: Any) -> None:
        self.prompt, self.device = input_ids.shape[1], input_ids.device
        self.processors, self.criteria = processors, criteria
        self.sample, self.most = bool(config.do_sample), int(config.max_length)
        pad = getattr(config, "_pad_token_tensor", None)
        self.pad = 0 if pad is None else int(pad)
        self._ids = [row.clone() for row in input_ids]
        self.running = list(range(len(self._ids)))

    def length(self, row: int) -> int:
        """Tokens of a row, its padding included: the slot of the next one."""
        return len(self._ids[row])

    def room(self) -> int:
        """Tokens that every running row may still get."""
        return min(self.most - self.length(row) for row in self.running)

    def last(self) -> Tensor:
        """The last token of each running row, ``[rows]``."""
        return torch.stack([self._ids[row][-1] for row in self.running])

    def scores(self, row: int, behind: list[int], logits: Tensor) -> Tensor:
        """Processed logits ``[vocabulary]`` float32 of the token behind a row and some drafted tokens."""
        raw = logits.to(torch.float32, copy=True)[None]
        if not self.processors:
            return raw[0]
        ids = torch.cat([self._ids[row], self._ids[row].new_tensor(behind)])
        # Some processors know how many rows there are, and which: the others stand beside it, cut or padded.
        together = self.padded(len(ids))
        together[row] = ids
        processed: Tensor = self.processors(together, raw.expand(len(together), -1).clone())[row]
        return processed

    def propose(self, row: int, behind: list[int], logits: Tensor) -> tuple[int, Tensor | None]:
        """A token for a row, and the distribution that it was drawn from; None where nothing is drawn."""
        scores = self.scores(row, behind, logits)
        if not self.sample:
            return int(scores.argmax()), None
        chances = torch.softmax(scores, dim=-1)
        return int(torch.multinomial(chances, 1)), chances

    def write(self, row: int, tokens: list[int]) -> int:
        """Add tokens to a row up to the one that ends it; how many were added."""
        for count, token in enumerate(tokens, 1):
            self._ids[row] = torch.cat([self._ids[row], self._ids[row].new_tensor([token])])
            if bool(self.criteria(self._ids[row][None], None).any()):
                self.running.remove(row)
                return count
        return len(tokens)

    def shortest(self) -> int:
        """Tokens that every row has, or has no use for."""
        if not self.running:
            return max(map(len, self._ids))
        return min(self.length(row) for row in self.running)

    def padded(self, length: int) -> Tensor:
        """All rows to this length, ``[batch, length]``; those that ended earlier with the padding token."""
        whole = torch.full((len(self._ids), length), self.pad, dtype=torch.int64, device=self.device)
        for i, row in enumerate(self._ids):
            whole[i, : min(len(row), length)] = row[:length]
        return whole
