"""Do what a cell says. Needs torch; the grid, the cells and the store do not."""

from __future__ import annotations

import functools
from typing import Any

from ..plans import DepthPlan
from ..planspec import PlanSpec
from .cells import Cell


def measure(cell: Cell) -> dict[str, Any]:
    """The result of a cell, as JSON.

    Raises
    ------
    DepthschedError
        The plan does not fit the model, a file is gone, an extra is missing.
    """
    found: dict[str, Any] = {"score": _score, "bench": _bench, "eval": _eval}[cell.measure](cell)
    return found


@functools.lru_cache(maxsize=1)
def _loaded(model: str, dtype: str, device: str, weights: str) -> tuple[Any, Any]:
    """The model of the cell before is most often the model of this one."""
    from ..models import load_model

    return load_model(model, dtype=dtype, device=device, weights=weights)


def _plan(cell: Cell, model: Any, horizon: int) -> DepthPlan:
    from ..adapters import adapter_for

    return PlanSpec.parse(cell.plan).resolve(adapter_for(model).num_layers, horizon)


def _score(cell: Cell) -> dict[str, Any]:
    from ..score import own_answers, read_prompts, score, token_map

    options = cell.options
    model, tokenizer = _loaded(cell.model, cell.dtype, cell.device, cell.weights)
    plan = _plan(cell, model, options["max_new_tokens"])
    rows = read_prompts(cell.paths["prompts"], options["limit"])
    length = options["max_new_tokens"]
    samples = own_answers(model, tokenizer, rows, max_new_tokens=length, raw=options["raw"])
    result = score(model, [plan], samples, tokenizer=tokenizer)[0]
    found = result.to_json()
    del found["seconds"]  # the record has the time; the rest is the same in every run
    maps = [
        token_map(model, tokenizer, plan, row.text, sample.prompt, max_new_tokens=length).to_json()
        for row, sample in zip(rows[: options["maps"]], samples, strict=False)
    ]
    per_prompt = [[row.tokens, row.kl, row.agreement] for row in result.per_prompt]  # sums, for paired comparisons
    return {"plan": plan.to_json(), "score": found, "maps": maps, "per_prompt": per_prompt}


def _bench(cell: Cell) -> dict[str, Any]:
    from ..bench import bench_inputs, compare

    options = cell.options
    model, tokenizer = _loaded(cell.model, cell.dtype, cell.device, cell.weights)
    plan = _plan(cell, model, options["tokens"])
    plans = {"full": PlanSpec.parse("full").resolve(plan.num_layers, options["tokens"])}
    if any(depth != plan.num_layers for depth in plan.depths) or plan.adaptive:
        plans[cell.label] = plan  # else it is full depth itself
    result = compare(
        model,
        bench_inputs(tokenizer, options["batch"], model.device),
        plans,
        [options["backend"]],
        tokens=options["tokens"],
        repeats=options["repeats"],
        baseline=False,
        tokenizer=tokenizer,
        context={"model": cell.model},
    )
    return {"plan": plan.to_json(), "bench": {**result.rows[-1].to_json(), "context": dict(result.context)}}


def _eval(cell: Cell) -> dict[str, Any]:
    check_eval()
    from ..evaluate.evaluation import evaluate_cell
    from ..evaluate.options import EvalOptions

    loaded = {"dtype": cell.dtype, "device": cell.device, "weights": cell.weights}
    own = {"data": cell.paths.get("data"), **loaded, **cell.options}
    options = EvalOptions(cell.model, (own.pop("task"),), **own)
    return {"eval": evaluate_cell(options, PlanSpec.parse(cell.plan))}


def check_eval() -> None:
    """Raise unless evaluation is installed.

    Raises
    ------
    MissingExtraError
    """
    from ..evaluate.extra import need_lm_eval

    need_lm_eval()
