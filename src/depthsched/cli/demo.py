"""``depthsched demo``: the first minute."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from ..errors import SettingsError
from .output import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    WeightsOption,
    command_line,
    load_quietly,
    notes,
    print_json,
)

Profiled = Annotated[
    str | None,
    typer.Option("--profile", "-p", help="A profile that calibrate wrote; left out, the embedded model's, if there."),
]


def add_to(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    model: ModelOption = "smollm2",
    profile: Profiled = None,
    tokens: Annotated[int, typer.Option("--tokens", "-n", help="New tokens of each answer.")] = 64,
    rounds: Annotated[int, typer.Option("--rounds", "-r", help="Measured rounds.")] = 2,
    backend: Annotated[str, typer.Option("--backend", help="auto, eager, compiled or cuda-graph.")] = "auto",
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure here and now: transformers' generate, full depth, D³, constant depth and a lossless run, side by side."""
    if tokens < 2:
        raise SettingsError(f"--tokens {tokens} must be at least 2: the first comes out of the prefill")
    if rounds < 1:
        raise SettingsError(f"--rounds {rounds} must be at least 1")
    given = {
        "model": model, "profile": profile, "tokens": tokens, "rounds": rounds, "backend": backend, "dtype": dtype,
        "device": device, "weights": weights,
    }  # fmt: skip
    say = notes()
    with say.status(f"loading {model}", spinner="dots"):
        loaded, tokenizer = load_quietly(model, dtype, device, weights)
        from ..adapters import adapter_for
        from ..demo import for_transformers, profile_for, run_demo, ways

        found, missing = profile_for(profile, loaded)
        rows = ways(adapter_for(loaded).num_layers, tokens, found)
        dense = for_transformers(model, loaded, device)
    with nullcontext() if json else say.status("measuring", spinner="dots") as status:
        progress = status.update if status is not None else lambda _: None
        result = run_demo(
            loaded, dense, tokenizer, rows, backend=backend, tokens=tokens, rounds=rounds, progress=progress
        )
    about: dict[str, Any] = {"command": command_line("demo", given), "model": model, "no_profile": missing or None}
    if json:
        print_json({**about, **result.to_json()})
        return
    from .demo_view import print_demo

    print_demo(result, about, tokenizer, commands(context))


def commands(context: typer.Context) -> frozenset[str]:
    """The names of every command that can be typed here, those of plug-ins included."""
    root: Any = context.find_root().command
    return frozenset(root.list_commands(context))
