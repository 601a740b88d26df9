"""A small product with every kind of weight, against torch: asked of the library each time that it is loaded."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..blocks.matrix import BlockMatrix
from .structs import KINDS, MatrixStruct

_ROWS, _INPUTS, _OUTPUTS = 5, 64, 16
_ALLOWED = 1e-4
"""Of the largest output: ten times what 16 bits for an activation cost, and a thousandth of a wrong weight."""


def wrong_product(library: Any) -> str | None:
    """The first kind of weight whose product is not that of torch; None where all are right."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(_ROWS, _INPUTS, generator=random)
    for kind, matrix, values in _examples(random):
        found = torch.empty(_ROWS, _OUTPUTS)
        library.product(ctypes.byref(matrix), x.data_ptr(), found.data_ptr(), _ROWS, 1)
        wanted = x.double() @ values.double().T
        if not (found.double() - wanted).abs().max() <= _ALLOWED * wanted.abs().max():
            return kind
    return None


def _examples(random: torch.Generator) -> Iterator[tuple[str, MatrixStruct, Tensor]]:
    dense = torch.randn(_OUTPUTS, _INPUTS, generator=random)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        held = dense.to(dtype)
        kind = str(dtype).removeprefix("torch.")
        yield kind, MatrixStruct(KINDS.index(kind), *held.shape, 0, held.data_ptr()), held
    for name, size in (("Q4_0", 18), ("Q4_1", 20), ("Q8_0", 34)):
        blocks = torch.randint(0, 256, (_OUTPUTS, _INPUTS // 32, size), generator=random, dtype=torch.uint8)
        halves = torch.rand(_OUTPUTS, _INPUTS // 32, 2, generator=random).half().view(torch.uint8)
        blocks[..., : 4 if name == "Q4_1" else 2] = halves[..., : 4 if name == "Q4_1" else 2]
        matrix = BlockMatrix.from_gguf(blocks.reshape(_OUTPUTS, -1).numpy(), name)
        mins = None if matrix.mins is None else matrix.mins.data_ptr()
        place = matrix.quants.data_ptr(), matrix.scales.data_ptr(), mins
        yield name, MatrixStruct(KINDS.index(matrix.kind), _OUTPUTS, _INPUTS, 0, *place), matrix.dequantise()
    whole = torch.randint(-128, 128, (_OUTPUTS, _INPUTS), generator=random, dtype=torch.int8)
    scales = torch.rand(_OUTPUTS, generator=random)
    place = whole.data_ptr(), scales.data_ptr(), None
    yield "int8", MatrixStruct(KINDS.index("int8"), _OUTPUTS, _INPUTS, 0, *place), whole.float() * scales[:, None]
