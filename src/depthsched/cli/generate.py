"""``depthsched generate``: the main job."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..drafts import read_drafts
from ..encoding import encode, model_inputs
from ..environment import versions
from ..errors import SettingsError
from ..parallel import launch
from ..planspec import PlanSpec
from . import generate_view as view
from .output import (
    DeviceMapOption,
    DeviceOption,
    DraftTokensOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    OffloadOption,
    OrderOption,
    ProfileOption,
    RenewOption,
    ScheduleOption,
    SkippedKvOption,
    VerifyOption,
    WeightsOption,
    load_quietly,
    notes,
    print_json,
    refuse_rules,
    renew_of,
    say_notes,
)

if TYPE_CHECKING:
    from ..plans import DepthPlan


def add_to(app: typer.Typer) -> None:
    app.command("generate")(generate)


def generate(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; '-' or nothing reads stdin.")] = None,
    prompt_file: Annotated[Path | None, typer.Option("--prompt-file", "-f", help="Read the prompt from here.")] = None,
    model: ModelOption = "smollm2",
    schedule: ScheduleOption = "d3",
    order: OrderOption = None,
    profile: ProfileOption = None,
    backend: Annotated[str, typer.Option("--backend", help="auto, eager, compiled or cuda-graph.")] = "auto",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n", help="Most tokens to generate.")] = 128,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the random draws when sampling.")] = 0,
    temperature: Annotated[float, typer.Option("--temperature", "-t", help="0 decodes greedily.")] = 0.0,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Sample from this much probability.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Give the prompt as it is, without the chat template.")] = False,
    compare: Annotated[bool, typer.Option("--compare", "-c", help="Also run full depth, and compare.")] = False,
    skipped_kv: SkippedKvOption = "auto",
    verify_below: VerifyOption = None,
    renew: RenewOption = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="The plan drafts, full depth checks: its text, token by token.")
    ] = False,
    draft_tokens: DraftTokensOption = "auto",
    force: Annotated[bool, typer.Option("--force", help="Drive a model family that is unknown or refused.")] = False,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    device_map: DeviceMapOption = None,
    offload: OffloadOption = None,
    json: JsonOption = False,
) -> None:
    """Generate text under a schedule; show the depth of every token and what it saved."""
    text = _read_prompt(prompt, prompt_file)
    draws = sampling(temperature, top_p)
    check_numbers(max_new_tokens, seed)
    read_drafts(lossless, draft_tokens, skipped_kv)
    drafts: dict[str, Any] = {"lossless": lossless, "draft_tokens": draft_tokens, "skipped_kv": skipped_kv}
    drafts |= {"verify_below": verify_below, "renew": renew_of(renew)}
    refuse_rules(skipped_kv, verify_below, drafts["renew"], lossless=lossless)
    spec = PlanSpec.parse(schedule, order, profile)  # before the model, so that a typo costs no loading
    say = notes()
    with say.status(f"loading {model}", spinner="dots"):
        loaded, tokenizer = load_quietly(model, dtype, device, weights, device_map, offload)
    inputs = model_inputs([encode(tokenizer, text, raw=raw)])
    options = {"max_new_tokens": max_new_tokens, "force": force, "tokenizer": tokenizer, **draws}
    from ..adapters import adapter_for
    from ..blocks.modules import weights_form

    layers = adapter_for(loaded, force=force).num_layers
    plan = spec.resolve(layers, max_new_tokens)
    arms = [PlanSpec.parse("full").resolve(layers, max_new_tokens), plan] if compare else [plan]
    # First calls allocate and choose kernels. The plan is that of the whole run, and so is the backend it gets.
    with say.status("warming up", spinner="dots"):
        short = {**options, **drafts, "max_new_tokens": 2}
        _run(loaded, tokenizer, inputs, backend, seed, nullcontext(), plan, short)
    results = []
    for arm in arms:
        bar = view.progress(say, f"generating, {arm.schedule}", max_new_tokens)
        how = drafts if arm is plan else {}
        results.append(_run(loaded, tokenizer, inputs, backend, seed, bar, arm, {**options, **how}))
    result = results[-1]
    fallback = result["_run"].trace.fallback
    say_notes(spec.label, [*result["notes"], *([f"runs eager: {fallback}"] if fallback else [])])
    result |= {"model": model, "weights": weights_form(loaded), "prompt": text, "versions": versions()}
    if compare:
        result["full"] = results[0]
        result["equal_prefix_share"] = equal_prefix_share(results[0]["tokens"], result["tokens"])
    if json:
        print_json({key: value for key, value in result.items() if not key.startswith("_")})
    else:
        view.print_result(result, tokenizer)


def equal_prefix_share(full: list[int], scheduled: list[int]) -> float:
    """Share of the tokens that are equal before the first difference, of the longer of the two."""
    equal = 0
    for a, b in zip(full, scheduled, strict=False):
        if a != b:
            break
        equal += 1
    return equal / max(len(full), len(scheduled), 1)


def _read_prompt(prompt: str | None, file: Path | None) -> str:
    if file is not None:
        if prompt is not None:
            raise SettingsError("give the prompt as an argument or with --prompt-file, not both")
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise SettingsError(f"cannot read the prompt from {file}: {reason}") from error
    elif prompt is None or prompt == "-":
        if launch.world() > 1:
            raise SettingsError("ranks share one stdin; give the prompt as an argument or with --prompt-file")
        if sys.stdin.isatty():
            raise SettingsError('no prompt; give one: depthsched generate "Why is the sky blue?"')
        text = sys.stdin.read()
    else:
        text = prompt
    if not text.strip():
        raise SettingsError('the prompt is empty; give one: depthsched generate "Why is the sky blue?"')
    return text


def sampling(temperature: float, top_p: float | None) -> dict[str, Any]:
    """What ``ds.generate`` takes for these options."""
    if not 0 <= temperature <= 100:
        raise SettingsError(f"--temperature {temperature} must be in [0, 100]; 0 decodes greedily")
    if top_p is not None and not 0 < top_p <= 1:
        raise SettingsError(f"--top-p {top_p} must be in (0, 1]")
    if top_p is not None and temperature == 0:
        raise SettingsError("--top-p samples, so it needs a --temperature above 0")
    if temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": temperature, "top_p": top_p or 1.0, "top_k": 0}


def check_numbers(max_new_tokens: int, seed: int) -> None:
    """Refuse numbers out of range before the model is loaded."""
    if max_new_tokens < 1:
        raise SettingsError(f"--max-new-tokens {max_new_tokens} must be at least 1")
    if not 0 <= seed < 2**63:
        raise SettingsError(f"--seed {seed} must be between 0 and 2**63 - 1")


def _run(
    model: Any,
    tokenizer: Any,
    inputs: Any,
    backend: str,
    seed: int,
    bar: Any,
    plan: DepthPlan,
    options: dict[str, Any],
) -> dict[str, Any]:
    import torch

    from ..runtime.generate import generate as run_plan

    torch.manual_seed(seed)
    with bar as streamer:
        run = run_plan(model, inputs, plan, backend=backend, streamer=streamer, **options)
    return {"text": tokenizer.decode(run.tokens[0], skip_special_tokens=True), **run.to_json(), "_run": run}
