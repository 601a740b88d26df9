"""One view for each thing that shows itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..encoding import pieces
from ..text import ranges, span
from .parts import box, coloured, facts, heading, legend, note, table
from .picture import Point, chart, depth_picture

if TYPE_CHECKING:
    from ..depthplan import DepthPlan
    from ..profile import Profile
    from ..runtime.run import Run
    from ..score.result import ScoreResult
    from ..score.tokens import TokenMap
    from ..stats import Interval
    from ..sweep.run import Outcome

_ROWS = 4
"""Rows of a batch that are shown."""


def plan_html(plan: DepthPlan) -> str:
    """A plan: curve, layer map, and what it saves on paper."""
    rows: list[tuple[str, object]] = [
        ("mean depth", f"{plan.mean_depth:.1f} of {plan.num_layers} over {plan.horizon} steps"),
        ("layers saved", f"{plan.layer_speedup:.2f}x fewer layers"),
        ("left out first", " ".join(map(str, plan.drop_order[:12])) + (" ..." if len(plan.drop_order) > 12 else "")),
        ("always run", f"{plan.core_size} layers"),
        ("nested", "yes" if plan.nested else "no: skipped layers write K and V from the state that passes through"),
    ]
    if plan.profile is not None:
        rows.append(("profile", plan.profile.folder.name or plan.profile.digest))
    if plan.adaptive:
        rows.append(
            ("decided while decoding", f"from {', '.join(plan.needs)}; shown: the curve of a model that is sure")
        )
    rows += [("note", text) for text in plan.notes]
    picture = depth_picture(plan.depths, plan.num_layers, plan.keep)
    return box(heading(f"{plan.schedule}@{plan.order}"), picture, facts(rows))


def run_html(run: Run) -> str:
    """A run: its text in the colours of depth, its curve, its numbers."""
    trace, full = run.trace, run.shape.num_layers
    least = min(trace.depths, default=full)
    shown: list[object] = []
    for row in islice(run.tokens.tolist(), _ROWS):
        words = pieces(run.tokenizer, row) if run.tokenizer is not None else [f"{token} " for token in row]
        shown.append(coloured(words, trace.depths, full))
    if run.tokenizer is None:
        shown.append(note("Token ids: give ds.generate(..., tokenizer=tokenizer) to see the text."))
    if len(run.tokens) > _ROWS:
        shown.append(note(f"{len(run.tokens) - _ROWS} more rows."))
    rows: list[tuple[str, object]] = [
        ("tokens", run.tokens.shape[1]),
        ("mean depth", f"{trace.mean_depth:.1f} of {full}"),
        ("saved", f"{run.layer_speedup:.2f}x fewer layers, {run.bytes_speedup:.2f}x fewer bytes"),
        ("speed", f"{run.tokens_per_second:.1f} tokens/s; prefill {run.prefill_seconds:.2f} s"),
        ("backend", f"{trace.backend}: {trace.reason}" if trace.reason else trace.backend),
        *(("lossless", line) for line in run.drafting),
        *(("note", text) for text in run.plan.notes),
    ]
    picture = [depth_picture(trace.depths, full, trace.layers)] if trace.steps else []
    title = heading(f"{run.plan.schedule}@{run.plan.order}")
    return box(title, *shown, legend(least, full), *picture, facts(rows))


def token_map_html(found: TokenMap) -> str:
    """A plan's own answer, with what full depth would choose in the tip of each token."""
    tips = [
        "full depth agrees" if agrees else f"full depth: {text!r} {probability:.1%}"
        for agrees, (text, probability) in zip(found.agree, found.full, strict=True)
    ]
    differs = [not agrees for agrees in found.agree]
    text = coloured(found.pieces, found.depths, found.num_layers, tips=tips, differs=differs)
    same = f"{sum(found.agree)} of {len(found.agree)} tokens as full depth would choose after the same text."
    return box(
        note(f"Asked: {found.prompt}"), text, legend(min(found.depths), found.num_layers, differs=True), note(same)
    )


