"""``depthsched score``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..environment import versions
from ..errors import SettingsError
from ..placement import read_device_map
from ..planspec import PlanSpec
from .cluster import RayCpusOption, RayOption, cluster_of, connected
from .output import (
    PLAN_SYNTAX,
    DeviceMapOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OffloadOption,
    OrderOption,
    ProfileOption,
    RenewOption,
    VerifyOption,
    WeightsOption,
    console,
    notes,
    print_json,
    quiet_libraries,
    refuse_rules,
    renew_of,
    say_notes,
    table,
)

if TYPE_CHECKING:
    from ..score import Interval, Sample, ScoreResult


def add_to(app: typer.Typer) -> None:
    app.command("score")(score)


def score(
    prompts: Annotated[Path, typer.Option("--prompts", help="JSON lines: prompt (or question), maybe completion.")],
    plans: Annotated[
        str, typer.Option("--plans", "--schedule", "-s", help=f"{PLAN_SYNTAX}, several separated by ';'.")
    ] = "d3",
    order: OrderOption = None,
    profile: ProfileOption = None,
    model: ModelOption = "smollm2",
    limit: Annotated[int | None, typer.Option("--limit", help="Score only so many prompts.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Length of the model's own answers.")
    ] = 128,
    skipped_kv: Annotated[str, typer.Option("--skipped-kv", help="auto, or recompute as in generate.")] = "auto",
    verify_below: VerifyOption = None,
    renew: RenewOption = None,
    method: Annotated[str, typer.Option("--method", help="auto, staircase or step-by-step.")] = "auto",
    raw: Annotated[bool, typer.Option("--raw", help="Give prompts as they are, without the chat template.")] = False,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    device_map: DeviceMapOption = None,
    offload: OffloadOption = None,
    ray: RayOption = None,
    ray_cpus: RayCpusOption = None,
    json: JsonOption = False,
) -> None:
    """What a schedule costs in quality: KL, agreement and perplexity against full depth, on the same tokens."""
    from ..blocks.modules import weights_form
    from ..runtime.renewal import renewal_of
    from ..score import score as score_plans

    specs = PlanSpec.parse_all(plans, order, profile)  # before the model, so that a typo costs no loading
    if skipped_kv not in ("auto", "recompute"):
        raise SettingsError(f"--skipped-kv {skipped_kv} must be auto or recompute: scores of plans are those of auto")
    refuse_rules(skipped_kv, verify_below, renew_of(renew))
    cluster = cluster_of(ray, ray_cpus)
    if cluster and (device_map or offload):
        raise SettingsError("workers of a Ray cluster hold the whole model; leave --device-map and --offload out")
    places = {"device_map": read_device_map(device_map), "offload_folder": offload}

    with connected(cluster):  # before the model: an address that leads nowhere costs no loading
        loaded, tokenizer, samples = load_samples(
            model, prompts, limit, max_new_tokens, raw, dtype, device, weights, cluster=cluster, **places
        )

        layers = loaded.config.get_text_config(decoder=True).num_hidden_layers
        resolved = [spec.resolve(layers, max_new_tokens) for spec in specs]
        for spec, plan in zip(specs, resolved, strict=True):
            say_notes(spec.label, plan.notes)
        with notes().status("scoring", spinner="dots") as status:
            results = score_plans(
                loaded,
                resolved,
                samples,
                method=method,
                renewal=renewal_of(skipped_kv, verify_below, renew_of(renew), tokenizer),
                tokenizer=tokenizer,
                cluster=cluster,
                progress=lambda done, of: status.update(f"scoring, {done} of {of}"),
            )
    if json:
        rows = [result.to_json() for result in results]
        extra = {"model": model, "weights": weights_form(loaded), "versions": versions()}
        print_json({**(rows[0] if len(rows) == 1 else {}), "rows": rows, **extra})
    else:
        _print(results)


def load_samples(
    model: str,
    prompts: Path,
    limit: int | None,
    max_new_tokens: int,
    raw: bool,
    dtype: str,
    device: str,
    weights: str,
    **places: Any,
) -> tuple[Any, Any, list[Sample]]:
    """The model, its tokenizer, and the prompts with their completions; says on stderr how far it is."""
    quiet_libraries()
    from ..score import load_samples as load

    with notes().status(f"loading {model}", spinner="dots") as status:
        return load(
            model,
            prompts,
            limit,
            max_new_tokens,
            raw=raw,
            dtype=dtype,
            device=device,
            weights=weights,
            **places,
            progress=lambda done, of: status.update(f"the model's own answers, {done} of {of}"),
        )


def _print(results: list[ScoreResult]) -> None:
    out = console()
    first = results[0]
    out.print(
        f"{first.prompts} prompts, {first.tokens} decode steps, perplexity {first.perplexity_full:.3f} at full depth"
    )
    rows = table("plan", ">depth", ">bytes saved", ">KL", ">agreement", ">perplexity")
    for result in results:
        order = result.order.partition(":")[0] + (" + bridges" if result.profile else "")
        rows.add_row(
            f"{result.schedule}\n[dim]@ {order}{', ' if result.renewal else ''}{result.renewal}[/]",
            f"{result.mean_depth:.1f}",
            f"{result.bytes_speedup:.2f}x",
            f"{result.kl.mean:.3f}\n{_bounds(result.kl)}",
            f"{result.agreement.mean:.3f}\n{_bounds(result.agreement)}",
            f"{result.perplexity:.3f}",
        )
    out.print(rows)
    out.print("[dim]under KL and agreement: 95% bootstrap intervals over prompts[/]")


def _bounds(interval: Interval) -> str:
    return "" if interval.low is None else f"[dim]{interval.low:.3f} to {interval.high:.3f}[/]"
