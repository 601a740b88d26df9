"""Results of an evaluation: samples, and rows that compare a plan with full depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .statistics import Paired, paired


@dataclass(frozen=True)
class Item:
    """One item of a task under one plan.

    Attributes
    ----------
    doc_id : int
        Index of the item in its task.
    prompt : str
        What the model saw after the few-shot text that all items share.
    output : str
        The continuation, cut as the task says.
    target : str
        The right answer.
    scores : dict of str to float
        By metric and filter, such as ``exact_match,strict-match``.
    depths : tuple of int
        Layers of every generated token; the first is the prefill's.
    seconds : float
        The item's share of its batch's decode time.
    bytes_full, bytes_plan : float
        Bytes that its decode steps move at batch 1 and full depth, and under the plan.
    """

    doc_id: int
    prompt: str
    output: str
    target: str
    scores: dict[str, float]
    depths: tuple[int, ...]
    seconds: float
    bytes_full: float
    bytes_plan: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Item:
        return cls(**{**data, "depths": tuple(data["depths"])})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TaskRun:
    """One task under one plan.

    Attributes
    ----------
    task, plan : str
    shared : str
        The few-shot text in front of every prompt.
    num_layers : int
    samples : tuple of Item
        In the order of the task.
    notes : tuple of str
        What the plan had to change.
    """

    task: str
    plan: str
    shared: str
    num_layers: int
    samples: tuple[Item, ...] = field(repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskRun:
        samples = tuple(map(Item.from_json, data["samples"]))
        notes = tuple(data.get("notes", ()))  # absent in files of 0.1
        return cls(data["task"], data["plan"], data["shared"], data["num_layers"], samples, notes)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "samples": [s.to_json() for s in self.samples]}

    def joined(self, other: TaskRun) -> TaskRun:
        """With the items of another run of the same task and plan, which take the place of those that both have."""
        from .prefixes import common_text

        whole = {i.doc_id: replace(i, prompt=run.shared + i.prompt) for run in (self, other) for i in run.samples}
        shared = common_text([item.prompt for item in whole.values()])
        samples = [replace(whole[i], prompt=whole[i].prompt[len(shared) :]) for i in sorted(whole)]
        notes = tuple(dict.fromkeys([*self.notes, *other.notes]))
        return replace(self, shared=shared, samples=tuple(samples), notes=notes)

    def only(self, items: Sequence[int]) -> TaskRun:
        """Some of its items, by index."""
        wanted = frozenset(items)
        return replace(self, samples=tuple(item for item in self.samples if item.doc_id in wanted))

    @property
    def metrics(self) -> list[str]:
        return list(self.samples[0].scores)

    @property
    def decode_tokens(self) -> int:
        """Tokens out of decode steps, the prefill's not counted."""
        return sum(len(s.depths) - 1 for s in self.samples)

    @property
    def mean_depth(self) -> float:
        """Mean over decode steps; full depth when there is none."""
        tokens = self.decode_tokens
        return sum(sum(s.depths[1:]) for s in self.samples) / tokens if tokens else float(self.num_layers)

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.samples)

    @property
    def tokens_per_second(self) -> float:
        return self.decode_tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class EvalRow:
    """A plan against full depth on one task and metric.

    Attributes
    ----------
    task, plan, metric : str
    paired : Paired
    mean_depth : float
        Over the decode steps that ran.
    layer_speedup, bytes_speedup : float
        What the steps that ran saved on paper, at batch 1.
    speedup : float
        Decode tokens per second over those of full depth, both in this evaluation and its batches.
    tokens_per_second : float
    tokens : int
        Decode steps of all items.
    notes : tuple of str
        What the plan had to change.
    """

    task: str
    plan: str
    metric: str
    paired: Paired
    mean_depth: float
    layer_speedup: float
    bytes_speedup: float
    speedup: float
    tokens_per_second: float
    tokens: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        own = {k: v for k, v in vars(self).items() if k != "paired"}
        return {**own, **self.paired.to_json()}


def compare_runs(run: TaskRun, full: TaskRun) -> list[EvalRow]:
    """One row for each metric of a task. Items are paired by their index.

    Raises
    ------
    ValueError
        The two runs are not of the same items.
    """
    ours, theirs = _by_item(run), _by_item(full)
    if list(ours) != list(theirs):
        raise ValueError(f"{run.plan} and {full.plan} were not run on the same items of {run.task}")
    rate = full.tokens_per_second
    moved = sum(s.bytes_plan for s in run.samples)
    return [
        EvalRow(
            task=run.task,
            plan=run.plan,
            metric=metric,
            paired=paired([s.scores[metric] for s in ours.values()], [s.scores[metric] for s in theirs.values()]),
            mean_depth=run.mean_depth,
            layer_speedup=run.num_layers / run.mean_depth,
            bytes_speedup=sum(s.bytes_full for s in run.samples) / moved if moved else 1.0,
            speedup=run.tokens_per_second / rate if rate else 1.0,
            tokens_per_second=run.tokens_per_second,
            tokens=run.decode_tokens,
            notes=run.notes,
        )
        for metric in run.metrics
    ]


def _by_item(run: TaskRun) -> dict[Any, Item]:
    return {(item.doc_id, run.shared + item.prompt): item for item in run.samples}
