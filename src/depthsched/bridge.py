"""Bridges: affine maps that stand in for skipped runs of layers. Fitted in closed form, never trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Bridge:
    """``x <- x + x @ weight + bias``, applied to the state that enters a layer.

    Attributes
    ----------
    weight : torch.Tensor
        ``[hidden, hidden]``.
    bias : torch.Tensor
        ``[hidden]``.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """The state after the run, ``[..., hidden]`` as the one before it."""
        return hidden + torch.nn.functional.linear(hidden, self.weight.T, self.bias)

    def to(self, like: Any) -> Bridge:
        """This bridge in the ``dtype`` and on the ``device`` of a tensor or an adapter."""
        place = {"dtype": like.dtype, "device": like.device}
        return Bridge(self.weight.to(**place), self.bias.to(**place))

    @property
    def params(self) -> int:
        """Weights that one step reads."""
        return self.weight.numel() + self.bias.numel()


Bridges = Mapping[int, Mapping[int, Bridge]]
"""Depth -> layer whose input is bridged (the number of layers means: after the last) -> bridge."""


def prepared(bridges: Bridges | None, adapter: Any) -> Bridges:
    """Bridges in the dtype and on the device of a model's hidden states; a model that has no weights is refused."""
    like = torch.empty(0, dtype=adapter.dtype, device=adapter.device)
    return {depth: {i: b.to(like) for i, b in row.items()} for depth, row in (bridges or {}).items()}


def skipped_runs(keep: Sequence[int], num_layers: int) -> list[tuple[int, int]]:
    """The runs ``[first, last + 1)`` of layers that are not kept, bottom first."""
    kept = set(keep)
    runs: list[tuple[int, int]] = []
    for layer in range(num_layers):
        if layer in kept:
            continue
        if runs and runs[-1][1] == layer:
            runs[-1] = (runs[-1][0], layer + 1)
        else:
            runs.append((layer, layer + 1))
    return runs