def score_html(score: ScoreResult) -> str:
    """A score: quality with its intervals, and agreement along the answers."""
    rows: list[tuple[str, object]] = [
        ("KL to full depth", f"{_interval(score.kl, 4)} nats a token"),
        ("agreement", _interval(score.agreement, 3)),
        ("perplexity", f"{score.perplexity:.3f}, at full depth {score.perplexity_full:.3f}"),
        ("mean depth", f"{score.mean_depth:.1f}"),
        ("bytes saved", f"{score.bytes_speedup:.2f}x"),
        ("measured on", f"{score.prompts} prompts, {score.tokens} decode steps, {score.method}, {score.seconds:.1f} s"),
    ]
    rows += [("profile", score.profile)] if score.profile else []
    rows += [("renewal", score.renewal)] if score.renewal else []
    rows += [("note", text) for text in score.notes]
    points = [
        Point(
            (g.first + g.last) / 2,
            g.agreement,
            name=f"steps {g.first} to {g.last}: {g.agreement:.3f}, {g.tokens} tokens",
        )
        for g in score.per_step
    ]
    title = heading(f"{score.schedule}@{score.order}")
    small = note("In brackets: 95% intervals over prompts. The curve: mean agreement of each range of steps.")
    return box(title, facts(rows), chart(points, "step", "agreement", whole=False), small)


def profile_html(profile: Profile) -> str:
    """A profile: what it is for, its order, and its evidence."""
    fitted = profile.depths
    rows: list[tuple[str, object]] = [
        ("model", f"{profile.model.name}, {profile.num_layers} layers of {profile.model.hidden_size}"),
        ("left out first", " ".join(map(str, profile.drop_order))),
        ("bridged depths", ranges(fitted) if fitted else "none"),
        ("fitted on", _pairs(profile.data)),
        ("schedule", profile.schedule or "none: no target was asked for"),
        ("bridges", f"{profile.tensors_bytes / 1e6:.1f} MB"),
        ("made with", _pairs(profile.versions)),
    ]
    if profile.drafting:
        rows.append(("for drafting", _pairs({k: v for k, v in profile.drafting.items() if k != "costs"})))
    curve = [point for point in profile.evidence.get("constant", ()) if isinstance(point, Mapping)]
    points = [Point(p["depth"], p["agreement"], name=f"depth {p['depth']}: {p['agreement']:.3f}") for p in curve]
    evidence = chart(points, "depth", "agreement, held out", whole=False)
    lines = [(p["depth"], f"{p['kl']:.3f}", f"{p['agreement']:.3f}") for p in curve]
    shown = [evidence, table(">depth|>KL|>agreement", lines)] if lines else []
    return box(heading(profile.folder.name or profile.digest, "profile"), facts(rows), *shown)


def sweep_html(outcomes: Sequence[Outcome]) -> str:
    """A sweep: one line for each cell, and agreement against what is saved."""
    lines, points = [], []
    for outcome in outcomes:
        record = outcome.record
        result = record.result or {}
        kind: Mapping[str, Any] = result.get(record.cell.measure, {})
        depth = kind.get("mean_depth")
        lines.append(
            (
                record.cell.label,
                record.cell.measure,
                record.status,
                "" if depth is None else f"{depth:.1f}",
                _found(record.cell.measure, kind) if record.error is None else record.error.get("message", ""),
                f"{record.seconds:.1f} s",
            )
        )
        if record.cell.measure == "score" and kind:
            found = kind["intervals"]["agreement"]
            name = f"{record.cell.label}: {found['mean']:.3f}"
            points.append(Point(kind["bytes_speedup"], found["mean"], found["low"], found["high"], name))
    done = sum(outcome.record.status == "done" for outcome in outcomes)
    words = f"{done} of {len(outcomes)} cells done, {sum(outcome.ran for outcome in outcomes)} of them now."
    columns = "plan|measure|status|>mean depth|found|>took"
    picture = chart(points, "bytes at full depth over bytes moved", "agreement", joined=False)
    return box(note(words), table(columns, lines), picture)


def _found(measure: str, kind: Mapping[str, Any]) -> str:
    if measure == "score":
        spans = {n: kind["intervals"][n] for n in ("kl", "agreement")}
        kl, same = (span(f["mean"], f["low"], f["high"], 3) for f in spans.values())
        return f"KL {kl}, agreement {same}, {kind['bytes_speedup']:.2f}x fewer bytes"
    if measure == "bench":
        fast = kind["speedup_vs_full"]
        return f"{span(fast['median'], fast['low'], fast['high'], 2)} times full depth"
    tasks = (f"{t['task']} {t['score']:.3f} ({t['diff']:+.3f})" for t in kind.get("rows", ()))
    return ", ".join(tasks)


def _interval(found: Interval, digits: int) -> str:
    return span(found.value, found.low, found.high, digits)


def _pairs(found: Mapping[str, Any]) -> str:
    short = {
        key: f"{value[:12]}..." if isinstance(value, str) and len(value) > 24 else value for key, value in found.items()
    }
    return ", ".join(f"{key} {value}" for key, value in short.items())
