"""How often full depth keeps what a depth drafts, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from ..bridge import Bridge
from ..cost import ModelShape
from ..drafts import MOST, predict_drafting
from ..score.streams import Streams
from ..settings import Settings, setting
from ..work.pieces import Loaded
from .corpus import Batch, Corpus
from .pieces import batch_of, bridges_of, rows_of

Hits = np.ndarray[Any, np.dtype[np.bool_]]
"""Of one text, ``[places, steps]``: whether a drafted token is full depth's, by its place in its draft."""

_HEAD_ROWS = 256
_COLUMNS = 8192


@dataclass(frozen=True)
class CheckCost(Settings):
    """What the pass costs that checks ``d`` drafted tokens, in plain steps: ``verify + row * d``.

    Attributes
    ----------
    verify : float
        1: the weights are read once for all rows, and nothing else takes time.
    row : float
        What each drafted token adds. 0 where a machine waits for memory; measured by ``bench --lossless`` elsewhere.
    """

    kind: ClassVar[str] = "drafting"

    verify: float = setting(1.0, low=0, low_open=True, key="verify-cost")
    row: float = setting(0.0, low=0, key="row-cost")

    def of(self, drafted: int) -> float:
        """Of a pass that checks so many; a plain step where it is none."""
        return self.verify + self.row * drafted if drafted else 1.0


class Walk(NamedTuple):
    """What lossless runs over known texts do: exact, for greedy decoding of the model's own answers."""

    checks: int
    tokens: int
    drafted: int
    tried: int
    kept: int
    cost: float
    """Of all drafts and checks, in plain steps."""

    @property
    def acceptance(self) -> float:
        """Chance of a drafted token, given that those before it in its draft were kept."""
        return self.kept / self.tried if self.tried else 0.0

    @property
    def speedup(self) -> float:
        """Tokens over what they cost."""
        return self.tokens / self.cost


def walk(texts: Sequence[Hits], drafted: int, draft_cost: float, check: CheckCost) -> Walk:
    """Go through texts as a run does: draft, keep the right prefix, take full depth's next token, draft again.

    Parameters
    ----------
    texts : sequence of Hits
        With at least ``drafted`` places.
    drafted : int
        Tokens of a draft. The last one of a text is never drafted, as in a run with a most number of tokens.
    draft_cost : float
        Of a draft step, in plain steps.
    check : CheckCost
    """
    checks = drafts = tried = kept = 0
    cost = 0.0
    for hits in texts:
        at, steps = 0, hits.shape[1]
        while at < steps:
            count, stays = min(drafted, steps - at - 1), 0
            while stays < count and hits[stays, at + stays]:
                stays += 1
            checks, drafts, kept, tried = checks + 1, drafts + count, kept + stays, tried + min(stays + 1, count)
            cost += count * draft_cost + check.of(count)
            at += stays + 1
    return Walk(checks, sum(hits.shape[1] for hits in texts), drafts, tried, kept, cost)


@dataclass(frozen=True)
class DraftPoint:
    """What drafting at one depth is predicted to give.

    Attributes
    ----------
    depth, draft_tokens : int
        Layers of a draft step, and tokens of a draft: the number with the highest speed-up.
    acceptance : float
        Chance of a drafted token, given that those before it in its draft were kept.
    acceptance_by_place : tuple of float
        The same for the first, second, ... token of a draft, over drafts that begin at every step.
    tokens_per_check : float
    draft_cost, verify_cost : float
        Of a draft step, by bytes, and of a check of so many tokens, as given; in plain steps.
    speedup : float
        Tokens over their cost.
    """

    depth: int
    draft_tokens: int
    acceptance: float
    acceptance_by_place: tuple[float, ...]
    tokens_per_check: float
    draft_cost: float
    verify_cost: float
    speedup: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def draft_point(
    corpus: Corpus, shape: ModelShape, keep: Sequence[int], bridges: Mapping[int, Bridge], check: CheckCost
) -> DraftPoint:
    """The best draft length of a keep set. Drafts of twice the length are looked at until they are no better."""
    cost = predict_drafting(
        shape,
        len(keep),
        1.0,
        1,
        context=mean_context(corpus),
        bridge=sum(bridge.params for bridge in bridges.values()),
    ).draft_cost
    places = 2
    while True:
        texts = [hits for batch in _hits(corpus, keep, bridges, places) for hits in batch]
        found = {drafted: walk(texts, drafted, cost, check) for drafted in range(1, places + 1)}
        best = max(found, key=lambda drafted: (found[drafted].speedup, -drafted))
        if best <= places // 2 or places >= MOST:
            break
        places = min(2 * places, MOST)
    made = found[best]
    by_place = tuple(_by_place(texts, place) for place in range(best))
    tokens = made.tokens / made.checks
    return DraftPoint(len(keep), best, made.acceptance, by_place, tokens, cost, check.of(best), made.speedup)


