"""ReplaceMe (arXiv 2505.02819) for depthsched: the command ``depthsched replaceme``."""

from pathlib import Path
from typing import Annotated, Any

import typer

import depthsched as ds

API = 1


@ds.hookimpl
def register_commands(app: typer.Typer) -> None:
    """Offer the command ``replaceme``."""
    app.command("replaceme")(replaceme)


def replaceme(
    prompts: Annotated[Path, typer.Option("--prompts", help="JSON lines: prompt (or question), maybe completion.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the new model; must not hold one yet.")],
    depth: Annotated[int, typer.Option("--depth", help="Layers of the new model.")],
    model: Annotated[str, typer.Option("--model", help="smollm2, a folder, a .gguf file or a hub id.")] = "smollm2",
    first: Annotated[
        int | None, typer.Option("--first", help="First layer of the cut; default where both its ends are closest.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Use only so many prompts.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Length of the model's answers.")] = 128,
    raw: Annotated[bool, typer.Option("--raw", help="Give prompts as they are, without the chat template.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")] = False,
) -> None:
    """Cut layers out of a model and fold a map that stands in for them into the MLP before the cut (ReplaceMe)."""
    import json as encoder

    from transformers.utils import logging

    from depthsched.adapters import adapter_for
    from depthsched.score import load_samples

    from .cut import check_folder, make

    check_folder(out)
    logging.disable_progress_bar()
    loaded, tokenizer, samples = load_samples(
        model, prompts, limit, max_new_tokens, raw=raw, device=device, weights="dense"
    )
    facts: dict[str, Any] = {"model": model, **make(adapter_for(loaded), tokenizer, samples, depth, out, first)}
    if json:
        print(encoder.dumps(facts))
        return
    print(f"{out}: {depth} layers, without {facts['first']} to {facts['end'] - 1}; ridge {facts['ridge']:g}")
    print(f"on texts it was not fitted on the map leaves {facts['left']:.1%} of the squared error of the cut alone")
    print(f'depthsched generate "..." --model {out} --schedule full')
