"""The oracle: the least depth that would have given full depth's token, in hindsight, and what that could save."""

from .depths import KINDS, Answer, answers_of
from .headroom import LEVELS, Best, best
from .maps import oracle_maps
from .measure import oracle_depths
from .result import KindResult, OracleResult, PlanRow

__all__ = [
    "KINDS",
    "LEVELS",
    "Answer",
    "Best",
    "KindResult",
    "OracleResult",
    "PlanRow",
    "answers_of",
    "best",
    "oracle_depths",
    "oracle_maps",
]
