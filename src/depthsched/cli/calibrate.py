"""``depthsched calibrate``."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..environment import versions
from ..errors import SettingsError
from ..plugins import split_rankers
from .cluster import RayCpusOption, RayOption, cluster_of, connected
from .output import DeviceOption, JsonOption, ModelOption, WeightsOption, console, notes, print_json, table
from .score import load_samples

if TYPE_CHECKING:
    from ..profile import Profile


class Purpose(StrEnum):
    """What a profile is made for."""

    skipping = "skipping"
    drafting = "drafting"


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
    purpose: Annotated[
        Purpose, typer.Option("--for", help="skipping, or drafting: what makes lossless runs fastest.")
    ] = Purpose.skipping,
    verify_cost: Annotated[
        float | None,
        typer.Option("--verify-cost", help="Of checking a draft, in plain steps; default 1. For drafting."),
    ] = None,
    row_cost: Annotated[
        float | None, typer.Option("--row-cost", help="What each drafted token adds to it; default 0. For drafting.")
    ] = None,
    min_depth: Annotated[
        int | None, typer.Option("--min-depth", help="Lowest depth; default half of the layers.")
    ] = None,
    orders: Annotated[
        str,
        typer.Option("--order", "--orders", help="Rankers to try, each NAME or NAME:key=value,... (depthsched list)."),
    ] = "block,ranked",
    corrections: Annotated[
        int,
        typer.Option(
            "--corrections",
            help="A correction at every so many kept layers, left out where it does not lower KL; 0: none.",
        ),
    ] = 4,
    refine: Annotated[
        int,
        typer.Option(
            "--refine", min=0, help="Passes of gradient descent on KL after the fit, on bridges alone; minutes each."
        ),
    ] = 0,
    limit: Annotated[int | None, typer.Option("--limit", help="Use only so many prompts.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Length of the model's own answers.")
    ] = 128,
    raw: Annotated[bool, typer.Option("--raw", help="Give prompts as they are, without the chat template.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Draws the prompts that judge, and what rankers draw.")] = 0,
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    ray: RayOption = None,
    ray_cpus: RayCpusOption = None,
    json: JsonOption = False,
) -> None:
    """Find the layers to drop, bridges for them and a schedule that meets a target; write a profile.

    With --for drafting: the order, bridges, depth and draft length that are predicted to make lossless runs fastest.

    With --ray: answers, fits and judgements go to workers, a batch of prompts a piece; solving, choosing, refining and
    what rankers compute on their own stay here.
    """
    began = time.perf_counter()
    from ..bench.clock import peak_bytes
    from ..calibrate import CheckCost, Options, Target
    from ..calibrate import calibrate as run

    costs = {"verify": verify_cost, "row": row_cost}
    if purpose is Purpose.skipping and any(cost is not None for cost in costs.values()):
        raise SettingsError("--verify-cost and --row-cost are for drafts; add --for drafting")
    check = None
    if purpose is Purpose.drafting:
        check = CheckCost(**{name: cost for name, cost in costs.items() if cost is not None})

    given = {"max_kl": max_kl, "min_agreement": min_agreement, "speedup": target_speedup}
    target = Target(**given) if any(value is not None for value in given.values()) else None
    if check and (target or schedule_family != "constant"):
        raise SettingsError("--for drafting takes no target and no schedule family: drafts lose no quality")
    if check and refine:
        raise SettingsError("--for drafting takes no --refine: it lowers KL along a skipping run")
    options = Options(
        min_depth=min_depth, orders=split_rankers(orders), corrections=corrections, seed=seed, refine=refine
    )
    cluster = cluster_of(ray, ray_cpus)
    with connected(cluster):  # before the model: an address that leads nowhere costs no loading
        loaded, _, samples = load_samples(
            model, prompts, limit, max_new_tokens, raw, "float32", device, weights, cluster=cluster
        )
        profile = run(
            loaded,
            model,
            samples,
            out,
            target=target,
            family=schedule_family,
            check=check,
            options=options,
            versions=versions(),
            say=lambda text: notes().print(f"{time.perf_counter() - began:6.0f} s  {text}"),
            cluster=cluster,
        )
    seconds, peak = time.perf_counter() - began, peak_bytes(loaded.device)
    if json:
        content = {key: value for key, value in profile.to_json().items() if key != "model"}
        print_json({"profile": str(profile.folder), "seconds": seconds, "peak_memory_bytes": peak, **content})
    else:
        (_print_drafts if profile.drafting else _print)(profile, model)
        console().print(f"{seconds:.0f} s, at most {peak / 2**30:.2f} GiB of memory")


def _print(profile: Profile, model: str) -> None:
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


def _print_drafts(profile: Profile, model: str) -> None:
    out, best = console(), profile.drafting
    check = best["check"]
    out.print(
        f"[bold]{profile.folder}[/]: order {best['ranker']}, {best['form']}, drops "
        f"{'+'.join(map(str, profile.drop_order))}; a draft step by bytes, "
        f"a check {check['verify']:g} + {check['row']:g} for each drafted token, in plain steps"
    )
    rows = table(">depth", ">drafted", ">kept", ">draft step", ">speed-up", title="Predicted, on held-out prompts")
    for row in profile.evidence["drafts"]:
        rows.add_row(
            str(row["depth"]),
            str(row["draft_tokens"]),
            f"{row['acceptance']:.3f}",
            f"{row['draft_cost']:.3f}",
            f"{row['speedup']:.3f}",
        )
    out.print(rows)
    if best["own_answers"] < 0.98:
        out.print(
            f"{1 - best['own_answers']:.0%} of the answers' tokens are not what full depth writes: what is kept was "
            "counted along them and is an estimate. Leave completions out for the model's own answers.",
            style="yellow",
        )
    if best["speedup"] <= 1:
        out.print(f"no draft is predicted to pay: the best is {best['speedup']:.2f}x of full depth", style="yellow")
    elif best["depth"] == min(row["depth"] for row in profile.evidence["drafts"]):
        out.print("the best depth is the lowest that was tried: a lower --min-depth may give more", style="yellow")
    out.print(
        f'depthsched generate "..." --model {model} --profile {profile.folder} --schedule {profile.schedule} '
        f"--lossless --draft-tokens {best['draft_tokens']}",
        markup=False,
        soft_wrap=True,
    )
