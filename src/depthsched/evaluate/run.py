"""Run tasks under plans: one model, prompts computed once, every plan paired with full depth."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..files import digest, json_digest, write_json
from ..planspec import PlanSpec
from .extra import need_lm_eval
from .results import EvalRow, Sample, TaskRun, compare_runs
from .tasks import load_tasks, local_file

FULL = "full"
Progress = Callable[[str, int, int], None]
"""Called with what runs, items done and items in all."""

DEFAULT_BATCH = 32


class Evaluation:
    """A model and tasks, on which plans are run one after another.

    Parameters
    ----------
    model : str
        As for :func:`depthsched.load_model`.
    tasks : sequence of str
    data : path, optional
        Local files in place of the hub.
    limit : int, optional
        Items of each task, the first ones.
    max_new_tokens : int, optional
        In place of each task's own maximum; also the horizon of the plans.
    dtype, device, backend : str
    batch : int, optional
        Rows decoded together, 32 unless given.
    chat : bool
        Put prompts into the model's chat template; lm-eval's default is not to.
    out : path, optional
        Folder in which each task under each plan is kept as one file as soon as it is done. What is there already,
        from the same model, files and settings, is read and not run again.

    Raises
    ------
    MissingExtraError, ModelError, SettingsError
    """

    def __init__(
        self,
        model: str,
        tasks: Sequence[str],
        *,
        data: str | Path | None = None,
        limit: int | None = None,
        max_new_tokens: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        backend: str = "auto",
        batch: int | None = None,
        chat: bool = False,
        out: str | Path | None = None,
    ) -> None:
        need_lm_eval()
        if limit is not None and limit < 1:
            raise SettingsError(f"limit {limit} must be at least 1")
        if max_new_tokens is not None and max_new_tokens < 2:
            raise SettingsError(f"max_new_tokens {max_new_tokens} must be at least 2: the first is the prefill's")
        self.tasks = load_tasks(tasks, data, max_new_tokens)
        self.data, self.limit = data, limit
        self.batch, self.backend, self.chat = batch or DEFAULT_BATCH, backend, chat
        self.out = Path(out) if out is not None else None
        self._settings: dict[str, Any] = {
            "model": model,
            "limit": limit,
            "max_new_tokens": max_new_tokens,
            "dtype": dtype,
            "batch": self.batch,
            "backend": backend,
            "chat": chat,
        }
        self._load = functools.cache(lambda: _load(model, dtype, device))
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
        key = {**self._settings, "task": task, "plan": plan.key, "data": _digest(self.data, task)}
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
        total = min(self.limit or len(task.eval_docs), len(task.eval_docs))

        def advance(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(f"{name}, {plan.label}", done, total)

        lm = DepthLM(
            pretrained=model,
            tokenizer=tokenizer,
            plan=plan,
            backend=self.backend,
            batch_size=self.batch,
            store=store,
            progress=advance,
        )
        found = evaluate(
            lm,
            {"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=self.limit,
            bootstrap_iters=0,
            apply_chat_template=self.chat,
        )
        shared, samples = _samples(found["samples"][name], lm)
        return TaskRun(name, plan.label, shared, lm.adapter.num_layers, samples, tuple(lm.notes))


def evaluate_cell(
    model_name: str,
    tasks: Sequence[str],
    plan: str | PlanSpec,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    max_new_tokens: int | None = None,
    dtype: str = "auto",
    backend: str = "auto",
    batch: int | None = None,
) -> dict[str, Any]:
    """One plan on some tasks, as a JSON object: what a sweep keeps for a cell.

    The model, its prompts and the run at full depth are kept for the next call in this process with the same
    settings.

    Returns
    -------
    dict
        ``plan``, ``rows`` (one for each task and metric) and ``samples`` (``task``, ``plan`` and the fields of
        :class:`~depthsched.evaluate.results.Sample`).

    Raises
    ------
    MissingExtraError, ModelError, SettingsError, PlanError, ProfileError
    """
    spec = PlanSpec.parse(plan)
    evaluation = _evaluation(
        model_name, tuple(tasks), str(data) if data is not None else None, limit, max_new_tokens, dtype, backend, batch,
    )  # fmt: skip
    runs = evaluation.run(spec)
    rows = evaluation.rows(runs)
    samples = [{"task": run.task, "plan": run.plan, **sample.to_json()} for run in runs for sample in run.samples]
    return {"plan": spec.label, "rows": [row.to_json() for row in rows], "samples": samples}


@functools.lru_cache(maxsize=1)
def _evaluation(
    model: str,
    tasks: tuple[str, ...],
    data: str | None,
    limit: int | None,
    max_new_tokens: int | None,
    dtype: str,
    backend: str,
    batch: int | None,
) -> Evaluation:
    return Evaluation(
        model, tasks, data=data, limit=limit, max_new_tokens=max_new_tokens, dtype=dtype,
        backend=backend, batch=batch,
    )  # fmt: skip


def _load(model: str, dtype: str, device: str) -> tuple[Any, Any, Any]:
    from ..adapters import adapter_for
    from ..models import load_model
    from .prefixes import PromptStore

    loaded, tokenizer = load_model(model, dtype=dtype, device=device)
    return loaded, tokenizer, PromptStore(adapter_for(loaded))


def _digest(data: str | Path | None, task: str) -> str | None:
    """What the local file of a task holds: another file under the same name is another evaluation."""
    return digest(local_file(task, Path(data)).read_bytes()) if data is not None else None


def _samples(logged: Sequence[dict[str, Any]], lm: Any) -> tuple[str, tuple[Sample, ...]]:
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
            Sample(
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
