"""``python -m benchmarks NAME``: every experiment prints one JSON object; ``pages`` prints the pages."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from depthsched.errors import DepthschedError

from . import evidence
from .adaptive import adaptive
from .batching import batching
from .blocks import blocks
from .cold import cold
from .first import first
from .gallery import gallery_page
from .long import long
from .lossless import lossless
from .memory import memory
from .offload import offload
from .pages import write_pages
from .paired import paired
from .peeking import peeking
from .peers import commands as peers
from .predict import predict
from .process import ROOT
from .prompts import prompts
from .renewal import renewal
from .signal import signal
from .studio import studio
from .study import study

app = typer.Typer(
    help="Measure what the documentation says, and print it.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
DataOption = Annotated[Path, typer.Option(help="Folder with gsm8k/, bbh/, ifeval/ and xquad/.")]
ScratchOption = Annotated[Path, typer.Option(help="Profiles, prompts and finished tasks are kept here.")]
SCRATCH = Path(".venv/evidence")


def _printed(experiment: Callable[..., dict[str, Any]]) -> Callable[..., None]:
    """A command that prints what an experiment returns; its options are the arguments of the function."""

    @functools.wraps(experiment)
    def command(**options: Any) -> None:
        typer.echo(json.dumps(experiment(**options)))

    return command


for function in (
    memory, cold, first, long, batching, study, paired, prompts, lossless, renewal, adaptive, peeking, signal, predict,
    offload, studio, gallery_page, blocks,
):  # fmt: skip
    app.command()(_printed(function))
app.add_typer(peers.app, name="peers")


@app.command()
def pages(
    name: Annotated[
        str,
        typer.Argument(
            help="speed, quality, tasks, pooled, copying, signal, premise, peers, lossless, predict, offload; or all."
        ),
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Only compare; leave with 1 if a page is stale.")] = False,
) -> None:
    """Print the tables of the pages of results from the JSON files that are kept."""
    changed = write_pages(name, check)
    for page in changed:
        typer.echo(f"{'stale' if check else 'printed'}: {page.relative_to(ROOT)}")
    if check and changed:
        raise typer.Exit(1)


@app.command()
def speed() -> None:
    """Measure what docs/results.md says, and print it; about 40 minutes on two cores that do nothing else."""
    _run(evidence.speed())


@app.command()
def quality(data: DataOption, scratch: ScratchOption = SCRATCH) -> None:
    """Measure what docs/results/quality.md and position.md say; about 45 minutes on two idle cores."""
    _run(evidence.quality(data, scratch))


@app.command()
def tasks(data: DataOption, scratch: ScratchOption = SCRATCH) -> None:
    """Measure what docs/results/tasks.md says, with the profile of quality; about an hour. What is done stays done."""
    _run(evidence.tasks(data, scratch))


@app.command(name="evidence-peers")
def evidence_peers(
    env: Annotated[Path, typer.Option(help="The peers' environment; it is made if it is not there.")],
    scratch: ScratchOption = SCRATCH,
) -> None:
    """Measure what docs/results/peers.md says, with the profile of quality; about 20 minutes on two idle cores."""
    _run(evidence.peers(env, scratch))


@app.command(name="evidence-lossless")
def evidence_lossless(
    questions: Annotated[Path, typer.Option(help="Folder with *.jsonl files of category and turns, as Spec-Bench's.")],
    scratch: ScratchOption = SCRATCH,
) -> None:
    """Measure what docs/results/lossless.md says; two hours on two idle cores. GSM8K lies beside the questions."""
    _run(evidence.lossless(questions, scratch))


@app.command(name="evidence-premise")
def evidence_premise(data: DataOption, scratch: ScratchOption = SCRATCH) -> None:
    """Measure what docs/results/premise.md says; about 40 minutes."""
    _run(evidence.premise(data, scratch))


@app.command(name="evidence-pooled")
def evidence_pooled(data: DataOption, scratch: ScratchOption = SCRATCH) -> None:
    """Measure what docs/results/pooled.md says; one to two hours. What is done stays done."""
    _run(evidence.pooled(data, scratch))


@app.command(name="evidence-copying")
def evidence_copying(data: DataOption, scratch: ScratchOption = SCRATCH) -> None:
    """Measure what docs/results/copying.md says; about an hour."""
    _run(evidence.copying(data, scratch))


@app.command(name="evidence-gallery")
def evidence_gallery(data: DataOption, scratch: ScratchOption = SCRATCH) -> None:
    """Measure the page Gallery; about half an hour. What is done stays done."""
    _run(evidence.gallery(data, scratch))


@app.command(name="evidence-signal")
def evidence_signal(data: DataOption) -> None:
    """Measure what docs/results/signal.md says; hours on two cores."""
    _run(evidence.signal(data))


def _run(lines: Iterator[str]) -> None:
    for line in lines:
        typer.echo(f"python -m {line}")
        evidence.run(line)


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit codes as those of depthsched: 2 if the input was wrong."""
    try:
        app(arguments)
    except DepthschedError as error:
        print(f"benchmarks: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
