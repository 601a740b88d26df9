"""A corpus on disk gives what one pass in memory gives."""

from pathlib import Path

import pytest
import torch

from depthsched.adapters import adapter_for
from depthsched.calibrate import corpus as module
from depthsched.calibrate.corpus import Corpus
from depthsched.calibrate.fit import FitSet
from depthsched.calibrate.judge import Judge
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


def test_advancing_a_piece_at_a_time_is_one_pass(corpus: Corpus) -> None:
    for batch in corpus.batches:
        staircase = Staircase(corpus.adapter, batch.samples)
        seen: dict[int, torch.Tensor] = {}
        staircase.run(
            [1] * staircase.steps,
            {1: KEEP},
            tap=lambda layer, hidden, seen=seen, s=staircase: seen.update({layer: hidden[s.valid]}),
        )
        first = batch.advance(batch.get(2), 2, 5, KEEP)
        last = batch.advance(first, 5, LAYERS, KEEP)
        assert (first - seen[5]).abs().max() < 1e-4
        assert (last - seen[LAYERS]).abs().max() < 1e-4
        assert (batch.get(LAYERS) - last).abs().max() > 1e-2


def test_fits_and_judgements_do_not_depend_on_the_batches(
    corpus: Corpus, samples: list[Sample], tmp_path: Path
) -> None:
    small = FitSet(corpus), Judge(corpus)
    whole = Corpus(corpus.adapter, samples, tmp_path / "whole")
    large = FitSet(whole), Judge(whole)
    assert small[0].tokens == large[0].tokens
    found = [fits.fit_keep_set(KEEP, [6])[0] for fits, _ in (small, large)]
    for layer in (2, 6):
        assert (found[0][layer].weight - found[1][layer].weight).abs().max() < 0.1
    for judge in (small[1], large[1]):
        assert judge.constant(range(LAYERS)).kl < 1e-6
    kl = [judge.constant(KEEP, found[1]).kl for judge in (small[1], large[1])]
    assert kl[0] == pytest.approx(kl[1], rel=1e-4)
    assert small[1].redundancy == pytest.approx(large[1].redundancy, rel=1e-4)


def test_finished_batches_are_not_computed_again(
    corpus: Corpus, samples: list[Sample], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "2" / "done").unlink()
    made = []
    prefill = Staircase._prefill
    monkeypatch.setattr(Staircase, "_prefill", lambda self, ids: made.append(1) or prefill(self, ids))
    again = Corpus(corpus.adapter, samples, tmp_path)
    assert len(made) == 1
    assert torch.equal(again.batches[2].get(3), corpus.batches[2].get(3))
