"""What ``depthsched predict --device this`` says beside what ``depthsched bench`` measures, by turns in one process."""

from __future__ import annotations

import statistics
from typing import Any

import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bench import bench_inputs, compare
from depthsched.bench.here import cpu_costs, this_device
from depthsched.bench.predict import predict as predicted
from depthsched.bench.subjects import model_subject
from depthsched.environment import machine, versions
from depthsched.errors import SettingsError
from depthsched.planspec import PlanSpec
from depthsched.stats import Interval

from .common import Count, Tokens, numbers

KINDS = {"float32": ("float32", "dense"), "bfloat16": ("bfloat16", "dense"), "native": ("bfloat16", "native")}
WITHIN = 0.15


def predict(
    model: str = "smollm2",
    plans: str = "constant:depth=20;constant:depth=15",
    kinds: str = "bfloat16,native",
    batches: str = "1,8",
    tokens: Tokens = 64,
    repeats: Count = 2,
    rounds: Count = 3,
) -> dict[str, Any]:
    """Predicted and measured tokens per second of plans on this CPU, one prediction and one comparison per round.

    Kinds are float32, bfloat16 and native (a GGUF file's own blocks). Each prediction is made anew, from copy bandwidth
    and single pieces, before the comparison of its round runs.
    """
    specs = [PlanSpec.parse("full"), *PlanSpec.parse_all(plans)]
    unknown = [kind for kind in kinds.split(",") if kind not in KINDS]
    if unknown:
        raise SettingsError(f"--kinds {unknown[0]!r} must be of {', '.join(KINDS)}")
    rows: list[dict[str, Any]] = []
    for kind in kinds.split(","):
        dtype, weights = KINDS[kind]
        loaded, tokenizer = ds.load_model(model, dtype=dtype, device="cpu", weights=weights)
        for batch in numbers("--batches", batches):
            inputs = bench_inputs(tokenizer, batch, loaded.device)
            rows += _rows(kind, loaded, inputs, specs, tokens, repeats, rounds)
    return {
        "kind": "predict",
        "model": model,
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "tokens": tokens,
        "repeats": repeats,
        "rounds": rounds,
        "command": f"python -m benchmarks predict --plans {plans!r} --kinds {kinds} --batches {batches} "
        f"--tokens {tokens} --repeats {repeats} --rounds {rounds}",
        "within": all(row["within"] for row in rows),
        "rows": rows,
    }


def _rows(
    kind: str, model: Any, inputs: Any, specs: list[PlanSpec], tokens: int, repeats: int, rounds: int
) -> list[dict[str, Any]]:
    batch, prompt = inputs["input_ids"].shape
    subject, depth = model_subject(kind, model), adapter_for(model).num_layers
    plans = {spec.label: spec.resolve(depth, tokens) for spec in specs}
    said: dict[str, list[float]] = {name: [] for name in plans}
    found: dict[str, list[float]] = {name: [] for name in plans}
    copies = []
    for _ in range(rounds):
        device = cpu_costs(subject, model, this_device(model.device), [batch], prompt + tokens // 2)
        copies.append(device.copy_bytes_per_s)
        for row in predicted(subject, device, plans, batches=[batch], prompt_tokens=prompt, tokens=tokens):
            said[row.plan].append(row.tokens_per_second)
        result = compare(model, inputs, plans, ["compiled"], tokens=tokens, repeats=repeats, baseline=False)
        for measured in result.rows:
            found[measured.plan].append(measured.tokens_per_second.median)
    made = []
    for name, plan in plans.items():
        ratio = Interval.of([one / other for one, other in zip(said[name], found[name], strict=True)])
        made.append(
            {
                "kind": kind,
                "batch": batch,
                "plan": name,
                "mean_depth": plan.mean_depth,
                "copy_gb_per_s": statistics.median(copies) / 1e9,
                "predicted": Interval.of(said[name]).to_json(),
                "measured": Interval.of(found[name]).to_json(),
                "ratio": ratio.to_json(),
                "by_copy_alone": _by_copy(subject.shape, plan, batch, prompt, statistics.median(copies)),
                "within": abs(ratio.median - 1) <= WITHIN,
            }
        )
    return made


def _by_copy(shape: ds.ModelShape, plan: ds.DepthPlan, batch: int, prompt: int, copy: float) -> float:
    """Tokens a second if bytes at the copy bandwidth were all."""
    return batch * (len(plan.depths) - 1) * copy / plan.cost(shape, prompt_tokens=prompt, batch=batch).total
