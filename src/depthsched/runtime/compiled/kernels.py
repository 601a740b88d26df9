"""The functions of a step, compiled once per shape of layer and batch size."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...text import one_line
from . import step
from .kv import CHUNK
from .weights import FusedModel, Layout

Kernel = Callable[..., Any]

_EXAMPLE_CONTEXT = 128

# Compiled code by what decides it, the oldest dropped first: a cache, so that a second run compiles nothing.
_MEMO: dict[tuple[Any, ...], Kernel] = {}
_KEPT = 64


@dataclass(frozen=True)
class Kernels:
    """Compiled functions of :mod:`.step`; ``seconds`` is what compiling them took now."""

    layer: Kernel
    head: Kernel
    write_only: Kernel | None
    bridge: Kernel | None
    seconds: float

    @property
    def functions(self) -> dict[str, Kernel]:
        """Those that there are, by name."""
        found = {name: getattr(self, name) for name in ("layer", "head", "write_only", "bridge")}
        return {name: kernel for name, kernel in found.items() if kernel is not None}


def kernels_for(model: FusedModel, batch: int, *, write: bool = False, bridged: bool = False) -> Kernels:
    """The kernels of a model for a batch size.

    One layer is compiled, with its weights as inputs and the length of the context left open. So every layer,
    every keep set and every context runs the same code, and neither a new depth nor another plan compiles
    anything. The functions are compiled ahead and called without guards: there is nothing to fall back from.

    Raises
    ------
    ModelError
        The compiler failed; usually there is no C++ compiler.
    """
    began = time.perf_counter()
    layer = _kernel("layer", model, batch)
    head = _kernel("head", model, batch)
    write_only = _kernel("write_only", model, batch) if write else None
    bridge = _kernel("bridge", model, batch) if bridged else None
    return Kernels(layer, head, write_only, bridge, time.perf_counter() - began)


def is_compiled(layout: Layout, batch: int, *, write: bool = False) -> bool:
    """Whether this process holds the kernels already."""
    names = ("layer", "head", "write_only")[: 3 if write else 2]
    return all(_key(name, layout, batch) in _MEMO for name in names)


def _key(name: str, layout: Layout, batch: int) -> tuple[Any, ...]:
    return name, batch, layout, torch.get_num_threads()


def _kernel(name: str, model: FusedModel, batch: int) -> Kernel:
    key = _key(name, model.layout, batch)
    if key not in _MEMO:
        _MEMO[key] = _compile(*_problem(name, model, batch))
        if len(_MEMO) > _KEPT:
            del _MEMO[next(iter(_MEMO))]
    return _MEMO[key]


def _problem(name: str, model: FusedModel, batch: int) -> tuple[Callable[..., Tensor], tuple[Tensor, ...], list[int]]:
    """The function, example inputs for it, and which of them have a context as their first dimension."""
    spec, weights = model.layout.spec, model.layers[0]
    like = functools.partial(torch.zeros, device=model.embedding.device)
    x = like(batch, model.embedding.shape[1], dtype=model.embedding.dtype)
    if name == "head":
        logits = like(batch, len(model.head[1]), dtype=x.dtype)
        return functools.partial(step.head, spec.eps), (x, logits, *model.head), []
    if name == "bridge":
        width = x.shape[1]
        return step.bridge, (x, like(width, width, dtype=x.dtype), like(width, dtype=x.dtype)), []
    angle = like(batch, spec.head_dim, dtype=x.dtype)
    slot = like(1, dtype=torch.int64)
    held = like(_EXAMPLE_CONTEXT, batch, spec.kv_heads, spec.head_dim, dtype=x.dtype)
    if name == "layer":
        mask = like(_EXAMPLE_CONTEXT, batch)
        return (
            functools.partial(step.layer, spec),
            (x, angle, angle.clone(), slot, mask, held, held.clone(), *weights),
            [4, 5, 6],
        )
    inputs = (x, angle, angle.clone(), slot, held, held.clone(), *weights)
    return functools.partial(step.write_only, spec), inputs, [4, 5]


class _Traced(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _compile(function: Callable[..., Tensor], examples: tuple[Tensor, ...], dynamic: list[int]) -> Kernel:
    from torch._inductor import standalone_compile  # slow to import, and needed only here

    context = torch.export.Dim("chunks", min=1) * CHUNK
    shapes = tuple({0: context} if i in dynamic else None for i in range(len(examples)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        traced = torch.export.export(_Traced(function), examples, dynamic_shapes=(shapes,), strict=False).graph_module
        fakes = [node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"]
        try:
            kernel: Kernel = standalone_compile(traced, fakes, dynamic_shapes="from_graph")
        except Exception as error:  # inductor wraps what the C++ or Triton compiler said in many classes
            raise ModelError(
                f"cannot compile a decoder layer ({type(error).__name__}: {one_line(error)}); "
                "install a C++ compiler, or use backend='eager'"
            ) from error
    return kernel
