"""What a ranker gets to work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..adapters import Adapter
from ..bridge import Bridge
from ..score.answers import Sample
from ..work.pieces import Work
from .corpus import Corpus
from .judge import Quality, judge_constant
from .units import Units

SCOUTS = 6


@dataclass(frozen=True)
class Study:
    """One model and samples of its answers, as a ranker sees them. Leave the model as it is.

    Attributes
    ----------
    fitted : Corpus
        Samples to estimate from, with the full-depth states that enter every layer.
    held : Corpus
        Other samples, which judge.
    scout : Corpus
        A few of those, the first half of their answers: for many trials.
    units : Units
        Where finished work is kept; :meth:`remember` writes there.
    drops : int
        Layers to rank at least.
    seed : int
        Draws whatever a ranker draws at random.
    evidence : dict
        What a ranker adds to it, JSON values by name, is kept in the profile's evidence.
    scope : str
        Keeps the units of one ranker apart from those of another.
    """

    fitted: Corpus
    held: Corpus
    scout: Corpus
    units: Units
    drops: int
    seed: int = 0
    evidence: dict[str, Any] = field(default_factory=dict)
    scope: str = ""

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        fitted: Sequence[Sample],
        held: Sequence[Sample],
        units: Units,
        drops: int,
        seed: int = 0,
        work: Work | None = None,
    ) -> Study:
        """Run samples through full depth, here or by the workers of ``work``; what the units hold is not run again."""
        folder = units.folder
        judges = Corpus(adapter, held, folder / "held", work), Corpus(adapter, _halves(held), folder / "scout", work)
        return cls(Corpus(adapter, fitted, folder / "fit", work), *judges, units, drops, seed)

    @property
    def adapter(self) -> Adapter:
        """The model's adapter; ``adapter.model`` is the model."""
        return self.fitted.adapter

    @property
    def num_layers(self) -> int:
        """Decoder layers of the model, L."""
        return self.adapter.num_layers

    @property
    def droppable(self) -> range:
        """The layers that may be ranked: all but the first and the last."""
        return range(1, self.num_layers - 1)

    @property
    def judged(self) -> int:
        """Layers that are dropped where orders compete: a third of them, or all that may be."""
        return max(min(self.num_layers // 3, self.drops), 1)

    def spread(self, *, refines: bool = False) -> str:
        """One line on which parts of a calibration go to the workers of a cluster, and which stay in this process."""
        parts = {"fits": self.fitted, "judgement on held-out prompts": self.held, "trials of rankers": self.scout}
        there = [f"{name} ({len(corpus.batches)} batches)" for name, corpus in parts.items() if corpus.spread]
        here = [f"{name} (a single batch)" for name, corpus in parts.items() if not corpus.spread]
        here += ["what else rankers compute", "solving and choosing", *(["refining"] if refines else [])]
        return f"on workers: {', '.join(there) or 'nothing'}; in this process: {', '.join(here)}"

    def quality(self, dropped: Sequence[int], bridges: Mapping[int, Bridge] | None = None) -> Quality:
        """KL and agreement of constant depth without these layers, on the scout samples."""
        return judge_constant(self.scout, [i for i in range(self.num_layers) if i not in set(dropped)], bridges)

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """A JSON value that an interrupted calibration need not compute again.

        Parameters
        ----------
        name : str
            What it depends on besides the samples and the ranker's settings. A file carries it.
        compute : callable
        """
        return self.units.value(f"rank-{self.scope}{name}", compute)

    def named(self, scope: str) -> Study:
        """The same for one ranker, with evidence of its own."""
        return replace(self, scope=f"{scope}-", evidence={})


def _halves(samples: Sequence[Sample]) -> list[Sample]:
    some = samples[:: max(len(samples) // SCOUTS, 1)][:SCOUTS]
    return [Sample(s.prompt, s.completion[: max(len(s.completion) // 2, 2)]) for s in some]
