"""``depthsched eval``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..environment import versions
from ..errors import SettingsError
from ..files import writable_folder, write_json
from ..parallel import launch
from ..planspec import PlanSpec
from .cluster import RayCpusOption, RayOption, cluster_of, connected
from .eval_pool import margin_of, print_pooled, refuse_unused
from .output import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OrderOption,
    PlansOption,
    ProfileOption,
    RenewOption,
    SkippedKvOption,
    VerifyOption,
    WeightsOption,
    besides_full,
    command_line,
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
    from ..evaluate.evaluation import Evaluation, Progress
    from ..evaluate.pooling import Pooled
    from ..evaluate.pools import Pool
    from ..evaluate.results import EvalRow

FULL = "full"


def add_to(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    tasks: Annotated[str, typer.Option("--tasks", help="lm-eval tasks that generate, separated by commas; * matches.")],
    plans: PlansOption = "full",
    limit: Annotated[int | None, typer.Option("--limit", help="Only so many items of each task.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with a folder for each task, in place of a hub.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", "-n", help="In place of each task's own maximum.")
    ] = None,
    model: ModelOption = "smollm2",
    order: OrderOption = None,
    profile: ProfileOption = None,
    backend: Annotated[str, typer.Option("--backend", help="auto, eager, compiled or cuda-graph.")] = "auto",
    batch: Annotated[int, typer.Option("--batch", "-b", help="Items decoded together.")] = 32,
    skipped_kv: SkippedKvOption = "auto",
    verify_below: VerifyOption = None,
    renew: RenewOption = None,
    pool: Annotated[
        str | None, typer.Option("--pool", help="Decide over tasks together: all, or TASK\\[/METRIC]\\[=WEIGHT],...")
    ] = None,
    margin: Annotated[float | None, typer.Option("--margin", help="Points within which a plan must be; 1.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="decided: draw items until the pool is decided, and no more.")
    ] = None,
    needle_tokens: Annotated[
        int | None, typer.Option("--needle-tokens", help="Length of the texts of niah_single_1; 1024.")
    ] = None,
    unsafe_code: Annotated[
        bool, typer.Option("--confirm-run-unsafe-code", help="Allow tasks that execute what the model wrote.")
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts into the model's chat template.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Keep samples and results here; what is there is not run again.")
    ] = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    ray: RayOption = None,
    ray_cpus: RayCpusOption = None,
    json: JsonOption = False,
) -> None:
    """Task scores under plans, paired item by item with full depth. Needs the extra eval (lm-eval)."""
    specs = besides_full(plans, order, profile)  # before the model, so that a typo costs no loading
    refuse_rules(skipped_kv, verify_below, renew_of(renew))
    allowed = margin_of(pool, until, margin)
    cluster = cluster_of(ray, ray_cpus)
    if (pool or until) and not specs:
        raise SettingsError("--pool and --until compare plans with full depth; give one with --plans")
    _quiet()
    from ..evaluate.evaluation import Evaluation
    from ..evaluate.layouts import NEEDLE_TOKENS
    from ..evaluate.options import EvalOptions
    from ..evaluate.pools import Pool

    options: dict[str, Any] = {
        "data": str(data) if data else None, "limit": limit, "max_new_tokens": max_new_tokens,
        "dtype": dtype, "device": device, "weights": weights, "backend": backend, "batch": batch, "chat": chat,
        "skipped_kv": skipped_kv, "verify_below": verify_below, "renew": renew_of(renew),
        "needle_tokens": NEEDLE_TOKENS if needle_tokens is None else needle_tokens, "unsafe_code": unsafe_code,
    }  # fmt: skip
    names = tuple(t.strip() for t in tasks.split(",") if t.strip())
    evaluation = Evaluation(EvalOptions(model=model, tasks=names, **options), out, cluster)
    asked_pool = Pool.parse(pool or "all", evaluation.tasks) if pool or until else None
    refuse_unused(list(evaluation.tasks), asked_pool if until else None, needle_tokens)
    if out is not None:
        writable_folder(out, "give another --out")  # before the work
    found: list[tuple[str, Pooled]] = []
    with connected(cluster), _bar() as progress:
        if asked_pool and until:
            rows = _until(evaluation, specs, asked_pool, allowed, found, progress)
        else:
            rows = _fixed(evaluation, specs, asked_pool, allowed, found, progress)
    for label, changes in {row.plan: row.notes for row in rows}.items():
        say_notes(label, changes)
    options |= {"profile": profile, "order": order}
    labels = ";".join([FULL, *(spec.label for spec in specs)])
    asked = {"tasks": tasks, "plans": labels, "model": model, **options, "data": "DATA" if data else None}
    asked |= {"pool": pool, "margin": margin, "until": until, "unsafe_code": None}
    asked |= {"confirm_run_unsafe_code": unsafe_code, "needle_tokens": needle_tokens}
    asked |= {"ray": ray, "ray_cpus": ray_cpus}
    result: dict[str, Any] = {
        "rows": [row.to_json() for row in rows],
        "pooled": [{"plan": label, "metrics": asked_pool.metrics, **one.to_json()} for label, one in found]
        if asked_pool
        else [],
        "context": {"model": model, "command": command_line("eval", asked), **options},
        "versions": versions(),
    }
    if out is not None and launch.rank() == 0:
        write_json(out / "results.json", result)
    if json:
        print_json(result)
    else:
        _print(rows)
        if asked_pool:
            print_pooled(found, asked_pool)


def _quiet() -> None:
    import logging

    quiet_libraries()
    for name in ("lm_eval", "lm-eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich import progress as shown

    columns = (shown.TextColumn("{task.description}"), shown.BarColumn(), shown.MofNCompleteColumn())
    with shown.Progress(*columns, shown.TimeRemainingColumn(), console=notes(), transient=True) as bar:
        line = bar.add_task("loading", total=None)

        def progress(what: str, done: int, of: int) -> None:
            bar.update(line, description=what, completed=done, total=of)

        yield progress


def _fixed(
    evaluation: Evaluation,
    specs: list[PlanSpec],
    pool: Pool | None,
    margin: float,
    found: list[tuple[str, Pooled]],
    progress: Progress,
) -> list[EvalRow]:
    """All items of all tasks, full depth first."""
    fulls = evaluation.run(FULL, progress)
    rows = evaluation.rows(fulls, progress)
    for spec in specs:
        runs = evaluation.run(spec, progress)
        rows += evaluation.rows(runs, progress)
        if pool is not None:
            found.append((spec.label, pool.decide(runs, fulls, margin)))
    return rows


def _until(
    evaluation: Evaluation,
    specs: list[PlanSpec],
    pool: Pool,
    margin: float,
    found: list[tuple[str, Pooled]],
    progress: Progress,
) -> list[EvalRow]:
    """Of every plan as many items as it takes."""
    from ..evaluate.pools import until_decided

    rows: list[EvalRow] = []
    for spec in specs:
        one, runs = until_decided(evaluation, spec, pool, margin, progress)
        found.append((spec.label, one))
        rows += evaluation.rows(runs, progress)
    return rows


def _print(rows: list[EvalRow]) -> None:
    out = console()
    shown = table(
        "task", "plan", "metric", ">n", ">full", ">score", ">difference", ">p", ">depth", ">bytes saved", ">speed"
    )
    for row in rows:
        pair = row.paired
        shown.add_row(
            row.task,
            row.plan,
            row.metric.removeprefix("exact_match,"),
            str(pair.n),
            f"{100 * pair.full:.1f}",
            f"{100 * pair.score:.1f}",
            ""
            if row.plan == "full"
            else f"{100 * pair.diff:+.1f}\n[dim]{100 * pair.low:+.1f} to {100 * pair.high:+.1f}[/]",
            "" if row.plan == "full" else f"{pair.p_value:.3f}",
            f"{row.mean_depth:.1f}",
            f"{row.bytes_speedup:.2f}x",
            f"{row.speedup:.2f}x",
        )
    out.print(shown)
    for row in rows:
        if row.plan != "full":
            out.print(f"{row.task}, {row.plan}, {row.metric}: {row.paired.verdict()}", soft_wrap=True)
            least = 100 * row.paired.detectable
            out.print(f"[dim]  {row.paired.n} items show a difference from {least:.1f} points on (80% power)[/]")
