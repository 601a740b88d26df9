"""``depthsched bench``: what a plan saves on the clock."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import SettingsError
from .output import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OrderOption,
    ProfileOption,
    console,
    load_quietly,
    notes,
    print_json,
    quiet_libraries,
    table,
)


def add_to(app: typer.Typer) -> None:
    app.command("bench")(bench)


def bench(
    plans: Annotated[
        str,
        typer.Option(
            "--plans", help="schedule[@order][+profile=DIR], several separated by ';'. Full depth is always in."
        ),
    ] = "constant:depth=20;d3",
    backends: Annotated[str, typer.Option("--backends", help="Separated by commas.")] = "eager,compiled",
    baseline: Annotated[str, typer.Option("--baseline", help="transformers or none.")] = "transformers",
    tokens: Annotated[int, typer.Option("--tokens", "-n", help="New tokens of each run.")] = 128,
    repeats: Annotated[int, typer.Option("--repeats", "-r", help="Measured rounds.")] = 5,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Rows of different length, padded on the left.")] = 1,
    model: ModelOption = "smollm2",
    random: Annotated[str | None, typer.Option("--random", help="A shape such as llama-2-7b, random weights.")] = None,
    order: OrderOption = None,
    profile: ProfileOption = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write a chart to this PNG file.")] = None,
    note: Annotated[str, typer.Option("--note", help="A remark to keep with the result.")] = "",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compare plans and backends with transformers' generate, paired and interleaved."""
    _check(tokens, repeats, batch, baseline)
    from ..plan import parse_plan

    specs = [s.strip() for s in plans.split(";") if s.strip() and s.strip() != "full"]
    for spec in specs:
        parse_plan(spec, order, profile)  # before the model, so that a typo costs no loading
    say = notes()
    with say.status("loading the model", spinner="dots"):
        loaded, inputs = _load(model, random, dtype, device, batch)
    with nullcontext() if json else say.status("measuring", spinner="dots") as status:
        result = _measure(
            loaded,
            inputs,
            specs,
            [b.strip() for b in backends.split(",") if b.strip()],
            order,
            profile,
            tokens=tokens,
            repeats=repeats,
            baseline=baseline == "transformers",
            command=_command(
                plans, backends, baseline, tokens, repeats, batch, model, random, order, profile, dtype, device
            ),
            context={"model": random or model, "note": note},
            progress=status.update if status is not None else lambda _: None,
        )
    if png is not None:
        from ..bench.chart import save_chart

        save_chart(result, png)
    if json:
        print_json(result.to_json())
    else:
        _print(result)


def _check(tokens: int, repeats: int, batch: int, baseline: str) -> None:
    if tokens < 2:
        raise SettingsError(f"--tokens {tokens} must be at least 2: the first comes out of the prefill")
    if repeats < 1 or batch < 1:
        raise SettingsError("--repeats and --batch must be at least 1")
    if baseline not in ("transformers", "none"):
        raise SettingsError(f"--baseline {baseline!r} must be transformers or none")


def _load(model: str, random: str | None, dtype: str, device: str, batch: int) -> tuple[Any, Any]:
    from ..bench import bench_inputs, random_model

    if random is None:
        loaded, tokenizer = load_quietly(model, dtype, device)
        return loaded, bench_inputs(tokenizer, batch, loaded.device)
    import torch

    from ..models import pick_device, pick_dtype

    quiet_libraries()
    target = pick_device(device)
    ids = torch.arange(batch * 32, device=target).view(batch, 32) % 1000 + 3
    return random_model(random, pick_dtype(dtype, target), target), {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
    }


def _measure(
    model: Any,
    inputs: Any,
    specs: list[str],
    backends: list[str],
    order: str | None,
    profile: str | None,
    **options: Any,
) -> Any:
    from ..adapters import adapter_for
    from ..bench import compare
    from ..plan import plan

    depth = adapter_for(model).num_layers
    resolve = partial(plan, num_layers=depth, horizon=options["tokens"])
    resolved = {"full": resolve("full")} | {s: resolve(s, order, profile=profile) for s in specs}
    return compare(model, inputs, resolved, backends, **options)


def _command(
    plans: str,
    backends: str,
    baseline: str,
    tokens: int,
    repeats: int,
    batch: int,
    model: str,
    random: str | None,
    order: str | None,
    profile: str | None,
    dtype: str,
    device: str,
) -> str:
    """The command that measures the same again."""
    given = {
        "plans": plans,
        "backends": backends,
        "baseline": baseline,
        "tokens": tokens,
        "repeats": repeats,
        "batch": batch,
        **({"random": random} if random else {"model": model}),
        **({"order": order} if order else {}),
        **({"profile": profile} if profile else {}),
        "dtype": dtype,
        "device": device,
    }
    return "depthsched bench " + " ".join(f"--{name} {shlex.quote(str(value))}" for name, value in given.items())


def _print(result: Any) -> None:
    out = console()
    about = result.context
    out.print(
        f"[bold]{about['model']}[/] {about['dtype']}, batch {about['batch']}, {about['machine']}; "
        f"copy bandwidth {about['copy_gb_per_s']:.1f} GB/s"
    )
    rows = table("plan", "backend", ">depth", ">tok/s", ">bytes saved", ">speed-up", ">realised", ">vs hf", ">GB/s")
    for row in result.rows:
        rows.add_row(
            row.plan,
            row.backend,
            f"{row.mean_depth:.1f}",
            _interval(row.tokens_per_second, 1),
            f"{row.theoretical_bytes:.2f}",
            _interval(row.speedup_vs_full),
            f"{row.realised:.2f}",
            _interval(row.vs_transformers),
            f"{row.gb_per_s:.1f}",
        )
    out.print(rows)
    for row in result.rows:
        if row.compile_seconds >= 0.1:
            out.print(f"{row.plan}, {row.backend}: compiled in {row.compile_seconds:.1f} s before the first run")


def _interval(value: Any, digits: int = 2) -> str:
    """``2.70 (2.61-2.78)``."""
    return f"{value.median:.{digits}f} ({value.low:.{digits}f}-{value.high:.{digits}f})" if value else ""
