"""The graph engine on a CPU: the double in place of CUDA's capture, and kernels that are plain torch functions."""

import functools
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.plans import DepthPlan
from depthsched.runtime import backends
from depthsched.runtime.compiled import CudaGraphBackend, step
from depthsched.runtime.compiled import engine as engines
from depthsched.runtime.compiled.capture import GraphStore
from depthsched.runtime.compiled.kernels import Kernel, Kernels
from depthsched.runtime.compiled.weights import FusedModel, LayerSpec
from depthsched.runtime.loop import DecodeLoop

from .capture_double import CaptureDouble


def plain_kernels(
    model: FusedModel, batch: int, *, count: int = 1, write: bool = False, bridged: bool = False
) -> Kernels:
    """What is compiled for a GPU, uncompiled."""
    layer, write_only, head = _plain(model.layout.spec)
    return Kernels(layer=layer, head=head, write_only=write_only if write else None, bridge=step.bridge, seconds=0.0)


@functools.cache  # the same objects at every run, as compiled kernels are
def _plain(spec: LayerSpec) -> tuple[Kernel, Kernel, Kernel]:
    parts = (functools.partial(f, spec) for f in (step.before, step.after))
    layer = functools.partial(step.layer, spec, *parts)
    return layer, functools.partial(step.write_only, spec), functools.partial(step.head, spec.eps)


def run_graphs(model: Any, inputs: dict[str, torch.Tensor], plan: DepthPlan, steps: int, **options: Any) -> list[Any]:
    """Tokens of a greedy run of the cuda-graph backend under the double, prompt included."""
    rows, length = inputs["input_ids"].shape
    settings = {
        "kernels": plain_kernels, "capture": CaptureDouble, "batch": rows, "max_tokens": length + steps, **options,
    }  # fmt: skip
    extra = settings.pop("generate", {})
    with CudaGraphBackend(adapter_for(model), plan, **settings) as backend:
        loop = DecodeLoop(backend, plan)
        out: torch.Tensor = type(model).generate(
            model, **inputs, max_new_tokens=steps, do_sample=False, custom_generate=loop, **extra
        )
    return out.tolist()


def run_eager(model: Any, inputs: dict[str, torch.Tensor], plan: DepthPlan, steps: int, **options: Any) -> list[Any]:
    run = ds.generate(model, inputs, plan, max_new_tokens=steps, do_sample=False, backend="eager", **options)
    return run.sequences.tolist()


def store_of(model: Any) -> GraphStore:
    """The graphs that a model's engine holds."""
    return engines._ENGINES[model].graphs(CaptureDouble)


def compiled_is_the_graph_engine(monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Make ``backend="compiled"`` the graph engine under the double, with some options replaced."""
    settings = {"kernels": plain_kernels, "capture": CaptureDouble, **options}

    def choose(name: str, *args: Any) -> tuple[Any, str]:
        return (None, "asked for") if name == "eager" else (functools.partial(CudaGraphBackend, **settings), name)

    monkeypatch.setattr(backends, "_choose", choose)
