"""``depthsched oracle``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..environment import versions
from ..errors import SettingsError
from ..planspec import PlanSpec
from ..plugins import parse_schedule
from ..text import span
from .output import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelOption,
    ProfileOption,
    WeightsOption,
    console,
    notes,
    print_json,
    table,
)
from .score import load_samples

if TYPE_CHECKING:
    from ..oracle import OracleResult
    from ..stats import Interval

MAPS = 4
BOTH = "ranked;ranked:bridges=false"


def add_to(app: typer.Typer) -> None:
    app.command("oracle")(oracle)


def oracle(
    prompts: Annotated[Path, typer.Option("--prompts", help="JSON lines: prompt (or question), maybe completion.")],
    order: Annotated[
        str | None,
        typer.Option(
            "--order", "-o", help=f"Orders, several separated by ';'; default middle-out, with a profile '{BOTH}'."
        ),
    ] = None,
    profile: ProfileOption = None,
    plans: Annotated[
        str,
        typer.Option(
            "--plans",
            "-s",
            help="Schedules to score beside it, several separated by ';'; auto takes d3 and "
            "confidence, none takes none. Every constant depth is in.",
        ),
    ] = "auto",
    kinds: Annotated[
        str, typer.Option("--kinds", help="one-step, held, or both: K and V of full depth, or of the depth itself.")
    ] = "one-step,held",
    min_depth: Annotated[int, typer.Option("--min-depth", min=1, help="Try no depth below; each takes a pass.")] = 1,
    model: ModelOption = "smollm2",
    limit: Annotated[int | None, typer.Option("--limit", help="Look at only so many prompts.")] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", help="Length of the model's own answers.")
    ] = 128,
    raw: Annotated[bool, typer.Option("--raw", help="Give prompts as they are, without the chat template.")] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page with the depth map: answers in the colour of the oracle."),
    ] = None,
    maps: Annotated[
        int | None, typer.Option("--maps", min=0, help="Answers on that page, for each order and kind; 4.")
    ] = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "auto",
    weights: WeightsOption = "auto",
    json: JsonOption = False,
) -> None:
    """The least depth that would have given full depth's token, by position, and what the best choice could save."""
    specs = _specs(order, profile)  # before the model, so that a typo costs no loading
    wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    _check_kinds(wanted)
    for text in _texts(plans):
        parse_schedule(text)
    if html is not None and html.expanduser().is_dir():
        raise SettingsError(f"--html {html} is a folder; give the file to write")
    if html is None and maps is not None:
        raise SettingsError("--maps is for the page of --html; give that too")
    loaded, tokenizer, samples = load_samples(model, prompts, limit, max_new_tokens, raw, dtype, device, weights)
    from ..blocks.modules import weights_form
    from ..oracle import oracle_depths

    layers = loaded.config.get_text_config(decoder=True).num_hidden_layers
    with notes().status("one pass a depth", spinner="dots") as status:
        results = oracle_depths(
            loaded,
            specs,
            samples,
            kinds=wanted,
            plans=_compared(layers) if plans == "auto" else _texts(plans),
            min_depth=min_depth,
            tokenizer=tokenizer,
            progress=lambda done, of: status.update(f"one pass a depth, {done} of {of}"),
        )
    context = {"model": model, "weights": weights_form(loaded), "versions": versions()}
    files = [] if html is None else [str(_page(html, results, tokenizer, MAPS if maps is None else maps, context))]
    if json:
        rows = [result.to_json() for result in results]
        print_json({"rows": rows, **context, **({"files": files} if files else {})})
        return
    for result in results:
        _print(result)
    for file in files:
        console().print(file, markup=False)


