"""Token maps: the plan's own answer, its probabilities, and full depth's opinion."""

from __future__ import annotations

import pytest
import torch

import depthsched as ds
from depthsched.encoding import pieces
from depthsched.score import token_map

from ..tiny import make_tiny


@pytest.fixture(scope="module")
def small(small_tokenizer):
    return make_tiny("llama", "sdpa", vocab_size=len(small_tokenizer)), small_tokenizer


@pytest.mark.parametrize("spec", ["constant:depth=5", "d3:alpha=0.9", "full", "confidence:depth=4"])
def test_every_number_is_that_of_a_run_and_a_full_pass(small, spec):
    model, tokenizer = small
    prompt = tokenizer("How many?")["input_ids"]
    plan = ds.plan(spec, num_layers=8, horizon=12)
    found = token_map(model, tokenizer, plan, "How many?", prompt, max_new_tokens=12)
    run = ds.generate(model, torch.tensor([prompt]), plan, max_new_tokens=12, do_sample=False, backend="eager")
    assert found.tokens == tuple(run.tokens[0].tolist())
    assert found.depths == tuple(run.trace.depths)
    assert [top[0][0] for top in found.top] == [tokenizer.decode([t]) for t in found.tokens]
    with torch.no_grad():
        for step in range(12):  # one pass a token, as nobody would do it
            logits = model(torch.tensor([[*prompt, *found.tokens[:step]]])).logits[0, -1]
            probability = torch.softmax(logits.float(), -1)
            best = int(probability.argmax())
            assert found.agree[step] == (best == found.tokens[step])
            assert found.full[step] == (tokenizer.decode([best]), pytest.approx(float(probability[best]), abs=2e-5))
            expected = float(probability[found.tokens[step]])
            assert found.full_probability[step] == pytest.approx(expected, abs=2e-5)
    # At full depth the plan's probability is full depth's.
    full = [step for step, depth in enumerate(found.depths) if depth == 8]
    if spec in ("full", "constant:depth=5"):
        for step in full:
            assert found.top[step][0][1] == pytest.approx(found.full_probability[step], abs=2e-5)


def test_pieces_join_to_the_text(smollm2):
    _, tokenizer = smollm2
    text = "Ça coûte 5 € — 🦊 voilà\n\nfin"
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = pieces(tokenizer, tokens)
    assert len(found) == len(tokens)
    assert "".join(found) == text
    assert "�" not in "".join(found)
