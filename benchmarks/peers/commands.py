"""``python -m benchmarks peers setup``, ``run`` and ``page``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from depthsched.environment import machine
from depthsched.errors import SettingsError
from depthsched.files import write_json
from depthsched.models import EMBEDDED, embedded_gguf

from ..common import Count, Tokens
from ..pages import peers as page_of
from ..pages import write_pages
from ..pages.markdown import read
from ..process import in_a_process
from . import environment
from .measure import measure, processor, templated
from .summary import rows
from .variants import VARIANTS, Variant, chosen
from .variants import peers as peers_of

PROMPT = "Write a long story about a lighthouse keeper who finds a map."
"""Its answer is longer than what is measured (not every engine can be told to go on) and begins with no near tie."""

app = typer.Typer(help="OpenVINO GenAI, llama.cpp and depthsched side by side.", no_args_is_help=True)
EnvOption = Annotated[Path, typer.Option(help="Folder of the peers' environment.")]


@app.command()
def setup(env: EnvOption) -> None:
    """Make the environment of the peers. llama.cpp is compiled in it, which takes about ten minutes."""
    environment.setup(env, _tell)
    _tell(f"ready: python -m benchmarks peers run --env {env}")


@app.command()
def run(
    env: EnvOption,
    tokens: Tokens = 128,
    rounds: Count = 5,
    starts: Annotated[int, typer.Option(min=1, help="New processes of each, for loading and the first token.")] = 3,
    threads: Count = 2,
    engines: Annotated[str, typer.Option(help=f"Of: {'; '.join(one.name for one in VARIANTS)}.")] = "",
    model: Annotated[str, typer.Option(help="smollm2 or a .gguf file; a folder if only depthsched runs.")] = EMBEDDED,
    profile: Annotated[Path | None, typer.Option(help="Folder of the profile for depth 20.")] = None,
    prompt: str = PROMPT,
    out: Annotated[Path | None, typer.Option(help="Write here instead of to stdout.")] = None,
) -> None:
    """Let all run in turns on the same file, prompt and length; about 8 minutes on two cores that do nothing else."""
    taken, left_out = chosen(engines, None if profile is None else str(profile))
    file = embedded_gguf() if model == EMBEDDED else Path(model)
    pythons = {True: sys.executable, False: _python(taken, env, file)}
    for one in left_out:
        _tell(f"left out: {one['name']}: {one['reason']}")
    text = in_a_process(templated, {"model": model, "prompt": prompt})
    found = measure(
        taken, {True: model, False: str(file)}, pythons, text["ids"], text["text"],
        tokens=tokens, rounds=rounds, starts=starts, threads=threads, progress=_tell,
    )  # fmt: skip
    result: dict[str, Any] = {
        "kind": "peers",
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "machine": machine(),
        "processor": processor(),
        "file": {"name": file.name, "bytes": file.stat().st_size},
        "prompt": prompt,
        "prompt_tokens": len(text["ids"]),
        "tokens": tokens,
        "rounds": rounds,
        "starts": starts,
        "threads": threads,
        "versions": {name: v for one in found for name, v in one.starts[-1]["versions"].items()},
        "left_out": left_out,
        "rows": rows(found, text["ids"]),
    }
    for row in result["rows"]:
        if not row["tokenised_alike"]:
            _tell(f"{row['name']} makes other tokens of the prompt's text; it was measured on depthsched's")
    _deliver(result, out)


@app.command()
def page(
    found: Annotated[Path | None, typer.Argument(help="What run wrote; left out, the page in docs is printed.")] = None,
) -> None:
    """Print the tables: those of one file on stdout, or those of the documentation in their page."""
    if found is not None:
        typer.echo(page_of.section_of(read(found)).rstrip())
    else:
        for changed in write_pages("peers"):
            _tell(f"printed: {changed.name}")


def _python(taken: list[Variant], env: Path, file: Path) -> str:
    """The peers' interpreter, if any of them takes part."""
    engines = {variant.engine for variant in peers_of(taken)}
    if not engines:
        return ""
    if not file.is_file():
        raise SettingsError(f"the peers read GGUF files, and {file} is none; give --engines without them")
    return environment.python_of(env, engines)


def _deliver(result: dict[str, Any], out: Path | None) -> None:
    if out is None:
        typer.echo(json.dumps(result))
        return
    try:
        write_json(out, result)
    except OSError as error:
        raise SettingsError(f"cannot write {out}: {error.strerror}") from error


def _tell(line: str) -> None:
    typer.echo(line, err=True)
