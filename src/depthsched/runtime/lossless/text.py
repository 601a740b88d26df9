"""The rows of a batch, each as long as it is: their tokens, how they are chosen, and whether they go on."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Proposal(NamedTuple):
    """A token, the distribution ``[vocabulary]`` that it was drawn from, and its chance in it.

    Nothing is drawn in greedy decoding: the distribution is None.
    """

    token: int
    chances: Tensor | None
    chance: float


class Rows:
    """Prompts with what was written after them.

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
        """Processed logits ``[vocabulary]`` float32 of the token after a row and some drafted tokens."""
        if not self.processors:
            return logits.float()
        raw = logits.to(torch.float32, copy=True)[None]  # processors may write into it
        ids = torch.cat([self._ids[row], self._ids[row].new_tensor(behind)])
        # Some processors know how many rows there are, and which: the others stand beside it, cut or padded.
        together = self.padded(len(ids))
        together[row] = ids
        processed: Tensor = self.processors(together, raw.expand(len(together), -1).clone())[row]
        return processed

    def propose(self, row: int, behind: list[int], logits: Tensor, *, watch: bool = False) -> Proposal:
        """A token for a row; with ``watch`` also the chance that it had when it was no draw."""
        scores = self.scores(row, behind, logits)
        if not self.sample:
            token = int(scores.argmax())
            return Proposal(token, None, float(torch.softmax(scores, dim=-1)[token]) if watch else 1.0)
        chances = torch.softmax(scores, dim=-1)
        token = int(torch.multinomial(chances, 1))
        return Proposal(token, chances, float(chances[token]) if watch else 1.0)

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

    def padded(self, length: int, since: int = 0) -> Tensor:
        """All rows ``since`` a slot up to a length, ``[batch, length - since]``, padded where a row ended earlier."""
        whole = torch.full((len(self._ids), length - since), self.pad, dtype=torch.int64, device=self.device)
        for i, row in enumerate(self._ids):
            part = row[since:length]
            whole[i, : len(part)] = part
        return whole
