"""What the workers answered, as one row for each variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from depthsched.stats import Interval

from .measure import Found
from .variants import REFERENCE


def rows(found: Sequence[Found], prompt: Sequence[int]) -> list[dict[str, Any]]:
    """Medians with intervals over rounds or starts; ratios are paired by round.

    ``vs_ours`` is against the first of depthsched at full depth, ``vs_peer`` against the faster of the peers, and
    ``first_difference`` the number of tokens equal to those of the reference before the first that is not; each is
    None where nothing of the kind took part, the last also where all are equal (``equal_tokens`` is then 1).
    """
    ours = next((one for one in found if one.variant.ours and one.variant.options["plan"] == "full"), None)
    peers = [one for one in found if not one.variant.ours]
    fastest = max(peers, key=lambda one: Interval.of(_speeds(one)).median, default=None)
    reference = next((one for one in found if one.variant.name == REFERENCE), None)
    return [
        {
            **_own(one),
            "vs_ours": _ratio(one, ours),
            "vs_peer": _ratio(one, fastest),
            "tokenised_alike": one.ids == list(prompt),
            **_agreement(one, reference),
        }
        for one in found
    ]


def _own(one: Found) -> dict[str, Any]:
    """What a row says of one variant alone."""
    imported = max(start["import_bytes"] for start in one.starts)
    intervals = {
        "tokens_per_second": _speeds(one),
        "end_to_end": [len(run["ids"]) / run["seconds"] for run in one.runs],
        "first_token": [run["times"][0] for run in one.runs],
        "first_token_cold": [start["first"]["times"][0] for start in one.starts],
        **{name: [start[name] for start in one.starts] for name in ("import_seconds", "load_seconds", "ready_seconds")},
    }
    return {
        "name": one.variant.name,
        "engine": one.variant.engine,
        "options": dict(one.variant.options),
        **{name: Interval.of(values).to_json() for name, values in intervals.items()},
        "import_bytes": imported,
        "peak_bytes": one.peak_bytes,
        "model_bytes": one.peak_bytes - imported,
        "idle_seconds": one.idle_seconds,
    }


def _speeds(one: Found) -> list[float]:
    """Tokens a second of each round, from the first token to the last."""
    return [(len(run["times"]) - 1) / (run["times"][-1] - run["times"][0]) for run in one.runs]


def _ratio(one: Found, other: Found | None) -> dict[str, float | None] | None:
    if other is None:
        return None
    return Interval.of([a / b for a, b in zip(_speeds(one), _speeds(other), strict=True)]).to_json()


def _agreement(one: Found, reference: Found | None) -> dict[str, Any]:
    """In the round that agrees least."""
    if reference is None:
        return {"first_difference": None, "equal_tokens": None}
    expected = reference.runs[0]["ids"]
    equal = min(equal_start(run["ids"], expected) for run in one.runs)
    return {
        "first_difference": equal if equal < len(expected) else None,
        "equal_tokens": equal / len(expected),
    }


def equal_start(ids: Sequence[int], expected: Sequence[int]) -> int:
    """How many tokens are equal before the first that is not."""
    differs = (at for at, (a, b) in enumerate(zip(ids, expected, strict=True)) if a != b)
    return next(differs, len(expected))
