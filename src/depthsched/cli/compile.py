"""``depthsched compile``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..errors import ModelError
from .output import DtypeOption, JsonOption, WeightsOption, console, load_quietly, notes, print_json

_TOKENS = 8


def add_to(app: typer.Typer) -> None:
    app.command("compile")(compile_library)


def compile_library(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Also run a few tokens of this model through it, on the CPU.")
    ] = None,
    dtype: DtypeOption = "auto",
    weights: WeightsOption = "auto",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Rows to run the model with.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Compile also where a good library lies there.")] = False,
    json: JsonOption = False,
) -> None:
    """Compile the decoder step for this CPU ahead of the first run: one library for all models, dtypes and batches."""
    from ..native import build

    say = notes()
    with say.status("compiling the decoder step for this CPU", spinner="dots"):
        built = build.build(again=again)
    about = build.about()
    result: dict[str, Any] = {
        "path": str(built.path), "seconds": built.seconds, "compiler": about["compiler"], "flags": about["flags"],
        "check": None,
    }  # fmt: skip
    if model is not None:
        with say.status(f"running {model}", spinner="dots"):
            result["check"] = _check(model, dtype, batch, weights)
    if json:
        print_json(result)
        return
    done = f"compiled in {built.seconds:.1f} s" if built.seconds else "there already"
    out = console()
    out.print(f"{done}: {built.path}", markup=False, soft_wrap=True)
    if result["check"]:
        ran = "{model} ran compiled: {tokens} tokens, {dtype}, batch {batch}".format_map(result["check"])
        out.print(ran, markup=False, soft_wrap=True)


def _check(model: str, dtype: str, batch: int, weights: str) -> dict[str, Any]:
    """A few tokens of a model through the library.

    Raises
    ------
    ModelError
        The model does not run compiled; with the reason.
    """
    loaded, tokenizer = load_quietly(model, dtype, "cpu", weights)
    from ..bench import bench_inputs
    from ..runtime.generate import generate

    loaded.generation_config.eos_token_id = None  # every row runs to the end
    inputs = bench_inputs(tokenizer, batch, loaded.device)
    trace = generate(loaded, inputs, backend="compiled", max_new_tokens=_TOKENS, do_sample=False).trace
    if trace.backend != "compiled":
        raise ModelError(f"{model} does not run compiled: {trace.reason}")
    dtype = str(loaded.dtype).removeprefix("torch.")
    return {"model": model, "dtype": dtype, "batch": batch, "tokens": _TOKENS, "backend": trace.backend}
