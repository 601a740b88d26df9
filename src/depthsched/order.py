"""Which layers go first. Knows no torch and no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .classes import ranked_by
from .errors import SettingsError
from .hookspecs import hookimpl
from .settings import Settings, setting


@dataclass(frozen=True)
class LayerOrder(Settings):
    """A ranking of the layers that may be dropped (the *flex* layers), first dropped first.

    Subclass it as a frozen dataclass and write :meth:`rank`. Layers that are not ranked are *core* layers and
    always run. Keep sets are nested by construction: fewer layers are always a subset of more.
    """

    kind: ClassVar[str] = "order"

    def rank(self, num_layers: int) -> Sequence[int]:
        """The droppable layers of a model of ``num_layers`` layers, first dropped first.

        Returns
        -------
        sequence of int
            Distinct indices in ``[0, num_layers)``.
        """
        raise SettingsError(f"order {self.name!r} does not define rank(self, num_layers); add the method")

    def resolve(self, num_layers: int) -> tuple[int, ...]:
        """:meth:`rank`, checked.

        Raises
        ------
        SettingsError
            The ranking fails, or is not a list of distinct layer indices of the model.
        """
        ranked = ranked_by(self, "num_layers", num_layers, str(num_layers))
        if not all(isinstance(layer, int) for layer in ranked):
            raise SettingsError(f"order {self.name!r} returned {ranked!r}; return layer indices")
        outside = [layer for layer in ranked if not 0 <= layer < num_layers]
        if outside:
            raise SettingsError(f"order {self.name!r}: layer {outside[0]} is not in 0..{num_layers - 1}")
        if len(set(ranked)) != len(ranked):
            raise SettingsError(f"order {self.name!r}: a layer appears twice in {'+'.join(map(str, ranked))}")
        return ranked

    def keep(self, depth: int, num_layers: int) -> tuple[int, ...]:
        """The layers that run at a depth, rising. Never fewer than the core layers."""
        return keep_layers(self.resolve(num_layers), depth, num_layers)


def keep_layers(drop_order: Sequence[int], depth: int, num_layers: int) -> tuple[int, ...]:
    """``0..num_layers-1`` without the first ``num_layers - depth`` layers of ``drop_order``."""
    dropped = set(drop_order[: max(num_layers - depth, 0)])
    return tuple(layer for layer in range(num_layers) if layer not in dropped)


def _flex(num_layers: int, head: int, tail: int) -> list[int]:
    return list(range(head, num_layers - tail))


@dataclass(frozen=True)
class MiddleOut(LayerOrder):
    """Drop from the middle of the stack outwards; ``head`` and ``tail`` layers at its ends always run.

    The core and flex layers of D3 (https://arxiv.org/abs/2503.08524). The paper leaves the sizes of head and
    tail and the order between them open; here the dropped layers are one block that grows both ways.
    """

    head: int = setting(2, low=0, high=10**6, help="core layers at the bottom")
    tail: int = setting(2, low=0, high=10**6, help="core layers at the top")

    def rank(self, num_layers: int) -> Sequence[int]:
        flex = _flex(num_layers, self.head, self.tail)
        middle = (flex[0] + flex[-1]) / 2 if flex else 0
        return sorted(flex, key=lambda layer: (abs(layer - middle), layer))


@dataclass(frozen=True)
class EarlyExit(LayerOrder):
    """Drop from the top down: what early exit and prefix drafts do. The first ``head`` layers always run."""

    name: ClassVar[str] = "early-exit"

    head: int = setting(1, low=0, high=10**6, help="core layers at the bottom")

    def rank(self, num_layers: int) -> Sequence[int]:
        return _flex(num_layers, self.head, 0)[::-1]


@dataclass(frozen=True)
class Strided(LayerOrder):
    """Drop layers evenly spread between head and tail.

    Each layer dropped is the one farthest from those already dropped and from the core, so that every depth
    keeps an even spread and the keep sets stay nested. The evenly spread keep sets of unified layer skipping
    (https://arxiv.org/abs/2404.06954) are not nested.
    """

    head: int = setting(1, low=0, high=10**6, help="core layers at the bottom")
    tail: int = setting(1, low=0, high=10**6, help="core layers at the top")

    def rank(self, num_layers: int) -> Sequence[int]:
        flex = _flex(num_layers, self.head, self.tail)
        taken = [self.head - 1, num_layers - self.tail]
        ranked: list[int] = []
        while flex:
            far = max(flex, key=lambda layer: (min(abs(layer - other) for other in taken), -layer))
            flex.remove(far)
            taken.append(far)
            ranked.append(far)
        return ranked


@dataclass(frozen=True)
class Listed(LayerOrder):
    """An explicit list of droppable layers, first dropped first: ``list:layers=3+4+5``."""

    name: ClassVar[str] = "list"

    layers: tuple[int, ...] = setting(low=0, high=10**6, help="droppable layers joined by +, first dropped first")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.layers)) != len(self.layers):
            raise SettingsError(f"order {self.name!r}: a layer appears twice in {'+'.join(map(str, self.layers))}")

    def rank(self, num_layers: int) -> Sequence[int]:
        outside = [layer for layer in self.layers if layer >= num_layers]
        if outside:
            raise SettingsError(f"order {self.name!r}: layer {outside[0]} is not in 0..{num_layers - 1}")
        return self.layers


@dataclass(frozen=True)
class Ranked(LayerOrder):
    """The order that calibration found: ``ranked`` with a profile fills the layers in.

    Without a profile, or with ``bridges=false``, nothing stands in for the skipped layers.
    """

    layers: tuple[int, ...] = setting(low=0, high=10**6, help="droppable layers joined by +; filled in from a profile")
    bridges: bool = setting(True, help="whether the bridges of the profile stand in for skipped layers")

    def rank(self, num_layers: int) -> Sequence[int]:
        return Listed(self.layers).rank(num_layers)


@hookimpl
def register_orders(register: Callable[[type[LayerOrder]], None]) -> None:
    """Offer the built-in orders."""
    for order in (MiddleOut, EarlyExit, Strided, Listed, Ranked):
        register(order)
