"""Products of the compiled library against torch: every kind of weight, any size and number of rows, any target."""

import ctypes
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from depthsched import native
from depthsched.native.library import Library, load
from depthsched.native.matrix import MANY_ROWS, Held, describe, product
from depthsched.native.probe import wrong_product
from depthsched.native.structs import KINDS
from depthsched.native.toolchain import compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler: install g++")
DENSE = (torch.float32, torch.bfloat16, torch.float16)
ROWS = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 40])


@dataclass
class Blocks:
    """What the library reads of a matrix in blocks, with the values that it stands for, ``[rows, columns]``."""

    kind: str
    rows: int
    columns: int
    quants: Tensor
    scales: Tensor
    mins: Tensor | None
    values: Tensor


def blocks(kind: str, rows: int, columns: int, *, with_mins: bool, seed: int) -> Blocks:
    """Random blocks, packed one number at a time: slow, and as the layout is written down."""
    random = torch.Generator().manual_seed(seed)
    groups, count = rows // 8, columns // 32
    scales = (torch.rand(groups, count, 8, generator=random) + 0.1).half()
    mins = torch.randn(groups, count, 8, generator=random).half() if with_mins else None
    low, high = (0, 16) if kind == "q4" else (-128, 128)
    q = torch.randint(low, high, (rows, columns), generator=random)
    quants = torch.zeros(groups, count, 128 if kind == "q4" else 256, dtype=torch.uint8)
    for r in range(rows):
        for k in range(columns):
            at, e = quants[r // 8, k // 32], k % 32
            if kind == "q4":
                register, parity, nibble = e // 8, e % 2, e % 8 // 2
                byte = ((register * 8 + r % 8) * 2 + parity) * 2 + nibble // 2
                at[byte] |= int(q[r, k]) << 4 * (nibble % 2)
            else:
                register, parity, place = e // 4, e % 2, e % 4 // 2
                at[((register * 8 + r % 8) * 2 + parity) * 2 + place] = int(q[r, k]) % 256
    wide = scales.float().permute(0, 2, 1).reshape(rows, count).repeat_interleave(32, 1)
    values = q.float() * wide
    if kind == "q4":
        shift = (
            -8 * wide if mins is None else mins.float().permute(0, 2, 1).reshape(rows, count).repeat_interleave(32, 1)
        )
        values = values + shift
    return Blocks(kind, rows, columns, quants, scales, mins, values)


def close(found: Tensor, x: Tensor, w: Tensor, b: Tensor | None, relative: float) -> None:
    """Within rounding: relative to the sum of magnitudes, which is what a sum of products may lose."""
    wide = x.double() @ w.double().T + (0 if b is None else b.double())
    bound = x.double().abs() @ w.double().abs().T + 1e-30
    assert ((found.double() - wide).abs() / bound).max() < relative


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(DENSE),
    ROWS,
    st.integers(1, 41),
    st.integers(1, 70),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_dense_weights(
    dtype: torch.dtype, rows: int, outputs: int, inputs: int, biased: bool, threads: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=random)
    w = torch.randn(outputs, inputs, generator=random).to(dtype)
    b = torch.randn(outputs, generator=random) if biased else None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        close(product(x, w, b), x, w, b, 1e-6)
    finally:
        torch.set_num_threads(before)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["q4", "q8"]), ROWS, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(0, 99))
def test_weights_in_blocks(kind: str, rows: int, groups: int, count: int, with_mins: bool, seed: int) -> None:
    w = blocks(kind, 8 * groups, 32 * count, with_mins=with_mins and kind == "q4", seed=seed)
    x = torch.randn(rows, w.columns, generator=torch.Generator().manual_seed(seed + 1))
    # Activations are whole numbers of 16 bits within their block: half a step is 2^-16 of the largest.
    step = x.view(rows, count, 32).abs().amax(-1, keepdim=True).expand(-1, -1, 32).reshape(rows, -1) / 65534
    allowed = step.double() @ w.values.double().abs().T * 1.05 + 1e-6 * (x.double().abs() @ w.values.double().abs().T)
    wide = x.double() @ w.values.double().T
    if w.mins is not None or kind == "q4":
        # the minimum meets the sum of the rounded activations, so that quants and minimum lose the same
        allowed = allowed + step.double().sum(-1, keepdim=True) * w.values.double().abs().amax(-1)
    assert ((product(x, w).double() - wide).abs() <= allowed + 1e-9).all()


