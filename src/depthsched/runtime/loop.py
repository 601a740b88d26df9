"""The decode loop: prefill, choose a token, choose a depth, step, stop."""

from __future__ import annotations

import functools
import time
from typing import Any

import torch
from torch import Tensor

from ..errors import CacheError
from ..parallel.ranks import ranks_of
from ..plans import DepthPlan
from .backends import Backend
from .cache import RunCache, cache_lengths, refuse_holes, run_cache
from .policy import agreed
from .renewal import Ran, Renewal, Steps
from .sampler import RunningRows, Sampler
from .signals import SignalReader
from .trace import Ledger, Trace


class DecodeLoop:
    """One run of a plan, called by transformers' ``generate`` in place of its own loop.

    transformers prepares logits processors, stopping criteria, the cache and the generation config.

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
        ``stride - 1`` steps run past the end of the text, and are thrown away.
    renewal : Renewal, optional
        Renew the cache where the plan needs it, and by these rules. The backend ``renews``.
    tokenizer : optional
        For a plan whose schedule asks for the class of tokens.

    Attributes
    ----------
    cache : RunCache or None
        After the run, what its positions at full depth left.
    """

    def __init__(
        self, backend: Backend, plan: DepthPlan, streamer: Any = None, reason: str = "", drop_finished: bool = False,
        stride: int = 1, renewal: Renewal | None = None, tokenizer: Any = None,
    ) -> None:  # fmt: skip
        self.backend, self.plan, self.streamer = backend, plan, streamer
        self.drop_finished, self.stride, self.tokenizer = drop_finished, stride, tokenizer
        self.trace = Trace(plan, backend.name, reason, backend.compile_seconds, renewal=renewal)
        self.prefill_seconds = self.decode_seconds = 0.0
        self.scores: tuple[Tensor, ...] | None = None
        self.logits: tuple[Tensor, ...] | None = None
        self.cache: RunCache | None = None

    @torch.no_grad()
    def __call__(
        self, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        cache, ranks = prepared_cache(kwargs), ranks_of(model)
        mask = kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        sampler = Sampler(logits_processor, stopping_criteria, generation_config)
        stride = self.stride if sampler.stops_only_at_length_or_end else 1
        prompt, most = input_ids.shape[1], generation_config.max_length
        if self.streamer is not None:
            self.streamer.put(input_ids.cpu())

        began = _now(input_ids)
        ledger = Ledger(self.trace, began)
        held = (cache_lengths(cache) or [0])[0]
        fresh = input_ids[:, held:] if mask.shape[1] == prompt else input_ids
        logits, decoder = self.backend.prefill(fresh, mask, cache, generation_config.prefill_chunk_size)
        reader = SignalReader(self.plan, self.tokenizer)
        reader.begin(input_ids, mask)
        rows = RunningRows(decoder, drop=self.drop_finished)
        checked = reader.checked if reader.hears_checks else None
        steps = Steps(rows, self.plan, prompt, self.trace.renewal, checked)
        ran, signals = Ran(self.plan.num_layers), None
        for step in range(most):
            tokens = sampler(input_ids, logits)
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            if self.streamer is not None:
                self.streamer.put(tokens.cpu())
            ledger.add(ran, tokens, sampler.running(input_ids), signals)
            look = step % stride == 0 or input_ids.shape[1] >= most
            ended = look and ledger.settle()
            if step == 0:
                self.prefill_seconds = ledger.last - began
            if ended:
                break
            cosine = functools.partial(rows.cosine, len(tokens))
            asked, signals = reader.decide(step + 1, logits, tokens, sampler.unfinished, cosine)
            logits, ran = steps(input_ids, agreed(self.plan, asked, ranks), sampler.unfinished)
        self.decode_seconds = _now(input_ids) - began - self.prefill_seconds
        if self.streamer is not None:
            self.streamer.end()
        self.scores, self.logits = sampler.kept(len(self.trace.steps))
        sequences = input_ids[:, : prompt + len(self.trace.steps)]
        if not self.drop_finished:
            self.cache = run_cache(decoder, steps.whole, sequences, mask)
        return sequences


def _now(tensor: Tensor) -> float:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return time.perf_counter()


def prepared_cache(kwargs: dict[str, Any]) -> Any:
    """The cache that transformers made for a loop of one's own, without holes."""
    cache = kwargs.get("past_key_values")
    if cache is None or kwargs.get("use_cache") is False:
        raise CacheError("a depth plan needs the KV cache; leave use_cache on")
    refuse_holes(cache)
    return cache
