"""The decode loop: prefill, choose a depth, step, choose a token, stop."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from ..errors import CacheError
from ..plans import DepthPlan
from .backends import Backend
from .kv import cache_lengths, refuse_holes
from .signals import read_signals
from .trace import StepRecord, Trace


class DecodeLoop:
    """One run of a plan, called by transformers' ``generate`` in place of its own loop.

    transformers prepares logits processors, stopping criteria, the cache and the generation config; the
    loop below decides depths, drives the backend and keeps the trace.

    Parameters
    ----------
    backend : Backend
        Entered.
    plan : DepthPlan
    streamer : transformers streamer, optional
    reason : str
        Why this backend runs, for the trace.
    drop_finished : bool
        Leave rows that have stopped out of the batch where the backend can.
    stride : int
        Steps between two looks at the tokens. Every look waits for the device; between two of them up to
        ``stride - 1`` steps run behind the end of the text, and are thrown away.
    """

    def __init__(
        self,
        backend: Backend,
        plan: DepthPlan,
        streamer: Any = None,
        reason: str = "",
        drop_finished: bool = False,
        stride: int = 1,
    ) -> None:
        self.backend = backend
        self.plan = plan
        self.streamer = streamer
        self.stride = stride
        self.rows = _Rows(backend if drop_finished else None)
        self.trace = Trace(plan, backend.name, reason, backend.compile_seconds)
        self.prefill_seconds = 0.0
        self.decode_seconds = 0.0

    @torch.no_grad()
    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        cache = kwargs.get("past_key_values")
        _check_inputs(kwargs, cache)
        mask = kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        pick = _Picker(logits_processor, generation_config, stopping_criteria)
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())

        began = self._now(input_ids)
        ledger = _Ledger(self.trace, began)
        stride = self.stride if _only_length_and_end(stopping_criteria) else 1
        prompt = input_ids.shape[1]
        held = (cache_lengths(cache) or [0])[0]
        fresh = input_ids[:, held:] if mask.shape[1] == input_ids.shape[1] else input_ids
        logits = self.backend.prefill(fresh, mask, cache)
        depth, signals = self.plan.num_layers, None
        for step in range(generation_config.max_length):
            tokens = pick(input_ids, logits)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            if self.streamer is not None:
                self.streamer.put(tokens.cpu())
            ledger.add(depth, tokens, pick.running(input_ids, stopping_criteria), signals)
            look = step % stride == 0 or input_ids.shape[1] >= generation_config.max_length
            ended = look and ledger.settle()
            if step == 0:
                self.prefill_seconds = ledger.last - began
            if ended:
                break
            signals = read_signals(logits) if self.plan.adaptive else None
            depth = self.plan.decide(step + 1, signals)
            tokens = self.rows.running(tokens, pick.unfinished)
            logits = self.rows.spread(self.backend.step(tokens, depth))
        self.decode_seconds = self._now(input_ids) - began - self.prefill_seconds
        if self.streamer is not None:
            self.streamer.end()
        return input_ids[:, : prompt + len(self.trace.steps)]

    @staticmethod
    def _now(tensor: torch.Tensor) -> float:
        if tensor.is_cuda:
            torch.cuda.synchronize(tensor.device)
        return time.perf_counter()


class _Ledger:
    """Steps on their way into the trace. Reading tokens waits for the device, so several may be read at once."""

    def __init__(self, trace: Trace, began: float) -> None:
        self.trace, self.last = trace, began
        self.open: list[tuple[int, torch.Tensor, torch.Tensor, Any]] = []

    def add(self, depth: int, tokens: torch.Tensor, running: torch.Tensor, signals: Any) -> None:
        self.open.append((depth, tokens, running, signals))

    def settle(self) -> bool:
        """Write what is open to the trace, up to the step with which the last row stopped; whether there is one.

        Each of these steps gets an equal share of the time they took together.
        """
        rows = torch.stack([tokens for _, tokens, _, _ in self.open]).tolist()
        running = torch.stack([some for _, _, some, _ in self.open]).tolist()
        now = time.perf_counter()
        seconds = (now - self.last) / len(self.open)
        self.last = now
        steps, self.open = self.open, []
        for (depth, _, _, signals), row, some in zip(steps, rows, running, strict=True):
            self.trace.steps.append(StepRecord(len(self.trace.steps), depth, seconds, tuple(row), signals))
            if not some:
                return True
        return False


class _Rows:
    """Which rows of a batch are still computed, for a backend that can leave finished ones out."""

    def __init__(self, backend: Any) -> None:
        self.drop = getattr(backend, "drop_rows", None)
        self.index: torch.Tensor | None = None
        self.batch = 0

    def running(self, tokens: torch.Tensor, unfinished: torch.Tensor | None) -> torch.Tensor:
        """The tokens to feed; drops rows from the backend once a quarter of those computed has finished."""
        if self.drop is None or unfinished is None:
            return tokens
        self.batch = len(tokens)
        held = torch.arange(self.batch, device=tokens.device) if self.index is None else self.index
        alive = unfinished[held].nonzero()[:, 0]
        if len(alive) <= 0.75 * len(held):
            self.drop(alive)
            self.index = held = held[alive]
        return tokens[held]

    def spread(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of all rows; those of rows that are no longer computed are zero and nobody reads them."""
        if self.index is None:
            return logits
        full = logits.new_zeros(self.batch, logits.shape[1])
        full[self.index] = logits
        return full


class _Picker:
    """Chooses the next token of every row exactly as transformers does, with the same random draws."""

    def __init__(self, processors: Any, config: Any, stopping_criteria: Any) -> None:
        self.processors = processors
        self.sample = bool(config.do_sample)
        self.pad: Any = getattr(config, "_pad_token_tensor", None)
        self.has_eos = any(hasattr(c, "eos_token_id") for c in stopping_criteria)
        self.unfinished: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        # A copy: processors may write in place, and the signals are those of the untouched logits.
        scores = self.processors(input_ids, logits.to(torch.float32, copy=True))
        if self.sample:
            probabilities = torch.softmax(scores, dim=-1)
            tokens = torch.multinomial(probabilities, num_samples=1).squeeze(1)
        else:
            tokens = scores.argmax(dim=-1)
        if self.has_eos and self.unfinished is not None:
            tokens = torch.where(self.unfinished, tokens, self.pad)
        return tokens

    def running(self, input_ids: torch.Tensor, stopping_criteria: Any) -> torch.Tensor:
        """Whether any row goes on, as a tensor of no dimensions on the device."""
        alive = ~stopping_criteria(input_ids, None)
        self.unfinished = alive if self.unfinished is None else self.unfinished & alive
        return self.unfinished.any()


def _only_length_and_end(stopping_criteria: Any) -> bool:
    """Whether what stops a run is known to change nothing else, so that steps too many can be thrown away."""
    return all(type(criterion) in (MaxLengthCriteria, EosTokenCriteria) for criterion in stopping_criteria)


def _check_inputs(kwargs: dict[str, Any], cache: Any) -> None:
    if cache is None or kwargs.get("use_cache") is False:
        raise CacheError("a depth plan needs the KV cache; leave use_cache on")
    if kwargs.get("inputs_embeds") is not None:
        raise CacheError("ds.generate takes token ids; use ds.attach with model.generate for inputs_embeds")
    refuse_holes(cache)
