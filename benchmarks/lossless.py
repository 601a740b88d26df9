"""What drafting with a plan is worth, by category of prompt, beside transformers' early exit and prompt lookup.

Every prompt runs through every arm by turns, in one process. An arm is compared with plain full depth of its own side:
depthsched's with depthsched's, transformers' with transformers'.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import torch
import typer

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bench import known_shape
from depthsched.drafts import DraftTokens, predict_drafting
from depthsched.encoding import encode, model_inputs
from depthsched.environment import machine, versions
from depthsched.errors import SettingsError
from depthsched.runtime.rounds import Round, acceptance, payoff
from depthsched.stats import Interval

from .common import Count, Tokens
from .kept import Kept

SHAPES = ("llama-2-7b", "llama-2-70b")


class Question(NamedTuple):
    """A prompt and what kind it is."""

    category: str
    text: str


class Answer(NamedTuple):
    """What an arm made of a prompt: tokens, seconds with the prompt and after it, passes at full depth, drafts."""

    tokens: list[int]
    seconds: float
    decode_seconds: float | None
    passes: int
    rounds: Sequence[Round] = ()

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Read back what :meth:`to_json` made."""
        rounds = [Round(**{**one, "accepted": tuple(one["accepted"])}) for one in found["rounds"]]
        return cls(**{**found, "rounds": rounds})

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**self._asdict(), "rounds": [asdict(one) for one in self.rounds]}


@dataclass
class Arm:
    """One way of decoding, and its answers by question."""

    name: str
    side: str
    run: Callable[[Any], Answer]
    depth: int = 0
    answers: list[tuple[int, Answer]] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.side}: {self.name}"


def lossless(
    data: Annotated[Path, typer.Argument(help="Folder with *.jsonl files of category and turns, as Spec-Bench's.")],
    model: str = "smollm2",
    plans: Annotated[str, typer.Option(help="Separated by ';'.")] = "constant:depth=24;constant:depth=20",
    profile: str | None = None,
    draft_tokens: Annotated[str, typer.Option(help="Separated by commas.")] = "auto,3",
    lookup: Annotated[int, typer.Option(min=1, help="prompt_lookup_num_tokens.")] = 4,
    limit: Annotated[int, typer.Option(min=1, help="Questions of each category.")] = 10,
    max_new_tokens: Tokens = 128,
    repeats: Count = 3,
    dtype: str = "float32",
    weights: str = "dense",
    backend: str = "compiled",
    others: Annotated[bool, typer.Option(help="Also transformers' own ways.")] = True,
    keep: Annotated[
        Path | None, typer.Option(help="JSON lines of finished answers; a run with the same options goes on from them.")
    ] = None,
) -> dict[str, Any]:
    """Acceptance and speed by category, paired; dense weights for transformers."""
    options = {name: str(value) for name, value in locals().items() if name != "keep"}
    specs = ds.PlanSpec.parse_all(plans, None, profile)
    rules = [DraftTokens.parse(text.strip()) for text in draft_tokens.split(",")]
    questions = read_questions(data, limit)
    loaded, tokenizer = ds.load_model(model, dtype=dtype, weights=weights)
    arms = _arms(loaded, specs, rules, max_new_tokens, backend)
    if others:
        dense = loaded if weights == "dense" else ds.load_model(model, dtype=dtype, weights="dense")[0]
        arms += _others(dense, [arm.depth for arm in arms if arm.depth], lookup, max_new_tokens)
    inputs = [model_inputs([encode(tokenizer, question.text)], loaded.device) for question in questions]
    _run(arms, inputs, repeats, Kept(keep, options))
    return {
        "kind": "lossless",
        "model": model,
        "dtype": dtype,
        "weights": weights,
        "profile": bool(profile),
        "machine": machine(loaded.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "questions": len(questions),
        "max_new_tokens": max_new_tokens,
        "repeats": repeats,
        "unit": "mean",
        "rows": [row for arm in arms for row in _rows(arm, arms, questions)],
        "predictions": [one for arm in arms for one in _predictions(arm, adapter_for(loaded).num_layers)],
    }


def _run(arms: Sequence[Arm], inputs: Sequence[Any], repeats: int, kept: Kept) -> None:
    """Every question through every arm, back and forth, in each turn."""
    if len(kept.found) < repeats * len(inputs):
        for arm in arms:
            arm.run(inputs[0])  # loads, compiles, allocates
    for turn in range(repeats):
        for index, one in enumerate(inputs):
            known = kept.found.get((turn, index))
            if known:
                found = {name: Answer.from_json(answer) for name, answer in known.items()}
            else:
                found = {arm.key: arm.run(one) for arm in (arms if (turn + index) % 2 == 0 else arms[::-1])}
                kept.add(turn, index, {name: answer.to_json() for name, answer in found.items()})
            for arm in arms:
                arm.answers.append((index, found[arm.key]))
            typer.echo(f"turn {turn + 1} of {repeats}: {index + 1} of {len(inputs)} questions", err=True)


def read_questions(data: Path, limit: int) -> list[Question]:
    """The first turns of a folder, at most ``limit`` of each category.

    Raises
    ------
    SettingsError
        It holds no questions, or a line that is none.
    """
    found: dict[str, list[Question]] = {}
    for path in sorted(data.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                question = Question(str(row["category"]), str(row["turns"][0]))
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise SettingsError(f"{path}:{number} is no question with a category and turns: {error!r}") from error
            found.setdefault(question.category, []).append(question)
    if not found:
        raise SettingsError(f"{data} holds no questions; it needs *.jsonl files with category and turns")
    return [question for some in found.values() for question in some[:limit]]


def _arms(
    model: Any, specs: Sequence[ds.PlanSpec], rules: Sequence[DraftTokens], tokens: int, backend: str
) -> list[Arm]:
    layers = adapter_for(model).num_layers
    options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False, "backend": backend}
    arms = [Arm("full", "depthsched", partial(_ours, model, "full", options))]
    for spec in specs:
        plan = spec.resolve(layers, tokens)
        for rule in rules:
            more = {**options, "lossless": True, "draft_tokens": str(rule)}
            name = f"{_short(spec.label)}, {rule}"
            arms.append(Arm(name, "depthsched", partial(_ours, model, plan, more), min(plan.depths)))
    return arms


def _others(model: Any, depths: Sequence[int], lookup: int, tokens: int) -> list[Arm]:
    """Transformers' own ways; early exit at the depths of ours."""
    options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False}
    ways: dict[str, dict[str, Any]] = {"full": {}}
    ways |= {f"assistant_early_exit={depth}": {"assistant_early_exit": depth} for depth in dict.fromkeys(depths)}
    ways |= {f"prompt_lookup_num_tokens={lookup}": {"prompt_lookup_num_tokens": lookup}}
    return [Arm(name, "transformers", partial(_theirs, model, {**options, **more})) for name, more in ways.items()]