def _specs(order: str | None, profile: str | None) -> list[PlanSpec]:
    """Orders as specs: with a profile, the same order with and without its bridges."""
    texts = [BOTH if profile is not None else "middle-out"] if order is None else [order]
    found = PlanSpec.parse_all(";".join(f"full@{text.strip()}" for text in texts[0].split(";") if text.strip()),
                               None, profile)  # fmt: skip
    if profile is not None and not any(spec.order.name == "ranked" for spec in found):
        raise SettingsError(
            f"--profile {profile} would change nothing: it is for order ranked; leave out one of the two"
        )
    return found


def _check_kinds(kinds: list[str]) -> None:
    unknown = [kind for kind in kinds if kind not in ("one-step", "held")]
    if unknown or not kinds:
        raise SettingsError(f"--kinds {','.join(kinds) or chr(39) * 2} must be one-step, held, or one-step,held")


def _texts(plans: str) -> list[str]:
    texts = [] if plans in ("auto", "none") else [text.strip() for text in plans.split(";") if text.strip()]
    if not texts and plans not in ("auto", "none"):
        raise SettingsError("--plans is empty; give schedules such as d3:alpha=0.995, auto, or none")
    return texts


def _compared(layers: int) -> list[str]:
    """Gentle and steep decay, and back to full depth where the model is unsure."""
    sure = f"confidence:depth={max(layers * 2 // 3, 1)}"
    return ["d3:alpha=0.999", "d3:alpha=0.997", "d3:alpha=0.99", f"{sure},margin=0.9", f"{sure},margin=0.5"]


def _page(file: Path, results: list[OracleResult], tokenizer: Any, maps: int, context: dict[str, Any]) -> Path:
    from ..files import write_atomic
    from ..oracle import oracle_maps
    from ..report.oracle import oracle_page

    shown = [answer for result in results for answer in oracle_maps(result, tokenizer, maps)]
    try:
        write_atomic(file.expanduser(), oracle_page([r.to_json() for r in results], shown, context).encode())
    except OSError as error:
        raise SettingsError(f"cannot write {file}: {error.strerror}") from error
    return file


def _print(result: OracleResult) -> None:
    out = console()
    bridges = " + bridges" if result.profile else ""
    out.print(f"[bold]{result.order.partition(':')[0]}{bridges}[/], depths {result.depths[0]} to {result.num_layers}")
    out.print(
        f"{result.prompts} prompts, {result.tokens} decode steps; at full depth NLL {_span(result.nll)}, entropy "
        f"{_span(result.entropy)} nats"
    )
    means = table("oracle", ">least depth", ">stable from", ">per 100 steps", ">bytes at 100%", ">99%", ">95%")
    for kind in result.kinds:
        saved = [f"{found.bytes_speedup:.2f}x" for found in kind.headroom]
        means.add_row(kind.kind, _span(kind.least, 1), _span(kind.stable, 1), _signed(kind.trend["least"]), *saved)
    out.print(means)
    steps = table(">steps", ">prompts", ">NLL", ">entropy", *(f">{kind.kind}" for kind in result.kinds))
    for i, found in enumerate(result.per_step):
        values = [_span(found.values[name]) for name in ("nll", "entropy")]
        least = [_span(kind.per_step[i].values["least"], 1) for kind in result.kinds]
        steps.add_row(f"{found.first}-{found.last}", str(found.prompts), *values, *least)
    out.print(steps)
    beside = table("plan", ">agreement", ">bytes saved", *(f">best {kind.kind}" for kind in result.kinds))
    for row in sorted(result.plans, key=lambda row: -row.agreement.mean):
        best = [f"{saved:.2f}x" for saved in row.best.values()]
        beside.add_row(row.plan, _span(row.agreement, 3), f"{row.bytes_speedup:.2f}x", *best)
    if result.plans:
        out.print(beside)
    out.print("[dim]best: what the cheapest choice of depths in hindsight saves at the agreement of the plan[/]\n")


def _span(found: Interval, digits: int = 2) -> str:
    return span(found.mean, found.low, found.high, digits)


def _signed(found: Interval) -> str:
    return span(found.mean, found.low, found.high, 2, sign=True)
