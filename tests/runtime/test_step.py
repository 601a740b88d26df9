"""The parts that the compiled layer is made of, against formulas that are plain and slow."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
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


@pytest.mark.quick
@given(
    chunks=st.integers(1, 6), chunk=st.sampled_from([1, 4, 16, 64]), batch=st.integers(1, 3),
    kv_heads=st.integers(1, 3), groups=st.integers(1, 4), width=st.sampled_from([2, 8]),
    seed=st.integers(0, 1000), data=st.data(),
)  # fmt: skip
def test_attention_in_chunks_is_attention(
    chunks: int, chunk: int, batch: int, kv_heads: int, groups: int, width: int, seed: int, data: st.DataObject
) -> None:
    context, g = chunks * chunk, torch.Generator().manual_seed(seed)
    query = torch.randn(batch, kv_heads * groups, width, generator=g) * 3
    keys, values = torch.randn(2, context, batch, kv_heads, width, generator=g).unbind()
    mask = torch.full((context, batch), float("-inf"))
    for row in range(batch):  # padding in front, free slots behind, and any hole between
        first = data.draw(st.integers(0, context - 1))
        last = data.draw(st.integers(first, context - 1))
        seen = torch.rand(last - first + 1, generator=g) < 0.7
        seen[-1] = True
        mask[first : last + 1, row].masked_fill_(seen, 0.0)
    wanted = torch.zeros(batch, kv_heads * groups, width, dtype=torch.float64)
    for row in range(batch):
        open_slots = [t for t in range(context) if mask[t, row] == 0]
        for head in range(kv_heads * groups):
            own = query[row, head].double()
            scores = [float(own @ keys[t, row, head // groups].double()) * 0.3 for t in open_slots]
            shares = [math.exp(s - max(scores)) for s in scores]
            for share, t in zip(shares, open_slots, strict=True):
                wanted[row, head] += share / sum(shares) * values[t, row, head // groups].double()
    for size in (0, chunk):
        got = step.attend(query, keys, values, mask, 0.3, size)
        assert torch.allclose(got.double(), wanted.view(batch, -1), atol=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("chunk", [0, 4])
def test_free_slots_are_not_read_whatever_they_hold(chunk: int) -> None:
    query, keys, values = torch.randn(1, 2, 4), torch.randn(16, 1, 1, 4), torch.randn(16, 1, 1, 4)
    mask = torch.full((16, 1), float("-inf"))
    mask[2:7] = 0
    first = step.attend(query, keys, values, mask, 0.5, chunk)
    keys[7:], values[7:], keys[:2], values[:2] = 1e30, 1e30, -1e30, 1e30
    assert torch.equal(step.attend(query, keys, values, mask, 0.5, chunk), first)
