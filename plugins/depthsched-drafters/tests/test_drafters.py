"""Needs nothing but this plug-in and the conformance kit."""

from itertools import combinations

import numpy as np
import pytest
import torch
from depthsched_drafters import Clasp, Swift, peeled, proposal, skip_sets
from transformers import DynamicCache

from depthsched.testing import RankerConformance, tiny_study


class TestSwift(RankerConformance):
    ranker = Swift(steps=12, every=4)
    max_examples = 5


class TestClasp(RankerConformance):
    ranker = Clasp
    max_examples = 5


# SWIFT


def test_a_long_search_finds_the_best_set():
    """Independent of how it searches: all sets of two of four layers, each judged on its own."""
    with tiny_study(drops=2) as study:
        ranked = Swift(ratio=0.5, steps=300, every=5, enough=1.0).resolve(study)
        judged = {pair: study.quality(pair).agreement for pair in combinations(study.droppable, 2)}
        assert judged[tuple(sorted(ranked))] == max(judged.values())
        assert len(set(judged.values())) > 1


def test_the_search_ends_when_a_set_is_good_enough():
    asked = []

    def score(layers):
        asked.append(tuple(layers))
        return 0.5 + 0.1 * len(asked)

    best, tried = Swift(steps=50, enough=0.75).search(range(1, 9), 3, score, seed=0)
    assert len(tried) == 3
    assert best == asked[-1]


def test_a_proposal_is_new_and_follows_what_is_good():
    """The score counts layers of {1, 2, 3}: a proposal has more of them than a set drawn at random, on average."""
    pool, got = range(1, 21), []
    for seed in range(10):
        draw = np.random.default_rng(seed)
        tried = {tuple(sorted(draw.choice(pool, 4, replace=False).tolist())): 0.0 for _ in range(60)}
        tried = {layers: len({1, 2, 3} & {*layers}) / 3 for layers in tried}
        found = proposal(tried, max(tried, key=tried.get), pool, draw)
        assert found not in tried
        assert len({*found}) == 4
        got.append(len({1, 2, 3} & {*found}))
    assert np.mean(got) > 1.2  # by chance 0.6


def test_the_layer_that_is_missed_most_is_dropped_last():
    weight = {2: 0.3, 4: 0.1, 7: 0.2}
    assert peeled((2, 4, 7), lambda layers: 1 - sum(weight[layer] for layer in layers)) == [4, 7, 2]


def test_beyond_the_set_the_order_goes_on():
    with tiny_study(drops=4) as study:
        assert sorted(Swift(ratio=0.25, steps=3).resolve(study)) == [1, 2, 3, 4]
        assert study.evidence["swift"]["tried"] <= 3


# CLaSp


@torch.no_grad()
def slow_states(model, sample, skipped):
    """States ``[steps, hidden]`` after each layer, of single tokens on a full-depth cache of all before them."""
    text = torch.tensor([[*sample.prompt, *sample.completion]])
    after = []
    for at in range(len(sample.prompt), text.shape[1] - 1):
        cache = DynamicCache()
        model(text[:, :at], past_key_values=cache, use_cache=True)
        hidden = model.model.embed_tokens(text[:, at : at + 1])
        rope = model.model.rotary_emb(hidden, torch.tensor([[at]]))
        rows = [hidden[0, 0]]
        for index, layer in enumerate(model.model.layers):
            if index not in skipped:
                hidden = layer(hidden, position_embeddings=rope, past_key_values=cache, attention_mask=None)
            rows.append(hidden[0, 0])
        after.append(torch.stack(rows))
    return torch.stack(after, dim=1)


def mean_cosine(a, b):
    return float(torch.cosine_similarity(a, b, dim=-1).mean())


def scouted(study):
    return [sample for batch in study.scout.batches for sample in batch.samples]


def slow_program(study, most):
    """The recursion of the paper, written down again: a table of sets, each run from the first layer on."""
    model = study.adapter.model
    known = {}

    def states(skipped):
        if skipped not in known:
            known[skipped] = torch.cat([slow_states(model, sample, skipped) for sample in scouted(study)], dim=1)
        return known[skipped]

    full, table = states(()), {(0, 0): ()}
    for i in range(1, study.num_layers + 1):
        for j in range(most + 1):
            ways = [table[i - 1, j]] if (i - 1, j) in table else []
            if j and (i - 1, j - 1) in table and i - 1 in study.droppable:
                ways.append((*table[i - 1, j - 1], i - 1))
            if ways:
                table[i, j] = max(ways, key=lambda way: mean_cosine(states(way)[i], full[i]))
    last = study.num_layers
    return [(table[last, j], mean_cosine(states(table[last, j])[last], full[last])) for j in range(most + 1)], states


def test_the_program_is_the_published_recursion():
    with tiny_study(drops=3) as study:
        slow, states = slow_program(study, 4)
        fast = skip_sets(study, 4)
        assert [layers for layers, _ in fast] == [layers for layers, _ in slow]
        assert [cosine for _, cosine in fast] == pytest.approx([cosine for _, cosine in slow], abs=1e-4)
        for layers, cosine in fast:  # never better than the best of all sets, of which it is one
            full = states(())[-1]
            every = [mean_cosine(states(c)[-1], full) for c in combinations(study.droppable, len(layers))]
            assert cosine <= max(every) + 1e-4
            assert cosine >= min(every) - 1e-4


class Rotation(torch.nn.Module):
    """A layer that turns every pair of values by an angle, whatever came before."""

    def __init__(self, angle, index):
        super().__init__()
        self.index = index
        cos, sin = np.cos(angle), np.sin(angle)
        self.register_buffer("turn", torch.block_diag(*[torch.tensor([[cos, -sin], [sin, cos]])] * 8).float())

    def forward(self, hidden, *args, past_key_values, **kwargs):
        nothing = hidden.new_zeros(len(hidden), 1, hidden.shape[1], 8)
        past_key_values.update(nothing, nothing, self.index)
        return hidden @ self.turn.T


@pytest.mark.parametrize("seed", range(4))
def test_where_the_closest_now_is_the_closest_later_it_finds_the_best_of_all_sets(seed):
    """Rotations by positive angles: a skipped layer costs its angle, so that costs add up and the program is exact."""
    angles = np.random.default_rng(seed).uniform(0.05, 0.4, 8)
    with tiny_study(drops=3, num_layers=8) as study:
        layers = study.adapter.layers
        for index, angle in enumerate(angles):
            layers[index] = Rotation(angle, index)
        for found, cosine in skip_sets(study, 4):
            best = min(combinations(study.droppable, len(found)), key=lambda c: sum(angles[list(c)]))
            assert found == best
            assert cosine == pytest.approx(np.cos(sum(angles[list(best)])), abs=1e-4)


def test_the_set_at_the_ratio_is_the_programs():
    with tiny_study(drops=4) as study:
        sets = skip_sets(study, 4)
        order = Clasp(ratio=0.5).resolve(study)
        assert set(order[:2]) == set(sets[2][0])
        assert sorted(order) == [1, 2, 3, 4]
        assert study.evidence["clasp"][2] == {"set": list(sets[2][0]), "cosine": sets[2][1]}
