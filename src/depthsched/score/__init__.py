"""Scoring: what a plan costs in quality against full depth, teacher-forced on known completions."""

from ..stats import Interval
from .answers import Sample, own_answers
from .load import load_samples
from .prompts import Prompt, read_prompts
from .result import ScoreResult
from .scorer import score
from .tokens import TokenMap, token_map

__all__ = [
    "Interval",
    "Prompt",
    "Sample",
    "ScoreResult",
    "TokenMap",
    "load_samples",
    "own_answers",
    "read_prompts",
    "score",
    "token_map",
]
