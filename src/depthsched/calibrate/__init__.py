"""Calibration: layer order, bridges and schedule for one model, with evidence."""

from .calibrate import calibrate
from .options import Options
from .solve import Frontier, Point, Target

__all__ = ["Frontier", "Options", "Point", "Target", "calibrate"]
