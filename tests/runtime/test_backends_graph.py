"""Graph selection of the cuda-graph backend: on the CPU with a stand-in for the capture, on a GPU for real."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.runtime.compiled import CudaGraphBackend
from depthsched.runtime.compiled.graphs import GraphStore
from depthsched.runtime.loop import DecodeLoop

from ..tiny import LAYERS, make_tiny, prompt
from .test_backends import compiles, one_thread  # noqa: F401

Function = Callable[[], torch.Tensor]


def count_into(captured: list[Function]) -> Callable[[Function], Function]:
    def capture(function: Function) -> Function:
        captured.append(function)
        return function

    return capture


def test_a_graph_is_captured_once_and_the_oldest_makes_room() -> None:
    captured: list[Function] = []
    store = GraphStore(count_into(captured), limit=2)
    for key in (1, 2, 1, 3, 1, 2):
        assert store.run(key, lambda key=key: torch.tensor(key)).item() == key
    assert len(captured) == 4  # 1, 2, 3, and 2 again: it was the one not used for longest
    assert list(store.graphs) == [1, 2]
    store.clear()
    store.run(1, lambda: torch.tensor(1))
    assert len(captured) == 5


@compiles
def test_one_graph_per_keep_set_and_bucket_gives_the_tokens_of_eager() -> None:
    model, inputs = make_tiny("llama"), prompt(1, 6)
    plan = ds.plan("step:at=8+16,drop=2+5", num_layers=LAYERS, horizon=90)
    captured: list[Function] = []
    backend = CudaGraphBackend(adapter_for(model), plan, max_tokens=96, capture=count_into(captured))
    with backend:
        loop = DecodeLoop(backend, plan)
        out = type(model).generate(model, **inputs, max_new_tokens=90, do_sample=False, custom_generate=loop)
    eager = ds.generate(model, inputs, plan, max_new_tokens=90, do_sample=False, backend="eager")
    assert out.tolist() == eager.sequences.tolist()
    assert len(captured) == 4  # three depths, the last of them in two buckets of the context
    assert not backend.graphs.graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("batch", [1, 3])
def test_captured_graphs_give_the_tokens_of_eager(batch: int) -> None:
    model: Any = make_tiny("llama").cuda()
    for plan in ("full", "d3:alpha=0.98", "linear:end=3,over=30"):
        eager = ds.generate(model, prompt(batch, 6), plan, max_new_tokens=80, do_sample=False, backend="eager")
        fast = ds.generate(model, prompt(batch, 6), plan, max_new_tokens=80, do_sample=False, backend="cuda-graph")
        assert fast.trace.backend == "cuda-graph"
        assert fast.tokens.tolist() == eager.tokens.tolist()
