"""``ds.generate``: run a plan with our own loop, and keep what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..adapters import adapter_for
from ..cost import Cost, ModelShape
from ..errors import PlanError
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..schedule import DepthSchedule
from .backends import make_backend
from .loop import DecodeLoop
from .policy import check_plan, writes_kv
from .trace import Trace

LOOK_EVERY = 8
"""Steps between two looks for the end token on a GPU, which each wait for it."""


@dataclass(frozen=True)
class Run:
    """What a run produced.

    Attributes
    ----------
    tokens : torch.Tensor
        Generated tokens without the prompt, ``[batch, steps]``, int64, on the CPU.
    sequences : torch.Tensor
        Prompt and generated tokens, ``[batch, prompt + steps]``, on the model's device.
    trace : Trace
    shape : ModelShape
    prompt_tokens : int
        Length of the (padded) prompt.
    prefill_seconds, decode_seconds : float
        Wall clock, the device synchronised at both ends.
    wrote_kv : bool
        Whether skipped layers wrote K and V.
    """

    tokens: torch.Tensor
    sequences: torch.Tensor
    trace: Trace
    shape: ModelShape
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float
    wrote_kv: bool = False

    @property
    def plan(self) -> DepthPlan:
        """The plan that ran."""
        return self.trace.plan

    @property
    def layer_speedup(self) -> float:
        """Layers at full depth over layers run, decode steps only."""
        return self.shape.num_layers / self.trace.mean_depth

    @property
    def cost(self) -> Cost:
        """Bytes that every decode step moved, and would have moved at full depth."""
        depths, batch = self.trace.decode_depths, len(self.tokens)
        return self.plan.cost(self.shape, depths, self.prompt_tokens, batch=batch, writes=self.wrote_kv)

    @property
    def bytes_speedup(self) -> float:
        """Bytes moved at full depth over bytes moved, decode steps only."""
        return self.cost.ratio

    @property
    def tokens_per_second(self) -> float:
        """Decoded tokens of all rows per second of decoding; the prefill and its token are not counted."""
        steps = len(self.trace.decode_depths)
        return steps * len(self.tokens) / self.decode_seconds if steps else 0.0

    def to_json(self) -> dict[str, Any]:
        """The numbers of the run. ``tokens`` is a list of ids for one row, a list of lists for a batch."""
        rows = self.tokens.tolist()
        return {
            "tokens": rows[0] if len(rows) == 1 else rows,
            "depths": self.trace.depths,
            "num_tokens": self.tokens.shape[1],
            "prompt_tokens": self.prompt_tokens,
            "mean_depth": self.trace.mean_depth,
            "num_layers": self.shape.num_layers,
            "layer_speedup": self.layer_speedup,
            "bytes_speedup": self.bytes_speedup,
            "tokens_per_second": self.tokens_per_second,
            "prefill_seconds": self.prefill_seconds,
            "decode_seconds": self.decode_seconds,
            "backend": self.trace.backend,
            "backend_reason": self.trace.reason,
            "compile_seconds": self.trace.compile_seconds,
            "schedule": self.plan.schedule,
            "order": self.plan.order,
            "profile": str(self.plan.profile.folder) if self.plan.profile else None,
            "notes": list(self.plan.notes),
        }

    def report(self) -> str:
        """The run in four lines of text."""
        return (
            f"{self.plan.schedule} @ {self.plan.order}, backend {self.trace.backend}\n"
            f"{self.tokens.shape[1]} tokens, mean depth {self.trace.mean_depth:.1f} of {self.shape.num_layers}\n"
            f"{self.layer_speedup:.2f}x fewer layers, {self.bytes_speedup:.2f}x fewer bytes\n"
            f"prefill {self.prefill_seconds:.2f} s, decode {self.decode_seconds:.2f} s, "
            f"{self.tokens_per_second:.1f} tokens/s"
        )


def generate(
    model: Any,
    inputs: Any,
    plan: DepthPlan | PlanSpec | DepthSchedule | str = "full",
    *,
    order: Any = None,
    profile: Any = None,
    max_new_tokens: int = 256,
    backend: str = "auto",
    skipped_kv: str = "auto",
    force: bool = False,
    streamer: Any = None,
    drop_finished: bool = False,
    **generate_kwargs: Any,
) -> Run:
    """Generate with a plan.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        On any device, in any floating dtype; left as it was, also when the run fails.
    inputs : mapping or torch.Tensor
        What a tokenizer returns (``input_ids`` and ``attention_mask``), or ids ``[batch, tokens]`` alone.
        Pad on the left.
    plan : DepthPlan, PlanSpec, DepthSchedule or str
        A spec or schedule is resolved for this model with ``max_new_tokens`` as its horizon.
    order : str or LayerOrder, optional
        Order for a spec or schedule.
    profile : Profile, str or Path, optional
        Calibrated profile for a spec or schedule, as for :func:`depthsched.plan`.
    backend : str
        ``eager``, ``compiled``, ``cuda-graph`` or ``auto``, which picks one by device and length. A model that
        the fast ones cannot run runs in eager; ``trace.reason`` says why a backend was used.
    skipped_kv : str
        Whether skipped layers write K and V: ``auto`` (when the plan is not nested), ``write`` or ``omit``.
    force : bool
        Drive a model family that is unknown or refused.
    streamer : transformers streamer, optional
    drop_finished : bool
        Leave rows that have stopped out of the batch, in the eager backend. A cache of the caller's loses their
        rows, and the trace still has a (padding) token for them.
    **generate_kwargs
        Anything else ``model.generate`` takes for greedy decoding or sampling.

    Raises
    ------
    ModelError, PlanError, ProfileError, SettingsError, ScheduleError, AttachError, CacheError
    """
    adapter = adapter_for(model, force=force)
    plan = as_plan(plan, order, profile, adapter.num_layers, max_new_tokens)
    check_plan(plan, adapter)
    ids, mask = _inputs(inputs, model.device)
    _refuse_modes(generate_kwargs)
    write = writes_kv(plan, skipped_kv)
    chosen, reason = make_backend(
        backend,
        adapter,
        plan,
        write_kv=write,
        batch=len(ids) * (generate_kwargs.get("num_return_sequences") or 1),
        max_tokens=ids.shape[1] + max_new_tokens,
        own_cache=_brings_cache(generate_kwargs),
    )
    with chosen as engine:
        every = plan.adaptive or drop_finished or streamer is not None or _brings_cache(generate_kwargs)
        stride = 1 if every or model.device.type == "cpu" else LOOK_EVERY
        loop = DecodeLoop(engine, plan, streamer, reason, drop_finished, stride)
        # The bound method of the class: a wrapper on the instance would be another runtime's.
        sequences = type(model).generate(
            model,
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            custom_generate=loop,
            **{"num_beams": 1, **generate_kwargs},
        )
    return Run(
        tokens=sequences[:, ids.shape[1] :].cpu(),
        sequences=sequences,
        trace=loop.trace,
        shape=adapter.shape(),
        prompt_tokens=ids.shape[1],
        prefill_seconds=loop.prefill_seconds,
        decode_seconds=loop.decode_seconds,
        wrote_kv=write,
    )


def as_plan(
    plan: DepthPlan | PlanSpec | DepthSchedule | str, order: Any, profile: Any, num_layers: int, horizon: int
) -> DepthPlan:
    """The plan itself, or a spec or schedule resolved for the model."""
    if isinstance(plan, DepthPlan):
        if order is not None:
            raise PlanError("this plan has its order already; give the order when you make the plan")
        if profile is not None:
            raise PlanError("this plan is resolved already; give the profile when you make the plan")
        return plan
    return PlanSpec.parse(plan, order, profile).resolve(num_layers, horizon)


def _inputs(inputs: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    ids = inputs["input_ids"] if isinstance(inputs, Mapping) else inputs
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.is_floating_point():
        raise PlanError(
            "inputs must be token ids of shape [batch, tokens], such as tokenizer(text, return_tensors='pt')"
        )
    if ids.shape[1] == 0 or ids.shape[0] == 0:
        raise PlanError("the prompt is empty; give at least one token")
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    mask = torch.ones_like(ids) if mask is None else mask
    if mask.shape[0] > 1 and not bool(mask[:, -1].all()):
        raise PlanError("the batch is padded on the right; set tokenizer.padding_side = 'left'")
    return ids.to(device), mask.to(device)


def _brings_cache(kwargs: Mapping[str, Any]) -> bool:
    """Whether the caller will read the cache after the run; one marked ``scratch`` is only a prompt computed before."""
    cache = kwargs.get("past_key_values")
    return kwargs.get("cache_implementation") is not None or not (cache is None or getattr(cache, "scratch", False))


def _refuse_modes(kwargs: Mapping[str, Any]) -> None:
    config = kwargs.get("generation_config")
    for name in ("num_beams", "num_return_sequences"):
        if (kwargs.get(name) or getattr(config, name, None) or 1) != 1 and name == "num_beams":
            raise PlanError(
                "ds.generate decodes greedily or samples; use ds.attach with model.generate for beam search"
            )
    for name in ("assistant_model", "prompt_lookup_num_tokens", "return_dict_in_generate"):
        if kwargs.get(name):
            raise PlanError(f"ds.generate does not take {name}; use ds.attach with model.generate")
