"""Plans and backends side by side, and what came of it in numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..adapters import adapter_for
from ..adapters.storage import stored_bytes
from ..blocks.modules import weights_form
from ..cost import ModelShape
from ..environment import machine, versions
from ..placement import moved_shape
from ..plans import DepthPlan
from ..runtime.rounds import payoff
from ..runtime.run import Run
from ..stats import Interval
from .arms import BASELINE, Arm, equal_share, measure, paired, without_end
from .clock import copy_bandwidth
from .overhead import scheduling_seconds
from .results import BenchResult, BenchRow


def compare(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    plans: Mapping[str, DepthPlan],
    backends: Sequence[str],
    *,
    tokens: int = 128,
    repeats: int = 5,
    baseline: bool = True,
    draft_tokens: int | str | None = None,
    tokenizer: Any = None,
    command: str = "",
    context: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> BenchResult:
    """Measure plans on backends, paired and interleaved in this process.

    Parameters
    ----------
    model : transformers.PreTrainedModel
    inputs : mapping
        ``input_ids`` and ``attention_mask``, ``[batch, tokens]``, padded on the left.
    plans : mapping of str to DepthPlan
        By the name they get in the result; it must hold ``full``, which the others are compared with.
    backends : sequence of str
    tokens, repeats : int
        New tokens of each run, and measured rounds. The first run of each arm is a warm-up and not counted.
    baseline : bool
        Whether transformers' own ``generate`` takes part.
    draft_tokens : int or str, optional
        Also run each plan lossless, drafting so many tokens: see :func:`depthsched.generate`.
    tokenizer : optional
        For plans whose schedules ask for ``token_class``.
    progress : callable
        Told the name of every run before it starts.
    """
    arms = [Arm.of_transformers(model, inputs, plans["full"])] if baseline else []
    for backend in backends:
        for name, plan in plans.items():
            of_plan = functools.partial(Arm.of_plan, name, model, inputs, plan, backend, tokenizer=tokenizer)
            arms.append(of_plan())
            if draft_tokens is not None and name != "full":
                arms.append(of_plan(draft_tokens=draft_tokens))
    with without_end(model):
        measure(arms, tokens, repeats, adapter_for(model).device, progress)
    found = _context(model, inputs, tokens, repeats) | dict(context or {})
    adapter = adapter_for(model)
    return BenchResult(command, found, _rows(arms, adapter.shape(), moved_shape(adapter), inputs, tokens))


def _rows(
    arms: list[Arm], shape: ModelShape, moved: ModelShape | None, inputs: Any, tokens: int
) -> tuple[BenchRow, ...]:
    batch, prompt = inputs["input_ids"].shape
    base = next((arm for arm in arms if arm.backend == BASELINE), None)
    rows = []
    for arm in arms:
        full = next(a for a in arms if a.name == "full" and a.backend == arm.backend)
        speedup = paired(full, arm)
        run = arm.record
        depths = run.trace.decode_depths if run else [shape.num_layers] * (tokens - 1)
        cost = run.cost if run else arm.plan.cost(shape, depths, prompt, batch=batch)
        typical = Interval.of(arm.seconds).median
        rows.append(
            BenchRow(
                plan=arm.name,
                backend=run.trace.backend if run else BASELINE,
                reason=run.trace.reason if run else "the baseline",
                batch=batch,
                mean_depth=run.trace.mean_depth if run else shape.num_layers,
                theoretical_layers=run.layer_speedup if run else 1.0,
                theoretical_bytes=cost.ratio,
                tokens_per_second=Interval.of([batch * len(depths) / s for s in arm.seconds]),
                speedup_vs_full=speedup,
                realised=speedup.median / cost.ratio,
                vs_transformers=paired(base, arm) if base else None,
                gb_per_s=cost.total / typical / 1e9,
                peak_memory_bytes=arm.peak,
                compile_seconds=arm.compiling,
                warmup_seconds=arm.warmup,
                equal_tokens=_equal(arms, arm),
                overhead=scheduling_seconds(run.plan, tokens) * len(depths) / typical if run else None,
                theoretical_moved=_moved(run, moved),
                drafts=_drafts(run, Interval.of(full.seconds).median / len(depths)) if run else None,
            )
        )
    return tuple(rows)


def _moved(run: Run | None, moved: ModelShape | None) -> float | None:
    """Full depth's bytes from other memory over those that a run moved; None where nothing lies there."""
    if moved is None:
        return None
    return 1.0 if run is None else dataclasses.replace(run, shape=moved).cost.ratio


def _drafts(run: Run, step_seconds: float) -> dict[str, Any] | None:
    """What the last run drafted, in steps of full depth on the same backend; None where it was no lossless one."""
    if run.trace.rounds is None:
        return None
    found = payoff(run.trace.rounds, step_seconds)
    worth: dict[str, Any] = {} if found is None else vars(found)
    return {"draft_tokens": run.trace.draft_tokens, **worth, "decisions": [*run.trace.decisions]}


def _equal(arms: list[Arm], arm: Arm) -> float | None:
    """Share of tokens equal to the plain run of the same plan, or of full depth, before each row's first difference."""
    name = "full" if arm.lossless else arm.name
    plain = [a for a in arms if a.name == name and not a.lossless and a.backend in (BASELINE, "eager") and a is not arm]
    if not plain:
        return None
    return equal_share(plain[0].tokens, arm.tokens)


def _context(model: Any, inputs: Any, tokens: int, repeats: int) -> dict[str, Any]:
    adapter = adapter_for(model)
    device, moved, exchange = adapter.device, moved_shape(adapter), adapter.shape().exchange
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device.type,
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "tokens": tokens,
        "repeats": repeats,
        "batch": len(inputs["input_ids"]),
        "prompt_tokens": inputs["input_ids"].shape[1],
        "copy_gb_per_s": copy_bandwidth(device) / 1e9,
        "weights": weights_form(model),
        "weight_bytes": stored_bytes(model),
        "ranks": exchange.ranks if exchange else 1,
        "moved_bytes": 0 if moved is None else round(sum(moved.layer_bytes) + (moved.head_bytes or 0)),
        "versions": versions(),
    }
