"""A corpus on disk gives what one pass in memory gives."""

from pathlib import Path
from typing import Any

import pytest
import torch

from depthsched.adapters import adapter_for
from depthsched.calibrate import corpus as module
from depthsched.calibrate.corpus import Corpus
from depthsched.calibrate.fit import fit_keep_set
from depthsched.calibrate.judge import block_influence, judge_constant
from depthsched.score import Sample
from depthsched.score.staircase import Staircase

from ..tiny import LAYERS, tiny

KEEP = [0, 1, 4, 5, 6, 7]


@pytest.fixture
def corpus(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """In several batches."""
    monkeypatch.setattr(module, "BATCH_TOKENS", 100)
    found = Corpus(adapter_for(tiny("llama", "sdpa")), samples, tmp_path)
    assert len(found.batches) > 3
    return found


def states_of(staircase: Staircase) -> list[torch.Tensor]:
    """What enters every layer, and what leaves the last one, of the real decode steps."""
    states: list[torch.Tensor] = []
    staircase.run([1] * staircase.steps, {1: KEEP}, tap=lambda _, hidden: states.append(hidden[staircase.valid]))
    assert len(states) == LAYERS + 1
    return states


def test_advancing_a_piece_at_a_time_is_one_pass(corpus: Corpus) -> None:
    for batch in corpus.batches:
        staircase = Staircase(corpus.adapter, batch.samples)
        seen = states_of(staircase)
        first = batch.advance(batch.get(2), 2, 5, KEEP)
        last = batch.advance(first, 5, LAYERS, KEEP)
        assert (first - seen[5]).abs().max() < 1e-4
        assert (last - seen[LAYERS]).abs().max() < 1e-4
        assert (batch.get(LAYERS) - last).abs().max() > 1e-2


def test_fits_and_judgements_do_not_depend_on_the_batches(
    corpus: Corpus, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_TOKENS", 10**6)
    whole = Corpus(corpus.adapter, samples, tmp_path / "whole")
    assert len(whole.batches) == 1
    assert corpus.tokens == whole.tokens
    small, large = ({i: f.bridge for i, f in fit_keep_set(c, KEEP, [6]).items()} for c in (corpus, whole))
    for layer in (2, 6):
        assert (small[layer].weight - large[layer].weight).abs().max() < 1e-4
        assert (small[layer].bias - large[layer].bias).abs().max() < 1e-4
    for either in (corpus, whole):
        assert judge_constant(either, range(LAYERS)).kl < 1e-6
    kl = [judge_constant(either, KEEP, large).kl for either in (corpus, whole)]
    assert kl[0] == pytest.approx(kl[1], rel=1e-4)
    assert block_influence(corpus) == pytest.approx(block_influence(whole), rel=1e-4)


def test_block_influence_is_one_less_the_mean_cosine(corpus: Corpus, samples: list[Sample]) -> None:
    """Against transformers' own hidden states, a sample at a time."""
    cosines: list[list[float]] = [[] for _ in range(LAYERS - 1)]
    for sample in samples:
        ids = torch.tensor([sample.prompt + sample.completion])
        with torch.no_grad():
            states = corpus.adapter.model(
                ids, output_hidden_states=True
            ).hidden_states  # the last one is after the norm
        for row, before, after in zip(cosines, states, states[1:], strict=False):
            steps = slice(len(sample.prompt), ids.shape[1] - 1)
            row += torch.cosine_similarity(before[0, steps], after[0, steps], dim=-1).tolist()
    want = [1 - sum(row) / len(row) for row in cosines]
    assert block_influence(corpus)[:-1] == pytest.approx(want, abs=1e-5)


def test_finished_batches_are_not_computed_again(
    corpus: Corpus, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "2" / "done").unlink()
    made: list[Any] = []
    prefill = Staircase._prefill

    def count(self: Staircase, ids: torch.Tensor) -> Any:
        made.append(ids)
        return prefill(self, ids)

    monkeypatch.setattr(Staircase, "_prefill", count)
    again = Corpus(corpus.adapter, samples, tmp_path)
    assert len(made) == 1
    assert torch.equal(again.batches[2].get(3), corpus.batches[2].get(3))
