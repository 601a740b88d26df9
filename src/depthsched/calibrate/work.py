"""The parts of one calibration, each a unit that is done once."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..adapters import Adapter
from ..bridge import Bridge
from ..order import keep_layers
from ..score.answers import Sample
from .corpus import Corpus
from .fit import FitSet, correction_sites
from .judge import Judge, Quality
from .options import Options
from .rank import choose_block, rank_greedily
from .units import Units

Say = Callable[[str], None]
SCOUTS = 6
MOST_HELD_OUT = 24  # enough to tell orders apart; every further prompt serves the fits better


@dataclass(frozen=True)
class Work:
    """What the parts share. Build it with :meth:`begin`, which runs every sample at full depth.

    Attributes
    ----------
    judge : Judge
        On held-out prompts.
    scout : Judge
        A small one for the many trials of the greedy ranking: a few prompts, the first half of their answers.
    fits : FitSet
    units : Units
    options : Options
    say : callable
    """

    judge: Judge
    scout: Judge
    fits: FitSet
    units: Units
    options: Options
    say: Say

    @classmethod
    def begin(cls, adapter: Adapter, samples: Sequence[Sample], units: Units, options: Options, say: Say) -> Work:
        held, fitted = split(samples, options)
        some = held[:: max(len(held) // SCOUTS, 1)][:SCOUTS]
        halves = [Sample(s.prompt, s.completion[: max(len(s.completion) // 2, 2)]) for s in some]
        say(f"full depth on {len(held)} held-out prompts")
        judge, scout = (
            Judge(Corpus(adapter, rows, units.folder / name)) for name, rows in (("held", held), ("scout", halves))
        )
        say(f"full depth on {len(fitted)} prompts to fit on")
        return cls(judge, scout, FitSet(Corpus(adapter, fitted, units.folder / "fit")), units, options, say)

    @property
    def layers(self) -> int:
        """Decoder layers of the model."""
        return self.judge.adapter.num_layers

    def order(self) -> tuple[list[int], dict[str, Any]]:
        """The better order at a third of the layers dropped, both bridged, and what was found."""
        drops = self.options.drops(self.layers)
        size = max(min(self.layers // 3, drops), 1)
        evidence: dict[str, Any] = {"judged_at_depth": self.layers - size, "orders": {}}
        candidates: dict[str, list[int]] = {}
        if "block" in self.options.orders:
            self.say("choosing a block")
            start, evidence["blocks"] = choose_block(self.fits, self.judge, size, self.units)
            candidates["block"] = _grown(start, drops, self.layers)
        if "ranked" in self.options.orders:
            self.say("ranking layer by layer")
            candidates["ranked"] = rank_greedily(self.scout, drops, self.units)
        for name, order in candidates.items():
            keep = keep_layers(order, self.layers - size, self.layers)
            plain = self.quality(f"plain-{name}", partial(self.judge.constant, keep))
            found, _ = self._fit(f"fit-{name}", keep, corrections=0)
            bridged = self.quality(f"bridged-{name}", partial(self.judge.constant, keep, found))
            evidence["orders"][name] = {"drop_order": order, "plain": plain._asdict(), "bridged": bridged._asdict()}
        chosen = min(candidates, key=lambda name: (evidence["orders"][name]["bridged"]["kl"], name))
        return candidates[chosen], {**evidence, "chosen": chosen}

    def bridges(self, drop_order: Sequence[int]) -> tuple[dict[int, dict[int, Bridge]], list[dict[str, Any]]]:
        """Bridges of every depth that the order reaches, and what each depth costs on held-out prompts."""
        found: dict[int, dict[int, Bridge]] = {}
        curve = []
        for depth in range(self.layers - 1, self.layers - len(drop_order) - 1, -1):
            keep = keep_layers(drop_order, depth, self.layers)
            self.say(f"bridges of depth {depth}")
            found[depth], about = self._fit(f"depth-{depth}", keep, self.options.corrections)
            quality = self.quality(f"kl-{depth}", partial(self.judge.constant, keep, found[depth]))
            curve.append({"depth": depth, **quality._asdict(), "fits": about})
        return found, curve

    def quality(self, name: str, compute: Callable[[], Quality]) -> Quality:
        """A quality, measured once."""
        return Quality(*self.units.value(name, lambda: list(compute())))

    def _fit(self, name: str, keep: Sequence[int], corrections: int) -> tuple[dict[int, Bridge], Any]:
        def compute() -> tuple[dict[str, Bridge], Any]:
            sites = correction_sites(keep, self.layers, corrections)
            bridges, fits = self.fits.fit_keep_set(keep, sites)
            about = [
                {"layer": layer, "ridge": fit.ridge, "unexplained": fit.unexplained}
                for layer, fit in zip(bridges, fits, strict=True)
            ]
            return {str(layer): bridge for layer, bridge in bridges.items()}, about

        found, about = self.units.bridges(name, compute)
        return {int(layer): bridge for layer, bridge in sorted(found.items(), key=lambda item: int(item[0]))}, about


def split(samples: Sequence[Sample], options: Options) -> tuple[list[Sample], list[Sample]]:
    """Held-out samples and samples to fit on, each in an order of its own."""
    shuffled = sorted(samples, key=lambda s: (s.prompt, s.completion))
    random.Random(options.seed).shuffle(shuffled)
    count = min(max(round(options.held_out * len(shuffled)), 2), len(shuffled) - 2, MOST_HELD_OUT)
    by_length: Callable[[Sample], Any] = lambda s: (len(s.prompt), s.prompt)  # noqa: E731
    return sorted(shuffled[:count], key=by_length), shuffled[count:]


def _grown(start: int, drops: int, layers: int) -> list[int]:
    """A block that grows upwards from ``start``, and below it once it meets the last layer."""
    above = list(range(start, layers - 1))[:drops]
    return above + list(range(start - 1, 0, -1))[: drops - len(above)]
