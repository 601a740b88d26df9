"""``depthsched predict``: what plans will do on a device, before there is one."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PlanError, SettingsError
from ..planspec import PlanSpec
from .output import (
    DtypeOption,
    JsonOption,
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

if TYPE_CHECKING:
    from ..bench.devices import Device
    from ..bench.predict import PredictedRow, Subject
    from ..plans import DepthPlan

THIS = "this"


def add_to(app: typer.Typer) -> None:
    app.command("predict")(predict)


def predict(
    shape: Annotated[
        str | None, typer.Option("--shape", help="A known shape such as llama-2-70b; its weights are not needed.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Or a model; for a named device only its configuration is read.")
    ] = None,
    plans: PlansOption = "constant:depth=20;d3",
    device: Annotated[
        str, typer.Option("--device", help="a100, h100, h200, or this: measure the machine, some seconds.")
    ] = THIS,
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="Devices that share each layer (tensor parallel).")] = 1,
    batch: Annotated[str, typer.Option("--batch", "-b", help="Rows, several numbers separated by commas.")] = "1",
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", min=1, help="Tokens of each prompt.")] = 32,
    tokens: Annotated[int, typer.Option("--tokens", "-n", min=2, help="New tokens of each run.")] = 128,
    order: OrderOption = None,
    profile: ProfileOption = None,
    dtype: DtypeOption = "auto",
    weights: WeightsOption = "auto",
    json: JsonOption = False,
) -> None:
    """Predict memory and tokens per second of plans on a device, and print what the prediction assumes."""
    if (shape is None) == (model is None):
        raise SettingsError("give either --shape, such as llama-2-70b, or --model")
    batches = _numbers(batch)
    specs = besides_full(plans, order, profile)
    from ..bench.predict import predict as predicted

    given = {
        "shape": shape, "model": model, "plans": plans, "device": device, "ranks": ranks, "batch": batch,
        "prompt_tokens": prompt_tokens, "tokens": tokens, "order": order, "profile": profile, "dtype": dtype,
        "weights": weights,
    }  # fmt: skip
    if device == THIS and ranks > 1:
        raise SettingsError("--ranks needs devices whose links are known; name one with --device, such as h100")
    with nullcontext() if json else notes().status("measuring", spinner="dots") as status:
        if device == THIS:
            say = (lambda _: None) if status is None else status.update
            subject, target = _here(shape, model, dtype, weights, batches, prompt_tokens + tokens // 2, say)
        else:
            subject, target = _elsewhere(shape, model, device, dtype, weights)
    depth = subject.shape.num_layers
    resolved = {spec.label: spec.resolve(depth, tokens) for spec in [PlanSpec.parse("full"), *specs]}
    rows = predicted(
        subject, target, resolved, batches=batches, ranks=ranks, prompt_tokens=prompt_tokens, tokens=tokens
    )
    about = {"prompt_tokens": prompt_tokens, "tokens": tokens, "notes": _remarks(resolved)}
    result = {"command": command_line("predict", given), **_context(subject, target, ranks), **about}
    if json:
        print_json({**result, "rows": [row.to_json() for row in rows]})
    else:
        _print(result, rows)


def _remarks(plans: dict[str, DepthPlan]) -> list[str]:
    """What plans had to change, and which of them are only known while they run."""
    found = [f"{name}: {note}" for name, plan in plans.items() for note in plan.notes]
    rule = "decides while decoding; this is its curve for a sure model"
    return found + [f"{name} {rule}" for name, plan in plans.items() if plan.adaptive]


def _context(subject: Subject, target: Device, ranks: int) -> dict[str, Any]:
    from ..bench.predict import assumptions

    return {
        "predicted": True,
        "model": subject.name,
        "dtype": subject.dtype,
        "weights": subject.weights,
        "device": target.name,
        "device_memory_bytes": target.memory_bytes,
        "copy_gb_per_s": target.copy_bytes_per_s / 1e9,
        "costs": {batch: dataclasses.asdict(costs) for batch, costs in target.costs.items()},
        "assumptions": [*assumptions(target, ranks)],
    }


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(f"--batch {text!r} must be whole numbers from 1, separated by commas, such as 1,8")
    return [int(part) for part in parts]


def _here(
    shape: str | None, model: str | None, dtype: str, weights: str, batches: list[int], context: int, say: Any
) -> tuple[Subject, Device]:
    """The subject on this machine, and the machine as it was measured."""
    from ..bench.here import COLD_BYTES, cpu_costs, this_device
    from ..bench.subjects import model_subject, probe_model, shape_subject
    from ..models import pick_device, pick_dtype, pick_weights

    target = pick_device("auto")
    kind = pick_dtype(dtype, target)
    loaded: Any = None
    if model is not None:
        loaded, _ = load_quietly(model, dtype, str(target), weights)
        subject = model_subject(model, loaded)
    else:
        assert shape is not None
        weights = _shape_weights(weights, target.type)
        pick_weights(weights, True, kind, target)
        subject = shape_subject(shape, kind, weights)
    device = this_device(target)
    if target.type != "cpu":
        return subject, device
    if loaded is None:
        one = subject.layers_bytes / subject.shape.num_layers
        layers = min(subject.shape.num_layers, max(2, round(COLD_BYTES / one)))
        loaded = probe_model(subject.name, kind, subject.weights, layers)
    return subject, cpu_costs(subject, loaded, device, batches, context, say)


def _elsewhere(shape: str | None, model: str | None, device: str, dtype: str, weights: str) -> tuple[Subject, Device]:
    """The subject, in half precision where nothing else is asked for, and a known device."""
    from ..bench.devices import known_device
    from ..bench.subjects import configured, model_subject, shape_subject
    from ..models import pick_dtype, source_of

    target = known_device(device)
    if weights == "native":
        raise PlanError("native weights run on a CPU; leave --weights out, or use --device this")
    quiet_libraries()
    import torch

    kind = torch.bfloat16 if dtype == "auto" else pick_dtype(dtype, torch.device("cpu"))
    if shape is not None:
        return shape_subject(shape, kind), target
    assert model is not None
    if model.endswith(".gguf"):
        raise PlanError(f"{model} would be converted as a whole first; give a folder, a hub id or a --shape")
    return model_subject(model, configured(source_of(model), kind)), target


def _shape_weights(weights: str, device: str) -> str:
    if weights == "native" and device != "cpu":
        raise PlanError(f"native weights run on the CPU, not on {device}; use dense")
    return "dense" if weights == "auto" else weights


def _print(result: dict[str, Any], rows: list[PredictedRow]) -> None:
    out = console()
    for note in result["notes"]:
        out.print(note, style="yellow", markup=False, soft_wrap=True)
    ranks = f" x {rows[0].ranks}" if rows[0].ranks > 1 else ""
    out.print(
        f"[bold]predicted[/], not measured: {result['model']} {result['dtype']}, {result['weights']} weights, on "
        f"{result['device']}{ranks}; {result['prompt_tokens']} + {result['tokens']} tokens"
    )
    shown = table("plan", ">batch", ">depth", ">tok/s", ">bytes saved", ">speed-up", ">ms a step", ">GB a device")
    for row in rows:
        shown.add_row(
            row.plan,
            str(row.batch),
            f"{row.mean_depth:.1f}",
            f"{row.tokens_per_second:.1f}",
            f"{row.theoretical_bytes:.2f}",
            f"{row.speedup_vs_full:.2f}",
            f"{sum(row.seconds.values()) * 1e3:.2f}",
            f"{row.memory_bytes / 1e9:.1f}",
        )
    out.print(shown)
    for row in (row for row in rows if row.plan == "full"):
        parts = ", ".join(f"{name} {value * 1e3:.2f} ms" for name, value in row.seconds.items() if value)
        room = "" if row.fits else f"; does not fit in {result['device_memory_bytes'] / 1e9:.0f} GB"
        out.print(f"full depth, batch {row.batch}: {parts} a step{room}", soft_wrap=True)
    out.print("This stands on:")
    for line in result["assumptions"]:
        out.print(f"- {line}", markup=False, soft_wrap=True)
