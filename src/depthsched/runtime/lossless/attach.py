"""A plan as its own drafter inside an unmodified transformers ``generate()``."""

from __future__ import annotations

import functools
import threading
from contextlib import ExitStack
from typing import Any, Self

from transformers.generation.utils import GenerateDecoderOnlyOutput

from ...adapters import adapter_for
from ...drafts import DraftTokens
from ...errors import AttachError
from ...parallel.ranks import guarded, ranks_of
from ...plans import DepthPlan
from ..arguments import effective, known, refuse_in_lossless_attach, with_stop_strings
from ..eager import EagerBackend
from ..inputs import check_lengths, read_inputs
from ..policy import begin_on_ranks, check_plan
from ..ragged import refuse_ragged
from ..shadow import named, refuse_attached, refuse_continuous_batching, shadow
from ..signals import refuse_signals
from ..trace import Trace
from .arguments import check_lossless
from .drafting import drafting_of
from .loop import LosslessLoop


class LosslessAttachment:
    """A plan that drafts, from ``with attach(model, plan, lossless=True):`` until the block ends.

    transformers' ``generate`` prepares everything and calls our loop in place of its own, through its
    ``custom_generate``. Its assisted decoding is not used: it takes no batch, and a stop string inside a draft does not
    end its text where plain decoding does.

    Attributes
    ----------
    plan : DepthPlan
    trace : Trace or None
        The record of the latest ``model.generate`` inside the block.
    """

    def __init__(
        self, model: Any, plan: DepthPlan, drafts: DraftTokens, *, force: bool = False, tokenizer: Any = None
    ) -> None:
        self._adapter = adapter_for(model, force=force)
        check_plan(plan, self._adapter)
        refuse_signals(plan, tokenizer=tokenizer, checks=True, lossless=True)
        self._tokenizer = tokenizer
        self.model = self._adapter.model
        self.plan = plan.with_deeper() if drafts.chooses_depth else plan
        self.trace: Trace | None = None
        self._drafts = drafts
        self._backend = EagerBackend(self._adapter, self.plan)
        self._exit = ExitStack()
        self._busy = threading.Lock()

    def __enter__(self) -> Self:
        refuse_attached(self.model)
        with ExitStack() as stack:
            with self._backend:  # another plan on the model is refused here, not at the first generate
                generate = self._generate(self.model.generate)
            shadow(stack, self.model, "generate", generate)
            shadow(stack, self.model, "init_continuous_batching", refuse_continuous_batching)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def _generate(self, original: Any) -> Any:
        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            given = self._checked(named(original, args, kwargs))
            if not self._busy.acquire(blocking=False):
                raise AttachError("another thread generates on this attached model; give each thread its own model")
            try:
                return self._run(original, given)
            finally:
                self._busy.release()

        generate.drafts = True  # type: ignore[attr-defined]
        return generate

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call, once nothing of them would be ignored."""
        refuse_in_lossless_attach(self.model, given)
        ids = given.pop("inputs", None) if given.get("input_ids") is None else given.pop("input_ids")
        rest = {name: value for name, value in given.items() if name not in known() | {"generation_config", "streamer"}}
        for name, value in rest.items():
            if value is not None and name != "token_type_ids":  # those are all 0, or refused below
                raise AttachError(f"inside a lossless attach, generate does not take {name}; leave lossless out")
        ids, _ = read_inputs(self._adapter, {"input_ids": ids, "attention_mask": given.get("attention_mask"), **rest})
        check_lossless(self.model, given, rows=len(ids) * (effective("num_return_sequences", self.model, given) or 1))
        check_lengths(self._adapter, ids.shape[1], effective("max_new_tokens", self.model, given) or 0)
        kept = {name: value for name, value in given.items() if name not in rest}
        return {**with_stop_strings(self.model, kept), "input_ids": ids}

    def _run(self, original: Any, given: dict[str, Any]) -> Any:
        loop = LosslessLoop(
            self._backend, self.plan, drafting_of(self._drafts, self.plan), given.pop("streamer", None), "attach",
            tokenizer=self._tokenizer,
        )  # fmt: skip
        loop.trace.backend = "attach"
        self.trace = loop.trace
        cache: list[Any] = []

        def decode(model: Any, input_ids: Any, *, generation_config: Any, **kwargs: Any) -> Any:
            refuse_ragged(self._adapter, generation_config.max_length)
            cache.append(kwargs.get("past_key_values"))
            with self._backend:
                return loop(model, input_ids, generation_config=generation_config, **kwargs)

        ranks = ranks_of(self.model)
        begin_on_ranks(ranks, self.plan, given)
        with guarded(ranks):
            sequences = original(**given, custom_generate=decode)
        if not effective("return_dict_in_generate", self.model, given):
            return sequences
        # Rows that ended have left the cache: only that of one row is the text's.
        return GenerateDecoderOnlyOutput(sequences=sequences, past_key_values=cache[0] if len(sequences) == 1 else None)
