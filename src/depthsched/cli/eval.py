"""``depthsched eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..environment import versions
from ..files import writable_folder, write_json
from ..planspec import PlanSpec
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
    from ..evaluate.evaluation import Evaluation
    from ..evaluate.results import EvalRow


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
    needle_tokens: Annotated[int, typer.Option("--needle-tokens", help="Length of the texts of niah_single_1.")] = 1024,
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
    json: JsonOption = False,
) -> None:
    """Task scores under plans, paired item by item with full depth. Needs the extra eval (lm-eval)."""
    specs = besides_full(plans, order, profile)  # before the model, so that a typo costs no loading
    refuse_rules(skipped_kv, verify_below, renew_of(renew))
    _quiet()
    from ..evaluate.evaluation import Evaluation
    from ..evaluate.options import EvalOptions

    options: dict[str, Any] = {
        "data": str(data) if data else None, "limit": limit, "max_new_tokens": max_new_tokens,
        "dtype": dtype, "device": device, "weights": weights, "backend": backend, "batch": batch, "chat": chat,
        "skipped_kv": skipped_kv, "verify_below": verify_below, "renew": renew_of(renew),
        "needle_tokens": needle_tokens, "unsafe_code": unsafe_code,
    }  # fmt: skip
    names = tuple(t.strip() for t in tasks.split(",") if t.strip())
    evaluation = Evaluation(EvalOptions(model=model, tasks=names, **options), out)
    if out is not None:
        writable_folder(out, "give another --out")  # before the work
    specs = [PlanSpec.parse("full"), *specs]
    rows = _run(evaluation, specs)
    for label, found in {row.plan: row.notes for row in rows}.items():
        say_notes(label, found)
    options |= {"profile": profile, "order": order}
    labels = ";".join(spec.label for spec in specs)
    asked = {"tasks": tasks, "plans": labels, "model": model, **options, "data": "DATA" if data else None}
    result: dict[str, Any] = {
        "rows": [row.to_json() for row in rows],
        "context": {"model": model, "command": command_line("eval", asked), **options},
        "versions": versions(),
    }
    if out is not None:
        write_json(out / "results.json", result)
    if json:
        print_json(result)
    else:
        _print(rows)


def _quiet() -> None:
    import logging

    quiet_libraries()
    for name in ("lm_eval", "lm-eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _run(evaluation: Evaluation, specs: list[PlanSpec]) -> list[EvalRow]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rows: list[EvalRow] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes(), transient=True) as bar:
        shown = bar.add_task("loading", total=None)

        def progress(what: str, done: int, of: int) -> None:
            bar.update(shown, description=what, completed=done, total=of)

        for spec in specs:
            rows += evaluation.rows(evaluation.run(spec, progress), progress)
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
