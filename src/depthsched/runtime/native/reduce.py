"""Sums over the ranks that share a model, for the library to call in the middle of a pass."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from ...native.structs import REDUCE
from ...parallel.ranks import Ranks


class Reduce:
    """What the library calls after the products of which each rank has a part.

    Attributes
    ----------
    pointer
        The function; it lives as long as this object.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.error: BaseException | None = None
        self.pointer = REDUCE(self._sum)

    def _sum(self, address: int, count: int) -> int:
        try:
            self.ranks.reduce(torch.frombuffer((ctypes.c_float * count).from_address(address), dtype=torch.float32))
        except BaseException as error:  # nothing may pass through the library; the pass ends, and whole() raises it
            self.error = error
            return 1
        return 0

    def whole(self, logits: Tensor, vocabulary: int) -> Tensor:
        """Logits ``[outputs, vocabulary]`` of a pass, from this rank's part of their columns.

        Raises
        ------
        Exception
            What the sums of the pass ran into.
        """
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if not len(logits):
            return logits.new_empty(0, vocabulary)
        return logits if logits.shape[1] == vocabulary else self.ranks.gather_columns(logits, vocabulary)
