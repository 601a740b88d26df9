"""Unified layer skipping (arXiv 2404.06954) for depthsched: its fixed set of layers for a wanted speed-up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import depthsched as ds

API = 1


@dataclass(frozen=True)
class Unified(ds.LayerOrder):
    """The layers that unified layer skipping runs for a target speed-up always run; the others may be dropped.

    The method (https://arxiv.org/abs/2404.06954) has one fixed set of about ``L / target`` layers for all tokens
    after a prefill at full depth. Use it with a constant depth, which is clipped to that set:
    ``constant:depth=1@unified:target=1.5``.

    - ``variant=published`` is the rule of the published code: both ends, then every k-th layer from the bottom
      until the set is full. Below 2x it fills up at the bottom: 32 layers at 1.5x give 0 to 19 and 31.
    - ``variant=even`` spreads the same number of layers evenly: ``round(j * (L - 1) / (k - 1))``.

    The sets of two targets are not nested, so a decay cannot walk from one to the next. Between full depth and
    the set of the target the method says nothing; here the layers go from the top down.
    """

    target: float = ds.setting(1.5, low=1, high=1000, help="wanted speed-up, counted in layers")
    variant: Literal["published", "even"] = ds.setting("published", help="published or even")

    def rank(self, num_layers: int) -> Sequence[int]:
        count = int(num_layers / self.target)
        keep = (published_layers if self.variant == "published" else even_layers)(num_layers, count)
        return [layer for layer in reversed(range(num_layers)) if layer not in keep]


def published_layers(num_layers: int, count: int) -> set[int]:
    """The first and the last layer, then every k-th one from the bottom until there are ``count``."""
    keep = {0, num_layers - 1}
    if count > 2:
        stride = int(num_layers / (count - 2 + 1))
        between = [layer for layer in range(1, num_layers - 1) if layer % stride == 0]
        keep.update(between[: count - 2])
    return keep


def even_layers(num_layers: int, count: int) -> set[int]:
    """``count`` layers from the first to the last, evenly spread; both ends at least."""
    last = max(count, 2) - 1
    return {round(j * (num_layers - 1) / last) for j in range(last + 1)}


@ds.hookimpl
def register_orders(register: Callable[[type[ds.LayerOrder]], None]) -> None:
    """Offer the order ``unified``."""
    register(Unified)
