"""Calibration: layer order, bridges and schedule for one model, with evidence.

From left to right: ``corpus`` (samples at full depth) -> ``fit`` (bridges) and ``judge`` (what skipping costs) ->
``study`` (what rankers see) -> ``rank`` (which layers go first) -> ``solve`` (which schedule), or ``drafting`` (which
drafts pay) -> ``search`` (the whole, in units that are done once).
"""

from .acceptance import CheckCost, DraftPoint
from .search import Options, calibrate
from .solve import Frontier, Point, Target
from .study import Study

__all__ = ["CheckCost", "DraftPoint", "Frontier", "Options", "Point", "Study", "Target", "calibrate"]