def mean_context(corpus: Corpus) -> float:
    """Tokens in the cache at the middle of an answer."""
    samples = [sample for batch in corpus.batches for sample in batch.samples]
    return float(np.mean([len(s.prompt) + len(s.completion) / 2 for s in samples]))


def own_share(corpus: Corpus) -> float:
    """Share of the tokens of the answers that full depth finds most likely: 1 where it wrote them itself, greedily."""
    same = total = 0
    for found, of in corpus.map(own_piece):
        same, total = same + found, total + of
    return same / total


@torch.no_grad()
def own_piece(loaded: Loaded, shared: Any, piece: Any) -> tuple[int, int]:
    """Of a batch, the tokens that full depth finds most likely, and all of them."""
    batch = batch_of(loaded, piece)
    staircase = batch.staircase()
    states = batch.adapter.final_norm(batch.get(batch.adapter.num_layers).to(batch.adapter.dtype))
    return int((_likeliest(batch, states) == staircase.targets[staircase.valid]).sum()), len(states)


def _by_place(texts: Sequence[Hits], place: int) -> float:
    right = tried = 0
    for hits in texts:
        starts = hits.shape[1] - place
        before = np.ones(max(starts, 0), dtype=bool)
        for earlier in range(place):
            before &= hits[earlier, earlier : earlier + len(before)]
        right += int((before & hits[place, place:]).sum())
        tried += int(before.sum())
    return right / tried if tried else 0.0


def _hits(corpus: Corpus, keep: Sequence[int], bridges: Mapping[int, Bridge], places: int) -> list[list[Hits]]:
    asked = {"keep": list(keep), "bridges": rows_of(bridges), "places": places}
    return [[hits.numpy() for hits in found] for found in corpus.map(hits_piece, asked)]


@torch.no_grad()
def hits_piece(loaded: Loaded, asked: Any, piece: Any) -> list[torch.Tensor]:
    """Hits of each text of a batch, bool."""
    batch, places = batch_of(loaded, piece), asked["places"]
    return [
        hits
        for streams in batch.streams(max(_COLUMNS // (1 + places), 1))
        for hits in _of_some(batch, streams, asked["keep"], bridges_of(asked["bridges"]), places)
    ]


def _of_some(
    batch: Batch, streams: Streams, keep: Sequence[int], bridges: Mapping[int, Bridge], places: int
) -> list[torch.Tensor]:
    states = streams.drafts(keep, bridges, places)
    samples, rows, steps, _ = states.shape
    found = _likeliest(batch, states.flatten(0, 2)).view(samples, rows, steps)
    same = (found[:, 1:] == found[:, :1]).cpu()
    counts = streams.valid.sum(1).tolist()
    return [hits[:, :count] for hits, count in zip(same, counts, strict=True)]


def _likeliest(batch: Batch, states: torch.Tensor) -> torch.Tensor:
    """Most likely token of each of some final states ``[rows, hidden]``."""
    return torch.cat([batch.adapter.logits(part).argmax(-1) for part in states.split(_HEAD_ROWS)])  # type: ignore[no-untyped-call]
