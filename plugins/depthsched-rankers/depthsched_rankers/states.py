"""Rankers that compare full-depth states: ShortGPT (arXiv 2403.03853) and UIDL (arXiv 2403.17887)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import depthsched as ds
from depthsched.errors import SettingsError

if TYPE_CHECKING:
    import torch

    from depthsched.calibrate import Study

Block = tuple[int, int]
"""Layers ``[first, end)``."""


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of rows ``[..., hidden]``, in float64: near 1 the angle is ill-conditioned."""
    import torch

    return torch.cosine_similarity(a.double(), b.double(), dim=-1).clamp(-1, 1)


def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Angular distance of rows, ``arccos(cos) / pi``: 0 for the same direction, 1 for opposite ones."""
    return cosine(a, b).arccos() / math.pi


@dataclass(frozen=True)
class ShortGPT(ds.LayerRanker):
    """The layers that turn the state least go first.

    ShortGPT (https://arxiv.org/abs/2403.03853) ranks layers by their block influence,
    ``BI_i = 1 - mean_t cos(x_i, x_(i+1))``, with ``x_i`` the state of a token that enters layer i, and removes those of
    the least. ``measure=angle`` takes ``mean_t arccos(cos(x_i, x_(i+1))) / pi`` in its place, which weighs small turns
    more.

    What differs here: ShortGPT removes layers for good, from the prompt as well; in depthsched the prompt runs at full
    depth and the layers are left out while decoding. So the tokens are the decode steps of the model's own answers,
    not all positions of a book.

    What the paper leaves open, and what is chosen here: the first and the last layer always run, whatever their
    influence; of equal influences the lower layer goes first.
    """

    name: ClassVar[str] = "shortgpt"

    measure: Literal["cosine", "angle"] = ds.setting("cosine", help="cosine, or angle for the angular distance")

    def rank(self, study: Study) -> Sequence[int]:
        influence = dict.fromkeys(study.droppable, 0.0)
        for batch in study.fitted.batches:
            for layer in influence:
                ends = batch.get(layer), batch.get(layer + 1)
                turned = angle(*ends) if self.measure == "angle" else 1 - cosine(*ends)
                influence[layer] += float(turned.sum()) / study.fitted.tokens
        study.evidence[self.spec()] = {str(layer): value for layer, value in influence.items()}
        return sorted(influence, key=lambda layer: (influence[layer], layer))


@dataclass(frozen=True)
class Uidl(ds.LayerRanker):
    """The block of n layers whose ends are closest goes, grown one layer at a time.

    UIDL (https://arxiv.org/abs/2403.17887, "The Unreasonable Ineffectiveness of the Deeper Layers") removes the n
    contiguous layers ``[l, l + n)`` of the least ``d(l, n) = mean arccos(cos(x_l, x_(l+n))) / pi``, with ``x_l`` the
    state of a text's last token that enters layer l.

    Nested or not: the blocks of two sizes need not lie within each other, and an order drops layers one by one. So the
    block of ``n`` layers is UIDL's own, and every other size is the best that nests with it: below n one end of the
    block stays, above n one more layer beyond an end goes, in both cases that with the smaller distance. The profile's
    evidence has for every size the block here and UIDL's own, with their distances: where the two differ the order is
    not UIDL's. Calibrate with ``n`` at the depth that you will run to have the published block there.

    What differs here: the layers are left out while decoding only, and the paper's healing (QLoRA) is not done; a
    calibration puts bridges there. The texts are the answers of a calibration, and the last token is the last one that
    a decode step runs.

    What the paper leaves open, and what is chosen here: the first and the last layer always run, so a block lies
    between them; of equal distances the lower block is taken.
    """

    name: ClassVar[str] = "uidl"

    n: int | None = ds.setting(None, low=1, high=10**6, help="layers of the published block; left out: a third")

    def rank(self, study: Study) -> Sequence[int]:
        most = len(study.droppable)
        size = study.judged if self.n is None else self.n
        if size > most:
            raise SettingsError(f"n={size} layers do not fit between the first and the last of {study.num_layers}")
        distance = distances(study)
        chain = nested(distance, size, most)
        study.evidence[self.spec()] = [_compared(block, distance) for block in chain]
        order: list[int] = []
        for first, end in chain:
            order += [layer for layer in range(first, end) if layer not in order]
        return order


def distances(study: Study) -> dict[Block, float]:
    """The mean angular distance between the ends of every block that may be dropped, at the last token of each text."""
    import torch

    ends, batches = range(1, study.num_layers), study.fitted.batches
    states = {
        layer: torch.stack([rows[-1] for batch in batches for rows in batch.get(layer).split(batch.counts)])
        for layer in ends
    }
    return {(a, b): float(angle(states[a], states[b]).mean()) for a in ends for b in ends if a < b}


def closest(distance: Mapping[Block, float], size: int) -> Block:
    """The block of so many layers whose ends are closest."""
    return min((block for block in distance if block[1] - block[0] == size), key=lambda b: (distance[b], b))


def nested(distance: Mapping[Block, float], size: int, most: int) -> list[Block]:
    """Blocks of 1 to ``most`` layers, each within the next; that of ``size`` layers is the closest one of its size."""
    first, end = closest(distance, size)
    inner, outer = [(first, end)], [(first, end)]
    while inner[0][1] - inner[0][0] > 1:
        first, end = inner[0]
        inner.insert(0, min((first, end - 1), (first + 1, end), key=lambda b: (distance[b], b)))
    while outer[-1][1] - outer[-1][0] < most:
        first, end = outer[-1]
        wider = [block for block in ((first - 1, end), (first, end + 1)) if block in distance]
        outer.append(min(wider, key=lambda b: (distance[b], b)))
    return inner + outer[1:]


def _compared(block: Block, distance: Mapping[Block, float]) -> dict[str, object]:
    """What the evidence says about one size: the block that nests, and UIDL's own."""
    own = closest(distance, block[1] - block[0])
    return {
        "layers": list(range(*block)),
        "distance": distance[block],
        "published": list(range(*own)),
        "published_distance": distance[own],
    }
