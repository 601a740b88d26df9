"""From logits to tokens, and which rows go on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

_Kept = tuple[Tensor, ...] | None


class Sampler:
    """Chooses the next token of every row exactly as transformers does, with the same random draws."""

    def __init__(self, processors: Any, stopping_criteria: Any, config: Any) -> None:
        self.processors, self.criteria = processors, stopping_criteria
        self.sample = bool(config.do_sample)
        self.pad: Any = getattr(config, "_pad_token_tensor", None)
        self.has_eos = any(hasattr(c, "eos_token_id") for c in stopping_criteria)
        self.unfinished: Tensor | None = None
        self._scores: list[Tensor] | None = [] if config.output_scores else None
        self._logits: list[Tensor] | None = [] if config.output_logits else None

    @property
    def stops_only_at_length_or_end(self) -> bool:
        """Whether what stops a run is known to change nothing else, so that steps too many can be thrown away."""
        return all(type(criterion) in (MaxLengthCriteria, EosTokenCriteria) for criterion in self.criteria)

    def __call__(self, input_ids: Tensor, logits: Tensor) -> Tensor:
        """The next token of each row, ``[batch]``, from logits ``[batch, vocabulary]``."""
        # A copy where processors may write in place: the signals are those of the untouched logits.
        raw = logits.to(torch.float32, copy=bool(self.processors) or self._scores is not None)
        if self._logits is not None:
            self._logits.append(raw.clone())
        scores = self.processors(input_ids, raw)
        if self._scores is not None:
            self._scores.append(scores)
        if self.sample:
            tokens = torch.multinomial(torch.softmax(scores, dim=-1), num_samples=1).squeeze(1)
        else:
            tokens = scores.argmax(dim=-1)
        if self.has_eos and self.unfinished is not None:
            tokens = torch.where(self.unfinished, tokens, self.pad)
        return tokens

    def running(self, input_ids: Tensor) -> Tensor:
        """Whether any row goes on, as a tensor of no dimensions on the device."""
        alive = ~self.criteria(input_ids, None)
        self.unfinished = alive if self.unfinished is None else self.unfinished & alive
        return self.unfinished.any()

    def kept(self, steps: int) -> tuple[_Kept, _Kept]:
        """Scores and logits of the first steps, each ``[batch, vocabulary]``, where they were asked for."""
        some, others = (None if kept is None else tuple(kept[:steps]) for kept in (self._scores, self._logits))
        return some, others


class RunningRows:
    """The rows of a batch that are still computed, where the decoder can leave finished ones out."""

    def __init__(self, decoder: Any, *, drop: bool) -> None:
        self.decoder = decoder
        self.drop = getattr(decoder, "drop_rows", None) if drop else None
        self.index: Tensor | None = None

    def step(self, tokens: Tensor, depth: int, unfinished: Tensor | None) -> Tensor:
        """One step of the rows that run; the logits of the others are zero and nobody reads them.

        Rows are dropped once a quarter of those computed has finished.
        """
        if self.drop is None or unfinished is None:
            logits: Tensor = self.decoder.step(tokens, depth)
            return logits
        held = torch.arange(len(tokens), device=tokens.device) if self.index is None else self.index
        alive = unfinished[held].nonzero()[:, 0]
        if len(alive) <= 0.75 * len(held):
            self.drop(alive)
            self.index = held = held[alive]
        return _spread(self.decoder.step(tokens[held], depth), held, len(tokens))

    def renew(self, tokens: Tensor, at: int, keep: int = 1) -> Tensor:
        """One pass at full depth over ``tokens [batch, count]`` of the slots from ``at`` on.

        Logits of the last ``keep`` of each row, ``[batch, keep, vocabulary]``.
        """
        if self.index is None:
            logits: Tensor = self.decoder.renew(tokens, at, keep)
            return logits
        return _spread(self.decoder.renew(tokens[self.index], at, keep), self.index, len(tokens))

    def cosine(self, rows: int) -> Tensor:
        """What an eager decoder of a plan that asks for it says of the last pass, ``[rows]``; 0 where none ran."""
        found: Tensor = self.decoder.cosine()
        return found if self.index is None else _spread(found, self.index, rows)


def _spread(some: Tensor, held: Tensor, rows: int) -> Tensor:
    full: Tensor = some.new_zeros(rows, *some.shape[1:])
    full[held] = some
    return full
