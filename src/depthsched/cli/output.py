"""What every command shares: options, JSON on stdout, tables for people."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Mapping
from logging import ERROR, getLogger
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..planspec import SYNTAX, PlanSpec

PLAN_SYNTAX = escape(SYNTAX)  # or help texts lose what stands in brackets
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]
ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="smollm2 (embedded), a local folder, a .gguf file or a hub id.")
]
ScheduleOption = Annotated[
    str,
    typer.Option("--schedule", "-s", help=f"{PLAN_SYNTAX}; schedule: name:key=value,... or file.py:Class:..."),
]
PlansOption = Annotated[
    str, typer.Option("--plans", help=f"{PLAN_SYNTAX}, several separated by ';'. Full depth is always in.")
]
OrderOption = Annotated[
    str | None, typer.Option("--order", "-o", help="Which layers go first, such as middle-out:head=2,tail=2.")
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile", "-p", help="A folder that calibrate wrote, a name or a hub id; for plans that name none."
    ),
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
WeightsOption = Annotated[
    str, typer.Option("--weights", help="auto, native (the blocks of a .gguf file, on the CPU) or dense.")
]
SkippedKvOption = Annotated[
    str, typer.Option("--skipped-kv", help="K and V of skipped layers: auto, write, omit or recompute.")
]
VerifyOption = Annotated[
    float | None,
    typer.Option("--verify-below", help="Check a token at full depth where its lead in probability is below this."),
]
RenewOption = Annotated[
    str | None, typer.Option("--renew", help="A full pass every N steps, or at each 'sentence' end; renews K and V.")
]
DraftTokensOption = Annotated[
    str,
    typer.Option("--draft-tokens", help="With --lossless, when to stop drafting: auto, a number, confidence or del."),
]
DeviceMapOption = Annotated[
    str | None,
    typer.Option("--device-map", help="auto, or a JSON file of modules and places: cpu, disk, the number of a GPU."),
]
OffloadOption = Annotated[str | None, typer.Option("--offload", help="Folder for what the device map puts on disk.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]


def console() -> Console:
    """Where people read: stdout, as wide as the terminal."""
    return Console(highlight=False)


def notes() -> Console:
    """Where progress goes: stderr."""
    return Console(stderr=True, highlight=False)


def besides_full(plans: str, order: str | None, profile: str | None) -> list[PlanSpec]:
    """The plans of a :data:`PlansOption` without full depth, which is always in."""
    return [spec for spec in PlanSpec.parse_all(plans, order, profile) if spec.label != "full"]


def renew_of(renew: str | None) -> int | str | None:
    """What :data:`RenewOption` says: a number where it is one."""
    try:
        return None if renew is None else int(renew)
    except ValueError:
        return renew  # sentence, or refused where it is read


class _Later:
    """In place of a tokenizer that is not loaded yet."""

    decode = staticmethod(str)


def refuse_rules(
    skipped_kv: str, verify_below: float | None, renew: int | str | None, *, lossless: bool = False
) -> None:
    """Refuse rules of renewal that mean nothing before the model is loaded.

    Raises
    ------
    PlanError
    """
    if skipped_kv == "recompute" or verify_below is not None or renew is not None:
        from ..runtime.renewal import renewal_of

        renewal_of(skipped_kv, verify_below, renew, _Later, lossless=lossless)


def command_line(command: str, options: Mapping[str, Any]) -> str:
    """The command that does the same again; options that are not set are left out."""
    words = [f"depthsched {command}"]
    for name, value in options.items():
        if value not in (None, False):
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [shlex.quote(str(value))]
    return " ".join(words)


def say_notes(plan: str, found: Iterable[str]) -> None:
    """Say on stderr what a plan had to change."""
    for note in found:
        notes().print(f"{plan}: {note}", style="yellow", markup=False, soft_wrap=True)


def print_json(data: dict[str, Any]) -> None:
    """One JSON object on stdout; numbers that are not finite become null."""
    typer.echo(json.dumps(data, allow_nan=False, default=str))


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table; columns that start with ``>`` are aligned to the right."""
    result = Table(title=title, box=None, header_style="bold", title_justify="left", pad_edge=False)
    for column in columns:
        result.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return result


def quiet_libraries() -> None:
    """Keep progress bars and advice of the model libraries out of this command's output."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    getLogger("accelerate").setLevel(ERROR)


def load_quietly(
    model: str, dtype: str, device: str, weights: str, device_map: str | None = None, offload: str | None = None
) -> tuple[Any, Any]:
    """Model and tokenizer, and nothing else on the terminal."""
    quiet_libraries()
    from ..models import load_model
    from ..parallel import launch
    from ..placement import read_device_map

    return load_model(
        model,
        dtype=dtype,
        device=device,
        weights=weights,
        tensor_parallel=launch.world() > 1,
        device_map=read_device_map(device_map),
        offload_folder=offload,
    )
