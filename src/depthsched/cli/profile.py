"""``depthsched profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ..profile import Profile
from ..profiles import find_profile
from ..text import one_line, ranges
from .output import JsonOption, console, print_json, table

app = typer.Typer(help="Profiles: what they hold, a model card, a smaller copy, and the hub.", no_args_is_help=True)
PlaceArgument = Annotated[
    str, typer.Argument(help="A folder, a name of depthsched list, or a hub id user/name@commit.")
]


def add_to(root: typer.Typer) -> None:
    root.add_typer(app, name="profile")


@app.command("show")
def show(profile: PlaceArgument, json: JsonOption = False) -> None:
    """Model, order, depths, schedule and evidence of a profile."""
    found = find_profile(profile)
    if json:
        content = found.to_json()
        del content["model"]["weights"]
        print_json({"profile": found.place, "revision": found.revision or None, "digest": found.digest, **content})
    else:
        _print(found)


@app.command("card")
def card_of(
    profile: PlaceArgument,
    out: Annotated[Path | None, typer.Option("--out", help="Write it to this file; default stdout.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="How others will name the profile.")] = None,
) -> None:
    """A model card in Markdown: model, evidence, how it was made and how to use it."""
    from ..files import write_atomic
    from ..profiles.card import card

    text = card(find_profile(profile), name)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomic(out, text.encode())


@app.command("pack")
def pack_into(
    profile: PlaceArgument,
    out: Annotated[Path, typer.Argument(help="Folder of the copy.")],
    dtype: Annotated[str, typer.Option("--dtype", help="bfloat16, float16 or float32.")] = "bfloat16",
    min_depth: Annotated[
        int | None, typer.Option("--min-depth", min=1, help="Leave out bridges of depths below.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """A smaller copy of a profile: bridges in fewer bits, at fewer depths."""
    from ..profiles.pack import pack

    source = find_profile(profile)
    made = pack(source, out, dtype=dtype, min_depth=min_depth)
    sizes = {"bytes_before": source.tensors_bytes, "bytes": made.tensors_bytes}
    if json:
        print_json({"profile": made.place, "depths": list(made.depths), **sizes})
    else:
        line = f"{made.place}: {made.tensors_bytes / 1e6:.1f} MB of {source.tensors_bytes / 1e6:.1f} MB"
        console().print(f"{line}, bridges at depths {ranges(made.depths) or 'none'}", markup=False, soft_wrap=True)


@app.command("push")
def push_to(
    profile: PlaceArgument,
    repo: Annotated[str, typer.Argument(help="The hub id that it gets: user/name.")],
    public: Annotated[bool, typer.Option("--public", help="For everybody to see; private without it.")] = False,
    json: JsonOption = False,
) -> None:
    """Upload a profile and its card to the hub, in one commit of three files."""
    from ..profiles.card import card
    from ..profiles.hub import push

    found = find_profile(profile)
    pushed = push(found, repo, card(found, repo), public=public)
    if json:
        print_json({"profile": pushed.place, "private": pushed.private})
    else:
        who = "only you see it" if pushed.private else "everybody sees it"
        console().print(f"{pushed.place}: {who}", markup=False, soft_wrap=True)


def _print(found: Profile) -> None:
    from ..profiles.card import evidence_rows, shown

    out = console()
    facts: dict[str, Any] = {
        "profile": found.place,
        "revision": found.revision or "none",
        "model": f"{found.model.name}, {found.num_layers} layers, hidden size {found.model.hidden_size}",
        "drops, first first": " ".join(map(str, found.drop_order)),
        "depths with bridges": ranges(found.depths) or "none",
        "schedule": found.schedule or "none",
        "tensors": f"{found.tensors_bytes / 1e6:.1f} MB",
        "made from": f"{found.data.get('prompts', '?')} prompts, {found.data.get('fit_tokens', '?')} decode steps",
    }
    if packed := found.evidence.get("packed"):
        facts["packed"] = packed
    head = table("", "")
    for key, value in facts.items():
        head.add_row(f"[bold]{key}[/]", escape(one_line(value)))
    out.print(head)
    rows = evidence_rows(found)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    measured = table(
        *(f">{escape(one_line(column))}" for column in columns), title="held-out prompts, against full depth"
    )
    for row in rows:
        measured.add_row(*(escape(shown(row.get(column, ""))) for column in columns))
    if rows:
        out.print(measured)
