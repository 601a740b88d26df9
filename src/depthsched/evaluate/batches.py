"""One batch of lm-eval under a plan: what is asked, and its answers. A piece of work, here or on a worker.

A worker needs nothing of lm-eval: tasks, metrics and what becomes of a text stay where the evaluation runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..adapters import adapter_for
from ..errors import WorkError
from ..plans import DepthPlan
from ..runtime.backends import maker
from ..runtime.generate import generate
from ..runtime.renewal import renewal_of
from ..runtime.run import Run
from ..score.asked import plan_of, plan_text
from ..work.pieces import Loaded
from .prefixes import PromptStore
from .records import RowRecord, row_records
from .shared import shared_prefix
from .stops import RowStops

_PROMPTS = "_depthsched_prompts"
_WORKER_BYTES = 1 << 29  # workers share the memory of a machine, and a batch seldom comes to the same one again


class Batch(NamedTuple):
    """Prompts that are answered together.

    Attributes
    ----------
    context, mask : Tensor
        ``[rows, tokens]``, int64, padded on the left; the mask is 0 for padding.
    max_new_tokens : int
    stop : sequence of str
        Texts of which the first ends a row.
    options : dict
        More arguments of :func:`depthsched.generate`, in JSON.
    """

    context: Tensor
    mask: Tensor
    max_new_tokens: int
    stop: Sequence[str]
    options: dict[str, Any]


class Answers(NamedTuple):
    """What a batch came to.

    Attributes
    ----------
    tokens : Tensor
        ``[rows, steps]``, int64, as long as the longest row.
    records : list
        One :class:`~depthsched.evaluate.records.RowRecord` a row.
    """

    tokens: Tensor
    records: list[RowRecord]

    @classmethod
    def of(cls, piece: Sequence[Any]) -> Answers:
        """From what :func:`answer_batch` returns."""
        tokens, rows = piece
        return cls(tokens, [RowRecord(tuple(made), tuple(depths), *rest) for made, depths, *rest in rows])


@dataclass(frozen=True)
class Answering:
    """How every batch of some requests is answered, as a value that can go to a worker.

    Attributes
    ----------
    plans : mapping of int to DepthPlan
        By the number of tokens that a batch may add.
    backend : str
    rules : mapping
        What becomes of K and V of skipped layers, as for :func:`depthsched.generate`.
    prefix : tuple of int
        Tokens that all prompts begin with, computed once; empty where none are.
    eos : tuple of int
        Tokens that end a row.
    tokenizer : transformers tokenizer
    store : PromptStore
        Of the process that answers.
    """

    plans: Mapping[int, DepthPlan]
    backend: str
    rules: Mapping[str, Any]
    prefix: tuple[int, ...]
    eos: tuple[int, ...]
    tokenizer: Any
    store: PromptStore

    def to_json(self, sample: Sequence[int]) -> dict[str, Any]:
        """A JSON object; a worker has a tokenizer and prompts of its own.

        Parameters
        ----------
        sample : sequence of int
            Tokens that must be the same text for the worker's tokenizer, since texts end an answer.

        Raises
        ------
        PlanError
            The text of a plan does not give the plan back.
        """
        return {
            "plans": [[tokens, *plan_text(plan)] for tokens, plan in self.plans.items()],
            "backend": self.backend,
            "rules": dict(self.rules),
            "prefix": self.prefix,
            "eos": self.eos,
            "sample": [list(sample), self.tokenizer.decode(sample)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], loaded: Loaded) -> Answering:
        """On a worker.

        Raises
        ------
        PlanError, ProfileError, WorkError
            A profile or the tokenizer is not what it is where the work was given out.
        """
        tokens, text = data["sample"]
        if loaded.tokenizer.decode(tokens) != text:
            raise WorkError("the tokenizer beside the model is not the one of the process that gave out the work")
        return cls(
            plans={tokens: plan_of(*plan) for tokens, *plan in data["plans"]},
            backend=data["backend"],
            rules=data["rules"],
            prefix=tuple(data["prefix"]),
            eos=tuple(data["eos"]),
            tokenizer=loaded.tokenizer,
            store=_prompts(loaded.model),
        )

    def run(self, model: Any, batch: Batch) -> tuple[Run, list[int]]:
        """The run of a batch, and the tokens of each row up to its end, 0 where it ran to the last."""
        stops = RowStops(self.tokenizer, batch.stop, self.eos, batch.context.shape[1])
        options = {
            "max_new_tokens": batch.max_new_tokens,
            "stopping_criteria": [stops],
            "drop_finished": True,
            "tokenizer": self.tokenizer,
            **self.rules,
            **batch.options,
        }
        run = self._generate(model, batch.context, batch.mask, self.plans[batch.max_new_tokens], options)
        return run, stops.lengths

    def _generate(self, model: Any, context: Tensor, mask: Tensor, plan: DepthPlan, options: dict[str, Any]) -> Run:
        if not self.prefix or not self._starts_with_prefix(context, mask):
            inputs = {"input_ids": context, "attention_mask": mask}
            return generate(model, inputs, plan, backend=self.backend, **options)
        cut, rows = len(self.prefix), len(context)
        rest = context.shape[1] - cut
        # In front of the prefix a row has as much padding as it is shorter than the longest; after it, its own part.
        own_mask = mask[:, :rest]
        own = context[:, -rest:] * own_mask
        # A cache over a shared prefix cannot be cut where a pass begins.
        renewed = renewal_of(**self.rules, tokenizer=self.tokenizer) is not None
        dense = renewed or self._dense(model, plan, context.shape[1] + options["max_new_tokens"])
        cache = self.store.cache(self.prefix, own, own_mask, options["max_new_tokens"] + 1, dense=dense)
        options = {**options, "past_key_values": cache}
        if dense:
            inputs = {"input_ids": context, "attention_mask": mask}
            return generate(model, inputs, plan, backend=self.backend, **options)
        prefix = torch.tensor([self.prefix], device=context.device).expand(rows, -1)
        inputs = {
            "input_ids": torch.cat([prefix, own + context[:, :rest] * (1 - own_mask)], dim=-1),
            "attention_mask": torch.cat([mask.new_ones(rows, cut), own_mask], dim=-1),
        }
        with shared_prefix(model):
            return generate(model, inputs, plan, backend="eager", **options)

    def _dense(self, model: Any, plan: DepthPlan, max_tokens: int) -> bool:
        """Whether a fast backend will run: its rows each need a copy of the prefix, and it outruns sharing."""
        make, _ = maker(self.backend, adapter_for(model), plan, write_kv=False, batch=1, max_tokens=max_tokens)
        return make is not None

    def _starts_with_prefix(self, context: Tensor, mask: Tensor) -> bool:
        """False where lm-eval cut a prompt on the left because it was too long."""
        prefix = torch.tensor(self.prefix, device=context.device)
        return all(
            len(row) > len(prefix) and bool((row[: len(prefix)] == prefix).all())
            for row in (ids[keep.bool()] for ids, keep in zip(context, mask, strict=True))
        )


def answer_batch(loaded: Loaded, shared: Any, piece: Sequence[Any]) -> list[Any]:
    """Answers of a batch as plain values: tokens, and what each row did."""
    answering = shared if isinstance(shared, Answering) else Answering.from_json(shared, loaded)
    context, mask, *rest = piece
    device = answering.store.adapter.device
    run, lengths = answering.run(loaded.model, Batch(context.to(device), mask.to(device), *rest))
    return [run.tokens, [astuple(record) for record in row_records(run, lengths)]]


def _prompts(model: Any) -> PromptStore:
    """What a worker keeps of prompts, for as long as it keeps the model."""
    found: PromptStore | None = getattr(model, _PROMPTS, None)
    if found is None:
        found = PromptStore(adapter_for(model), _WORKER_BYTES)
        setattr(model, _PROMPTS, found)
    return found
