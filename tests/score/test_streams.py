"""Drafts of every step in one pass against drafts decoded one token at a time from a full-depth cache."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bridge import Bridge
from depthsched.errors import PlanError
from depthsched.runtime.eager import EagerBackend
from depthsched.score import Sample
from depthsched.score.staircase import Staircase
from depthsched.score.streams import Streams

from ..tiny import LAYERS, VOCAB, make_tiny, tiny


def drawn(seed: int, lengths: list[tuple[int, int]]) -> list[Sample]:
    g = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB, (count,), generator=g).tolist())

    return [Sample(ids(prompt), ids(completion)) for prompt, completion in lengths]


@torch.no_grad()
def decoded(model: object, sample: Sample, begin: int, places: int, keep: list[int]) -> torch.Tensor:
    """Logits ``[places, vocabulary]`` of a draft that begins with column ``begin``: a prefill, then single steps."""
    adapter = adapter_for(model)
    dropped = [layer for layer in range(LAYERS) if layer not in keep]
    order = f"list:layers={'+'.join(map(str, dropped))}"
    plan = ds.plan(f"constant:depth={len(keep)}", order=order, num_layers=LAYERS, horizon=64)
    text = torch.tensor([[*sample.prompt, *sample.completion]])
    known = text[:, : len(sample.prompt) + begin]
    with EagerBackend(adapter, plan) as engine:
        _, decoder = engine.prefill(known, torch.ones_like(known), DynamicCache())
        steps = text[0, known.shape[1] : known.shape[1] + places]
        return torch.stack([decoder.step(token[None], len(keep))[0] for token in steps])


@settings(max_examples=12)
@given(
    seed=st.integers(0, 99),
    keep=st.sets(st.integers(1, LAYERS - 1), min_size=1, max_size=LAYERS - 2).map(lambda rest: sorted({0, *rest})),
    lengths=st.lists(st.tuples(st.integers(1, 6), st.integers(4, 9)), min_size=1, max_size=3),
    variant=st.sampled_from(["llama", "qwen3"]),
    attention=st.sampled_from(["sdpa", "eager"]),
    places=st.integers(1, 3),
)
def test_every_place_of_every_draft_is_what_a_run_computes(seed, keep, lengths, variant, attention, places):
    model, samples = tiny(variant, attention), drawn(seed, lengths)
    adapter = adapter_for(model)
    streams = Streams(adapter, samples)
    logits = adapter.logits(streams.drafts(keep, places=places))
    full = adapter.logits(Staircase(adapter, samples).full())
    assert (logits[:, 0] - full)[streams.valid].abs().max() < 1e-4
    for row, sample in enumerate(samples):
        for begin in {0, (len(sample.completion) - 1 - places) // 2, len(sample.completion) - 1 - places}:
            if begin < 0:
                continue
            wanted = decoded(model, sample, begin, places, keep)
            found = torch.stack([logits[row, place + 1, begin + place] for place in range(places)])
            assert (found - wanted).abs().max() < 1e-3 * max(1.0, float(wanted.abs().max()))


def test_bridges_act_on_drafts_and_not_on_full_depth():
    adapter, samples = adapter_for(tiny("llama", "sdpa")), drawn(1, [(3, 8), (5, 6)])
    streams, keep = Streams(adapter, samples), [0, 1, 2, 5, 6, 7]
    plain = streams.drafts(keep, places=2)
    nothing = Bridge(torch.zeros(32, 32), torch.zeros(32))
    assert torch.equal(streams.drafts(keep, {3: nothing}, places=2), plain)
    moved = streams.drafts(keep, {3: Bridge(torch.zeros(32, 32), torch.ones(32))}, places=2)
    assert torch.equal(moved[:, 0], plain[:, 0])
    assert (moved[:, 1:] - plain[:, 1:]).abs().amax((1, 2, 3)).min() > 1e-3


def test_one_layer_of_several_drafts_is_that_layer():
    """A draft that runs every layer is full depth; one that runs another layer in its place is not."""
    adapter, samples = adapter_for(tiny("llama", "sdpa")), drawn(2, [(3, 8), (5, 6)])
    streams = Streams(adapter, samples)
    states: dict[int, torch.Tensor] = {}
    streams.full(tap=lambda layer, hidden: states.update({layer: hidden}))
    for index in (0, LAYERS - 1):
        lanes = torch.stack([states[index], states[index] + 0.5], dim=1)
        after = streams.layer(index, states[index], lanes)
        assert (after[:, 0] - states[index + 1])[streams.valid].abs().max() < 1e-4
        alone = streams.layer(index, states[index], lanes[:, 1:])
        assert (after[:, 1:] - alone).abs().max() < 1e-4  # lanes do not see each other
        assert (after[:, 1] - after[:, 0]).abs().max() > 0.1


def test_what_lossless_runs_refuse_is_refused():
    with pytest.raises(PlanError, match="sliding window of 5"):
        Streams(adapter_for(make_tiny("mistral-sliding")), drawn(0, [(4, 8)]))
