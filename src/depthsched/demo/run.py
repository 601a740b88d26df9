"""Ways to decode, measured in alternation on a few prompts and compared with full depth token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from ..adapters import adapter_for
from ..bench.arms import BASELINE, Arm, equal_share, measure, ratios, without_end
from ..blocks.modules import weights_form
from ..encoding import encode, model_inputs
from ..environment import machine, versions
from ..runtime.policy import check_plan
from ..score import Sample, score
from ..score.answers import end_tokens, until_end
from ..stats import Interval
from .result import DemoResult, DemoRow, DemoText
from .ways import D3, D3_PLAIN, FULL, Way

PROMPTS = (
    "Write a short story about a lighthouse keeper who finds a map.",
    "How do I make a good cup of tea?",
    "Give me five tips for learning a new language.",
)
"""Questions whose answers are longer than what is measured of them."""

WARM_UP = 8


def run_demo(
    model: Any,
    dense: Any,
    tokenizer: Any,
    found: Sequence[Way],
    *,
    backend: str = "auto",
    tokens: int = 64,
    rounds: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> DemoResult:
    """Measure ways to decode on :data:`PROMPTS`, greedily, alternating, and compare their tokens with full depth's.

    Parameters
    ----------
    model, dense : transformers.PreTrainedModel
        What depthsched runs, and what transformers runs.
    tokenizer
        Of both.
    found : sequence of Way
        As from :func:`ways`.
    backend : str
    tokens, rounds : int
        New tokens of each answer, at least 2, and measured rounds, after one of a few tokens that warms up.
    progress : callable
        Told what runs before it starts.

    Raises
    ------
    PlanError, ProfileError
        A plan is not for this model.
    """
    for way in found:
        check_plan(way.plan, adapter_for(model))
    prompts = [encode(tokenizer, text) for text in PROMPTS]
    arms = [[_arm(way, model, dense, prompt, backend, tokenizer) for way in found] for prompt in prompts]
    _measure(model, dense, [arm for row in arms for arm in row], tokens, rounds, progress)
    by_way = dict(zip((way.name for way in found), zip(*arms, strict=True), strict=True))
    ends = end_tokens(model)
    samples = [Sample(prompt, _answer(arm, ends)) for prompt, arm in zip(prompts, by_way[FULL], strict=True)]
    progress("comparing with full depth")
    same = _same_tokens(model, dense, found, samples)
    rows = [_row(way, by_way, samples, same.get(way.name), tokens) for way in found]
    lossy = next((way.name for way in found if way.plan.profile and not way.lossless), D3_PLAIN)
    texts = [_text(name, by_way[name][0], ends) for name in (FULL, lossy)]
    context = _context(model, dense) | {
        "d3": D3, "prompts": list(PROMPTS), "tokens": tokens, "rounds": rounds,
        "places": sum(len(sample.completion) - 1 for sample in samples),
        "notes": [f"{way.name}: {note}" for way in found for note in way.plan.notes],
    }  # fmt: skip
    return DemoResult(context, tuple(rows), tuple(texts))


def _measure(
    model: Any, dense: Any, arms: Sequence[Arm], tokens: int, rounds: int, progress: Callable[[str], None]
) -> None:
    with ExitStack() as stack:
        for one in (model, dense) if dense is not model else (model,):
            stack.enter_context(without_end(one))
        measure(arms, tokens, rounds, adapter_for(model).device, progress, warm_up=min(WARM_UP, tokens))


def _context(model: Any, dense: Any) -> dict[str, Any]:
    device = adapter_for(model).device
    return {
        "dtype": _name(model.dtype), "weights": weights_form(model), "transformers_dtype": _name(dense.dtype),
        "device": device.type, "machine": machine(device), "threads": torch.get_num_threads(), "versions": versions(),
    }  # fmt: skip


def _arm(way: Way, model: Any, dense: Any, prompt: Sequence[int], backend: str, tokenizer: Any) -> Arm:
    if way.baseline:
        return Arm.of_transformers(dense, model_inputs([prompt], dense.device), way.plan)
    inputs = model_inputs([prompt], adapter_for(model).device)
    drafts = "auto" if way.lossless else None
    return Arm.of_plan(way.name, model, inputs, way.plan, backend, tokenizer=tokenizer, draft_tokens=drafts)


def _row(
    way: Way, by_way: Mapping[str, Sequence[Arm]], samples: Sequence[Sample], same: float | None, tokens: int
) -> DemoRow:
    arms, full = by_way[way.name], by_way[FULL]
    base = next(row for row in by_way.values() if row[0].backend == BASELINE)
    run = arms[0].record
    ends = [len(sample.completion) for sample in samples]
    text = _mean([equal_share(a.tokens[:, :n], b.tokens[:, :n]) for a, b, n in zip(full, arms, ends, strict=True)])
    return DemoRow(
        name=way.name,
        plan=f"{way.plan.schedule}@{way.plan.order}",
        profile=str(way.plan.profile.folder) if way.plan.profile else None,
        lossless=way.lossless,
        backend=run.trace.backend if run else BASELINE,
        reason=run.trace.reason if run else "the baseline",
        mean_depth=_mean([a.record.trace.mean_depth if a.record else way.plan.num_layers for a in arms]),
        tokens_per_second=Interval.of([(tokens - 1) / s for arm in arms for s in arm.seconds]),
        vs_transformers=_paired(base, arms),
        vs_full=_paired(full, arms),
        same_token=text if same is None else same,
        same_text=text,
    )


def _paired(slow: Sequence[Arm], fast: Sequence[Arm]) -> Interval:
    """How many times as long one way takes as another, prompt by prompt and round by round."""
    return Interval.of([ratio for both in zip(slow, fast, strict=True) for ratio in ratios(*both)])


def _same_tokens(model: Any, dense: Any, found: Sequence[Way], samples: Sequence[Sample]) -> dict[str, float]:
    """Share of the next tokens of full depth's answers, by the name of the way; of lossy ways and of transformers."""
    lossy = [way for way in found if not way.baseline and not way.lossless and way.name != FULL]
    scores = score(model, [way.plan for way in lossy], samples)
    same = {way.name: result.agreement.mean for way, result in zip(lossy, scores, strict=True)}
    return same | {way.name: _next_tokens(dense, samples) for way in found if way.baseline}


@torch.no_grad()
def _next_tokens(model: Any, samples: Sequence[Sample]) -> float:
    """Share of the decoded tokens of answers that a model finds most likely, given the text before them."""
    equal = []
    for sample in samples:
        ids = torch.tensor([[*sample.prompt, *sample.completion]], device=model.device)
        likely = model(ids, use_cache=False).logits[0, len(sample.prompt) : -1].argmax(dim=-1)
        equal.append(likely.cpu() == torch.tensor(sample.completion[1:]))
    return float(torch.cat(equal).float().mean())


def _answer(arm: Arm, ends: frozenset[int]) -> tuple[int, ...]:
    """The tokens up to the end of the answer, which decoding went past; at least two, or no step would be left."""
    row = arm.tokens[0].tolist()
    return tuple(row[: max(len(until_end(row, ends)), 2)])


def _text(name: str, arm: Arm, ends: frozenset[int]) -> DemoText:
    if arm.record is None:
        raise ValueError(f"{name} kept no depths")
    tokens = _answer(arm, ends)
    depths = tuple(arm.record.trace.depths[: len(tokens)])
    return DemoText(name, tokens, depths, arm.plan.num_layers)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
