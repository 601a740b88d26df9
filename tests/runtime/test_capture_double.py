"""The double replays what it recorded, and fails on everything that a CUDA graph would do wrong in silence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .capture_double import CaptureDouble, CaptureError


def accumulate(x: Tensor, y: Tensor) -> None:
    z = (x * 2).relu() + y[: len(x)]
    x.copy_(z.sum(-1, keepdim=True) + x)


def test_a_replay_does_the_same_to_the_same_tensors() -> None:
    x, y = torch.randn(3, 4), torch.randn(5, 4)
    other = x.clone()
    double = CaptureDouble()
    replay = double(accumulate, x, y)
    accumulate(other, y)
    assert torch.equal(x, other)  # a capture runs the function
    for _ in range(3):
        y.mul_(-0.5)
        replay(x, y)
        accumulate(other, y)
        assert torch.equal(x, other)
    assert (double.captures, double.replays) == (1, 3)


def test_a_replay_runs_no_python() -> None:
    calls: list[int] = []
    x = torch.zeros(2)

    def function(x: Tensor) -> None:
        calls.append(1)
        x.add_(len(calls))  # a number from the host is frozen into the graph

    replay = CaptureDouble()(function, x)
    replay(x)
    replay(x)
    assert calls == [1]
    assert x.tolist() == [3, 3]


def test_a_moved_address() -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    replay = CaptureDouble()(accumulate, x, y)
    with pytest.raises(CaptureError, match="a moved address: input 1 lies elsewhere"):
        replay(x, y.clone())


def test_a_tensor_that_was_freed() -> None:
    held = {"y": torch.randn(4)}
    x = torch.randn(4)
    replay = CaptureDouble()(_adds(held), x)
    replay(x)
    del held["y"]
    with pytest.raises(CaptureError, match="a moved address: a tensor that the graph reads was freed"):
        replay(x)


def _adds(held: dict[str, Tensor]) -> Callable[[Tensor], None]:
    def function(x: Tensor) -> None:
        x.add_(held["y"])

    return function


@pytest.mark.parametrize("other", [torch.randn(5, 4), torch.randn(3, 4).double(), torch.randn(4, 3).t()])
def test_a_changed_shape(other: Tensor) -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    replay = CaptureDouble()(accumulate, x, y)
    with pytest.raises(CaptureError, match="a changed shape: input 1"):
        replay(x, other)


HOST_READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "nonzero": lambda x: x.nonzero(),
    "branch": lambda x: x.neg_() if x.sum() > 0 else x,
    "loop": lambda x: [x for _ in range(x.sum().long())],
    "mask": lambda x: x[x > 0].sum(),
    "put by mask": lambda x: x.index_put_((x > 0,), torch.zeros(())),
    "unique": lambda x: torch.unique(x),
    "operation": lambda x: torch.ops.aten._local_scalar_dense(x[0]),
    "repeat": lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.int64)),
    "from the host": lambda x: x.add_(torch.tensor([1.0, 2.0, 3.0, 4.0])),
}


@pytest.mark.parametrize("name", HOST_READS)
def test_a_host_read(name: str) -> None:
    with pytest.raises(CaptureError, match="a host read inside a capture"):
        CaptureDouble()(lambda x: HOST_READS[name](x) is None or None, torch.randn(4))


def test_an_allocation_that_outlives_the_capture() -> None:
    kept: list[Tensor] = []
    with pytest.raises(CaptureError, match="outlives the capture"):
        CaptureDouble()(lambda x: kept.append(x * 2), torch.randn(4))
    with pytest.raises(CaptureError, match="outlives the capture"):
        CaptureDouble()(lambda x: (x * 2)[1:], torch.randn(4))  # an output that is no static buffer
    CaptureDouble()(lambda x: x[1:], torch.randn(4))  # a view of an input is


def test_an_exception_in_the_function_is_its_own() -> None:
    def function(x: Tensor) -> None:
        raise ZeroDivisionError("of the kernel")

    with pytest.raises(ZeroDivisionError):
        CaptureDouble()(function, torch.randn(4))
