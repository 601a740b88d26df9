"""``depthsched bench``: what a plan saves on the clock."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ..drafts import read_drafts
from ..errors import SettingsError
from ..parallel import launch
from ..planspec import PlanSpec
from .output import (
    DeviceMapOption,
    DeviceOption,
    DraftTokensOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OffloadOption,
    OrderOption,
    PlansOption,
    ProfileOption,
    WeightsOption,
    besides_full,
    command_line,
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
    plans: PlansOption = "constant:depth=20;d3",
    backends: Annotated[str, typer.Option("--backends", help="Separated by commas.")] = "eager,compiled",
    baseline: Annotated[str, typer.Option("--baseline", help="transformers or none.")] = "transformers",
    tokens: Annotated[int, typer.Option("--tokens", "-n", help="New tokens of each run.")] = 128,
    repeats: Annotated[int, typer.Option("--repeats", "-r", help="Measured rounds.")] = 5,
    batch: Annotated[int, typer.Option("--batch", "-b", help="Rows of different length, padded on the left.")] = 1,
    model: ModelOption = "smollm2",
    random: Annotated[str | None, typer.Option("--random", help="A shape such as llama-2-7b, random weights.")] = None,
    order: OrderOption = None,
    profile: ProfileOption = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Also let each plan draft, with full depth checking: see generate.")
    ] = False,
    draft_tokens: DraftTokensOption = "auto",
    png: Annotated[Path | None, typer.Option("--png", help="Write a chart to this PNG file.")] = None,
    note: Annotated[str, typer.Option("--note", help="A remark to keep with the result.")] = "",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    device_map: DeviceMapOption = None,
    offload: OffloadOption = None,
    json: JsonOption = False,
) -> None:
    """Compare plans and backends with transformers' generate, paired and interleaved."""
    _check(tokens, repeats, batch, baseline)
    read_drafts(lossless, draft_tokens)
    specs = besides_full(plans, order, profile)  # before the model, so that a typo costs no loading
    given = {
        "plans": plans, "backends": backends, "baseline": baseline, "tokens": tokens, "repeats": repeats,
        "batch": batch, "random": random, "model": None if random else model, "order": order, "profile": profile,
        "dtype": dtype, "device": device, "weights": weights, "lossless": lossless,
        "draft_tokens": draft_tokens if lossless else None, "device_map": device_map, "offload": offload,
    }  # fmt: skip
    say = notes()
    with say.status("loading the model", spinner="dots"):
        loaded, tokenizer, inputs = _load(model, random, dtype, device, weights, batch, device_map, offload)
    with nullcontext() if json else say.status("measuring", spinner="dots") as status:
        result = _measure(
            loaded,
            inputs,
            specs,
            [b.strip() for b in backends.split(",") if b.strip()],
            tokens=tokens,
            repeats=repeats,
            baseline=baseline == "transformers",
            draft_tokens=draft_tokens if lossless else None,
            tokenizer=tokenizer,
            command=command_line("bench", given),
            context={"model": random or model, "note": note},
            progress=status.update if status is not None else lambda _: None,
        )
    if png is not None and launch.rank() == 0:
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


def _load(
    model: str, random: str | None, dtype: str, device: str, weights: str, batch: int, device_map: str | None,
    offload: str | None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    from ..adapters import adapter_for
    from ..bench import bench_inputs, random_model

    if random is None:
        loaded, tokenizer = load_quietly(model, dtype, device, weights, device_map, offload)
        return loaded, tokenizer, bench_inputs(tokenizer, batch, adapter_for(loaded).device)
    if launch.world() > 1:
        raise SettingsError("--random makes its weights in one process; give a --model for ranks to share")
    if device_map or offload:
        raise SettingsError("--device-map and --offload place a model's weights; --random has none to place")
    import torch

    from ..models import pick_device, pick_dtype, pick_weights

    quiet_libraries()
    target = pick_device(device)
    pick_weights(weights, False, dtype, target)
    ids = torch.arange(batch * 32, device=target).view(batch, 32) % 1000 + 3
    return (
        random_model(random, pick_dtype(dtype, target), target),
        None,
        {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
        },
    )


def _measure(
    model: Any,
    inputs: Any,
    specs: list[PlanSpec],
    backends: list[str],
    *,
    context: dict[str, Any],
    **options: Any,
) -> Any:
    from ..adapters import adapter_for
    from ..bench import compare

    depth = adapter_for(model).num_layers
    plans = {spec.label: spec.resolve(depth, options["tokens"]) for spec in [PlanSpec.parse("full"), *specs]}
    context["notes"] = [f"{name}: {note}" for name, plan in plans.items() for note in plan.notes]
    return compare(model, inputs, plans, backends, context=context, **options)


def _print(result: Any) -> None:
    out = console()
    about = result.context
    for note in about["notes"]:
        out.print(note, style="yellow", markup=False, soft_wrap=True)
    out.print(
        f"[bold]{about['model']}[/] {about['dtype']}, batch {about['batch']}, {about['machine']}; "
        f"copy bandwidth {about['copy_gb_per_s']:.1f} GB/s"
    )
    rows = table("plan", "backend", ">depth", ">tok/s", ">bytes saved", ">speed-up", ">realised", ">vs hf", ">GB/s")
    for row in result.rows:
        rows.add_row(
            _name(row),
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
        if row.theoretical_moved and row.plan != "full":
            said = f"{row.plan}, {row.backend}: full depth moves {row.theoretical_moved:.2f} times its bytes"
            out.print(said, markup=False, soft_wrap=True)
        if row.drafts:
            out.print(_drafts(row), markup=False, soft_wrap=True)
        if row.compile_seconds >= 0.1:
            out.print(f"{row.plan}, {row.backend}: compiled in {row.compile_seconds:.1f} s before the first run")


def _name(row: Any) -> str:
    return f"{row.plan}, lossless" if row.drafts else str(row.plan)


def _drafts(row: Any) -> str:
    """What was drafted, in plain steps at full depth on the same backend."""
    found = row.drafts
    said = f"{row.plan}, lossless, {row.backend}, --draft-tokens {found['draft_tokens']}: "
    if "acceptance" not in found:
        said += "nothing was drafted"
    else:
        said += (
            f"{found['acceptance']:.0%} accepted, {found['mean_drafted']:.1f} tokens a draft; a draft step takes "
            f"{found['draft_cost']:.2f} and a check {found['verify_cost']:.2f} of a plain step; predicted "
            f"{found['predicted']:.2f}, measured {_interval(row.speedup_vs_full)}"
        )
    return "; ".join([said, *found["decisions"][-1:]])


def _interval(value: Any, digits: int = 2) -> str:
    """``2.70 (2.61-2.78)``."""
    return f"{value.median:.{digits}f} ({value.low:.{digits}f}-{value.high:.{digits}f})" if value else ""
