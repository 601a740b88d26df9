"""Linear layers and embeddings whose weights lie in blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..native.matrix import can_load, product
from .matrix import BlockMatrix

_CHUNK = 1 << 22
"""Weights dequantised at a time, so that a large head is never whole in float32."""


class _Blocks(nn.Module):
    """A matrix as buffers; its scales and minima stay float16 whatever dtype the model is given."""

    quants: Tensor
    scales: Tensor
    mins: Tensor | None

    def __init__(self, matrix: BlockMatrix) -> None:
        super().__init__()
        for name in ("quants", "scales", "mins"):
            self.register_buffer(name, getattr(matrix, name))

    @property
    def matrix(self) -> BlockMatrix:
        """The weights; a view of this module's buffers."""
        return BlockMatrix(self.quants, self.scales, self.mins)

    @property
    def weight(self) -> Tensor:
        """The weights in float32, ``[rows, columns]``: a new tensor at every call."""
        return self.matrix.dequantise()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move to another device, but not to another dtype: ``.to(dtype)`` leaves integers as they are."""
        halves = [name for name in ("scales", "mins") if self._buffers[name] is not None]
        self._as(torch.int16, halves)
        try:
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            self._as(torch.float16, halves)

    def _as(self, dtype: torch.dtype, names: list[str]) -> None:
        for name in names:
            half = self._buffers[name]
            assert half is not None
            self._buffers[name] = half.view(dtype)


class BlockLinear(_Blocks):
    """A linear layer on weights in blocks; computes in float32 and returns the dtype that it is given.

    Parameters
    ----------
    matrix : BlockMatrix
        ``[out_features, in_features]``; its tensors become buffers and are not copied.
    bias : torch.Tensor, optional
        ``[out_features]``.
    """

    def __init__(self, matrix: BlockMatrix, bias: Tensor | None = None) -> None:
        super().__init__(matrix)
        self.in_features, self.out_features = matrix.columns, matrix.rows
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        output = _product(hidden, self.matrix)
        if self.bias is not None:
            output += self.bias.to(torch.float32)
        return output.to(hidden.dtype)

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        kind = self.matrix.kind
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, {kind}"


class BlockEmbedding(_Blocks):
    """An embedding on weights in blocks.

    Parameters
    ----------
    matrix : BlockMatrix
        ``[num_embeddings, embedding_dim]``; may share its tensors with the LM head.
    dtype : torch.dtype
        Of what :meth:`forward` returns; follows ``model.to(dtype)``.
    """

    def __init__(self, matrix: BlockMatrix, dtype: torch.dtype) -> None:
        super().__init__(matrix)
        self.num_embeddings, self.embedding_dim = matrix.rows, matrix.columns
        self.register_buffer("like", torch.empty(0, dtype=dtype), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Integer ids ``[...]`` to ``[..., embedding_dim]``."""
        like: Any = self.like
        return self.matrix.rows_of(ids, like.dtype)

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.matrix.kind}"


def _product(hidden: Tensor, matrix: BlockMatrix) -> Tensor:
    """``hidden @ matrix.T``, ``[..., columns]`` to ``[..., rows]``: by the compiled library where it can, in float32.

    The library rounds activations to 16 bits within a block of 32; gradients need the dense product.
    """
    if hidden.device.type == "cpu" and not hidden.requires_grad and can_load():
        return product(hidden, matrix)
    hidden = hidden.to(torch.float32)
    step = max(_CHUNK // matrix.columns // 8, 1) * 8
    parts = [
        nn.functional.linear(hidden, matrix.dequantise(rows=slice(start, start + step)))
        for start in range(0, matrix.rows, step)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def block_matrices(model: nn.Module) -> dict[str, BlockMatrix]:
    """Matrices in blocks, by the names that their weights have in a dense copy; a shared one under its first name."""
    found: dict[int, tuple[str, BlockMatrix]] = {}
    for name, module in model.named_modules():
        if isinstance(module, _Blocks):
            place = id(module.quants) if module.quants.is_meta else module.quants.data_ptr()
            found.setdefault(place, (f"{name}.weight", module.matrix))
    return dict(found.values())


def weights_form(model: nn.Module) -> str:
    """``native`` for a model with weights in blocks, else ``dense``."""
    return "native" if any(isinstance(module, _Blocks) for module in model.modules()) else "dense"


def refuse_saving(*_: Any, **__: Any) -> None:
    """In place of ``save_pretrained``, whose files transformers could not load again.

    Raises
    ------
    ModelError
    """
    raise ModelError("a model with native weights is its GGUF file; load it with weights='dense' to save a copy")
