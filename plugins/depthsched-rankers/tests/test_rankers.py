"""Needs nothing but this plug-in and the conformance kit."""

import math

import pytest
import torch
from depthsched_rankers.removal import Sleb, nll
from depthsched_rankers.states import ShortGPT, Uidl, closest, nested
from transformers import DynamicCache

from depthsched.errors import SettingsError
from depthsched.testing import RankerConformance, tiny_study


class TestShortGPT(RankerConformance):
    ranker = ShortGPT
    max_examples = 5


class TestUidl(RankerConformance):
    ranker = Uidl
    max_examples = 5


class TestSleb(RankerConformance):
    ranker = Sleb
    max_examples = 5


@pytest.fixture(scope="module")
def study():
    with tiny_study(drops=4) as made:
        yield made


@torch.no_grad()
def slow_states(study):
    """For each sample the states ``[L + 1, steps, hidden]`` of its decode steps: a plain forward for each sample."""
    model = study.adapter.model
    found = []
    for batch in study.fitted.batches:
        for sample in batch.samples:
            rows, hooks = {}, []
            for i, layer in enumerate(model.model.layers):

                def keep(module, args, out, i=i, rows=rows):
                    rows.update({i: args[0][0], i + 1: out[0]})

                hooks.append(layer.register_forward_hook(keep))
            try:
                model(torch.tensor([[*sample.prompt, *sample.completion[:-1]]]), use_cache=False)
            finally:
                for hook in hooks:
                    hook.remove()
            states = torch.stack([rows[i] for i in sorted(rows)])
            found.append(states[:, len(sample.prompt) :])
    return found


def slow_cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


# ShortGPT


@pytest.mark.parametrize("measure", ["cosine", "angle"])
def test_block_influence_is_that_of_plain_forwards(study, measure):
    turned = {layer: [] for layer in study.droppable}
    for states in slow_states(study):
        for layer in turned:
            for a, b in zip(states[layer], states[layer + 1], strict=True):
                cos = slow_cosine(a, b)
                turned[layer].append(math.acos(cos) / math.pi if measure == "angle" else 1 - cos)
    means = {layer: sum(values) / len(values) for layer, values in turned.items()}
    named = study.named(measure)
    ranker = ShortGPT(measure=measure)
    order = ranker.resolve(named)
    assert list(order) == sorted(means, key=means.get)
    found = {int(layer): value for layer, value in named.evidence[ranker.spec()].items()}
    assert found == pytest.approx(means, abs=1e-5)
    assert max(means.values()) - min(means.values()) > 1e-3


# UIDL


def slow_distance(states, first, end):
    """Of the last tokens of all texts."""
    cosines = [slow_cosine(rows[first, -1].double(), rows[end, -1].double()) for rows in states]
    return sum(math.acos(min(cos, 1.0)) / math.pi for cos in cosines) / len(cosines)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_the_block_of_n_layers_is_that_of_plain_forwards(study, n):
    states = slow_states(study)
    starts = range(1, study.num_layers - n)
    best = min(starts, key=lambda first: slow_distance(states, first, first + n))
    named = study.named(f"uidl-{n}")
    order = Uidl(n=n).resolve(named)
    assert sorted(order[:n]) == list(range(best, best + n))
    row = named.evidence[f"uidl:n={n}"][n - 1]
    assert row["layers"] == row["published"] == sorted(order[:n])
    assert row["distance"] == pytest.approx(slow_distance(states, best, best + n), abs=1e-5)


def test_every_size_is_a_block_within_the_next_and_never_closer_than_the_published_one(study):
    named = study.named("uidl")
    order = Uidl().resolve(named)
    for row in named.evidence["uidl"]:
        size = len(row["layers"])
        assert sorted(order[:size]) == row["layers"] == list(range(row["layers"][0], row["layers"][0] + size))
        assert row["published_distance"] <= row["distance"]


def test_below_n_one_end_stays_and_above_it_the_closer_neighbour_goes():
    """Written by hand: layers 1 to 4, the closest pair is [2, 4), the closest single layer is 1."""
    distance = {(1, 2): 1, (2, 3): 4, (3, 4): 3, (4, 5): 5, (1, 3): 6, (2, 4): 2, (3, 5): 9, (1, 4): 8, (2, 5): 7}
    distance[1, 5] = 10
    assert nested(distance, 2, 4) == [(3, 4), (2, 4), (2, 5), (1, 5)]
    assert closest(distance, 1) == (1, 2)


def test_a_block_that_does_not_fit_is_refused(study):
    with pytest.raises(SettingsError, match=r"n=5 layers do not fit between the first and the last of 6"):
        Uidl(n=5).resolve(study)


# SLEB


@torch.no_grad()
def slow_nll(study, dropped):
    """Token by token through plain layers on a cache that the full-depth prompt filled."""
    model, total, count = study.adapter.model, 0.0, 0
    for batch in study.scout.batches:
        for sample in batch.samples:
            cache = DynamicCache()
            model(torch.tensor([sample.prompt]), past_key_values=cache)
            for at in range(len(sample.completion) - 1):
                position = torch.tensor([[len(sample.prompt) + at]])
                hidden = model.model.embed_tokens(torch.tensor([[sample.completion[at]]]))
                rope = model.model.rotary_emb(hidden, position)
                for i, layer in enumerate(model.model.layers):
                    if i not in dropped:
                        hidden = layer(hidden, position_embeddings=rope, past_key_values=cache, attention_mask=None)
                log_p = model.lm_head(model.model.norm(hidden))[0, 0].log_softmax(-1)
                total, count = total - float(log_p[sample.completion[at + 1]]), count + 1
    return total / count


def test_the_order_is_that_of_greedy_removal_by_plain_forwards(study):
    gone, losses = [], []
    for _ in range(study.drops):
        trials = {layer: slow_nll(study, [*gone, layer]) for layer in study.droppable if layer not in gone}
        gone.append(min(trials, key=trials.get))
        losses.append(trials[gone[-1]])
    named = study.named("sleb")
    assert list(Sleb().resolve(named)) == gone
    assert [row["nll"] for row in named.evidence["sleb"]] == pytest.approx(losses, abs=1e-4)
    assert [row["layer"] for row in named.evidence["sleb"]] == gone


def test_what_was_tried_is_not_tried_again(study):
    named = study.named("again")
    first = nll(named, [2, 1])
    assert named.remember("nll-1-2", lambda: -1.0) == first
