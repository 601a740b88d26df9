"""Where weights lie, told to the library; and single products with them."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from ..blocks.torchao import int8_rows
from .library import Library, Scratch, load, obstacle
from .structs import KINDS, MatrixStruct

MANY_ROWS = 96
"""Rows of activations from which making weights dense repays: torch's product is then the faster one."""

_CHUNK = 1 << 22
"""Weights made dense at a time."""

Held = list[Any]
"""Tensors that must live as long as a structure that points into them."""


def kind_of(dtype: torch.dtype) -> int:
    """The ``kind`` of a floating dtype."""
    return KINDS.index(str(dtype).removeprefix("torch."))


def vector(values: Tensor | None, held: Held) -> int | None:
    """The address of a copy of a vector in float32, or None."""
    if values is None:
        return None
    copy = values.detach().to(torch.float32).contiguous()
    held.append(copy)
    return int(copy.data_ptr())


def describe(weight: Any, bias: Tensor | None, held: Held) -> MatrixStruct:
    """The structure of a weight ``[outputs, inputs]``: a dense tensor, used where it lies, one of
    torchao's in int8, or a ``BlockMatrix``."""
    held.append(weight)
    address = vector(bias, held)
    whole = int8_rows(weight) if isinstance(weight, Tensor) else None
    if whole is not None:
        values, scales = (part.detach().contiguous() for part in whole)
        held.extend((values, scales))
        return MatrixStruct(
            KINDS.index("int8"), *values.shape, 0, values.data_ptr(), scales.data_ptr(), None, address
        )  # fmt: skip
    if isinstance(weight, Tensor):
        dense = weight.detach()
        if not dense.is_contiguous():
            dense = dense.contiguous()
            held.append(dense)
        return MatrixStruct(kind_of(dense.dtype), *dense.shape, 0, dense.data_ptr(), None, None, address)
    mins = None if weight.mins is None else weight.mins.data_ptr()
    return MatrixStruct(
        KINDS.index(weight.kind), weight.rows, weight.columns, 0,
        weight.quants.data_ptr(), weight.scales.data_ptr(), mins, address,
    )  # fmt: skip


def can_load() -> bool:
    """Whether this process has the library; made if need be."""
    return obstacle() is None


def product(x: Tensor, weight: Any, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``, computed from float32 activations on the CPU.

    Parameters
    ----------
    x : Tensor
        ``[..., inputs]``, any floating dtype.
    weight : Tensor or BlockMatrix
        ``[outputs, inputs]``.
    bias : Tensor, optional
        ``[outputs]``.

    Returns
    -------
    Tensor
        ``[..., outputs]`` in the dtype of ``x``.

    Raises
    ------
    ModelError
        The library cannot be compiled.
    """
    library, _ = load()
    held: Held = []
    matrix = describe(weight, bias, held)
    rows = x.detach().reshape(-1, x.shape[-1]).to(torch.float32).contiguous()
    threads = torch.get_num_threads()
    if len(rows) >= MANY_ROWS and matrix.kind >= KINDS.index("q4"):
        out = _many(library, matrix, rows, bias, threads)
    else:
        out = torch.empty(len(rows), matrix.rows)
        library.product(ctypes.byref(matrix), rows.data_ptr(), out.data_ptr(), len(rows), threads)
    return out.to(x.dtype).view(*x.shape[:-1], matrix.rows)


def _many(library: Library, matrix: MatrixStruct, x: Tensor, bias: Tensor | None, threads: int) -> Tensor:
    """The product of many rows: torch's own, on weights that are made dense a part at a time. Exact in float32."""
    step = max(_CHUNK // matrix.cols // 8, 1) * 8
    parts = []
    for first in range(0, matrix.rows, step):
        last = min(first + step, matrix.rows)
        dense = torch.empty(last - first, matrix.cols)
        library.dense(ctypes.byref(matrix), first, last, dense.data_ptr(), threads)
        parts.append(torch.nn.functional.linear(x, dense))
    whole = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    return whole if bias is None else whole + bias.to(torch.float32)


__all__ = ["Held", "Library", "Scratch", "can_load", "describe", "kind_of", "load", "product", "vector"]
