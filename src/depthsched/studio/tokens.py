"""A text on the page: every token in the colour of its depth, with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .escape import safe
from .writing import Opinion, Pieces, Writing, depths_of


@dataclass
class Column:
    """One of the two texts while it grows.

    Attributes
    ----------
    writing : Writing
    pieces : Pieces
    num_layers, least : int
        Ends of the scale of colours.
    opinions : sequence of Opinion
        Full depth's, where it was asked; empty before.
    """

    writing: Writing
    pieces: Pieces
    num_layers: int
    least: int
    opinions: Sequence[Opinion] = ()
    _spans: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        """Ids written so far."""
        trace = self.writing.trace
        return [] if trace is None else [step.tokens[0] for step in [*trace.steps]]

    def grow(self) -> str:
        """The HTML of the text so far."""
        trace = self.writing.trace
        if trace is None:
            return ""
        depths = depths_of(trace)
        steps = trace.steps[: len(depths)]
        before = len(self._spans)
        self.pieces.add([step.tokens[0] for step in steps[before:]])
        for place in range(before, len(steps)):
            self._spans.append(self._span(place, depths[place]))
        return "".join(self._spans)

    def judge(self, opinions: Sequence[Opinion]) -> None:
        """Take in what full depth says."""
        self.grow()
        self.opinions = opinions
        assert self.writing.trace is not None
        depths = depths_of(self.writing.trace)
        self._spans = [self._span(place, depth) for place, depth in enumerate(depths)]

    @property
    def agreement(self) -> float:
        """Share of the tokens that full depth would have chosen."""
        same = [token == one.token for token, one in zip(self.tokens, self.opinions, strict=True)]
        return sum(same) / max(len(same), 1)

    def _span(self, place: int, depth: int) -> str:
        piece = self.pieces.found[place]
        share = (depth - self.least) / (self.num_layers - self.least) if depth < self.num_layers else 1.0
        shown = safe(piece).replace("\n", "↵\n") if piece else "·"
        differs = bool(self.opinions) and self.opinions[place].token != self.tokens[place]
        return (
            f'<span class="ds-token{" ds-differs" if differs else ""}" style="--depth:{max(share, 0):.3f}" '
            f'tabindex="{-1 if place else 0}" data-depth="{depth}" data-tip="{safe(self._tip(place, depth))}">'
            f"{shown}</span>"
        )

    def _tip(self, place: int, depth: int) -> str:
        lines = [f"token {place}, {depth} of {self.num_layers} layers{'' if place else ' (prefill)'}"]
        trace = self.writing.trace
        assert trace is not None
        if trace.steps[place].tried:
            lines.append(f"unsure at {trace.steps[place].tried} layers, so checked at full depth")
        elif trace.rounds is not None and place:
            lines.append("drafted, and kept by full depth" if depth < self.num_layers else "full depth's own")
        seen = self.writing.seen.found
        if place < len(seen):
            lines.append(f"probability {seen[place][0]:.1%}, margin {seen[place][1]:.2f}")
        if self.opinions:
            lines.append(self._said(self.opinions[place], self.tokens[place]))
        return "\n".join(lines)

    def _said(self, one: Opinion, token: int) -> str:
        if one.token == token:
            return f"full depth: agrees, {one.sure:.1%}, margin {one.margin:.2f}"
        other = self.pieces.tokenizer.decode([one.token])
        return f'full depth: "{other}" {one.sure:.1%}; this token {one.given:.1%}'


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The place of the first token that differs, which one of them may not have; None where both are equal."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return None if len(one) == len(other) else min(len(one), len(other))


def delay(seconds: Sequence[float], share: float) -> float:
    """The delay that a share of the steps stays under, seconds; 0 without steps."""
    ordered = sorted(seconds)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def numbers(column: Column) -> dict[str, Any]:
    """What a finished column measured."""
    run = column.writing.run
    assert run is not None
    delays = [step.seconds for step in run.trace.steps[1:]]
    return {
        "tokens": run.tokens.shape[1],
        "depth": run.trace.mean_depth,
        "layers": run.layer_speedup,
        "bytes": run.bytes_speedup,
        "speed": run.tokens_per_second,
        "p95": delay(delays, 0.95),
        "backend": run.trace.backend,
        "reason": run.trace.reason,
        "said": [*run.drafting, *column.writing.warned],
    }
