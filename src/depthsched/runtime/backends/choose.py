"""Which backend a run gets, and why."""

from __future__ import annotations

from ...adapters import Adapter
from ...errors import PlanError
from ...plans import DepthPlan
from ..lean import LeanModel, NotLean, is_compiled
from .base import Backend
from .compiled import CompiledBackend
from .cuda_graph import CudaGraphBackend
from .eager import EagerBackend

BACKENDS = ("auto", "eager", "compiled", "cuda-graph")

# Rough, and only for choosing: what a cold compilation costs, and what a step saves on a CPU: the dispatch of
# some twenty library calls a layer, and reading a weight at twice the speed.
_COLD_SECONDS = 12.0
_SAVED_PER_LAYER = 0.4e-3
_SAVED_PER_BYTE = 0.05e-9


def make_backend(
    name: str,
    adapter: Adapter,
    plan: DepthPlan,
    *,
    write_kv: bool = False,
    batch: int = 1,
    max_tokens: int = 0,
    own_cache: bool = False,
) -> tuple[Backend, str]:
    """A backend for one run, and the reason why it is this one.

    Parameters
    ----------
    name : str
        One of :data:`BACKENDS`.
    batch, max_tokens : int
        Rows of the run, and the most tokens that a row can hold, prompt included.
    own_cache : bool
        The caller brought a cache and will read it afterwards: only the eager backend keeps it filled.

    Raises
    ------
    PlanError
        The name is unknown, or ``cuda-graph`` was asked for on a model that is not on a CUDA device.
    """
    if name not in BACKENDS:
        raise PlanError(f"unknown backend {name!r}; use one of {', '.join(BACKENDS)}")
    bridges = plan.bridges
    eager = EagerBackend(adapter, plan.keep_sets, write_kv=write_kv, bridges=bridges)
    if name == "eager":
        return eager, "asked for"
    device = adapter.model.device.type
    if name == "cuda-graph" and device != "cuda":
        raise PlanError(f"backend 'cuda-graph' needs a model on a CUDA device, and this one is on {device}")
    if own_cache:
        return eager, "the caller's own cache is to be filled, which the fast backends do not do"
    kind = CudaGraphBackend if name == "cuda-graph" or (name == "auto" and device == "cuda") else CompiledBackend
    try:
        fast = kind(adapter, plan.keep_sets, write_kv=write_kv, batch=batch, max_tokens=max_tokens, bridges=bridges)
    except NotLean as error:
        return eager, f"the model's own layers run: {error}"
    if name != "auto":
        return fast, "asked for"
    if device == "cuda":
        return fast, "a CUDA device: graphs leave no dispatch time between kernels"
    worth, reason = worth_compiling(fast.lean, batch, plan.horizon, write_kv=write_kv)
    return (fast, reason) if worth else (eager, reason)


def worth_compiling(lean: LeanModel, batch: int, steps: int, *, write_kv: bool = False) -> tuple[bool, str]:
    """Whether a run of ``steps`` tokens on a CPU repays compiling, and the sum in words."""
    if is_compiled(lean, batch, write=write_kv):
        return True, "compiled already in this process"
    saved = steps * (len(lean.layers) * _SAVED_PER_LAYER + lean.num_bytes * _SAVED_PER_BYTE)
    verdict = "repays" if saved > _COLD_SECONDS else "does not repay"
    return saved > _COLD_SECONDS, (
        f"{steps} tokens save about {saved:.0f} s, which {verdict} about {_COLD_SECONDS:.0f} s of compiling"
    )
