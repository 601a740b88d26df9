"""``ds.attach``: the same plan inside an unmodified transformers ``generate()``."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

from ..adapters import adapter_for
from ..drafts import read_drafts
from ..errors import AttachError, CacheError, PlanError
from ..parallel.ranks import guarded, ranks_of
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..schedule import DepthSchedule
from ..signals import Signals
from .arguments import effective, refuse_in_attach
from .attached import AttachedSteps, refuse_to_renew
from .cache import mend
from .depths import DepthLayers
from .gate import LayerGate, Pass, unplanned
from .inputs import check_ids, check_lengths
from .listening import Listener
from .lossless.attach import LosslessAttachment
from .policy import agreed, as_plan, begin_on_ranks, check_plan, writes_kv
from .renewal import SENTENCE, Ran, Renewal, renewal_of
from .shadow import named, refuse_attached, refuse_continuous_batching, shadow
from .signals import refuse_signals
from .trace import StepRecord, Trace


class Attachment:
    """A plan on a model, from ``with attach(model, plan):`` until the block ends.

    Attributes
    ----------
    plan : DepthPlan
    trace : Trace or None
        The record of the latest ``model.generate`` inside the block.
    """

    def __init__(
        self, model: Any, plan: DepthPlan, *, skipped_kv: str = "auto", force: bool = False,
        renewal: Renewal | None = None, tokenizer: Any = None,
    ) -> None:  # fmt: skip
        adapter = adapter_for(model, force=force)
        check_plan(plan, adapter)
        refuse_signals(plan, tokenizer=tokenizer, checks=renewal is not None)
        self.model = adapter.model  # the inner one, where ``model`` is a wrapper that calls its generate
        self.plan = plan
        self.trace: Trace | None = None
        self._adapter = adapter
        self._layers = DepthLayers(adapter, plan, write_kv=writes_kv(plan, skipped_kv) and renewal is None)
        self._renewing = AttachedSteps(plan, self._layers, renewal) if renewal else None
        self._listener = Listener(plan, self._layers, tokenizer)
        self._gate = LayerGate(adapter, self._choose)
        self._ranks = ranks_of(self.model)
        self._exit = ExitStack()
        self._busy = threading.Lock()
        self._owner: int | None = None
        self._prefilling = False
        self._step = 0
        self._ran = Ran(plan.num_layers)
        self._used: Signals | None = None
        self._last = 0.0

    def __enter__(self) -> Self:
        refuse_attached(self.model)
        with ExitStack() as stack:
            stack.enter_context(self._gate)
            shadow(stack, self.model, "generate", self._generate(self.model.generate))
            shadow(stack, self.model, "_prefill", self._prefill(self.model._prefill))
            shadow(stack, self.model, "init_continuous_batching", refuse_continuous_batching)
            # Compiled code would go on with the layers of the depth that it was compiled at.
            shadow(stack, self.model, "_valid_auto_compile_criteria", lambda *args, **kwargs: False)
            if self._renewing is not None:
                prepare = self._renewing.prepare(self.model.prepare_inputs_for_generation)
                shadow(stack, self.model, "prepare_inputs_for_generation", prepare)
                shadow(stack, self.model, "forward", self._step_of(self._renewing, self.model.forward))
            if self.plan.adaptive:
                hear = self.model.register_forward_pre_hook(self._hear, with_kwargs=True)
                stack.callback(hear.remove)
                stack.callback(self.model.register_forward_hook(self._listen).remove)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def _generate(self, original: Any) -> Any:
        """``model.generate`` with a beginning and an end: one run at a time, full depth outside of it."""

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            given = named(original, args, kwargs)
            refuse_in_attach(self.model, given)
            self._listener.check(self.model, given)
            prompt = self._check_prompt(given)
            self._check_cache(given)
            if not self._busy.acquire(blocking=False):
                raise AttachError("another thread generates on this attached model; give each thread its own model")
            try:
                self._owner, self._step, self._ran = threading.get_ident(), 0, Ran(self.plan.num_layers)
                self._used = None
                self._listener.begin()
                self.trace, self._last = Trace(self.plan, "attach"), time.perf_counter()
                if self._renewing is not None:
                    self.trace.renewal = self._renewing.renewal
                    self._renewing.begin(self._listener.checked)
                begin_on_ranks(self._ranks, self.plan, given)
                with guarded(self._ranks):
                    output = original(*args, **kwargs)
                self._record()
                self._check_acted(output, prompt)
                return output
            finally:
                self._owner = None
                self._busy.release()

        return generate

    def _check_prompt(self, given: dict[str, Any]) -> int:
        """The length of the prompt in tokens; 0 where it is no ids."""
        ids = given.get("input_ids", given.get("inputs"))
        if ids is None or ids.dim() != 2 or ids.is_floating_point():
            return 0
        prompt = int(ids.shape[1])
        check_ids(self._adapter, ids)
        check_lengths(self._adapter, prompt, effective("max_new_tokens", self.model, given) or 0)
        return prompt

    def _check_cache(self, given: dict[str, Any]) -> None:
        """A cache of an earlier turn is cut to where its holes begin; the prefill computes what follows."""
        cache = given.get("past_key_values")
        if self._renewing is not None and given.get("inputs_embeds") is not None:
            raise AttachError("skipped_kv='recompute' runs tokens again and needs their ids; give no inputs_embeds")
        if cache is None:
            return
        if self._renewing is not None:
            refuse_to_renew(cache)
        ids, mask = given.get("input_ids", given.get("inputs")), given.get("attention_mask")
        whole = ids is not None and ids.dim() == 2 and (mask is None or mask.shape == ids.shape)
        mend(cache, ids if whole else None, mask)

    def _check_acted(self, output: Any, prompt: int) -> None:
        made = (output if hasattr(output, "shape") else output.sequences).shape[1] - prompt
        if made > 1 and self._step == 0:
            raise AttachError(
                f"generate made {made} tokens and no step of it went through the plan; "
                f"{type(self.model).__name__} decodes in a way that attach does not see: use ds.generate"
            )

    def _prefill(self, original: Any) -> Any:
        """Marks every pass of a prefill: the last chunk of a chunked one may look like a decode step."""

        @functools.wraps(original)
        def prefill(*args: Any, **kwargs: Any) -> Any:
            self._prefilling = True
            self._listener.prompt(named(original, args, kwargs).get("model_kwargs", {}).get("attention_mask"))
            try:
                return original(*args, **kwargs)
            finally:
                self._prefilling = False

        return prefill

    def _choose(self, this: Pass) -> Sequence[Any]:
        """The layers of a pass: those of the next step, or all of them in a prefill and outside of ``generate``."""
        if self._owner is None:
            if this.decodes:
                raise unplanned("a decode step outside of generate")
            return self._gate.full
        if self._owner != threading.get_ident():
            raise AttachError("another thread generates on this attached model; give each thread its own model")
        if this.cache is None:
            raise CacheError("a depth plan needs the KV cache; leave use_cache on")
        if self._prefilling:
            if self._renewing is not None:
                refuse_to_renew(this.cache)
            return self._layers.full
        if self._renewing is not None and self._renewing.running is not None:
            return self._renewing.running
        if this.tokens != 1:
            raise unplanned(f"it feeds {this.tokens} tokens in one step, where a plan has no meaning")
        depth = self._next()
        self._ran = Ran(depth)
        return self._layers[depth]

    def _next(self) -> int:
        """Begin the next step; its depth."""
        self._record()
        self._step += 1
        asked, self._used = self._listener.decide(self._step)
        return agreed(self.plan, asked, self._ranks)

    def _step_of(self, renewing: AttachedSteps, original: Callable[..., Any]) -> Callable[..., Any]:
        """The model's forward, in which a decode step may run over several positions."""

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            ids = kwargs.get("input_ids")
            one = not args and ids is not None and ids.shape[1] == 1 and kwargs.get("past_key_values") is not None
            if self._owner != threading.get_ident() or self._prefilling or not one:
                return original(*args, **kwargs)
            output, self._ran = renewing.step_of(original, kwargs, self._next())
            return output

        return forward

    def _record(self) -> None:
        """The step that just ended; its token is the caller's."""
        now = time.perf_counter()
        if self.trace is not None:
            depth, renewed, tried = self._ran
            self.trace.steps.append(StepRecord(self._step, depth, now - self._last, (), self._used, renewed, tried))
        self._last = now

    def _hear(self, module: Any, args: Any, kwargs: Any) -> None:
        if self._owner is not None:
            self._listener.before(kwargs, prefill=self._prefilling)

    def _listen(self, module: Any, args: Any, output: Any) -> None:
        if self._owner is not None:
            self._listener.after(output)


