"""Sweeps: a grid of plans and measures, one file for each finished cell."""

from .cells import Cell
from .grid import Grid, read_grid
from .run import Outcome, SweepResult, run_sweep
from .store import Record, Store

__all__ = ["Cell", "Grid", "Outcome", "Record", "Store", "SweepResult", "read_grid", "run_sweep"]
