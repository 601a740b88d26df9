"""Run tasks under plans: one model, prompts computed once, every plan paired with full depth."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import json_digest, write_json
from ..parallel import launch
from ..planspec import PlanSpec
from ..work.cluster import Cluster
from .extra import need_lm_eval
from .options import EvalOptions
from .results import EvalRow, Item, TaskRun, compare_runs
from .tasks import load_tasks

FULL = "full"
Progress = Callable[[str, int, int], None]
"""Called with what runs, items done and items in all."""


class Evaluation:
    """A model and tasks, on which plans are run one after another.

    Parameters
    ----------
    options : EvalOptions
    out : path, optional
        Folder in which each task under each plan is kept as one file as soon as it is done. Items that are there
        already, with the same key, are read and not run again.
    cluster : Cluster, optional
        Spread the batches of a task over its workers; what becomes of their texts and what is kept stays here.

    Raises
    ------
    MissingExtraError, ModelError, SettingsError
    """

    def __init__(self, options: EvalOptions, out: str | Path | None = None, cluster: Cluster | None = None) -> None:
        need_lm_eval()
        self.options = options
        self.cluster = cluster
        self._load = functools.cache(lambda: _load(options.model, options.dtype, options.device, options.weights))
        self.tasks = load_tasks(
            options.tasks,
            options.data,
            options.max_new_tokens,
            tokenizer=lambda: self._load()[1],
            needle_tokens=options.needle_tokens,
            unsafe_code=options.unsafe_code,
        )
        self.out = Path(out) if out is not None else None
        self._runs: dict[str, TaskRun] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """Items of each task that may be run."""
        counts = {name: len(task.eval_docs) for name, task in self.tasks.items()}
        return {name: min(self.options.limit or count, count) for name, count in counts.items()}

    def run(
        self,
        plan: str | PlanSpec,
        progress: Progress | None = None,
        items: Mapping[str, Sequence[int]] | None = None,
    ) -> list[TaskRun]:
        """Tasks under a plan.

        Parameters
        ----------
        plan : str or PlanSpec
        progress : callable, optional
        items : mapping, optional
            Of each task to be run, the items by index; all items of all tasks where left out.

        Raises
        ------
        SettingsError, PlanError, ProfileError
        """
        spec = PlanSpec.parse(plan)
        wanted = {name: range(size) for name, size in self.sizes.items()} if items is None else items
        return [self._kept(name, spec, sorted(ids), progress) for name, ids in wanted.items()]

    def rows(self, runs: Sequence[TaskRun], progress: Progress | None = None) -> list[EvalRow]:
        """Runs of one plan against full depth on the same items, which is run where it was not yet."""
        fulls = self.run(FULL, progress, {run.task: [item.doc_id for item in run.samples] for run in runs})
        return [row for run, full in zip(runs, fulls, strict=True) for row in compare_runs(run, full)]

    def _kept(self, task: str, plan: PlanSpec, ids: Sequence[int], progress: Progress | None) -> TaskRun:
        """Some items of one task under one plan, from where they are kept, and run and kept where they are not."""
        key = self.options.key(task, plan)
        name = f"{task}-{json_digest(key, 12)}.json"
        path = self.out / "samples" / name if self.out is not None else None
        if name not in self._runs and path is not None and path.is_file():
            self._runs[name] = TaskRun.from_json(json.loads(path.read_text(encoding="utf-8")))
        known = self._runs.get(name)
        done = {item.doc_id for item in known.samples} if known else set()
        missing = [i for i in ids if i not in done]
        if missing or known is None:
            fresh = self._run(task, plan, missing, progress)
            known = self._runs[name] = known.joined(fresh) if known else fresh
            if path is not None and launch.rank() == 0:
                write_json(path, {"settings": key, **known.to_json()})
        return known.only(ids)

    def _run(self, name: str, plan: PlanSpec, ids: Sequence[int], progress: Progress | None) -> TaskRun:
        from lm_eval.evaluator import evaluate

        from .lm import DepthLM

        model, tokenizer, store = self._load()
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(f"{name}, {plan.label}", done, len(ids))

        lm = DepthLM(
            pretrained=model,
            tokenizer=tokenizer,
            plan=plan,
            backend=self.options.backend,
            batch_size=self.options.batch,
            store=store,
            progress=advance,
            cluster=self.cluster,
            **({} if plan.is_full else self.options.rules),
        )
        found = evaluate(
            lm,
            {"tasks": {name: self.tasks[name]}, "groups": {}, "group_map": {}},
            samples={name: list(ids)},
            bootstrap_iters=0,
            apply_chat_template=self.options.chat,
            confirm_run_unsafe_code=self.options.unsafe_code,
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

    split = launch.world() > 1
    loaded, tokenizer = load_model(model, dtype=dtype, device=device, weights=weights, tensor_parallel=split)
    return loaded, tokenizer, PromptStore(adapter_for(loaded))


def _samples(logged: Sequence[dict[str, Any]], lm: Any) -> tuple[str, tuple[Item, ...]]:
    """lm-eval logs a sample once for each filter; here it is one, with a score for each metric and filter."""
    from .prefixes import common_text

    by_item: dict[int, list[dict[str, Any]]] = {}
    for entry in logged:
        by_item.setdefault(entry["doc_id"], []).append(entry)
    prompts = {item: entries[0]["arguments"][0][0] for item, entries in by_item.items()}
    shared = common_text(list(prompts.values()))
    samples = []
    for item, entries in sorted(by_item.items()):
        record = lm.records[prompts[item]]
        samples.append(
            Item(
                doc_id=item,
                prompt=prompts[item][len(shared) :],
                output=entries[0]["resps"][0][0],
                target=str(entries[0]["target"]),
                scores={f"{m},{e['filter']}": _score(e[m]) for e in entries for m in e["metrics"]},
                depths=record.depths,
                seconds=record.seconds,
                bytes_full=record.bytes_full,
                bytes_plan=record.bytes_plan,
            )
        )
    return shared, tuple(samples)


def _score(value: Any) -> float:
    """A number as it is; of several verdicts on one item, as for each instruction of ifeval, their share."""
    return sum(map(float, value)) / len(value) if isinstance(value, (list, tuple)) else float(value)
