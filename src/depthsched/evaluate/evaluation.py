"""Run tasks under plans: one model, prompts computed once, every plan paired with full depth."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..files import digest, json_digest, write_json
from ..planspec import PlanSpec
from .extra import need_lm_eval
from .results import EvalRow, Item, TaskRun, compare_runs
from .tasks import load_tasks, local_file

FULL = "full"
Progress = Callable[[str, int, int], None]
"""Called with what runs, items done and items in all."""


@dataclass(frozen=True)
class EvalOptions:
    """What decides the answers of an evaluation, but for the plan; the key of what is kept.

    Attributes
    ----------
    model, dtype, device, weights : str
        As for :func:`depthsched.load_model`.
    tasks : tuple of str
        Names of lm-eval, or patterns with ``*``.
    data : str or None
        Folder with local files in place of the hub.
    limit : int or None
        Items of each task, the first ones.
    max_new_tokens : int or None
        In place of each task's own maximum; also the horizon of the plans.
    backend : str
    batch : int
        Rows decoded together.
    chat : bool
        Put prompts into the model's chat template; lm-eval's default is not to.
    skipped_kv, verify_below, renew
        As for :func:`depthsched.generate`; full depth runs without them. Where tokens decide when the cache is renewed,
        rows are decoded one at a time.

    Raises
    ------
    SettingsError
    """

    model: str = "smollm2"
    tasks: tuple[str, ...] = ()
    data: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    weights: str = "auto"
    backend: str = "auto"
    batch: int = 32
    chat: bool = False
    skipped_kv: str = "auto"
    verify_below: float | None = None
    renew: int | str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SettingsError(f"limit {self.limit} must be at least 1")
        if self.max_new_tokens is not None and self.max_new_tokens < 2:
            raise SettingsError(f"max_new_tokens {self.max_new_tokens} must be at least 2: the first is the prefill's")
        if self.batch < 1:
            raise SettingsError(f"batch {self.batch} must be at least 1")

    @property
    def rules(self) -> dict[str, Any]:
        """What becomes of K and V of skipped layers."""
        return {"skipped_kv": self.skipped_kv, "verify_below": self.verify_below, "renew": self.renew}

    def key(self, task: str, plan: PlanSpec) -> dict[str, Any]:
        """What decides the answers to one task under one plan: files by what they hold, not by where they lie."""
        plain = {"skipped_kv": "auto", "verify_below": None, "renew": None}
        rules = {} if plan.is_full else self.rules
        kept = {k: v for k, v in asdict(self).items() if k not in ("tasks", "device", *plain)}
        kept |= {k: v for k, v in rules.items() if v != plain[k]}  # what was kept without rules keeps its key
        data = None if self.data is None else digest(local_file(task, Path(self.data)).read_bytes())
        return {**kept, "task": task, "plan": plan.key, "data": data}


class Evaluation:
    """A model and tasks, on which plans are run one after another.

    Parameters
    ----------
    options : EvalOptions
    out : path, optional
        Folder in which each task under each plan is kept as one file as soon as it is done. What is there already,
        with the same key, is read and not run again.

    Raises
    ------
    MissingExtraError, ModelError, SettingsError
    """

    def __init__(self, options: EvalOptions, out: str | Path | None = None) -> None:
        need_lm_eval()
        self.options = options
        self.tasks = load_tasks(options.tasks, options.data, options.max_new_tokens)
        self.out = Path(out) if out is not None else None
        self._load = functools.cache(lambda: _load(options.model, options.dtype, options.device, options.weights))
        self._full: dict[str, TaskRun] = {}

    def run(self, plan: str | PlanSpec, progress: Progress | None = None) -> list[TaskRun]:
        """Every task under a plan.

        Raises
        ------
        SettingsError, PlanError, ProfileError
        """
        spec = PlanSpec.parse(plan)
        runs = [self._kept(name, spec, progress) for name in self.tasks]
        if spec.label == FULL:
            self._full = {run.task: run for run in runs}
        return runs

    def rows(self, runs: Sequence[TaskRun], progress: Progress | None = None) -> list[EvalRow]:
        """Runs of one plan against full depth, which is run first if it was not yet."""
        if not self._full:
            self.run(FULL, progress)
        return [row for run in runs for row in compare_runs(run, self._full[run.task])]

    def _kept(self, task: str, plan: PlanSpec, progress: Progress | None) -> TaskRun:
        """One task under one plan, from its file if it is there."""
        if self.out is None:
            return self._run(task, plan, progress)
        key = self.options.key(task, plan)
        path = self.out / "samples" / f"{task}-{json_digest(key, 12)}.json"
        if path.is_file():
            return TaskRun.from_json(json.loads(path.read_text(encoding="utf-8")))
        run = self._run(task, plan, progress)
        write_json(path, {"settings": key, **run.to_json()})
        return run

    def _run(self, name: str, plan: PlanSpec, progress: Progress | None) -> TaskRun:
        from lm_eval.evaluator import evaluate

        from .lm import DepthLM

        model, tokenizer, store = self._load()
        task, done = self.tasks[name], 0
        total = min(self.options.limit or len(task.eval_docs), len(task.eval_docs))

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(f"{name}, {plan.label}", done, total)

        lm = DepthLM(
            pretrained=model,
            tokenizer=tokenizer,
            plan=plan,
            backend=self.options.backend,
            batch_size=self.options.batch,
            store=store,
            progress=advance,
            **({} if plan.is_full else self.options.rules),
        )
        found = evaluate(
            lm,
            {"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=self.options.limit,
            bootstrap_iters=0,
            apply_chat_template=self.options.chat,
        )
        shared, samples = _samples(found["samples"][name], lm)
        return TaskRun(name, plan.label, shared, lm.adapter.num_layers, samples, tuple(lm.notes))


@functools.lru_cache(maxsize=1)
def evaluation_for(options: EvalOptions) -> Evaluation:
    """The evaluation of these options: its model, prompts and run at full depth are kept for the next call."""
    return Evaluation(options)


def evaluate_cell(options: EvalOptions, plan: PlanSpec) -> dict[str, Any]:
    """One plan on some tasks, as a JSON object: what a sweep keeps for a cell.

    Returns
    -------
    dict
        ``plan``, ``rows`` (one for each task and metric) and ``samples`` (``task``, ``plan`` and the fields of
        :class:`~depthsched.evaluate.results.Item`).

    Raises
    ------
    MissingExtraError, ModelError, SettingsError, PlanError, ProfileError
    """
    evaluation = evaluation_for(options)
    runs = evaluation.run(plan)
    rows = evaluation.rows(runs)
    items = [{"task": run.task, "plan": run.plan, **item.to_json()} for run in runs for item in run.samples]
    return {"plan": plan.label, "rows": [row.to_json() for row in rows], "samples": items}


def _load(model: str, dtype: str, device: str, weights: str) -> tuple[Any, Any, Any]:
    from ..adapters import adapter_for
    from ..models import load_model
    from .prefixes import PromptStore

    loaded, tokenizer = load_model(model, dtype=dtype, device=device, weights=weights)
    return loaded, tokenizer, PromptStore(adapter_for(loaded))


def _samples(logged: Sequence[dict[str, Any]], lm: Any) -> tuple[str, tuple[Item, ...]]:
    """lm-eval logs a sample once for each filter; here it is one, with a score for each metric and filter."""
    from .prefixes import common_length

    by_item: dict[int, list[dict[str, Any]]] = {}
    for entry in logged:
        by_item.setdefault(entry["doc_id"], []).append(entry)
    prompts = {item: entries[0]["arguments"][0][0] for item, entries in by_item.items()}
    first = next(iter(prompts.values()))
    shared = first[: first.rfind("\n", 0, common_length(list(prompts.values()))) + 1]
    samples = []
    for item, entries in sorted(by_item.items()):
        record = lm.records[prompts[item]]
        samples.append(
            Item(
                doc_id=item,
                prompt=prompts[item][len(shared) :],
                output=entries[0]["resps"][0][0],
                target=str(entries[0]["target"]),
                scores={f"{m},{e['filter']}": float(e[m]) for e in entries for m in e["metrics"]},
                depths=record.depths,
                seconds=record.seconds,
                bytes_full=record.bytes_full,
                bytes_plan=record.bytes_plan,
            )
        )
    return shared, tuple(samples)
