"""Backends: how a step is executed, and which one a run gets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, Self

from torch import Tensor

from ..adapters import Adapter
from ..errors import PlanError
from ..plans import DepthPlan
from .compiled import CompiledBackend, CudaGraphBackend
from .eager import EagerBackend
from .native import NativeBackend, native_obstacle
from .plain import why_not
from .selfcheck import checked
from .trace import ASKED

BACKENDS = ("auto", "eager", "compiled", "cuda-graph")


class Decoder(Protocol):
    """A run after its prefill.

    One that can leave finished rows out also has ``drop_rows(rows)``. Where the backend has ``renews`` set it has
    ``renew(tokens [batch, count], at, keep)``: these tokens of the slots from ``at`` on at full depth, in place of what
    lay there, for logits of the last ``keep`` of each row; the run goes on after them. One that runs plans whose
    schedule asks for ``cosine`` has ``cosine()``. One whose K and V may be handed on has
    ``held(length)``: those of the first slots, ``[batch, kv_heads, length, head_dim]`` for each layer.
    """

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        """Run one token per row, ``[batch]``, through the layers of a depth; logits ``[batch, vocabulary]``."""
        ...


class DraftDecoder(Decoder, Protocol):
    """What a backend with ``drafts`` set begins. Steps and passes of several tokens are not mixed in a run.

    One that works on the caller's cache also has ``settle(tokens)``: it ends a run of one row, and leaves the cache
    with its first tokens and nothing of a draft.
    """

    def several(self, tokens: Tensor, at: Tensor, depth: int) -> Tensor:
        """Run some tokens of each row, ``[batch, count]``; logits ``[batch, count, vocabulary]``.

        They go to the slots from ``at [batch]`` on and see their row up to their own slot; what lay there is replaced.
        """
        ...

    def drop_rows(self, rows: Tensor) -> None:
        """Go on with only these rows, indices into those held so far."""
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
    holes: bool = False,
    several: bool = False,
) -> tuple[Backend, str]:
    """A backend for one run, and the reason why it is this one.

    A fast one was compared with eager before its first use: see :mod:`.selfcheck`. Else nothing is fused
    before it is entered.

    Parameters
    ----------
    name : str
        One of :data:`BACKENDS`.
    batch, max_tokens : int
        Rows of the run, and the most tokens that a row can hold, prompt included.
    own_cache : bool
        The caller brought a cache and will read it afterwards: only the eager backend keeps it filled.
    holes : bool
        The attention mask leaves out tokens after the first of a row.
    several : bool
        The run will ask for passes of several tokens a row, as a :class:`DraftDecoder` runs them.

    Raises
    ------
    PlanError
        The name is unknown, ``cuda-graph`` was asked for on a model that is not on a CUDA device, or a fast backend by
        name for a plan whose schedule asks for a signal that only eager has.
    """
    make, reason = maker(
        name, adapter, plan, write_kv=write_kv, batch=batch, max_tokens=max_tokens, own_cache=own_cache, holes=holes,
        several=several,
    )  # fmt: skip
    if make is None:
        return EagerBackend(adapter, plan, write_kv=write_kv), reason
    return checked(make, adapter, plan, reason, batch=batch, write_kv=write_kv, several=several)


def maker(
    name: str,
    adapter: Adapter,
    plan: DepthPlan,
    *,
    write_kv: bool,
    batch: int,
    max_tokens: int,
    own_cache: bool = False,
    holes: bool = False,
    several: bool = False,
) -> tuple[Callable[[], Backend] | None, str]:
    """What makes the fast backend of :func:`make_backend`, not checked, or None for eager; and why."""
    kind, reason = _choose(name, adapter, max_tokens, own_cache, holes)
    if kind is not None and "cosine" in plan.needs:
        kind, reason = None, _between_layers(name, plan)
    if kind is None:
        return None, reason
    make = functools.partial(kind, adapter, plan, write_kv=write_kv, batch=batch, max_tokens=max_tokens)
    return functools.partial(make, several=True) if several and kind is not NativeBackend else make, reason


def _between_layers(name: str, plan: DepthPlan) -> str:
    """Why a plan whose schedule reads states between layers runs eager; refused where another backend was named."""
    asks = f"schedule {plan.schedule!r} asks for cosine, and the states between layers are seen in eager only"
    if name != "auto":
        raise PlanError(f"{asks}; use backend eager, or auto")
    return asks


def _choose(
    name: str, adapter: Adapter, max_tokens: int, own_cache: bool, holes: bool
) -> tuple[type[CompiledBackend] | type[NativeBackend] | None, str]:
    """The fast backend to take, None for eager, and why."""
    if name not in BACKENDS:
        raise PlanError(f"unknown backend {name!r}; use one of {', '.join(BACKENDS)}")
    device = adapter.device.type
    if name == "cuda-graph" and device != "cuda":
        raise PlanError(f"backend 'cuda-graph' needs a model on a CUDA device, and this one is on {device}")
    if name == "eager":
        return None, ASKED
    if own_cache:
        return None, "the caller's own cache is to be filled, which the fast backends do not do"
    obstacle = why_not(adapter, max_tokens, stored=device == "cpu")
    if obstacle is None and device == "cpu":
        obstacle = native_obstacle(adapter, compile_it=name != "auto", holes=holes)
    if obstacle is not None:
        return None, f"the model's own layers run: {obstacle}"
    if device == "cpu":
        return NativeBackend, ASKED if name != "auto" else "a CPU: one compiled call for each token"
    if name != "auto":
        return CudaGraphBackend if name == "cuda-graph" else CompiledBackend, ASKED
    if device == "cuda":
        return CudaGraphBackend, "a CUDA device: graphs leave no dispatch time between kernels"
    return None, f"no backend but eager was ever tried on a device of type {device}"
