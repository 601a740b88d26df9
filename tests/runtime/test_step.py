"""Attention of the compiled layer against a formula that is plain and slow."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from depthsched.runtime.compiled import step


@given(
    context=st.integers(1, 40), count=st.integers(1, 4), batch=st.integers(1, 3), kv_heads=st.integers(1, 3),
    groups=st.integers(1, 4), width=st.sampled_from([2, 8]), seed=st.integers(0, 1000), data=st.data(),
)  # fmt: skip
def test_attention(
    context: int, count: int, batch: int, kv_heads: int, groups: int, width: int, seed: int, data: st.DataObject
) -> None:
    g = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, count, kv_heads * groups, width, generator=g) * 3
    keys, values = torch.randn(2, context, batch, kv_heads, width, generator=g).unbind()
    mask = torch.full((batch, count, context), float("-inf"))
    for seen in mask.view(-1, context):  # padding in front, free slots behind, and any hole between
        first = data.draw(st.integers(0, context - 1))
        last = data.draw(st.integers(first, context - 1))
        open_ = torch.rand(last - first + 1, generator=g) < 0.7
        open_[-1] = True
        seen[first : last + 1].masked_fill_(open_, 0.0)
    wanted = torch.zeros(query.shape, dtype=torch.float64)
    for row in range(batch):
        for place in range(count):
            open_slots = [t for t in range(context) if mask[row, place, t] == 0]
            for head in range(kv_heads * groups):
                own = query[row, place, head].double()
                scores = [float(own @ keys[t, row, head // groups].double()) * 0.3 for t in open_slots]
                shares = [math.exp(s - max(scores)) for s in scores]
                for share, t in zip(shares, open_slots, strict=True):
                    wanted[row, place, head] += share / sum(shares) * values[t, row, head // groups].double()
    got = step.attend(query.flatten(0, 1), keys, values, mask, 0.3)
    assert torch.allclose(got.double(), wanted.view(batch * count, -1), atol=1e-5)


def test_a_token_sees_its_row_up_to_itself() -> None:
    """Rows of different lengths, two tokens each, one row padded."""
    x, tables = torch.empty(4, 3), torch.randn(2, 16, 2).unbind()
    cos, sin, mask = torch.empty(4, 2), torch.empty(4, 2), torch.empty(2, 2, 8)
    hidden = torch.zeros(2, 8)
    hidden[1, :2] = float("-inf")
    slot, padding = torch.tensor([3, 4, 6, 7]), torch.tensor([0, 2])
    embedding = torch.randn(9, 3)
    step.begin(x, cos, sin, slot, torch.tensor([[1, 2], [3, 4]]), mask, padding, hidden, *tables, embedding)
    assert torch.equal(x, embedding[1:5])
    assert torch.equal(cos, tables[0][[3, 4, 4, 5]])
    assert torch.equal(sin, tables[1][[3, 4, 4, 5]])
    seen = [[t for t in range(8) if mask.view(4, 8)[i, t] == 0] for i in range(4)]
    assert seen == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [2, 3, 4, 5, 6, 7]]


def test_free_slots_are_not_read_whatever_they_hold() -> None:
    query, keys, values = torch.randn(1, 2, 4), torch.randn(16, 1, 1, 4), torch.randn(16, 1, 1, 4)
    mask = torch.full((1, 1, 16), float("-inf"))
    mask[:, :, 2:7] = 0
    first = step.attend(query, keys, values, mask, 0.5)
    keys[7:], values[7:], keys[:2], values[:2] = 1e30, 1e30, -1e30, 1e30
    assert torch.equal(step.attend(query, keys, values, mask, 0.5), first)
