"""What torchao's weight-only tensors hold, read without importing torchao."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_ACTIVATIONS = ("act_quant_kwargs", "act_quant_scale", "act_pre_scale", "activation_quantization")


def int8_rows(weight: Any) -> tuple[Tensor, Tensor] | None:
    """Quants and scales of an int8 weight with one scale for each row.

    Parameters
    ----------
    weight : torch.Tensor
        Of any kind.

    Returns
    -------
    tuple or None
        int8 ``[out, in]`` and float32 ``[out]``; their product, rounded to the dtype of the weight, is its
        ``dequantize()``. None for any other tensor: other groups, a zero point, or quantised activations.
    """
    if not _is(weight, "Int8Tensor") or not _one_scale_for(weight, weight.shape[-1]):
        return None
    if weight.zero_point is not None and bool(weight.zero_point.any()):
        return None
    return weight.qdata, weight.scale.reshape(-1).to(torch.float32)


def int4_groups(weight: Any) -> tuple[Tensor, Tensor, Tensor] | None:
    """Quants, scales and zero points of an int4 weight with one scale for each group of a row.

    Returns
    -------
    tuple or None
        int8 ``[out, in]`` of -8 to 7, float32 and int8 ``[out, groups]``; ``(quant - zero) * scale``, rounded to the
        dtype of the weight, is its ``dequantize()``. None for any other tensor.
    """
    if not _is(weight, "IntxUnpackedToInt8Tensor") or str(weight.target_dtype) != "torch.int4":
        return None
    if not _one_scale_for(weight, weight.block_size[-1]) or weight.zero_point.dtype != torch.int8:
        return None
    return weight.qdata, weight.scale.to(torch.float32), weight.zero_point


def _is(weight: Any, name: str) -> bool:
    kind = type(weight)
    return kind.__module__.startswith("torchao.") and kind.__name__ == name and weight.dim() == 2


def _one_scale_for(weight: Any, columns: int) -> bool:
    """Whether only weights are quantised, with one scale for so many columns of one row."""
    plain = all(getattr(weight, name, None) is None for name in _ACTIVATIONS)
    return plain and list(weight.block_size) == [1, columns]
