"""The first minute: ways to decode one model, measured now, and how far each is from full depth."""

from .result import DemoResult, DemoRow, DemoText
from .run import run_demo
from .ways import Way, for_transformers, profile_for, ways

__all__ = ["DemoResult", "DemoRow", "DemoText", "Way", "for_transformers", "profile_for", "run_demo", "ways"]
