"""Which depths of an order give full depth's most likely token, at every decode step of known completions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..adapters import Adapter
from ..bridge import Bridge
from ..errors import PlanError
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..score import Sample
from ..score.answers import Progress
from ..score.onestep import OneStep, first_change
from ..score.scorer import batches
from ..score.staircase import Staircase

KINDS = {
    "one-step": "this step alone runs at the depth; all positions before it were computed at full depth",
    "held": "every step of the answer up to this one runs at the depth; only the prompt was computed at full depth",
}
_CHUNK = 512
Bools = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Answer:
    """One completion under the depths of one order. ``n`` decode steps, ``d`` depths, the last of them full depth.

    Attributes
    ----------
    sample : Sample
    depths : tuple of int
        Rising.
    agree : mapping of str to array
        Kind, of :data:`KINDS`, to bool ``[d, n]``: whether the depth has full depth's most likely token.
    nll, entropy : array
        Of full depth, float64 ``[n]``, in nats: of the completion's own token, and of the distribution.
    top : array
        Full depth's most likely token, int64 ``[n]``; in a greedy answer of its own the answer's token.
    """

    sample: Sample
    depths: tuple[int, ...]
    agree: Mapping[str, Bools]
    nll: Floats
    entropy: Floats
    top: Ints

    def least(self, kind: str) -> Ints:
        """The least depth that agrees, ``[n]``."""
        return self._depths(self.agree[kind])

    def stable(self, kind: str) -> Ints:
        """The least depth from which on every deeper one agrees too, ``[n]``."""
        from_here = np.logical_and.accumulate(self.agree[kind][::-1], axis=0)[::-1]
        return self._depths(from_here)

    def _depths(self, from_here: Bools) -> Ints:
        found: Ints = np.asarray(self.depths, dtype=np.int64)[from_here.argmax(axis=0)]
        return found


class _Look(NamedTuple):
    """What full depth says: most likely token, NLL of the target and entropy, each ``[positions]``."""

    top: torch.Tensor
    nll: torch.Tensor
    entropy: torch.Tensor


def all_depths(spec: PlanSpec, num_layers: int, horizon: int = 2, min_depth: int = 1) -> DepthPlan:
    """Full depth, with every depth that the order of a spec can reach as a spare one.

    Raises
    ------
    PlanError
        ``min_depth`` leaves no depth but full.
    """
    plan = dataclasses.replace(spec, schedule=PlanSpec.parse("full").schedule).resolve(num_layers, horizon)
    low = max(plan.core_size, min_depth, 1)
    if not low < num_layers:
        raise PlanError(
            f"order {spec.order} has no depth below {num_layers} from min_depth={min_depth} on: "
            f"it keeps {plan.core_size} core layers"
        )
    return dataclasses.replace(plan, spare=tuple(range(low, num_layers)))


def answers_of(
    adapter: Adapter,
    plans: Sequence[DepthPlan],
    samples: Sequence[Sample],
    kinds: Sequence[str] = tuple(KINDS),
    *,
    batch_tokens: int = 6144,
    progress: Progress | None = None,
) -> Iterator[list[Answer]]:
    """For each sample, shortest first, an :class:`Answer` for each plan.

    One pass for each depth and kind over a batch of samples; full depth is computed once for all plans.

    Parameters
    ----------
    adapter : Adapter
    plans : sequence of DepthPlan
        As from :func:`all_depths`.
    samples : sequence of Sample
        Each with at least two tokens of completion.
    kinds : sequence of str
        Of :data:`KINDS`.
    batch_tokens : int
        Most positions, padding included, that run at once.
    progress : callable, optional
        Gets the number of passes done, counted by samples, and of all.
    """
    entries = {first_change(keep, plan.bridges.get(d, {}), plan.num_layers) for plan in plans
               for d, keep in plan.keep_sets.items()} - {None}  # fmt: skip
    passes = sum(len(plan.spare) for plan in plans) * len(kinds)
    done = 0

    def passed(chunk: Sequence[Sample]) -> None:
        nonlocal done
        done += len(chunk)
        if progress:
            progress(done, len(samples) * passes)

    for chunk in batches(samples, batch_tokens):
        staircase = Staircase(adapter, chunk)
        fresh = OneStep(staircase, [entry for entry in entries if entry is not None])
        look = _look(adapter, fresh.full[staircase.valid], staircase.targets[staircase.valid])
        tops = [
            {kind: _tops(adapter, plan, kind, staircase, fresh, functools.partial(passed, chunk)) for kind in kinds}
            for plan in plans
        ]
        yield from _split(chunk, plans, look, tops)


def _tops(
    adapter: Adapter, plan: DepthPlan, kind: str, staircase: Staircase, fresh: OneStep, passed: Callable[[], None]
) -> torch.Tensor:
    """The most likely token of every valid position at every depth below full, ``[d - 1, positions]``."""
    rows = []
    for depth in plan.spare:
        bridges: Mapping[int, Bridge] = plan.bridges.get(depth, {})
        if kind == "one-step":
            states = fresh.run(plan.keep_sets[depth], bridges)
        else:
            states = staircase.run([depth] * staircase.steps, plan.keep_sets, {depth: bridges})
        rows.append(_most_likely(adapter, states[staircase.valid]))
        passed()
    return torch.stack(rows)


@torch.no_grad()
def _most_likely(adapter: Adapter, states: torch.Tensor) -> torch.Tensor:
    return torch.cat([adapter.logits(part).float().argmax(-1) for part in torch.split(states, _CHUNK)])


@torch.no_grad()
def _look(adapter: Adapter, states: torch.Tensor, targets: torch.Tensor) -> _Look:
    parts = []
    for state, target in zip(torch.split(states, _CHUNK), torch.split(targets, _CHUNK), strict=True):
        log_p = torch.log_softmax(adapter.logits(state).float(), -1)
        entropy = -torch.where(log_p == -torch.inf, 0, log_p.exp() * log_p).sum(-1)
        parts.append(_Look(log_p.argmax(-1), -log_p.gather(-1, target[:, None])[:, 0], entropy))
    return _Look(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _split(
    chunk: Sequence[Sample], plans: Sequence[DepthPlan], look: _Look, tops: Sequence[Mapping[str, torch.Tensor]]
) -> Iterator[list[Answer]]:
    """The positions of a batch as answers."""
    begin = 0
    for sample in chunk:
        here = slice(begin, begin + len(sample.completion) - 1)
        begin = here.stop
        nll, entropy = (values[here].double().cpu().numpy() for values in (look.nll, look.entropy))
        yield [
            Answer(
                sample,
                (*plan.spare, plan.num_layers),
                {kind: _agree(top[:, here], look.top[here]) for kind, top in found.items()},
                nll,
                entropy,
                look.top[here].cpu().numpy(),
            )
            for plan, found in zip(plans, tops, strict=True)
        ]


def _agree(tops: torch.Tensor, full: torch.Tensor) -> Bools:
    found: Bools = torch.cat([tops == full, torch.ones_like(full, dtype=torch.bool)[None]]).cpu().numpy()
    return found
