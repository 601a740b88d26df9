"""One matrix of weights in blocks of 32 along its columns, with eight rows side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError

BLOCK, GROUP = 32, 8
"""Weights that share a scale, and rows that lie side by side."""

_KINDS: dict[int, Literal["q4", "q8"]] = {128: "q4", 256: "q8"}  # bytes of the quants of one block of eight rows


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """A matrix ``[rows, columns]`` in blocks of 32 columns; the C++ kernels read this layout, little-endian.

    Attributes
    ----------
    quants : torch.Tensor
        uint8, contiguous, ``[rows / 8, columns / 32, 128]`` (4 bits) or ``[..., 256]`` (8 bits): lanes of 16 bits,
        ``[registers, 8 rows, 2 parities]``. With 4 bits lane (g, r, p) holds in bits 4j to 4j + 3 the quant, 0 to 15,
        of element ``8g + 2j + p`` of that block of row r; with 8 bits in byte j the int8 of element ``4g + 2j + p``.
    scales : torch.Tensor
        float16, contiguous, ``[rows / 8, columns / 32, 8]``, row innermost.
    mins : torch.Tensor or None
        float16, as ``scales``.

    Notes
    -----
    A weight is ``quant * scale + min`` with 4 bits and minima (Q4_1), ``(quant - 8) * scale`` with 4 bits alone (Q4_0)
    and ``quant * scale`` with 8 bits (Q8_0), in float32 and in this order of operations.

    Raises
    ------
    ModelError
        Shapes or dtypes are others.
    """

    quants: Tensor
    scales: Tensor
    mins: Tensor | None = None

    def __post_init__(self) -> None:
        groups = tuple(self.quants.shape[:2])
        halves = [self.scales] if self.mins is None else [self.scales, self.mins]
        right = (
            self.quants.dim() == 3
            and self.quants.dtype == torch.uint8
            and self.quants.shape[2] in _KINDS
            and all(half.dtype == torch.float16 and tuple(half.shape) == (*groups, GROUP) for half in halves)
            and all(part.is_contiguous() for part in (self.quants, *halves))
            and (self.mins is None or self.kind == "q4")
        )
        if not right:
            parts = ", ".join(
                f"{part.dtype} {list(part.shape)}".removeprefix("torch.") for part in (self.quants, *halves)
            )
            raise ModelError(f"these are not the blocks of a matrix: {parts}")

    @property
    def kind(self) -> Literal["q4", "q8"]:
        """``q4`` or ``q8``."""
        return _KINDS[self.quants.shape[2]]

    @property
    def rows(self) -> int:
        """Outputs of a linear layer, tokens of an embedding."""
        return self.quants.shape[0] * GROUP

    @property
    def columns(self) -> int:
        """Inputs of a linear layer."""
        return self.quants.shape[1] * BLOCK

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, columns)``."""
        return self.rows, self.columns

    @staticmethod
    def fits(rows: int, columns: int) -> bool:
        """Whether a matrix of this shape can lie in blocks; others stay dense."""
        return rows > 0 and columns > 0 and rows % GROUP == 0 and columns % BLOCK == 0

    @classmethod
    def from_gguf(cls, data: Any, kind: str) -> BlockMatrix:
        """Pack the bytes of a GGUF tensor.

        Parameters
        ----------
        data : array_like of uint8
            ``[rows, bytes of a row]``, as in the file.
        kind : str
            ``Q4_0``, ``Q4_1`` or ``Q8_0``.

        Raises
        ------
        ModelError
            Another type, or a shape that does not fit.
        """
        if kind not in _READERS:
            raise ModelError(f"GGUF tensors of type {kind} are not kept in blocks; {', '.join(_READERS)} are")
        size, read = _READERS[kind]
        raw = np.array(data, dtype=np.uint8)  # a copy: torch takes no read-only memory
        if raw.ndim != 2 or raw.shape[1] % size or not cls.fits(raw.shape[0], raw.shape[1] // size * BLOCK):
            raise ModelError(f"a {kind} tensor of {list(raw.shape)} bytes has no whole groups of {GROUP} rows")
        return read(torch.from_numpy(raw).view(raw.shape[0], -1, size))

    def dequantise(self, dtype: torch.dtype = torch.float32, rows: slice = slice(None)) -> Tensor:
        """The weights, ``[rows, columns]``: exact in float32, rounded once in another dtype.

        Parameters
        ----------
        dtype : torch.dtype
        rows : slice
            Of these rows only; without a step.
        """
        start, stop, step = rows.indices(self.rows)
        if step != 1:
            raise ValueError(f"rows {rows} must not have a step")
        first, last = start // GROUP, -(-max(stop, start) // GROUP)
        registers, scales, mins = self._by_row()
        values = self._values(
            registers[first:last].flatten(0, 1),
            scales[first:last].flatten(0, 1),
            None if mins is None else mins[first:last].flatten(0, 1),
        )
        offset = start - first * GROUP
        return values[offset : offset + max(stop - start, 0)].to(dtype)

    def rows_of(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Some rows, as an embedding looks them up: ``[..., columns]`` for integer ids ``[...]``.

        Raises
        ------
        IndexError
            There is no such row.
        """
        return self._values(*self._pick(ids.reshape(-1))).to(dtype).view(*ids.shape, self.columns)

    def permute_rows(self, order: Tensor) -> BlockMatrix:
        """The matrix whose row i is row ``order[i]`` of this one, exactly; ``len(order)`` is a multiple of 8."""
        return _pack(*self._pick(order))

    def _by_row(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Views by group, row and block: registers of four bytes ``[groups, 8, blocks, registers]``, scales, mins."""
        registers = self.quants.view(torch.int32).view(*self.scales.shape[:2], -1, GROUP).permute(0, 3, 1, 2)
        return registers, self.scales.transpose(1, 2), None if self.mins is None else self.mins.transpose(1, 2)

    def _pick(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        if rows.numel() and int(rows.min()) < 0:
            raise IndexError(f"row {int(rows.min())} is not in a matrix of {self.rows} rows")
        registers, scales, mins = (
            None if part is None else part[rows // GROUP, rows % GROUP] for part in self._by_row()
        )
        assert registers is not None and scales is not None  # noqa: PT018
        return registers, scales, mins

    def _blocks_at(self, places: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Registers ``[places, 1, n]``, scales and mins ``[places, 1]`` of the blocks around some weights."""
        rows = [place // self.columns for place in places]
        blocks = [place % self.columns // BLOCK for place in places]
        at = torch.tensor([[r // GROUP for r in rows], [r % GROUP for r in rows], blocks], dtype=torch.int64).unbind()
        registers, scales, mins = self._by_row()
        return registers[at][:, None], scales[at][:, None], None if mins is None else mins[at][:, None]

    def _values(self, registers: Tensor, scales: Tensor, mins: Tensor | None) -> Tensor:
        """Float32 ``[rows, columns]`` of registers ``[rows, blocks, n]``, scales and mins ``[rows, blocks]``."""
        lanes = registers.contiguous().view(torch.uint8).view(*registers.shape, 2, 2)  # [.., register, parity, byte]
        if self.kind == "q4":
            nibbles = torch.stack([lanes & 15, lanes >> 4], dim=-1)
            values = nibbles.permute(0, 1, 2, 4, 5, 3).flatten(2).to(torch.float32)
            if mins is None:
                values -= 8
        else:
            values = lanes.view(torch.int8).transpose(3, 4).flatten(2).to(torch.float32)
        values *= scales.to(torch.float32)[..., None]
        if mins is not None:
            values += mins.to(torch.float32)[..., None]
        return values.flatten(1)


def entries(wanted: Sequence[tuple[BlockMatrix, Sequence[int]]]) -> list[list[float]]:
    """Some weights of each of many matrices, by their places counted row by row.

    All blocks of a kind are made dense together: a sample of a model is few weights of hundreds of matrices.
    """
    found: list[list[float]] = [[] for _ in wanted]
    together: dict[tuple[str, bool], list[int]] = {}
    for index, (matrix, _) in enumerate(wanted):
        together.setdefault((matrix.kind, matrix.mins is not None), []).append(index)
    for members in together.values():
        parts = [wanted[i][0]._blocks_at(wanted[i][1]) for i in members]
        registers, scales, mins = ([p.cpu() for p in part if p is not None] for part in zip(*parts, strict=True))
        first = wanted[members[0]][0]
        values = first._values(torch.cat(registers), torch.cat(scales), torch.cat(mins) if mins else None).tolist()
        rows = iter(values)
        for i in members:
            found[i] = [next(rows)[place % BLOCK] for place in wanted[i][1]]
    return found


def _pack(registers: Tensor, scales: Tensor, mins: Tensor | None) -> BlockMatrix:
    """From registers ``[rows, blocks, registers]`` int32, scales and mins ``[rows, blocks]`` to rows side by side."""
    lanes = registers.view(-1, GROUP, *registers.shape[1:]).permute(0, 2, 3, 1).contiguous()
    return BlockMatrix(
        lanes.view(torch.uint8).flatten(2), _side_by_side(scales), None if mins is None else _side_by_side(mins)
    )


def _side_by_side(halves: Tensor) -> Tensor:
    """``[rows, blocks]`` to ``[groups, blocks, 8]``."""
    return halves.reshape(-1, GROUP, halves.shape[-1]).transpose(1, 2).contiguous()


def _halves(raw: Tensor, start: int) -> Tensor:
    """The float16 at a byte of every block, ``[rows, blocks]``."""
    return raw[..., start : start + 2].contiguous().view(torch.float16).squeeze(-1)


def _registers(lanes: Tensor) -> Tensor:
    """Lanes ``[rows, blocks, registers, parity, byte]`` as one int32 for each register."""
    return lanes.contiguous().flatten(-2).view(torch.int32).squeeze(-1)


def _four_bits(raw: Tensor) -> Tensor:
    """Registers of the last 16 bytes of every block: low nibbles are elements 0 to 15, high ones 16 to 31."""
    packed = raw[..., -16:]
    elements = torch.cat([packed & 15, packed >> 4], dim=-1)
    elements = elements.view(*raw.shape[:-1], 4, 2, 2, 2)  # [.., register, byte, half of the byte, parity]
    lanes = (elements[..., 0, :] | elements[..., 1, :] << 4).transpose(-1, -2)  # [.., register, parity, byte]
    return _registers(lanes)


def _eight_bits(raw: Tensor) -> Tensor:
    lanes = raw[..., 2:].reshape(*raw.shape[:-1], 8, 2, 2).transpose(-1, -2)  # [.., register, parity, byte]
    return _registers(lanes)


# Bytes of a block in the file, and how they are read.
_READERS: dict[str, tuple[int, Callable[[Tensor], BlockMatrix]]] = {
    "Q4_0": (18, lambda raw: _pack(_four_bits(raw), _halves(raw, 0), None)),
    "Q4_1": (20, lambda raw: _pack(_four_bits(raw), _halves(raw, 0), _halves(raw, 2))),
    "Q8_0": (34, lambda raw: _pack(_eight_bits(raw), _halves(raw, 0), None)),
}
KINDS = tuple(_READERS)
"""Types of GGUF tensors that are kept in blocks."""
