"""Backends: how a step is executed, and which one a run gets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, Self

from torch import Tensor

from ..adapters import Adapter
from ..errors import PlanError
from ..plans import DepthPlan
from .compiled import CompiledBackend, CudaGraphBackend, Layout, is_compiled, layout_of, why_not
from .eager import EagerBackend
from .selfcheck import checked

BACKENDS = ("auto", "eager", "compiled", "cuda-graph")

# Rough, and only for choosing: what a cold compilation costs, and what a step saves on a CPU: the dispatch of
# some twenty library calls a layer, and reading a weight at twice the speed.
_COLD_SECONDS = 12.0
_SAVED_PER_LAYER = 0.4e-3
_SAVED_PER_BYTE = 0.05e-9


class Decoder(Protocol):
    """A run after its prefill. One that can leave finished rows out also has ``drop_rows(rows)``."""

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        """Run one token per row, ``[batch]``, through the layers of a depth; logits ``[batch, vocabulary]``."""
        ...


class Backend(Protocol):
    """Begins one run. A context manager: the model is as before on exit."""

    @property
    def name(self) -> str: ...

    compile_seconds: float
    """What compiling took on entering this run; 0 where nothing is compiled."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def prefill(
        self, input_ids: Tensor, attention_mask: Tensor, cache: Any, chunk: int | None = None
    ) -> tuple[Tensor, Decoder]:
        """Run the prompt at full depth: logits of its last position, and the run from there on.

        Arguments as of :func:`~depthsched.runtime.forward.run_prompt`.
        """
        ...


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

    A fast one was compared with eager before its first use: see :mod:`.selfcheck`. Else nothing is fused or compiled
    before it is entered.

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
    make, reason = maker(
        name, adapter, plan, write_kv=write_kv, batch=batch, max_tokens=max_tokens, own_cache=own_cache
    )
    if make is None:
        return EagerBackend(adapter, plan, write_kv=write_kv), reason
    return checked(make, adapter, plan, reason, batch=batch, write_kv=write_kv)


def maker(
    name: str,
    adapter: Adapter,
    plan: DepthPlan,
    *,
    write_kv: bool,
    batch: int,
    max_tokens: int,
    own_cache: bool = False,
) -> tuple[Callable[[], Backend] | None, str]:
    """What makes the fast backend of :func:`make_backend`, not checked, or None for eager; and why."""
    kind, reason = _choose(name, adapter, plan.horizon, write_kv, batch, max_tokens, own_cache)
    if kind is None:
        return None, reason
    return functools.partial(kind, adapter, plan, write_kv=write_kv, batch=batch, max_tokens=max_tokens), reason


def _choose(
    name: str, adapter: Adapter, steps: int, write_kv: bool, batch: int, max_tokens: int, own_cache: bool
) -> tuple[type[CompiledBackend] | None, str]:
    """The fast backend to take, None for eager, and why."""
    if name not in BACKENDS:
        raise PlanError(f"unknown backend {name!r}; use one of {', '.join(BACKENDS)}")
    device = adapter.device.type
    if name == "cuda-graph" and device != "cuda":
        raise PlanError(f"backend 'cuda-graph' needs a model on a CUDA device, and this one is on {device}")
    if name == "eager":
        return None, "asked for"
    if own_cache:
        return None, "the caller's own cache is to be filled, which the fast backends do not do"
    obstacle = why_not(adapter, max_tokens)
    if obstacle is not None:
        return None, f"the model's own layers run: {obstacle}"
    if name != "auto":
        return CudaGraphBackend if name == "cuda-graph" else CompiledBackend, "asked for"
    if device == "cuda":
        return CudaGraphBackend, "a CUDA device: graphs leave no dispatch time between kernels"
    worth, reason = worth_compiling(layout_of(adapter), batch, steps, write_kv=write_kv)
    return CompiledBackend if worth else None, reason


def worth_compiling(layout: Layout, batch: int, steps: int, *, write_kv: bool = False) -> tuple[bool, str]:
    """Whether a run of ``steps`` tokens on a CPU repays compiling, and the sum in words."""
    if is_compiled(layout, batch, write=write_kv):
        return True, "compiled already in this process"
    saved = steps * (layout.num_layers * _SAVED_PER_LAYER + layout.num_bytes * _SAVED_PER_BYTE)
    verdict = "repays" if saved > _COLD_SECONDS else "does not repay"
    return saved > _COLD_SECONDS, (
        f"{steps} tokens save about {saved:.0f} s, which {verdict} about {_COLD_SECONDS:.0f} s of compiling"
    )
