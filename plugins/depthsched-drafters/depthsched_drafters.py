"""SWIFT (arXiv 2410.06916) and CLaSp (arXiv 2505.24196) for depthsched: rankers for the layers that a draft skips."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import depthsched as ds

if TYPE_CHECKING:
    import torch

    from depthsched.calibrate import Study

API = 1
Layers = tuple[int, ...]
Score = Callable[[Iterable[int]], float]

_CANDIDATES, _KAPPA, _NOISE = 256, 2.5, 1e-3


def _count(ratio: float, study: Study) -> int:
    """Layers of a share of those that may be skipped; one at least."""
    return max(round(ratio * len(study.droppable)), 1)


@dataclass(frozen=True)
class Swift(ds.LayerRanker):
    """Search for the layers without which most tokens of the model's own answers are drafted right.

    SWIFT (https://arxiv.org/abs/2410.06916) keeps the skip set with the highest *matchness*: the share of the tokens
    already generated that one parallel pass of the draft predicts, ``m(z) = mean_t [argmax p(x_t | x_<t, z) = x_t]``.
    Proposals are drawn at random, and every 25th comes from Bayesian optimisation over those tried; the search ends
    after ``steps`` or when a set reaches ``enough``. The first and the last layer are never skipped.

    What differs here: SWIFT skips attention and MLP sub-layers, depthsched whole layers. It searches while it decodes
    one text; here the text is the answers of a calibration, once.

    What the paper leaves open, and what is chosen here: the first set is spread evenly. The surrogate is a Gaussian
    process with the kernel ``exp(-|a ^ b| / n)`` on sets of n layers, its proposal the highest of mean + 2.5
    deviations among 256 random sets and all that differ from the best by one layer. SWIFT has one set; an order needs
    more: within the set the layer whose return raises the matchness most is dropped last, and so on, and beyond the
    set that layer goes next whose loss leaves the most.
    """

    ratio: float = ds.setting(0.45, low=0, high=1, low_open=True, help="share of the droppable layers in the set")
    steps: int = ds.setting(200, low=1, high=10**5, help="sets to try")
    every: int = ds.setting(25, low=1, high=10**5, help="a Bayesian proposal at every so many steps")
    enough: float = ds.setting(0.93, low=0, high=1, help="matchness that ends the search")

    def rank(self, study: Study) -> Sequence[int]:
        known: dict[Layers, float] = {}

        def matchness(layers: Iterable[int]) -> float:
            key = tuple(sorted(layers))
            if key not in known:
                name = "set-" + "-".join(map(str, key))
                known[key] = study.remember(name, lambda: study.quality(key).agreement)
            return known[key]

        best, tried = self.search(list(study.droppable), _count(self.ratio, study), matchness, study.seed)
        study.evidence["swift"] = {"set": list(best), "matchness": matchness(best), "tried": len(tried)}
        inside = peeled(best, matchness)
        return inside + grown(best, study.droppable, study.drops - len(inside), matchness)

    def search(
        self, pool: Sequence[int], count: int, matchness: Score, seed: int
    ) -> tuple[Layers, Mapping[Layers, float]]:
        """The set of ``count`` layers of the pool with the highest matchness, and all that were tried."""
        draw = np.random.default_rng(seed)
        spread = tuple(sorted({pool[i * len(pool) // count] for i in range(count)}))
        tried = {spread: matchness(spread)}
        for step in range(1, self.steps):
            best = max(tried, key=lambda layers: (tried[layers], layers))
            if tried[best] >= self.enough or len(tried) == math.comb(len(pool), count):
                break
            layers = proposal(tried, best, pool, draw) if step % self.every == 0 else _drawn(pool, count, draw)
            tried[layers] = matchness(layers)
        return max(tried, key=lambda layers: (tried[layers], layers)), tried


def _drawn(pool: Sequence[int], count: int, draw: np.random.Generator) -> Layers:
    return tuple(sorted(int(layer) for layer in draw.choice(pool, count, replace=False)))


def proposal(tried: Mapping[Layers, float], best: Layers, pool: Sequence[int], draw: np.random.Generator) -> Layers:
    """The untried set that a Gaussian process over those tried thinks best of, its uncertainty included."""
    swapped = [tuple(sorted({*best} - {a} | {b})) for a in best for b in pool if b not in best]
    drawn = [_drawn(pool, len(best), draw) for _ in range(_CANDIDATES)]
    candidates = [layers for layers in dict.fromkeys([*swapped, *drawn]) if layers not in tried]
    if not candidates:
        return best
    at = {layer: i for i, layer in enumerate(pool)}

    def ones(sets: Iterable[Layers]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([[float(layer in layers) for layer in at] for layers in sets])

    seen, new = ones(tried), ones(candidates)
    values = np.array(list(tried.values()))
    scale = values.std() or 1.0

    def kernel(a: Any, b: Any) -> Any:
        return np.exp(-np.abs(a[:, None] - b[None]).sum(-1) / len(best))

    inverse = np.linalg.inv(kernel(seen, seen) + _NOISE * np.eye(len(seen)))
    across = kernel(new, seen)
    mean = across @ inverse @ ((values - values.mean()) / scale)
    variance = 1 - np.einsum("ij,jk,ik->i", across, inverse, across)
    return candidates[int(np.argmax(mean + _KAPPA * np.sqrt(np.maximum(variance, 0))))]


def peeled(layers: Layers, score: Score) -> list[int]:
    """The layers of a set, first dropped first: the one whose return raises the score most is dropped last."""
    left, last = list(layers), []
    while left:
        back = max(left, key=lambda layer: (score(other for other in left if other != layer) if left[1:] else 0, layer))
        left.remove(back)
        last.append(back)
    return last[::-1]


def grown(layers: Layers, pool: Iterable[int], more: int, score: Score) -> list[int]:
    """Further layers, each the one whose loss leaves the highest score."""
    gone, added = list(layers), []
    for _ in range(more):
        rest = [layer for layer in pool if layer not in gone]
        added.append(max(rest, key=lambda layer: (score([*gone, layer]), -layer)))
        gone.append(added[-1])
    return added


@dataclass(frozen=True)
class Clasp(ds.LayerRanker):
    """The layers without which the final state stays closest to full depth's, by a dynamic program over layers.

    CLaSp (https://arxiv.org/abs/2505.24196) chooses which layers to skip from the full-depth states ``h_i`` of a token.
    With ``f_i`` the i-th layer, ``D(i, j) = max(cos(h_i, f_i(g(i-1, j))), cos(h_i, g(i-1, j-1)))`` is the likeness to
    ``h_i`` after i layers of which j are skipped, and ``g(i, j)`` the state of the winner. The set of j layers is read
    back from ``D(L, j)``. The first and the last layer are never skipped.

    It is exact only where the state that is closest at a layer also leads to the closest one later, as the paper
    assumes; otherwise it is an approximation, at ``(j + 1)`` passes over the tokens in place of one for each of
    ``C(L - 2, j)`` sets.

    What differs here: CLaSp runs the program on the last token after every check and so changes its layers within one
    text; here it is run once, on all decode steps of a few answers, with the mean of the cosines in place of each.
    Every layer sees full-depth K and V of the positions before, as a draft does.

    What the paper leaves open, and what is chosen here: CLaSp has one number of skipped layers; an order needs all.
    At ``ratio`` of the droppable layers the set is the program's. Within it those go first that more of the smaller
    sets have; beyond it follow the layers of the larger sets.
    """

    ratio: float = ds.setting(0.5, low=0, high=1, low_open=True, help="share of the droppable layers in the set")

    def rank(self, study: Study) -> Sequence[int]:
        count = _count(self.ratio, study)
        sets = skip_sets(study, max(count, study.drops))
        study.evidence["clasp"] = [{"set": list(layers), "cosine": cosine} for layers, cosine in sets]
        order: list[int] = []
        for size in (count, *range(count + 1, len(sets))):
            smaller = [layers for layers, _ in sets[: size + 1]]
            new = [layer for layer in sets[size][0] if layer not in order]
            order += sorted(new, key=lambda layer: (-sum(layer in layers for layers in smaller), layer))
        return order


def skip_sets(study: Study, most: int) -> list[tuple[Layers, float]]:
    """CLaSp's set of 0 to ``most`` layers, each with the mean cosine of its final states and full depth's."""
    import torch

    parts = [_Part(streams) for batch in study.scout.batches for streams in batch.streams(max(8192 // (most + 2), 1))]
    tokens = sum(int(part.valid.sum()) for part in parts)
    sets: list[tuple[Layers, float]] = [((), 1.0)]
    for layer in range(study.num_layers):
        skips = layer in study.droppable
        made = [part.both(layer) for part in parts]
        cosines = sum(part.cosines(layer + 1, lanes) for part, lanes in zip(parts, made, strict=True)) / tokens
        chosen: list[tuple[Layers, float]] = []
        picks = []
        for size in range(min(len(sets) + skips, most + 1)):
            run = float(cosines[0, size]) if size < len(sets) else -math.inf
            skip = float(cosines[1, size - 1]) if skips and size else -math.inf
            picks.append((1, size - 1) if skip > run else (0, size))
            way, before = picks[-1]
            chosen.append((sets[before][0] + ((layer,) if way else ()), max(run, skip)))
        sets = chosen
        for part, lanes in zip(parts, made, strict=True):
            part.states = torch.stack([lanes[way][:, size] for way, size in picks], dim=1)
    return sets


class _Part:
    """Some samples: their full-depth states, and the winner's state for every number of skipped layers."""

    def __init__(self, streams: Any) -> None:
        self.streams, self.valid = streams, streams.valid
        self.full: dict[int, torch.Tensor] = {}
        streams.full(tap=lambda layer, hidden: self.full.update({layer: hidden}))
        self.states = self.full[0][:, None]

    def both(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """States ``[batch, lanes, S, hidden]`` behind a layer that runs, and where it is skipped."""
        return self.streams.layer(layer, self.full[layer], self.states), self.states

    def cosines(self, layer: int, lanes: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Sums over tokens ``[2, lanes]`` of the likeness to the full-depth state that enters a layer."""
        import torch

        target = self.full[layer][:, None].float()
        found = [torch.cosine_similarity(states.float(), target, dim=-1) for states in lanes]
        weight = self.valid[:, None]
        return torch.stack([(cosine * weight).sum((0, 2)).double() for cosine in found])


@ds.hookimpl
def register_rankers(register: Callable[[type[ds.LayerRanker]], None]) -> None:
    """Offer the rankers ``swift`` and ``clasp``."""
    for ranker in (Swift, Clasp):
        register(ranker)
