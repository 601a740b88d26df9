"""``depthsched calibrate``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..environment import versions
from ..plugins import split_rankers
from .output import DeviceOption, JsonOption, ModelOption, WeightsOption, console, notes, print_json, table
from .score import load_samples

if TYPE_CHECKING:
    from ..profile import Profile


def add_to(app: typer.Typer) -> None:
    app.command("calibrate")(calibrate)


def calibrate(
    prompts: Annotated[Path, typer.Option("--prompts", help="JSON lines: prompt (or question), maybe completion.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the profile.")],
    model: ModelOption = "smollm2",
    max_kl: Annotated[float | None, typer.Option("--max-kl", help="Most KL(full || scheduled) per token.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option("--min-agreement", help="Least share of equal most likely tokens.")
    ] = None,
    target_speedup: Annotated[float | None, typer.Option("--target-speedup", help="Least speed-up in bytes.")] = None,
    schedule_family: Annotated[
        str, typer.Option("--schedule-family", help="constant, d3, linear or step.")
    ] = "constant",
    min_depth: Annotated[
        int | None, typer.Option("--min-depth", help="Lowest depth; default half of the layers.")
    ] = None,
    orders: Annotated[
        str,
        typer.Option("--order", "--orders", help="Rankers to try, each NAME or NAME:key=value,... (depthsched list)."),
    ] = "block,ranked",
    corrections: Annotated[
        int, typer.Option("--corrections", help="A correction at every so many kept layers; 0: none.")
    ] = 4,
    limit: Annotated[int | None, typer.Option("--limit", help="Use only so many prompts.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Length of the model's own answers.")
    ] = 128,
    raw: Annotated[bool, typer.Option("--raw", help="Give prompts as they are, without the chat template.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Draws the prompts that judge, and what rankers draw.")] = 0,
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    json: JsonOption = False,
) -> None:
    """Find the layers to drop, bridges for them and a schedule that meets a target; write a profile."""
    began = time.perf_counter()
    from ..bench.clock import peak_bytes
    from ..calibrate import Options, Target
    from ..calibrate import calibrate as run

    given = {"max_kl": max_kl, "min_agreement": min_agreement, "speedup": target_speedup}
    target = Target(**given) if any(value is not None for value in given.values()) else None
    options = Options(min_depth=min_depth, orders=split_rankers(orders), corrections=corrections, seed=seed)
    loaded, _, samples = load_samples(model, prompts, limit, max_new_tokens, raw, "float32", device, weights)
    profile = run(
        loaded,
        model,
        samples,
        out,
        target=target,
        family=schedule_family,
        options=options,
        versions=versions(),
        say=lambda text: notes().print(f"{time.perf_counter() - began:6.0f} s  {text}"),
    )
    seconds, peak = time.perf_counter() - began, peak_bytes(loaded.device)
    if json:
        content = {key: value for key, value in profile.to_json().items() if key != "model"}
        print_json({"profile": str(profile.folder), "seconds": seconds, "peak_memory_bytes": peak, **content})
    else:
        _print(profile)
        console().print(f"{seconds:.0f} s, at most {peak / 2**30:.2f} GiB of memory")


def _print(profile: Profile) -> None:
    out = console()
    out.print(
        f"[bold]{profile.folder}[/]: order {profile.evidence['chosen']}, drops {'+'.join(map(str, profile.drop_order))}"
    )
    if profile.schedule:
        out.print(f"schedule that meets the target: [bold]{profile.schedule}[/]")
    rows = table(">depth", ">KL", ">agreement", title="Constant depth with bridges, held-out prompts")
    for row in profile.evidence["constant"]:
        rows.add_row(str(row["depth"]), f"{row['kl']:.3f}", f"{row['agreement']:.3f}")
    out.print(rows)
