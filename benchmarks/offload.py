"""What depth saves where layers are moved: a model with its layers on disk, speed against moved bytes, and memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bench import bench_inputs, compare
from depthsched.bench.clock import peak_bytes, reset_peak
from depthsched.environment import machine, versions
from depthsched.placement import moved_shape
from depthsched.planspec import PlanSpec

from .common import Count, Tokens
from .process import in_a_process

DISK: dict[str, str | int] = {
    "model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu",
    "model.layers": "disk",
}  # fmt: skip
RESIDENT = "resident"


def offload(
    model: str = "smollm2",
    plans: str = "constant:depth=20;constant:depth=15",
    dtype: str = "float32",
    tokens: Tokens = 24,
    repeats: Count = 5,
) -> dict[str, Any]:
    """Speed by depth with every layer on disk, against the bytes that a plan moves; and peak memory.

    The model runs eager. Files that were read before lie in the system's page cache: disk reads are memory reads here.
    Peaks are of processes of their own: the resident model, and each plan on the offloaded one.
    """
    specs = [PlanSpec.parse("full"), *PlanSpec.parse_all(plans)]
    with tempfile.TemporaryDirectory() as folder:
        loaded, tokenizer = ds.load_model(model, dtype=dtype, device_map=DISK, offload_folder=folder, weights="dense")
        adapter = adapter_for(loaded)
        inputs = bench_inputs(tokenizer, 1, adapter.device)
        resolved = {spec.label: spec.resolve(adapter.num_layers, tokens) for spec in specs}
        result = compare(loaded, inputs, resolved, ["auto"], tokens=tokens, repeats=repeats, baseline=False)
        equal = _equal(model, dtype, loaded, inputs, resolved, tokens)
        moved = moved_shape(adapter)
        assert moved is not None
    rows = []
    for row in result.rows:
        assert row.theoretical_moved is not None
        peak = in_a_process(peak_of, {"model": model, "dtype": dtype, "plan": row.plan, "tokens": tokens})
        rows.append(
            {
                "plan": row.plan,
                "backend": row.backend,
                "mean_depth": row.mean_depth,
                "moved_mb": resolved[row.plan].cost(moved).total / (tokens - 1) / 1e6,
                "tokens_per_second": row.tokens_per_second.to_json(),
                "moved_saved": row.theoretical_moved,
                "speedup": row.speedup_vs_full.to_json(),
                "realised": row.speedup_vs_full.median / row.theoretical_moved,
                "equal_tokens": equal[row.plan],
                "peak_memory_bytes": peak,
            }
        )
    return {
        "kind": "offload",
        "model": model,
        "dtype": dtype,
        "machine": machine(),
        "threads": result.context["threads"],
        "versions": versions(),
        "tokens": tokens,
        "repeats": repeats,
        "command": f"python -m benchmarks offload --plans {plans!r} --dtype {dtype} --tokens {tokens} "
        f"--repeats {repeats}",
        "resident_peak_bytes": in_a_process(
            peak_of, {"model": model, "dtype": dtype, "plan": "full", "tokens": tokens, "resident": True}
        ),
        "rows": rows,
    }


def _equal(model: str, dtype: str, offloaded: Any, inputs: Any, plans: Any, tokens: int) -> dict[str, bool]:
    """Whether the offloaded model gives the tokens of the resident one."""
    plain, _ = ds.load_model(model, dtype=dtype, device="cpu", weights="dense")
    found = {}
    for name, plan in plans.items():
        options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False, "backend": "eager"}
        ours, theirs = (ds.generate(m, inputs, plan, **options) for m in (offloaded, plain))
        found[name] = bool((ours.tokens == theirs.tokens).all())
    return found


def peak_of(model: str, dtype: str, plan: str, tokens: int, resident: bool = False) -> int:
    """Peak resident bytes of this process in a run, the mapped pages of files among them; loading not counted."""
    with tempfile.TemporaryDirectory() as folder:
        placed: dict[str, Any] = {} if resident else {"device_map": DISK, "offload_folder": Path(folder)}
        loaded, tokenizer = ds.load_model(model, dtype=dtype, weights="dense", **placed)
        device = adapter_for(loaded).device
        inputs = bench_inputs(tokenizer, 1, device)
        reset_peak(device)
        ds.generate(loaded, inputs, plan, max_new_tokens=tokens, do_sample=False, backend="eager")
        return peak_bytes(device)
