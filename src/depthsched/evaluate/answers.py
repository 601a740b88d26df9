"""Scores: of tasks whose own code cannot be used here (xquad, RULER at a length of one's choice), and steady ones.

lm-eval 0.4.13 takes xquad's scores from ``transformers.data.metrics.squad_metrics``, which transformers 5.23 no longer
has. The two functions here give the same numbers; a test compares them where the originals are installed.
"""

from __future__ import annotations

import functools
import random
import re
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

SEED = 0
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normal_words(text: str) -> list[str]:
    """An answer as SQuAD compares it: lower case, without punctuation and articles (arXiv 1606.05250)."""
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return _ARTICLES.sub(" ", plain).split()


def f1(gold: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the words of an answer; 1 where neither has any."""
    ours, theirs = normal_words(answer), normal_words(gold)
    if not ours or not theirs:
        return float(ours == theirs)
    same = sum((Counter(ours) & Counter(theirs)).values())
    if not same:
        return 0.0
    precision, recall = same / len(ours), same / len(theirs)
    return 2 * precision * recall / (precision + recall)


def score_xquad(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """In place of ``process_results_qa`` of lm-eval's xquad: against the first of the right answers, as there."""
    gold = doc["answers"]["text"][0]
    return {"f1": f1(gold, results[0]), "exact_match": float(normal_words(gold) == normal_words(results[0]))}


def score_needle(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """RULER's ``string_match_all`` under one name; lm-eval names the metric after the length of the text."""
    text = results[0].lower()
    found = [gold.lower() in text for gold in doc["outputs"]]
    return {"string_match": sum(found) / len(found)}


def steady(score: Callable[..., Any]) -> Callable[..., Any]:
    """A task's scoring that gives the same answer the same score at every call.

    lm-eval's may draw from the process's random numbers: IFEval, for one, counts a letter of its own choice where a row
    asks for the character ``#``. Full depth and a plan would then be judged by different rules, and a run twice by two.
    """

    @functools.wraps(score)
    def seeded(*args: Any, **kwargs: Any) -> Any:
        before = random.getstate()
        random.seed(SEED)
        try:
            return score(*args, **kwargs)
        finally:
            random.setstate(before)

    return seeded
