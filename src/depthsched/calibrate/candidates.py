"""Orders that compete, and the bridges of the one that wins; every part is done once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..bridge import Bridge
from ..files import digest, json_digest
from ..order import keep_layers
from ..plans import DepthPlan
from ..ranker import LayerRanker
from .fit import correction_sites, fit_keep_set
from .judge import ByStep, Quality, judge_constant, judge_plan, judge_steps, mean
from .refine import refine
from .study import Study

Say = Callable[[str], None]


@dataclass(frozen=True)
class Search:
    """The parts of one calibration, each made of units that are done once.

    Attributes
    ----------
    study : Study
        The samples, which judge and which bridges are fitted on.
    say : callable
    refine : int
        Passes that refine the bridges of the order that wins; 0: they stay as they were fitted.
    """

    study: Study
    say: Say
    refine: int = 0

    @property
    def layers(self) -> int:
        return self.study.num_layers

    def order(self, rankers: Mapping[str, LayerRanker]) -> tuple[list[int], dict[str, Any]]:
        """The best order at a third of the layers dropped, all bridged, and what was found."""
        size = self.study.judged
        evidence: dict[str, Any] = {"judged_at_depth": self.layers - size, "orders": {}}
        candidates: dict[str, list[int]] = {}
        for spec, ranker in rankers.items():
            candidates[spec], found = self.rank(spec, ranker)
            evidence |= found
        for spec, order in candidates.items():
            keep = keep_layers(order, self.layers - size, self.layers)
            plain, bridged = (self.constant(keep, corrections) for corrections in (None, 0))
            evidence["orders"][spec] = {"drop_order": order, "plain": plain._asdict(), "bridged": bridged._asdict()}
        chosen = min(candidates, key=lambda spec: (evidence["orders"][spec]["bridged"]["kl"], spec))
        return candidates[chosen], {**evidence, "chosen": chosen}

    def worth(self, drop_order: Sequence[int], every: int) -> tuple[int, dict[str, Any]]:
        """Corrections at every so many kept layers, or 0 where they do not lower KL on held-out prompts; and evidence.

        They are fitted to explain states. Where prompts are of many kinds they explain next to nothing, cost bytes, and
        may do harm. Judged at the depth where orders are, or the next one that has corrections.
        """
        for depth in range(self.layers - self.study.judged, self.layers):
            keep = keep_layers(drop_order, depth, self.layers)
            if correction_sites(keep, self.layers, every):
                break
        else:
            return every, {}
        found = {"with": self.constant(keep, every), "without": self.constant(keep, 0)}
        helps = found["with"].kl < found["without"].kl
        self.say(
            f"corrections at every {every} kept layers: KL {found['with'].kl:.3f} at depth {depth}, "
            f"{found['without'].kl:.3f} without; {'kept' if helps else 'left out'}"
        )
        evidence = {name: quality._asdict() for name, quality in found.items()}
        return every if helps else 0, {"corrections": {"depth": depth, "every": every, "kept": helps, **evidence}}

    def rank(self, spec: str, ranker: LayerRanker) -> tuple[list[int], dict[str, Any]]:
        self.say(f"ranking by {spec}")

        def compute() -> Any:
            study = self.study.named(digest(spec, 8))
            return [ranker.resolve(study), study.evidence]

        order, evidence = self.study.units.value(f"order-{digest(spec, 8)}", compute)
        return order, evidence

    def bridges(
        self, drop_order: Sequence[int], corrections: int
    ) -> tuple[dict[int, dict[int, Bridge]], list[dict[str, Any]], dict[int, ByStep]]:
        """Bridges of every depth that the order reaches, and what each costs on held-out prompts, also by step."""
        found: dict[int, dict[int, Bridge]] = {}
        curve, by_step = [], {}
        for depth in range(self.layers - 1, self.layers - len(drop_order) - 1, -1):
            found[depth], row, by_step[depth] = self.at_depth(drop_order, depth, corrections)
            curve.append(row)
        return found, curve, by_step

    def at_depth(
        self, drop_order: Sequence[int], depth: int, corrections: int
    ) -> tuple[dict[int, Bridge], dict[str, Any], ByStep]:
        """Bridges of one depth, and what they cost on held-out prompts, also by step."""
        keep = keep_layers(drop_order, depth, self.layers)
        self.say(f"bridges of depth {depth}")
        bridges, about = self.fit(keep, corrections)
        by_step = self._by_step(f"steps-{depth}", keep, bridges)
        row = {"depth": depth, **mean(self.study.held, by_step)._asdict(), "fits": about}
        if not self.refine:
            return bridges, row, by_step
        refined, seen = self.refined(f"refined-{depth}", keep, bridges)
        after = self._by_step(f"refined-steps-{depth}", keep, refined)
        found = {"fitted": Quality(row["kl"], row["agreement"]), "refined": mean(self.study.held, after)}
        row |= {**{name: quality._asdict() for name, quality in found.items()}, "refining": seen}
        if found["refined"].kl < found["fitted"].kl:
            return refined, row | found["refined"]._asdict(), after
        self.say(
            f"depth {depth} keeps its fitted bridges: KL {found['fitted'].kl:.4f}, {found['refined'].kl:.4f} refined"
        )
        return bridges, row, by_step

    def _by_step(self, name: str, keep: Sequence[int], bridges: Mapping[int, Bridge]) -> ByStep:
        judge = partial(judge_steps, self.study.held, keep, bridges)
        return ByStep(*self.study.units.value(name, judge))

    def measure(self, plan: DepthPlan) -> Quality:
        """What a plan costs on held-out prompts."""
        self.say(f"measuring {plan.schedule}")
        return self._quality(f"plan-{plan.digest}", partial(judge_plan, self.study.held, plan))

    def _quality(self, name: str, compute: Callable[[], Quality]) -> Quality:
        return Quality(*self.study.units.value(name, compute))

    def constant(self, keep: Sequence[int], corrections: int | None) -> Quality:
        """What these layers cost on held-out prompts: plain (None), with bridges, with corrections too."""

        def judge() -> Quality:
            bridges = {} if corrections is None else self.fit(keep, corrections)[0]
            return judge_constant(self.study.held, keep, bridges)

        return self._quality(f"constant-{json_digest([keep, corrections], 16)}", judge)

    def fit(self, keep: Sequence[int], corrections: int) -> tuple[dict[int, Bridge], Any]:
        """Bridges of a keep set, and about each of them; whoever asks for the same gets the same unit."""

        def compute() -> tuple[dict[int, Bridge], Any]:
            fits = fit_keep_set(self.study.fitted, keep, correction_sites(keep, self.layers, corrections))
            about = [{"layer": i, "ridge": fit.ridge, "unexplained": fit.unexplained} for i, fit in fits.items()]
            return {layer: fit.bridge for layer, fit in fits.items()}, about

        return self.study.units.bridges(f"fit-{json_digest([keep, corrections], 16)}", compute)

    def refined(self, name: str, keep: Sequence[int], fitted: Mapping[int, Bridge]) -> tuple[dict[int, Bridge], Any]:
        """Fitted bridges after :attr:`refine` passes, and the mean KL of each pass."""
        self.say(f"refining those of depth {len(keep)}")
        return self.study.units.bridges(
            name, lambda: refine(self.study.fitted, keep, fitted, self.refine, self.study.seed)
        )