def attach(
    model: Any,
    plan: DepthPlan | PlanSpec | DepthSchedule | str,
    *,
    order: Any = None,
    profile: Any = None,
    horizon: int = 256,
    skipped_kv: str = "auto",
    verify_below: float | None = None,
    renew: int | str | None = None,
    tokenizer: Any = None,
    force: bool = False,
    lossless: bool = False,
    draft_tokens: int | str = "auto",
) -> Attachment | LosslessAttachment:
    """Make a plan act inside ``model.generate`` for the length of a ``with`` block.

    Everything built on ``generate`` works: pipelines, sampling, beam search, streamers, padded batches, PEFT
    wrappers. The prefill and any forward over a whole text run at full depth.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Or a wrapper around one, such as PEFT's.
    plan : DepthPlan, PlanSpec, DepthSchedule or str
        A spec or schedule is resolved for this model with ``horizon``.
    order : str or LayerOrder, optional
        Order for a spec or schedule.
    profile : Profile, str or Path, optional
        Calibrated profile for a spec or schedule, as for :func:`depthsched.plan`.
    horizon : int
        Tokens to resolve for a spec or schedule; later steps keep the last depth.
    skipped_kv : str
        What becomes of K and V of skipped layers: ``auto``, ``write``, ``omit`` or ``recompute``, as for
        :func:`depthsched.generate`; so are the next two. Rows that have ended count as well: the loop is transformers'.
    verify_below : float, optional
    renew : int or str, optional
    tokenizer : optional
        For ``renew="sentence"``, and for a schedule that asks for ``token_class``.
    force : bool
        Drive a model family that is unknown or refused.
    lossless : bool
        The plan drafts tokens, and full depth checks several in one pass and keeps those that are right: ``generate``
        gives what it gives without a plan, the same tokens when greedy and the same distribution when sampling. For
        greedy decoding and sampling.
    draft_tokens : int or str
        With ``lossless``, when to stop drafting: see :func:`depthsched.generate`.

    Returns
    -------
    Attachment or LosslessAttachment
        A context manager; its ``trace`` is the record of the latest ``generate``.

    Raises
    ------
    AttachError
        On entering: the model is attached already. During a pass through the layers: no plan chose its depth, as
        in a loop of the caller's own, in another thread, or in a decoding mode that feeds several tokens a step.
    CacheError
        During ``generate``: the given cache has holes, or ``use_cache`` is off.
    ModelError, PlanError, ProfileError, SettingsError, ScheduleError
    """
    drafts = read_drafts(lossless, draft_tokens, skipped_kv)
    num_layers = adapter_for(model, force=force).num_layers
    renewal = renewal_of(skipped_kv, verify_below, renew, tokenizer, lossless=lossless)
    resolved = as_plan(plan, order, profile, num_layers, horizon)
    if tokenizer is not None and renew != SENTENCE and "token_class" not in resolved.needs:
        raise PlanError("the tokenizer is for renew='sentence' and schedules that ask for token_class; leave it out")
    if drafts:
        return LosslessAttachment(model, resolved, drafts, force=force, tokenizer=tokenizer)
    return Attachment(model, resolved, skipped_kv=skipped_kv, force=force, renewal=renewal, tokenizer=tokenizer)
