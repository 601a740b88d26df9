"""``ds.attach``: the same plan inside an unmodified transformers ``generate()``."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any, Self

from .adapters import adapter_for
from .bridge import prepared
from .errors import AttachError, CacheError
from .plans import DepthPlan
from .planspec import PlanSpec
from .runtime.kv import refuse_holes
from .runtime.policy import check_plan, writes_kv
from .runtime.run import as_plan
from .runtime.signals import read_signals
from .runtime.switch import LayerSwitch
from .runtime.trace import StepRecord, Trace
from .schedule import DepthSchedule, Signals

_SPECULATIVE = ("assistant_model", "prompt_lookup_num_tokens", "assistant_early_exit")


class Attachment:
    """A plan on a model, from ``with attach(model, plan):`` until the block ends.

    Attributes
    ----------
    plan : DepthPlan
    trace : Trace or None
        The record of the latest ``model.generate`` inside the block.
    """

    def __init__(self, model: Any, plan: DepthPlan, *, skipped_kv: str = "auto", force: bool = False) -> None:
        adapter = adapter_for(model, force=force)
        check_plan(plan, adapter)
        self.model = model
        self.plan = plan
        self.trace: Trace | None = None
        self._switch = LayerSwitch(adapter, write_kv=writes_kv(plan, skipped_kv))
        self._bridges = prepared(plan.bridges, adapter)
        self._busy = threading.Lock()
        self._owner: int | None = None
        self._prefilling = False
        self._step = 0
        self._depth = plan.num_layers
        self._signals: Signals | None = None
        self._used: Signals | None = None
        self._last = 0.0
        self._shadowed: dict[str, Any] = {}
        self._hook: Any = None

    def __enter__(self) -> Self:
        self._switch.__enter__()
        self._shadow("generate", self._generate(self.model.generate))
        self._shadow("prepare_inputs_for_generation", self._prepare(self.model.prepare_inputs_for_generation))
        self._shadow("_prefill", self._prefill(self.model._prefill))
        if self.plan.adaptive:
            self._hook = self.model.register_forward_hook(self._listen)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._hook is not None:
            self._hook.remove()
        for name, before in self._shadowed.items():
            if before is None:
                self.model.__dict__.pop(name, None)
            else:
                self.model.__dict__[name] = before
        self._shadowed.clear()
        self._switch.__exit__(*exc)

    def _shadow(self, name: str, method: Any) -> None:
        self._shadowed[name] = self.model.__dict__.get(name)
        self.model.__dict__[name] = method

    def _generate(self, original: Any) -> Any:
        """``model.generate`` with a beginning and an end: one run at a time, full depth outside of it."""

        @functools.wraps(original)
        def generate(*args: Any, **kwargs: Any) -> Any:
            _refuse_speculation(args, kwargs)
            if not self._busy.acquire(blocking=False):
                raise AttachError("another thread generates on this attached model; give each thread its own model")
            try:
                self._owner, self._step, self._depth = threading.get_ident(), 0, self.plan.num_layers
                self._signals = self._used = None
                self.trace, self._last = Trace(self.plan, "attach"), time.perf_counter()
                output = original(*args, **kwargs)
                self._record()
                return output
            finally:
                self._owner = None
                self._switch.select(None)
                self._busy.release()

        return generate

    def _prefill(self, original: Any) -> Any:
        """Marks every forward of a prefill: older transformers do not name the chunks of a chunked one."""

        @functools.wraps(original)
        def prefill(*args: Any, **kwargs: Any) -> Any:
            self._prefilling = True
            try:
                return original(*args, **kwargs)
            finally:
                self._prefilling = False

        return prefill

    def _prepare(self, original: Any) -> Any:
        """``prepare_inputs_for_generation`` runs before every cached forward: the place to change depth."""

        @functools.wraps(original)
        def prepare(*args: Any, **kwargs: Any) -> Any:
            inputs = original(*args, **kwargs)
            if self._owner is None:
                return inputs  # a caller's own loop, outside generate: full depth
            if self._owner != threading.get_ident():
                raise AttachError("another thread generates on this attached model; give each thread its own model")
            self._advance(inputs, first=self._prefilling)
            return inputs

        return prepare

    def _advance(self, inputs: Any, *, first: bool) -> None:
        cache = inputs.get("past_key_values")
        if cache is None or inputs.get("use_cache") is False:
            raise CacheError("a depth plan needs the KV cache; leave use_cache on")
        if first:
            refuse_holes(cache)
            self._switch.select(None)
            return
        ids = inputs.get("input_ids")
        if ids is not None and ids.shape[1] != 1:
            raise AttachError(
                "this decoding mode feeds several tokens per step, where a plan has no meaning; turn it off"
            )
        self._record()
        self._step += 1
        self._used = self._signals
        self._depth = self.plan.decide(self._step, self._used)
        self._switch.select(self.plan.keep_sets[self._depth], self._bridges.get(self._depth))

    def _record(self) -> None:
        """The step that just ended; its token is the caller's."""
        now = time.perf_counter()
        if self.trace is not None:
            self.trace.steps.append(StepRecord(self._step, self._depth, now - self._last, (), self._used))
        self._last = now

    def _listen(self, module: Any, args: Any, output: Any) -> None:
        if self._owner is not None:
            self._signals = read_signals(output.logits[:, -1])


def attach(
    model: Any,
    plan: DepthPlan | PlanSpec | DepthSchedule | str,
    *,
    order: Any = None,
    profile: Any = None,
    horizon: int = 256,
    skipped_kv: str = "auto",
    force: bool = False,
) -> Attachment:
    """Make a plan act inside ``model.generate`` for the length of a ``with`` block.

    Everything built on ``generate`` works: pipelines, sampling, beam search, streamers, padded batches. The
    prefill and any forward outside ``generate`` run at full depth.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    plan : DepthPlan, PlanSpec, DepthSchedule or str
        A spec or schedule is resolved for this model with ``horizon``.
    order : str or LayerOrder, optional
        Order for a spec or schedule.
    profile : Profile, str or Path, optional
        Calibrated profile for a spec or schedule, as for :func:`depthsched.plan`.
    horizon : int
        Tokens to resolve for a spec or schedule; later steps keep the last depth.
    skipped_kv : str
        Whether skipped layers write K and V: ``auto`` (when the plan is not nested), ``write`` or ``omit``.
    force : bool
        Drive a model family that is unknown or refused.

    Returns
    -------
    Attachment
        A context manager; its ``trace`` is the record of the latest ``generate``.

    Raises
    ------
    AttachError
        On entering: the model is attached already. During ``generate``: another thread is generating, or the
        decoding mode is speculative.
    CacheError
        During ``generate``: the given cache has holes, or ``use_cache`` is off.
    ModelError, PlanError, ProfileError, SettingsError, ScheduleError
    """
    num_layers = adapter_for(model, force=force).num_layers
    resolved = as_plan(plan, order, profile, num_layers, horizon)
    return Attachment(model, resolved, skipped_kv=skipped_kv, force=force)


def _refuse_speculation(args: Any, kwargs: Any) -> None:
    config = kwargs.get("generation_config")
    for name in _SPECULATIVE:
        if kwargs.get(name) is not None or getattr(config, name, None) is not None:
            raise AttachError(f"{name} drafts and verifies several tokens per step, where a plan has no meaning")
