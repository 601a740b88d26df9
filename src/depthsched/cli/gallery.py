"""``depthsched gallery``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..environment import versions
from ..profiles import from_folder
from .output import JsonOption, console, print_json, quiet_libraries, table
from .sweep import progress

if TYPE_CHECKING:
    from ..gallery.run import Measured

app = typer.Typer(help="Every schedule at equal bytes, ranked, and where one more would stand.", no_args_is_help=True)


def add_to(root: typer.Typer) -> None:
    root.add_typer(app, name="gallery")


@app.command("run")
def run(
    file: Annotated[Path, typer.Argument(help="A YAML file: schedules, budgets, orders, bridges, model, ...")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the results; the same one again goes on with it.")],
    prompts: Annotated[Path, typer.Option("--prompts", help="JSON lines: prompt (or question), maybe completion.")],
    profile: Annotated[
        list[str] | None, typer.Option("--profile", "-p", help="A profile whose order takes part; may be repeated.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Measure the tasks of the file too, on this folder of data.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Prompts, in place of the file's number.")] = None,
    json: JsonOption = False,
) -> None:
    """Measure the schedules of a file at equal bytes; an interrupted run goes on."""
    from ..gallery import Inputs, read_gallery, run_gallery

    gallery = read_gallery(file, limit)
    inputs = Inputs(
        str(prompts.expanduser().resolve()),
        tuple(from_folder(place, Path.cwd()) for place in profile or ()),
        None if data is None else str(data.expanduser().resolve()),
    )
    if data is not None:
        from ..sweep.measure import check_eval

        check_eval()
    quiet_libraries()
    with progress(None) as notice:
        found = run_gallery(gallery, inputs, out, versions=versions(), notice=notice)
    _show(found, json)


@app.command("show")
def show(
    folder: Annotated[Path, typer.Argument(help="The folder of a gallery.")],
    page: Annotated[
        Path | None, typer.Option("--page", help="Write a Markdown page here, and its picture beside it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """What a gallery found: a ranked table for each budget."""
    from ..gallery import load_gallery

    found = load_gallery(folder)
    if page is not None:
        from ..gallery.page import write_page

        write_page(found, page)
    _show(found, json)


@app.command("add")
def add(
    spec: Annotated[str, typer.Argument(help="A schedule, such as d3:start=16, or a whole plan.")],
    gallery: Annotated[Path, typer.Option("--gallery", help="The folder of a gallery.")],
    json: JsonOption = False,
) -> None:
    """Measure one more schedule, and say whether it is better than constant depth at the same bytes."""
    from ..gallery import add_to_gallery

    quiet_libraries()
    with progress(None) as notice:
        found = add_to_gallery(spec, gallery, versions=versions(), notice=notice)
    _show(found, json)
    if not json:
        from ..gallery import load_gallery
        from ..gallery.page import sentence

        everything = load_gallery(gallery).rows
        for row in found.rows:
            console().print(sentence(row, everything), markup=False, soft_wrap=True)


def _show(found: Measured, json: bool) -> None:
    from ..gallery.page import shown, title, verdict_of

    if json:
        missing = [{**entry.to_json(), "group": entry.group.label, "reason": why} for entry, why in found.missing]
        print_json({"rows": [row.to_json() for row in found.rows], "missing": missing})
        return
    out = console()
    for budget in dict.fromkeys(row.entry.budget for row in found.rows):
        rows = table("schedule", "layers", ">bytes saved", ">KL", ">agreement", ">KL less constant", "verdict",
                     title=title(budget))  # fmt: skip
        for row in (row for row in found.rows if row.entry.budget == budget):
            less = shown(row.verdict.kl.to_json(), "+") if row.verdict else ""
            schedule = (row.entry.plan or "").partition("@")[0].partition("+profile=")[0]
            cells = [schedule, row.entry.group.label, f"{row.saved:.3f}x", shown(row.kl), shown(row.agreement), less]
            rows.add_row(*map(escape, cells), verdict_of(row))
        out.print(rows)
    for entry, why in found.missing:
        out.print(f"{entry.spec}, {entry.group.label}, {title(entry.budget)}: {why}", markup=False, soft_wrap=True)
