"""Pools of tasks, stated before any score is seen, and evaluations that run until a pool is decided."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError
from ..planspec import PlanSpec
from .evaluation import FULL, Evaluation, Progress
from .layouts import layout_of
from .pooling import MARGIN, Pairs, Pooled, pooled
from .results import TaskRun
from .sequential import draw_order, settle

_LOOK = 8  # items of each task between two looks at least: rows decoded together cost less


@dataclass(frozen=True)
class Pool:
    """Tasks, the metric of each and its weight.

    Attributes
    ----------
    metrics : dict of str to str
        By task, the name of a score as in :attr:`~depthsched.evaluate.results.Item.scores`.
    weights : dict of str to float
        They sum to 1.
    """

    metrics: dict[str, str]
    weights: dict[str, float]

    @classmethod
    def parse(cls, text: str, tasks: Mapping[str, Any]) -> Pool:
        """``all``, or ``TASK[/METRIC][=WEIGHT]`` separated by commas; a pattern gives each task it matches the weight.

        Parameters
        ----------
        text : str
        tasks : mapping
            lm-eval's task objects by name, as :func:`~depthsched.evaluate.tasks.load_tasks` gives them.

        Raises
        ------
        SettingsError
        """
        metrics: dict[str, str] = {}
        weights: dict[str, float] = {}
        for word in (part.strip() for part in ("*" if text.strip() == "all" else text).split(",")):
            left, _, weight = word.partition("=")
            name, _, metric = left.partition("/")
            hits = fnmatch.filter(tasks, name)
            if not hits:
                raise SettingsError(f"--pool names {name!r}, which is none of the tasks: {', '.join(tasks)}")
            for task in hits:
                if task in metrics:
                    raise SettingsError(f"--pool names task {task!r} twice")
                metrics[task] = _metric(task, metric, _metrics(tasks[task]))
                weights[task] = _weight(word, weight)
        return cls(metrics, {task: weight / sum(weights.values()) for task, weight in weights.items()})

    def scores(self, runs: Sequence[TaskRun], fulls: Sequence[TaskRun]) -> dict[str, dict[int, tuple[float, float]]]:
        """By task of the pool and item, the score under the plan and at full depth."""
        found = {}
        for run, full in zip(runs, fulls, strict=True):
            if run.task in self.metrics:
                metric = self.metrics[run.task]
                theirs = {item.doc_id: item.scores[metric] for item in full.samples}
                found[run.task] = {i.doc_id: (i.scores[metric], theirs[i.doc_id]) for i in run.samples}
        return found

    def decide(self, runs: Sequence[TaskRun], fulls: Sequence[TaskRun], margin: float = MARGIN) -> Pooled:
        """The pooled difference of runs whose number of items was fixed beforehand.

        Raises
        ------
        SettingsError
            A score outside [0, 1], a task without items.
        """
        found = self.scores(runs, fulls)
        pairs: Pairs = {t: ([a for a, _ in s.values()], [b for _, b in s.values()]) for t, s in found.items()}
        try:
            return pooled(pairs, weights=self.weights, margin=margin)
        except ValueError as error:
            raise SettingsError(f"cannot pool: {error}") from error


def until_decided(
    evaluation: Evaluation, plan: PlanSpec, pool: Pool, margin: float = MARGIN, progress: Progress | None = None
) -> tuple[Pooled, list[TaskRun]]:
    """Run items in drawn order, the plan and full depth, until the question is settled or a task has no more.

    Returns
    -------
    tuple
        What the items say, and the runs of the plan over all items that were run.

    Raises
    ------
    SettingsError, PlanError, ProfileError
    """
    sizes = {task: evaluation.sizes[task] for task in pool.metrics}
    order = draw_order(sizes, pool.weights)
    if not order:
        raise SettingsError("--until: a task has no items")
    look = max(evaluation.options.batch, _LOOK * len(sizes))
    done = 0
    while True:
        done = min(done + max(look, done // 8), len(order))  # a look costs more the more there is to read
        items: dict[str, list[int]] = {}
        for task, item in order[:done]:
            items.setdefault(task, []).append(item)
        fulls = evaluation.run(FULL, progress, items)
        runs = evaluation.run(plan, progress, items)
        try:
            found = settle(order[:done], pool.scores(runs, fulls), weights=pool.weights, margin=margin)
        except ValueError as error:
            raise SettingsError(f"cannot pool: {error}") from error
        if found.decision != "undecided" or done == len(order):
            return found, runs


def _metrics(task: Any) -> list[str]:
    """The names of the scores that a task gives its items."""
    return [f"{metric},{each.name}" for each in task._filters for metric in task.aggregation()]


def _metric(task: str, asked: str, known: Sequence[str]) -> str:
    layout = layout_of(task)
    wanted = asked or (layout.metric if layout else "")
    hits = [name for name in known if not wanted or wanted == name or wanted in name.split(",")]
    if len(hits) != 1:
        what = f"has no metric {asked!r}" if asked and not hits else "has several metrics"
        names = ", ".join(name.replace(",", "/") for name in known)
        raise SettingsError(f"--pool: task {task!r} {what}; write {task}/METRIC with one part of {names}")
    return hits[0]


def _weight(word: str, text: str) -> float:
    try:
        weight = float(text or 1)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise SettingsError(f"--pool {word!r}: the weight must be a positive number")
    return weight
