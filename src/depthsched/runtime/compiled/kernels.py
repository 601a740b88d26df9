"""The functions of a pass, compiled once per shape of layer and batch size."""

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
from .weights import FusedModel

Kernel = Callable[..., Any]

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


def kernels_for(
    model: FusedModel, batch: int, *, count: int = 1, write: bool = False, bridged: bool = False
) -> Kernels:
    """The kernels of a model for passes of ``count`` tokens for each row of a batch.

    A layer is compiled in two parts, before attention and after it, with its weights as inputs. Neither knows the
    length of the context, and the number of rows is left open where it is not 1. So every layer, every keep set, every
    context and every length of a draft runs the same code, and neither a new depth nor another plan compiles
    anything. The functions are compiled ahead and called without guards: there is nothing to fall back from.

    Raises
    ------
    ModelError
        The compiler failed, or fixed a size that must stay open.
    """
    began = time.perf_counter()
    find = functools.partial(_kernel, model=model, batch=batch, many=batch * count > 1)
    layer, head = _layer(model.layout.spec, find("before"), find("after")), find("head")
    write_only = find("write_only") if write else None
    bridge = find("bridge") if bridged else None
    return Kernels(layer, head, write_only, bridge, time.perf_counter() - began)


@functools.lru_cache(_KEPT)  # the same object at every run, as graphs ask for
def _layer(spec: Any, before: Kernel, after: Kernel) -> Kernel:
    def query(*inputs: Tensor) -> Tensor:
        found: Tensor = before(*inputs)[0]
        return found

    return functools.partial(step.layer, spec, query, after)


def _kernel(name: str, *, model: FusedModel, batch: int, many: bool) -> Kernel:
    key = name, batch, many, model.layout, torch.get_num_threads()
    if key not in _MEMO:
        _MEMO[key] = _compile(name, *_problem(name, model, batch, many))
        if len(_MEMO) > _KEPT:
            del _MEMO[next(iter(_MEMO))]
    return _MEMO[key]


def _problem(
    name: str, model: FusedModel, batch: int, many: bool
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...], dict[int, Any]]:
    """The function, example inputs for it, and those whose first dimension is left open, each with its name."""
    spec, weights = model.layout.spec, model.layers[0]
    like = functools.partial(torch.zeros, device=model.embedding.device, dtype=model.embedding.dtype)
    rows, slots = _unlike(model, batch)
    rows = rows if many else 1
    x = like(rows, model.embedding.shape[1])
    open_rows, capacity = torch.export.Dim("rows", min=2) if many else None, torch.export.Dim("capacity", min=2)
    if name == "head":
        return functools.partial(step.head, spec.eps), (x, like(rows, len(model.head[1])), *model.head), {
            0: open_rows, 1: open_rows,
        }  # fmt: skip
    if name == "bridge":
        width = x.shape[1]
        return step.bridge, (x, like(width, width), like(width)), {0: open_rows}
    if name == "after":
        attended = like(rows, spec.heads * spec.head_dim)
        inputs = (x, attended, *weights[spec.split :])
        return functools.partial(step.after, spec), inputs, {0: open_rows, 1: open_rows}
    angle, slot = like(rows, spec.head_dim), torch.zeros(rows, dtype=torch.int64, device=x.device)
    held = like(slots, batch, spec.kv_heads, spec.head_dim)
    weights = weights[: spec.split] if name == "before" else weights
    inputs = (x, angle, angle.clone(), slot, slot.clone(), held, held.clone(), *weights)
    function = step.before if name == "before" else step.write_only
    return functools.partial(function, spec), inputs, {**dict.fromkeys(range(5), open_rows), 5: capacity, 6: capacity}


_PRIMES = (61, 67, 71, 73, 79, 83, 89, 97, 101, 103)


def _unlike(model: FusedModel, batch: int) -> tuple[int, int]:
    """Example sizes for what is left open: two primes that are no other size of the model.

    torch 2.11 takes a size for the one left open where the example has the same number for both, and so made code for
    heads as wide as the buffers are long.
    """
    spec = model.layout.spec
    taken = {
        batch,
        spec.heads,
        spec.kv_heads,
        spec.head_dim,
        *(size for shape in model.layout.shapes for size in shape),
    }
    first, second = [prime for prime in _PRIMES if prime not in taken][:2]
    return first, second


class _Traced(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _compile(
    name: str, function: Callable[..., Tensor], examples: tuple[Tensor, ...], dynamic: dict[int, Any]
) -> Kernel:
    from torch._inductor import standalone_compile  # slow to import, and needed only here

    shapes = tuple({0: dynamic[i]} if dynamic.get(i) is not None else None for i in range(len(examples)))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*TensorFloat32.*", category=UserWarning)
        traced = torch.export.export(_Traced(function), examples, dynamic_shapes=(shapes,), strict=False).graph_module
        fakes = [node.meta["val"] for node in traced.graph.nodes if node.op == "placeholder"]
        try:
            kernel: Kernel = standalone_compile(traced, fakes, dynamic_shapes="from_graph")
        except Exception as error:  # inductor wraps what the C++ or Triton compiler said in many classes
            raise ModelError(
                f"cannot compile a decoder layer ({type(error).__name__}: {one_line(error)}); "
                "install a C++ compiler, or use backend='eager'"
            ) from error
    for i, fake in enumerate(fakes):
        if shapes[i] is not None and not still_open(fake.shape[0]):
            raise ModelError(
                f"torch {torch.__version__} fixed a size of {name!r} that must stay open; use backend='eager'"
            )
    return kernel


def still_open(size: Any) -> bool:
    """Whether a dimension is still a symbol after compiling: a guard may have fixed it, without a word."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number