def _short(label: str) -> str:
    """A plan without the place of its profile."""
    plan, plus, _ = label.partition("+profile=")
    return f"{plan} with profile" if plus else plan


def _ours(model: Any, plan: Any, options: Mapping[str, Any], inputs: Any) -> Answer:
    run = ds.generate(model, inputs, plan, **options)
    steps = len(run.trace.decode_depths)
    rounds = run.trace.rounds or ()
    seconds = run.prefill_seconds + run.decode_seconds
    return Answer(run.tokens[0].tolist(), seconds, run.decode_seconds, len(rounds) or steps, rounds)


def _theirs(model: Any, options: Mapping[str, Any], inputs: Any) -> Answer:
    with _counted(model) as passes:
        began = time.perf_counter()
        output = model.generate(**inputs, **options)
        seconds = time.perf_counter() - began
    return Answer(output[0, inputs["input_ids"].shape[1] :].tolist(), seconds, None, len(passes) - 1)


@contextmanager
def _counted(model: Any) -> Iterator[list[None]]:
    """A list that grows with each pass through the last layer; the generation config comes back as it was."""
    passes: list[None] = []
    before = copy.deepcopy(model.generation_config)
    hook = model.model.layers[-1].register_forward_hook(lambda *_: passes.append(None))
    try:
        yield passes
    finally:
        hook.remove()
        model.generation_config = before


def _rows(arm: Arm, arms: Sequence[Arm], questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    base = next(one for one in arms if one.side == arm.side and one.name == "full")
    categories = dict.fromkeys(question.category for question in questions)
    for category in ["all", *categories]:
        pairs = [
            (mine, plain)
            for (index, mine), (_, plain) in zip(arm.answers, base.answers, strict=True)
            if category in ("all", questions[index].category)
        ]
        mine = [answer for answer, _ in pairs]
        rounds = [one for answer in mine for one in answer.rounds]
        unit, step = _step([plain for _, plain in pairs]), _step(mine)
        worth = payoff(rounds, unit) if unit else None
        yield {
            "arm": arm.name,
            "side": arm.side,
            "category": category,
            "prompts": len(pairs),
            "tokens": sum(len(answer.tokens) for answer in mine),
            "tokens_per_second": Interval.of([len(answer.tokens) / answer.seconds for answer in mine]).to_json(),
            "speedup": Interval.of([plain.seconds / answer.seconds for answer, plain in pairs]).to_json(),
            "decode_speedup": unit / step if unit and step else None,
            "by_own_steps": _by_own_steps(mine),
            "tokens_per_pass": sum(len(a.tokens) - 1 for a in mine) / max(sum(a.passes for a in mine), 1),
            "equal": sum(answer.tokens == plain.tokens for answer, plain in pairs) / len(pairs),
            "acceptance": worth.acceptance if worth else None,
            "acceptance_by_place": acceptance(rounds),
            "mean_drafted": worth.mean_drafted if worth else None,
            "draft_cost": worth.draft_cost if worth else None,
            "verify_cost": worth.verify_cost if worth else None,
            "predicted": worth.predicted if worth else None,
        }


def _step(answers: Sequence[Answer]) -> float | None:
    """Seconds of a token after the first."""
    if any(answer.decode_seconds is None for answer in answers):
        return None
    return sum(a.decode_seconds or 0.0 for a in answers) / max(sum(len(a.tokens) - 1 for a in answers), 1)


def _by_own_steps(answers: Sequence[Answer]) -> float | None:
    """Speed-up over the mean of each answer's own plain steps, which a machine whose speed drifts leaves alone."""
    worths = [(payoff(one.rounds), sum(r.draft_seconds + r.verify_seconds for r in one.rounds)) for one in answers]
    known = [(worth.measured, seconds) for worth, seconds in worths if worth]
    if not known:
        return None
    return sum(measured * seconds for measured, seconds in known) / sum(seconds for _, seconds in known)


def _predictions(arm: Arm, layers: int) -> Iterator[dict[str, Any]]:
    """By bytes: the acceptance measured at this depth, at the same share of the layers of larger models."""
    rounds = [one for _, answer in arm.answers for one in answer.rounds if one.depth == arm.depth]
    worth = payoff(rounds, 1.0)
    if worth is None:
        return
    for name in SHAPES:
        shape = known_shape(name)
        depth = max(1, round(arm.depth / layers * shape.num_layers))
        found = predict_drafting(shape, depth, worth.acceptance, context=512)
        yield {"arm": arm.name, "shape": name, "depth": depth, "acceptance": worth.acceptance, **asdict(found)}
