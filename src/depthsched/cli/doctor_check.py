"""``depthsched doctor --check``: every fast backend of this machine against eager, on one model."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import typer
from rich.markup import escape

from ..environment import versions
from .output import console, load_quietly, notes, print_json, table

_TOKENS = 32


def check_backends(name: str, dtype: str, device: str, weights: str, *, as_json: bool) -> None:
    """Print errors and speeds; exit code 1 if a backend differs or cannot be built."""
    say = notes()
    with say.status("loading the model", spinner="dots"):
        model, _ = load_quietly(name, dtype, device, weights)
    with say.status("checking", spinner="dots"):
        rows = check_rows(model)
    if as_json:
        print_json({"rows": rows, "model": name, "dtype": str(model.dtype), "device": str(model.device),
                    "versions": versions()})  # fmt: skip
    else:
        shown = table("", "backend", ">error", ">allowed", ">tokens/s", "detail", title=f"{name}, {model.dtype}")
        marks = {"ok": "[green]ok[/]", "eager": "[yellow]--[/]", "failed": "[red]no[/]"}
        for row in rows:
            numbers = ("" if row[key] is None else f"{row[key]:.2g}" for key in ("error", "tolerance"))
            speed = "" if row["tokens_per_second"] is None else f"{row['tokens_per_second']:.1f}"
            shown.add_row(marks[row["status"]], row["backend"], *numbers, speed, escape(row["reason"]))
        console().print(shown)
    if any(row["status"] == "failed" for row in rows):
        raise typer.Exit(1)


def check_rows(model: Any) -> list[dict[str, Any]]:
    """One row for eager and one for each fast backend.

    ``status`` is ``ok``, ``failed`` (it differs or raises), or ``eager`` where this machine or this model has no such
    backend, as ``reason`` says. The plan has full depth and two thirds of it; speeds are at full depth, batch 1.
    """
    from ..adapters import adapter_for
    from ..errors import PlanError
    from ..planspec import PlanSpec
    from ..runtime.backends import BACKENDS, maker
    from ..runtime.eager import EagerBackend
    from ..runtime.selfcheck import examine

    adapter = adapter_for(model)
    plan = PlanSpec.parse(f"constant:depth={max(1, adapter.num_layers * 2 // 3)}").resolve(adapter.num_layers, _TOKENS)
    rows = [_row("eager", "ok", tokens_per_second=_speed(EagerBackend(adapter, plan), adapter))]
    for name in BACKENDS:
        if name in ("auto", "eager"):
            continue
        try:
            make, reason = maker(name, adapter, plan, write_kv=False, batch=1, max_tokens=128)
        except PlanError as refusal:
            make, reason = None, str(refusal)
        if make is None:
            rows.append(_row(name, "eager", reason=reason))
            continue
        check = examine(make, adapter, plan)
        speed = _speed(make(), adapter) if check.ok else None
        found = {key: asdict(check)[key] for key in ("reason", "tolerance", "depths", "seconds", "compile_seconds")}
        error = check.error if math.isfinite(check.error) else None
        rows.append(_row(name, "ok" if check.ok else "failed", **found, error=error, tokens_per_second=speed))
    return rows


def _row(backend: str, status: str, **found: Any) -> dict[str, Any]:
    empty = {"reason": "", "error": None, "tolerance": None, "tokens_per_second": None}
    return {"backend": backend, "status": status, **empty, **found}


def _speed(backend: Any, adapter: Any) -> float:
    """Tokens a second at full depth: a few steps to warm up, then :data:`_TOKENS` on the clock."""
    import torch
    from transformers.cache_utils import DynamicCache

    from ..bench.clock import now

    ids = (torch.arange(8, device=adapter.device)[None] * 7919 + 13) % adapter.config.vocab_size
    with torch.no_grad(), backend:
        _, decoder = backend.prefill(ids, torch.ones_like(ids), DynamicCache(config=adapter.config))
        for _ in range(4):
            decoder.step(ids[:, 0], adapter.num_layers)
        began = now(adapter.device)
        for _ in range(_TOKENS):
            decoder.step(ids[:, 0], adapter.num_layers)
        return _TOKENS / (now(adapter.device) - began)
