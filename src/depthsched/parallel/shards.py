"""This rank's part of a weight, as a plain tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .ranks import Ranks


def is_shard(weight: Any) -> bool:
    """Whether a weight is split over ranks."""
    return hasattr(weight, "placements") and hasattr(weight, "to_local")


def local(weight: Any) -> Any:
    """What of a weight lies here: all of it where it is not split."""
    return weight.to_local() if is_shard(weight) else weight


def split_dimension(weight: Any) -> int | None:
    """The dimension in which a weight is split over ranks; None where every rank has all of it.

    Raises
    ------
    ValueError
        It is split in more than one, or in another way than in equal runs of rows or columns.
    """
    if not is_shard(weight) or all(p.is_replicate() for p in weight.placements):
        return None
    (placement,) = weight.placements
    if type(placement).__name__ != "Shard":
        raise ValueError(f"split as {placement}")
    return int(placement.dim % weight.dim())


def first_of(size: int, ranks: Ranks) -> int:
    """Where this rank's part begins of a dimension that is split over ranks."""
    return min(-(-size // ranks.size) * ranks.rank, size)


def bounds(size: int, ranks: Ranks) -> tuple[int, int]:
    """Where this rank's part of a dimension begins and ends."""
    first = first_of(size, ranks)
    return first, min(first + -(-size // ranks.size), size)


def entries(weight: Any, places: Sequence[int], ranks: Ranks) -> Tensor:
    """Values of a matrix at some places, counted row by row, float32; those that lie with other ranks are 0."""
    dimension, (rows, columns) = split_dimension(weight), weight.shape
    at = torch.tensor(list(places))
    row, column = at // columns, at % columns
    held = local(weight).detach()
    if dimension is not None:
        moved = row if dimension == 0 else column
        moved -= first_of(rows if dimension == 0 else columns, ranks)
        here = (moved >= 0) & (moved < held.shape[dimension])
    else:
        here = torch.full((len(at),), ranks.rank == 0)
    found = torch.zeros(len(at))
    found[here] = held[row[here].to(held.device), column[here].to(held.device)].float().cpu()
    return found
