"""The lossless decode loop: draft under the plan, check at full depth, keep what is right, go on."""

from __future__ import annotations

import time
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import PlanError
from ...parallel.ranks import ranks_of
from ...plans import DepthPlan
from ..backends import Backend, DraftDecoder
from ..cache import cache_lengths
from ..loop import prepared_cache
from ..policy import agreed
from ..rounds import Round
from ..signals import Decision, SignalReader, deepest
from ..trace import StepRecord, Trace
from .accept import Verdict, greedy, sampled
from .drafting import Drafting
from .text import Rows


class LosslessLoop:
    """One run, called by transformers' ``generate`` in place of its own loop.

    A draft runs at one depth, the one that the plan gives to its first token: the layers that run then have seen all of
    the draft, and what the pass at full depth writes replaces the rest. No K and V of a draft stay.

    Parameters
    ----------
    backend : Backend
        Entered. Its decoder runs several tokens a row: see :meth:`~depthsched.runtime.backends.DraftDecoder.several`.
    plan : DepthPlan
    drafting : Drafting
        How many tokens are drafted.
    streamer : transformers streamer, optional
    reason : str
        Why this backend runs, for the trace.
    tokenizer : optional
        For a plan whose schedule asks for the class of tokens.
    """

    scores = logits = cache = None

    def __init__(
        self, backend: Backend, plan: DepthPlan, drafting: Drafting, streamer: Any = None, reason: str = "",
        tokenizer: Any = None,
    ) -> None:  # fmt: skip
        self.backend, self.plan, self.drafting, self.streamer = backend, plan, drafting, streamer
        self.tokenizer = tokenizer
        self.trace = Trace(plan, backend.name, reason, backend.compile_seconds, rounds=[])
        self.trace.draft_tokens, self.trace.decisions = drafting.name, drafting.decisions
        self.prefill_seconds = self.decode_seconds = 0.0

    @torch.no_grad()
    def __call__(
        self, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        cache, self._ranks = prepared_cache(kwargs), ranks_of(model)
        mask = kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        began = _now(input_ids)
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())
        held = (cache_lengths(cache) or [0])[0]
        if mask.shape != input_ids.shape or held >= input_ids.shape[1]:
            raise PlanError(
                "a lossless run needs the whole text, what the cache holds included, and a mask of its length"
            )
        logits, decoder = self.backend.prefill(input_ids[:, held:], mask, cache, generation_config.prefill_chunk_size)
        self._decoder = cast(DraftDecoder, decoder)
        self._rows = Rows(input_ids, logits_processor, stopping_criteria, generation_config)
        self._told = input_ids.shape[1]
        live = [*self._rows.running]
        first = {row: [self._rows.propose(row, [], logits[row]).token] for row in live}
        self._write(first, self.plan.num_layers, _now(input_ids) - began)
        still = self._keep_running(live, input_ids.device)
        self._reader = SignalReader(self.plan, self.tokenizer)
        self._reader.begin(input_ids, mask)
        asked = self._asks(live, still, first, logits[:, None])
        self.prefill_seconds = _now(input_ids) - began
        try:
            while self._rows.running:
                asked = self._round(asked)
        finally:
            if hasattr(self._decoder, "settle"):
                self._decoder.settle(self._rows.length(0) - 1)
        self.decode_seconds = _now(input_ids) - began - self.prefill_seconds
        if self.streamer is not None:
            self.streamer.end()
        return self._rows.padded(self._rows.shortest())

    def _round(self, asked: Decision) -> Decision:
        """One draft and its check; the depth that the plan asks for next."""
        rows, began = self._rows, _now(self._rows.last())
        live, at = [*rows.running], torch.tensor([rows.length(row) - 1 for row in rows.running], device=rows.device)
        depth, most = self.drafting.next(agreed(self.plan, asked.depth, self._ranks))
        if self._ranks is not None:  # a draft may go by the clock, and every rank has its own
            depth, most = self._ranks.first(depth), self._ranks.first(most)
        drafts, proposed = self._draft(live, at, depth, min(most, rows.room() - 1))
        count = len(drafts[0])
        drawn = _now(at)
        tokens = torch.cat([rows.last()[:, None], torch.tensor(drafts, device=at.device).view(len(live), -1)], dim=-1)
        logits = self._decoder.several(tokens.long(), at, self.plan.num_layers)
        verdicts = [self._judge(row, drafts[i], proposed[i], logits[i]) for i, row in enumerate(live)]
        written = {
            row: [*drafts[i][: v.accepted], v.token] for i, (row, v) in enumerate(zip(live, verdicts, strict=True))
        }
        ended = _now(at)
        done = Round(depth, count, tuple(v.accepted for v in verdicts), drawn - began, ended - drawn)
        assert self.trace.rounds is not None
        self.trace.rounds.append(done)
        self.drafting.learn(done)
        self._write(written, self.plan.num_layers, ended - began)
        still = self._keep_running(live, at.device)
        if self._reader.hears_checks:
            for row, verdict in zip(live, verdicts, strict=True):
                judged = [place < verdict.accepted for place in range(min(verdict.accepted + 1, count))]
                self._reader.rows[row].checks.extend(judged)
        return self._asks(live, still, written, logits)

    def _asks(self, live: list[int], still: list[int], written: dict[int, list[int]], logits: Tensor) -> Decision:
        """The deepest of what the rows that go on ask for, each at its own step.

        Parameters
        ----------
        live, still : list of int
            The rows of the last pass, and the places in it of those that go on.
        written : dict of int to list of int
            What each row got from it: as many tokens as there are positions in ``logits`` that they came from.
        logits : Tensor
            Of full depth, ``[rows, count, vocabulary]``.
        """
        steps = {i: self._rows.length(live[i]) - self._rows.prompt for i in still}
        if not (self.plan.adaptive and still):
            return Decision(max(map(self.plan.depth, steps.values()), default=self.plan.num_layers), None)
        seen = []
        for i in still:
            tokens = written[live[i]]
            each = range(len(tokens)) if self._reader.looks_back else [len(tokens) - 1]
            measured = self._reader.measure(logits[i, [*each]])
            for place, numbers in zip(each, measured, strict=True):
                before = tokens[place - 1] if place else None
                step = steps[i] - len(tokens) + place + 1
                signals = self._reader.see(live[i], step, tokens[place], numbers, before)
            seen.append((steps[i], signals))
        return deepest(self.plan, seen)

    def _keep_running(self, live: list[int], device: Any) -> list[int]:
        """Leave rows that ended, if only with the first token, out of the batch; the places of the others in it."""
        still = [i for i, row in enumerate(live) if row in self._rows.running]
        if 0 < len(still) < len(live):
            self._decoder.drop_rows(torch.tensor(still, device=device))
        return still

    def _draft(self, live: list[int], at: Tensor, depth: int, most: int) -> tuple[list[list[int]], list[list[Any]]]:
        drafts: list[list[int]] = [[] for _ in live]
        chances: list[list[Any]] = [[] for _ in live]
        tokens = self._rows.last()
        for place in range(most):
            logits = self._decoder.several(tokens[:, None], at + place, depth)[:, 0]
            found = [
                self._rows.propose(row, drafts[i], logits[i], watch=self.drafting.watches) for i, row in enumerate(live)
            ]
            for i, one in enumerate(found):
                drafts[i].append(one.token)
                chances[i].append(one.chances)
            if not self.drafting.goes_on(min(one.chance for one in found)):
                break
            tokens = torch.tensor([one.token for one in found], device=at.device)
        return drafts, chances

    def _judge(self, row: int, draft: list[int], proposed: list[Any], logits: Tensor) -> Verdict:
        def scores(place: int) -> Tensor:
            return self._rows.scores(row, draft[:place], logits[place])

        return sampled(draft, proposed, scores) if self._rows.sample else greedy(draft, scores)

    def _write(self, written: dict[int, list[int]], depth: int, seconds: float) -> None:
        """Add tokens to their rows; a column that every row has reached goes to the trace and the streamer."""
        for row, tokens in written.items():
            self._rows.write(row, tokens)
        known = self._rows.shortest()
        columns = self._rows.padded(known, self._told).T.tolist()
        self._told = known
        for column in columns:
            self.trace.steps.append(StepRecord(len(self.trace.steps), depth, seconds / len(columns), tuple(column)))
            if self.streamer is not None:
                self.streamer.put(torch.tensor(column))


def _now(tensor: Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()
