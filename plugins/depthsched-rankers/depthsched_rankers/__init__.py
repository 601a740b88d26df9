"""Published rules for which layers a model can spare, as rankers of depthsched."""

from collections.abc import Callable

import depthsched as ds

from .removal import Sleb
from .states import ShortGPT, Uidl
from .sublayers import AdaSkip, ConfLayers

API = 1

RANKERS: tuple[type[ds.LayerRanker], ...] = (ShortGPT, Uidl, Sleb, AdaSkip, ConfLayers)


@ds.hookimpl
def register_rankers(register: Callable[[type[ds.LayerRanker]], None]) -> None:
    """Offer every ranker of this package."""
    for ranker in RANKERS:
        register(ranker)
