"""What a comparison found, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError
from ..stats import Interval

_INTERVALS = ("tokens_per_second", "speedup_vs_full", "vs_transformers")


@dataclass(frozen=True)
class BenchRow:
    """One plan on one backend.

    Attributes
    ----------
    plan, backend, reason : str
        ``reason`` says why this backend ran; the baseline is backend ``transformers``.
    batch : int
    mean_depth : float
        Of the decode steps.
    theoretical_layers, theoretical_bytes : float
        What full depth costs over what the plan costs, in layers and in bytes moved.
    tokens_per_second : Interval
        Decoded tokens of all rows.
    speedup_vs_full : Interval
        Over full depth in the same backend, pair by pair.
    realised : float
        Median speed-up over the theoretical one by bytes.
    vs_transformers : Interval or None
        Over transformers' ``generate`` at full depth, pair by pair; None without that baseline.
    gb_per_s : float
        Bytes that the steps had to move, in 1e9 per second.
    peak_memory_bytes : int
    compile_seconds, warmup_seconds : float
        Of the first run, which is not measured; the second includes the first.
    equal_tokens : float or None
        Share of equal tokens before the first difference, against the same plan in eager or transformers; of a
        lossless run against full depth.
    overhead : float or None
        Share of the time that looking up depths and keep sets and writing the trace take; None for the baseline.
    theoretical_moved : float or None
        Of a model whose weights lie elsewhere: what full depth moves to where it runs over what the plan moves.
    drafts : mapping or None
        Of a lossless run: how it drafted (``draft_tokens``, ``decisions``) and, where it did, ``acceptance``,
        ``mean_drafted``, ``draft_cost``, ``verify_cost``, ``predicted`` and ``measured``, in plain steps at full depth:
        see :class:`~depthsched.runtime.rounds.Payoff`.
    """

    plan: str
    backend: str
    reason: str
    batch: int
    mean_depth: float
    theoretical_layers: float
    theoretical_bytes: float
    tokens_per_second: Interval
    speedup_vs_full: Interval
    realised: float
    vs_transformers: Interval | None
    gb_per_s: float
    peak_memory_bytes: int
    compile_seconds: float
    warmup_seconds: float
    equal_tokens: float | None = None
    overhead: float | None = None
    drafts: Mapping[str, Any] | None = None
    theoretical_moved: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; intervals are ``{median, low, high}``."""
        return {name: value.to_json() if isinstance(value, Interval) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class BenchResult:
    """A comparison: its rows, and what they were measured on.

    Attributes
    ----------
    command : str
        What makes this result again.
    context : mapping
        Model, dtype, device, machine, threads, versions, tokens, repeats, prompt tokens, copy bandwidth.
    rows : tuple of BenchRow
    """

    command: str
    context: Mapping[str, Any]
    rows: tuple[BenchRow, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {"command": self.command, **self.context, "rows": [row.to_json() for row in self.rows]}

    @classmethod
    def from_json(cls, text: str) -> BenchResult:
        """Read a result back.

        Raises
        ------
        SettingsError
            The text is not such a result.
        """
        try:
            data = dict(json.loads(text))
            rows = tuple(_row(dict(row)) for row in data.pop("rows"))
            return cls(str(data.pop("command")), data, rows)
        except (ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"not a result of depthsched bench: {type(error).__name__}: {error}") from error


def _row(values: dict[str, Any]) -> BenchRow:
    for name in _INTERVALS:
        if values[name] is not None:
            values[name] = Interval.from_json(values[name])
    return BenchRow(**values)
