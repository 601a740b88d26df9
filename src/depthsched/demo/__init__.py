"""The first minute: ways to decode one model, measured now, and how far each is from full depth."""

from .result import DemoResult, DemoRow, DemoText
from .run import run_demo
from .ways import Way, find_profile, for_transformers, ways

__all__ = ["DemoResult", "DemoRow", "DemoText", "Way", "find_profile", "for_transformers", "run_demo", "ways"]
