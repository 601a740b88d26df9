"""The product that the compiled layer is made of, for every number of rows that takes a path of its own."""

import pytest
import torch
from torch.nn import functional as F

from depthsched.runtime.compiled import step


@pytest.mark.quick
@pytest.mark.parametrize("rows", [1, 2, 4, 8, 16, 17, 40])
@pytest.mark.parametrize("outputs", [100, 600, 2500, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_linear(rows: int, outputs: int, dtype: torch.dtype, biased: bool) -> None:
    g = torch.Generator().manual_seed(rows * outputs)
    x, weight, bias = (torch.randn(*s, generator=g).to(dtype) for s in ((rows, 24), (outputs, 24), (outputs,)))
    got = step.linear(x, weight, bias if biased else None)
    wanted = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    assert got.dtype == dtype
    assert got.shape == (rows, outputs)
    assert (got - wanted).abs().max() <= (1e-4 if dtype == torch.float32 else 0.02) * wanted.abs().max()
