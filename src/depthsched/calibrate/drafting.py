"""Order, bridges and depth for drafts: what makes lossless runs fastest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..bridge import Bridge
from ..cost import ModelShape
from ..files import json_digest
from ..order import keep_layers
from ..ranker import LayerRanker
from .acceptance import CheckCost, DraftPoint, draft_point, mean_context, own_share
from .candidates import Search

SHARES = (0.15, 0.3, 0.45)
"""Layers dropped where orders compete: how deep the best draft is differs from order to order."""


class Form(NamedTuple):
    """What stands in for skipped layers in a draft."""

    name: str
    corrections: int | None
    """A correction at every so many kept layers; None: no bridges either."""


@dataclass(frozen=True)
class Drafts:
    """What was found for drafts.

    Attributes
    ----------
    drop_order : tuple of int
    bridges : mapping
        Depth -> layer -> bridge; empty where drafts are better off without.
    best : DraftPoint
    about : mapping
        Which ranker and form won, and what the prediction stands on.
    evidence : mapping
        What every order and every depth is predicted to give.
    """

    drop_order: tuple[int, ...]
    bridges: Mapping[int, Mapping[int, Bridge]]
    best: DraftPoint
    about: Mapping[str, Any]
    evidence: Mapping[str, Any]

    def fields(self) -> dict[str, Any]:
        """What they are in a profile."""
        return {
            "drop_order": self.drop_order,
            "schedule": f"constant:depth={self.best.depth}",
            "evidence": self.evidence,
            "drafting": {**self.best.to_json(), **self.about},
        }


def search_drafts(
    search: Search, rankers: Mapping[str, LayerRanker], corrections: int, shape: ModelShape, check: CheckCost
) -> Drafts:
    """The order, the bridges, the depth and the draft length with the highest predicted speed-up of lossless runs.

    The acceptance is that of greedy drafts from a full-depth cache on the held-out samples, counted as a run counts it:
    exact where these are the model's own greedy answers. The costs are bytes for a draft step and what is given for a
    check. Orders compete at a few depths, without bridges, with them, and with corrections; the best of all at every
    depth.

    Parameters
    ----------
    search : Search
    rankers : mapping of str to LayerRanker
    corrections : int
        As in a calibration for skipping; 0: that form does not compete.
    shape : ModelShape
    check : CheckCost
    """
    trial = _Trial(search, shape, check)
    forms = [Form("plain", None), Form("bridges", 0), *([Form("corrections", corrections)] if corrections else [])]
    evidence: dict[str, Any] = {"orders": {}}
    found: dict[tuple[str, Form], float] = {}
    orders: dict[str, list[int]] = {}
    for spec, ranker in rankers.items():
        orders[spec], said = search.rank(spec, ranker)
        evidence |= said
        rows = [(form, trial.point(orders[spec], drops, form)) for form in forms for drops in trial.sizes()]
        for form, point in rows:
            found[spec, form] = max(found.get((spec, form), 0.0), point.speedup)
        points = [{"form": form.name, **point.to_json()} for form, point in rows]
        evidence["orders"][spec] = {"drop_order": orders[spec], "drafts": points}
    chosen, form = max(found, key=lambda key: (found[key], key[0], key[1].name))
    order = orders[chosen]
    curve = [trial.point(order, drops, form) for drops in range(1, len(order) + 1)]
    best = max(curve, key=lambda point: (point.speedup, point.depth))
    about = {
        "ranker": chosen,
        "form": form.name,
        "check": asdict(check),
        "context": mean_context(search.study.held),
        "own_answers": search.study.units.value("own-share", lambda: own_share(search.study.held)),
    }
    evidence |= {"chosen": chosen, "form": form.name, "drafts": [point.to_json() for point in curve]}
    return Drafts(tuple(order), trial.bridges(order, form), best, about, evidence)


@dataclass(frozen=True)
class _Trial:
    search: Search
    shape: ModelShape
    check: CheckCost

    def sizes(self) -> list[int]:
        """Layers dropped where orders compete."""
        study = self.search.study
        return sorted({min(max(round(share * study.num_layers), 1), study.drops) for share in SHARES})

    def point(self, order: Sequence[int], drops: int, form: Form) -> DraftPoint:
        """What drafts without the first ``drops`` layers of an order are predicted to give."""
        study = self.search.study
        keep = self._keep(order, drops)
        key = json_digest([keep, form, asdict(self.check)], 16)
        self.search.say(f"drafts at depth {len(keep)}, {form.name}")

        def compute() -> dict[str, Any]:
            return draft_point(study.held, self.shape, keep, self._fit(keep, form), self.check).to_json()

        values = study.units.value(f"drafts-{key}", compute)
        return DraftPoint(**{**values, "acceptance_by_place": tuple(values["acceptance_by_place"])})

    def bridges(self, order: Sequence[int], form: Form) -> dict[int, dict[int, Bridge]]:
        """Those of every depth that the order reaches."""
        if form.corrections is None:
            return {}
        keeps = [self._keep(order, drops) for drops in range(len(order), 0, -1)]
        return {len(keep): dict(self._fit(keep, form)) for keep in keeps}

    def _keep(self, order: Sequence[int], drops: int) -> tuple[int, ...]:
        layers = self.search.layers
        return keep_layers(order, layers - drops, layers)

    def _fit(self, keep: Sequence[int], form: Form) -> Mapping[int, Bridge]:
        if form.corrections is None:
            return {}
        return self.search.fit(keep, form.corrections)[0]
