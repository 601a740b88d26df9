"""The C structures of ``engine.cpp`` and ``products.h``, field by field."""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_float, c_int32, c_int64, c_void_p

KINDS = ("float32", "bfloat16", "float16", "q4", "q8", "int8")
"""What a matrix is stored as; the index is the ``kind`` of the C side."""

RUN, WRITE, BRIDGE = range(3)
"""Operations of a program."""


REDUCE = ctypes.CFUNCTYPE(c_int32, c_void_p, c_int64)
"""Sums so many float32 over the ranks, in place; 0, or another number where that failed."""


class MatrixStruct(Structure):
    """``struct Matrix``."""

    _fields_ = (
        ("kind", c_int32), ("rows", c_int32), ("cols", c_int32), ("first", c_int32),
        ("data", c_void_p), ("scales", c_void_p), ("mins", c_void_p), ("bias", c_void_p),
    )  # fmt: skip


MATRICES = ("q", "k", "v", "out", "gate", "up", "down")
VECTORS = ("norm1", "norm2", "q_norm", "k_norm")


class LayerStruct(Structure):
    """``struct Layer``."""

    _fields_ = (*((name, MatrixStruct) for name in MATRICES), *((name, c_void_p) for name in VECTORS))


class ModelStruct(Structure):
    """``struct Model``."""

    _fields_ = (
        *((name, c_int32) for name in ("hidden", "heads", "kv_heads", "width", "inner", "dtype", "vocabulary")),
        ("eps", c_float), ("scale", c_float), ("embedding", MatrixStruct), ("head", MatrixStruct),
        ("norm", c_void_p), ("layers", ctypes.POINTER(LayerStruct)), ("bridges", ctypes.POINTER(MatrixStruct)),
    )  # fmt: skip


class PassStruct(Structure):
    """``struct Pass``."""

    _fields_ = (
        *((name, c_int32) for name in ("tokens", "outputs", "steps", "threads")),
        *((name, c_void_p) for name in ("ids", "rows", "slots", "starts", "program", "wanted", "cos", "sin")),
        ("keys", c_void_p), ("values", c_void_p), ("capacity", c_int64), ("logits", c_void_p), ("reduce", REDUCE),
    )  # fmt: skip
