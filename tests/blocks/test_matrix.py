"""Matrices in blocks against gguf's own reading of the same bytes, and against the layout as it is written down."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st

from depthsched.blocks.matrix import KINDS, BlockMatrix, entries
from depthsched.errors import ModelError

SIZES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}


def raw_blocks(kind: str, rows: int, blocks: int, seed: int) -> np.ndarray:
    """Any bytes as quants, and any finite float16 as scales and minima."""
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 256, (rows, blocks, SIZES[kind]), dtype=np.uint8)
    halves = 2 if kind == "Q4_1" else 1
    values = rng.normal(0, 10 ** rng.uniform(-6, 3), (rows, blocks, halves)).astype(np.float16)
    raw[..., : 2 * halves] = values.view(np.uint8)
    return raw.reshape(rows, -1)


def by_gguf(raw: np.ndarray, kind: str) -> torch.Tensor:
    return torch.from_numpy(quants.dequantize(raw, GGMLQuantizationType[kind]).copy())


matrices = st.tuples(st.sampled_from(KINDS), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32))


@given(matrices)
def test_every_weight_is_the_one_that_gguf_reads(case: tuple[str, int, int, int]) -> None:
    kind, groups, blocks, seed = case
    raw = raw_blocks(kind, 8 * groups, blocks, seed)
    matrix = BlockMatrix.from_gguf(raw, kind)
    assert (matrix.rows, matrix.columns) == (8 * groups, 32 * blocks)
    assert torch.equal(matrix.dequantise(), by_gguf(raw, kind))
    assert torch.equal(matrix.dequantise(torch.bfloat16), by_gguf(raw, kind).bfloat16())


@given(matrices, st.integers(0, 40), st.integers(0, 40))
def test_some_rows(case: tuple[str, int, int, int], start: int, stop: int) -> None:
    kind, groups, blocks, seed = case
    raw = raw_blocks(kind, 8 * groups, blocks, seed)
    matrix, want = BlockMatrix.from_gguf(raw, kind), by_gguf(raw, kind)
    assert torch.equal(matrix.dequantise(rows=slice(start, stop)), want[start:stop])
    ids = torch.from_numpy(np.random.default_rng(seed).integers(0, matrix.rows, (2, 3)))
    assert torch.equal(matrix.rows_of(ids), want[ids])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(matrix.rows))
    permuted = matrix.permute_rows(order)
    assert torch.equal(permuted.dequantise(), want[order])
    back = permuted.permute_rows(order.argsort())
    for name in ("quants", "scales", "mins"):
        before, after = getattr(matrix, name), getattr(back, name)
        assert (before is None and after is None) or (torch.equal(before, after) and after.is_contiguous())


@given(st.lists(matrices, max_size=5), st.data())
def test_some_weights_of_many_matrices(cases: list[tuple[str, int, int, int]], data: st.DataObject) -> None:
    wanted = []
    for kind, groups, blocks, seed in cases:
        matrix = BlockMatrix.from_gguf(raw_blocks(kind, 8 * groups, blocks, seed), kind)
        place = st.integers(0, matrix.rows * matrix.columns - 1)
        wanted.append((matrix, data.draw(st.lists(place, max_size=4))))
    assert entries(wanted) == [matrix.dequantise().flatten()[places].tolist() for matrix, places in wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_the_layout_is_the_one_that_the_kernels_read(kind: str) -> None:
    """Element by element from the bytes, as the docstring of the class says it."""
    matrix, want = BlockMatrix.from_gguf(raw_blocks(kind, 16, 3, 0), kind), by_gguf(raw_blocks(kind, 16, 3, 0), kind)
    registers = 4 if kind.startswith("Q4") else 8
    raw = matrix.quants.numpy().reshape(2, 3, registers, 8, 2, 2)
    for row in range(16):
        for column in range(96):
            (group, r), (block, k) = divmod(row, 8), divmod(column, 32)
            scale = np.float32(matrix.scales[group, block, r].item())
            if registers == 4:
                g, j, p = k // 8, k % 8 // 2, k % 2
                low, high = (int(byte) for byte in raw[group, block, g, r, p])
                quant = (low | high << 8) >> 4 * j & 15
                if matrix.mins is None:
                    value = np.float32(quant - 8) * scale
                else:
                    value = np.float32(quant) * scale + np.float32(matrix.mins[group, block, r].item())
            else:
                g, j, p = k // 4, k % 4 // 2, k % 2
                value = np.float32(raw[group, block, g, r, p, j].view(np.int8)) * scale
            assert value == want[row, column].item()


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4.5), ("Q4_1", 5), ("Q8_0", 8.5)])
def test_it_takes_as_many_bytes_as_the_file(kind: str, bits: float) -> None:
    raw = raw_blocks(kind, 16, 2, 0)
    matrix = BlockMatrix.from_gguf(raw, kind)
    held = sum(part.nbytes for part in (matrix.quants, matrix.scales, matrix.mins) if part is not None)
    assert held == raw.nbytes == 16 * 64 * bits / 8


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError, match="type Q5_1 are not kept in blocks"):
        BlockMatrix.from_gguf(np.zeros((8, 24), dtype=np.uint8), "Q5_1")
    with pytest.raises(ModelError, match="no whole groups of 8 rows"):
        BlockMatrix.from_gguf(raw_blocks("Q4_0", 12, 1, 0), "Q4_0")
    with pytest.raises(ModelError, match="no whole groups"):
        BlockMatrix.from_gguf(np.zeros((8, 19), dtype=np.uint8), "Q4_0")
    good = BlockMatrix.from_gguf(raw_blocks("Q4_1", 8, 2, 0), "Q4_1")
    for bad in (good.scales.float(), good.scales.transpose(0, 1), good.scales[..., :4]):
        with pytest.raises(ModelError, match="not the blocks of a matrix"):
            BlockMatrix(good.quants, bad, good.mins)
    with pytest.raises(IndexError):
        good.rows_of(torch.tensor([8]))
    with pytest.raises(IndexError):
        good.rows_of(torch.tensor([-1]))
    assert not BlockMatrix.fits(12, 32)
    assert not BlockMatrix.fits(8, 48)
    assert BlockMatrix.fits(8, 32)