@pytest.mark.parametrize("kind", ["q4", "q8"])
def test_rounding_of_activations_is_far_below_that_of_bfloat16(kind: str) -> None:
    w = blocks(kind, 64, 320, with_mins=kind == "q4", seed=3)
    x = torch.randn(3, 320, generator=torch.Generator().manual_seed(4))
    wide = x.double() @ w.values.double().T
    assert (product(x, w).double() - wide).abs().max() / wide.abs().max() < 3e-5
    rough = x.bfloat16().double() @ w.values.double().T
    assert (rough - wide).abs().max() > 20 * (product(x, w).double() - wide).abs().max()


@pytest.mark.parametrize(("kind", "with_mins"), [("q4", True), ("q4", False), ("q8", False)])
def test_many_rows_meet_weights_made_dense_and_nothing_is_rounded(kind: str, with_mins: bool) -> None:
    w = blocks(kind, 72, 64, with_mins=with_mins, seed=7)
    x, b = torch.randn(2, MANY_ROWS // 2, 64), torch.randn(72)
    assert torch.allclose(product(x, w, b), torch.nn.functional.linear(x, w.values, b), rtol=1e-5, atol=1e-4)


def test_zeros_and_extremes_in_blocks() -> None:
    w = blocks("q8", 8, 64, with_mins=False, seed=5)
    x = torch.zeros(2, 64)
    x[1, 40] = 1e30
    found = product(x, w)
    assert (found[0] == 0).all()
    assert torch.allclose(found[1], w.values[:, 40] * 1e30, rtol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    """As in torch: whole numbers must not hide that a model overflowed."""
    weights: list[Any] = [torch.randn(16, 64).to(dtype) for dtype in DENSE]
    for w in (*weights, blocks("q4", 16, 64, with_mins=True, seed=1), blocks("q8", 16, 64, with_mins=False, seed=2)):
        x = torch.randn(3, 64)
        x[1, 33] = value
        finite = product(x, w).isfinite()
        assert finite[0].all()
        assert not finite[1].any()
        assert finite[2].all()


@pytest.mark.parametrize("flags", [["-march=x86-64"], ["-march=x86-64", "-fopenmp"]], ids=["plain", "threads"])
def test_the_same_source_without_avx2(tmp_path: Path, flags: list[str]) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("flags of an x86 compiler")
    sources = [str(Path(native.__file__).parent / name) for name in ("engine.cpp", "products.cpp")]
    command = [*(compiler() or []), "-O1", "-std=c++17", "-shared", "-fPIC", *flags, *sources]
    subprocess.run([*command, "-o", str(tmp_path / "plain.so")], check=True, capture_output=True)
    plain, fast = Library(str(tmp_path / "plain.so")), load()[0]
    for w in (
        *(torch.randn(19, 70, generator=torch.Generator().manual_seed(1)).to(dtype) for dtype in DENSE),
        blocks("q4", 16, 64, with_mins=True, seed=1), blocks("q8", 16, 64, with_mins=False, seed=2),
    ):  # fmt: skip
        held: Held = []
        matrix = describe(w, None, held)
        x = torch.randn(5, matrix.cols, generator=torch.Generator().manual_seed(2))
        out = [torch.empty(5, matrix.rows) for _ in range(2)]
        for library, y in zip((plain, fast), out, strict=True):
            library.product(ctypes.byref(matrix), x.data_ptr(), y.data_ptr(), 5, 2)
        assert torch.allclose(*out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_wrong_product_is_found_when_the_library_is_loaded(kind: int) -> None:
    library = load()[0]
    assert wrong_product(library) is None

    class Wrong:
        def product(self, matrix: Any, x: int, y: int, rows: int, threads: int) -> None:
            library.product(matrix, x, y, rows, threads)
            if matrix._obj.kind == kind:
                ctypes.cast(y, ctypes.POINTER(ctypes.c_float))[3] *= 1.02

    assert wrong_product(Wrong()) is not None
