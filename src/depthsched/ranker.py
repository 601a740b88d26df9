"""How the layers of one model are ranked by what a calibration measures. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .classes import ranked_by
from .errors import SettingsError
from .settings import Settings
from .text import one_line

if TYPE_CHECKING:
    from .calibrate.study import Study


@dataclass(frozen=True)
class LayerRanker(Settings):
    """A method that ranks the layers of a model by what they do to samples: ``calibrate --order NAME``.

    Subclass it as a frozen dataclass and write :meth:`rank`. A :class:`LayerOrder` knows the number of layers only; a
    ranker is asked once in a calibration, with the model and samples, and the profile keeps its answer.
    """

    kind: ClassVar[str] = "ranker"

    def rank(self, study: Study) -> Sequence[int]:
        """Droppable layers, first dropped first.

        Parameters
        ----------
        study : depthsched.calibrate.Study
            The model in its adapter, samples with their full-depth states, how many layers to rank, and a seed.

        Returns
        -------
        sequence of int
            Distinct layers in ``1..L-2``: the first and the last always run. At least ``study.drops`` of them; what
            is ranked after those is not used.
        """
        raise SettingsError(f"ranker {self.name!r} does not define rank(self, study); add the method")

    def resolve(self, study: Study) -> tuple[int, ...]:
        """:meth:`rank`, checked and cut to ``study.drops`` layers.

        Raises
        ------
        SettingsError
            The ranking fails, or is not enough distinct layers between the first and the last.
        """
        ranked = ranked_by(self, "study", study, "study")
        if problem := wrong_ranking(ranked, study.num_layers, study.drops):
            raise SettingsError(f"ranker {self.name!r}: {problem}")
        return ranked[: study.drops]


def wrong_ranking(ranked: Sequence[object], num_layers: int, drops: int) -> str:
    """What is wrong with a ranking, or nothing."""
    for at, layer in enumerate(ranked):
        if not isinstance(layer, int) or isinstance(layer, bool):
            return f"rank() returned {one_line(repr(layer), 60)}; return plain ints, int(layer)"
        if not 1 <= layer <= num_layers - 2:
            last = num_layers - 1
            return f"rank() returned layer {layer}, expected 1 to {last - 1}: layers 0 and {last} always run"
        if layer in ranked[:at]:
            return f"rank() returned layer {layer} twice; name every layer once"
    if len(ranked) < drops:
        return (
            f"rank() returned {len(ranked)} layers and study.drops asks for {drops}; rank more, or raise the min depth"
        )
    return ""
