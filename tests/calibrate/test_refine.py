"""Refining: a lower KL, by the gradient that finite differences give, and nothing moves but the maps."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched.calibrate.refine as module
from depthsched.adapters import adapter_for
from depthsched.bridge import Bridge
from depthsched.calibrate import CheckCost, Options, calibrate
from depthsched.calibrate.corpus import Corpus
from depthsched.calibrate.fit import fit_keep_set
from depthsched.calibrate.judge import judge_constant
from depthsched.errors import SettingsError
from depthsched.score import Sample

from ..tiny import tiny

Fitted = dict[int, Bridge]


@pytest.fixture(scope="module")
def corpus(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(adapter_for(tiny("llama", "sdpa")), samples, tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def keep(corpus: Corpus) -> list[int]:
    return [layer for layer in range(corpus.adapter.num_layers) if layer not in (1, 2)]


@pytest.fixture(scope="module")
def fitted(corpus: Corpus, keep: list[int]) -> Fitted:
    return {layer: fit.bridge for layer, fit in fit_keep_set(corpus, keep, corrections=[keep[-1]]).items()}


def test_refined_bridges_have_a_lower_kl_where_they_were_refined(
    corpus: Corpus, keep: list[int], fitted: Fitted
) -> None:
    found = module.refine(corpus, keep, fitted, passes=40)
    assert found.bridges.keys() == fitted.keys()
    assert len(found.seen) == 40
    assert judge_constant(corpus, keep, found.bridges).kl < 0.9 * judge_constant(corpus, keep, fitted).kl


def test_the_loss_is_the_kl_that_judges(
    corpus: Corpus, keep: list[int], fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JUDGED", 1.0)
    draws = torch.Generator()
    with torch.no_grad():
        losses = [(len(g.full), module._loss(corpus.adapter, g, keep, fitted, draws)) for g in module._groups(corpus)]
    assert sum(count for count, _ in losses) == corpus.tokens
    mean = sum(count * float(loss) for count, loss in losses) / corpus.tokens
    assert mean == pytest.approx(judge_constant(corpus, keep, fitted).kl, rel=1e-4)


def test_the_gradient_is_that_of_finite_differences(
    corpus: Corpus, keep: list[int], fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JUDGED", 1.0)
    group = next(module._groups(corpus))
    layer = min(fitted)  # through every kept layer above, its K and V included
    loss = lambda bridge: module._loss(corpus.adapter, group, keep, {**fitted, layer: bridge}, torch.Generator())  # noqa: E731
    weight, bias = fitted[layer].weight, fitted[layer].bias
    moving = bias.clone().requires_grad_(True)
    with module._frozen(corpus.adapter.model), torch.enable_grad():
        loss(Bridge(weight, moving)).backward()
    assert moving.grad is not None
    ahead = moving.grad / moving.grad.norm()
    with torch.no_grad():
        there, back = (float(loss(Bridge(weight, bias + step * ahead))) for step in (0.02, -0.02))
    assert (there - back) / 0.04 == pytest.approx(float(moving.grad.norm()), rel=0.03)


def test_coordinates_change_nothing(corpus: Corpus, fitted: Fitted) -> None:
    for layer, bridge in fitted.items():
        again = module._Map(bridge, corpus.batches[0].get(layer)).bridge()
        assert torch.allclose(again.weight, bridge.weight, rtol=1e-4, atol=1e-6)
        assert torch.allclose(again.bias, bridge.bias, rtol=1e-4, atol=1e-6)


def test_the_model_stays_as_it_was_also_after_an_interrupt(
    corpus: Corpus, keep: list[int], fitted: Fitted, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = corpus.adapter.model
    first, *_ = model.parameters()
    for weight in model.parameters():
        weight.requires_grad_(weight is first)
    before = copy.deepcopy(model.state_dict())

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    module.refine(corpus, keep, fitted, passes=1)
    monkeypatch.setattr(module, "_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.refine(corpus, keep, fitted, passes=1)
    assert [weight.requires_grad for weight in model.parameters()] == [w is first for w in model.parameters()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_calibrate_refines_every_depth_and_says_what_it_gave(samples: list[Sample], tmp_path: Path) -> None:
    model = tiny("llama", "sdpa")
    options = {"min_depth": 4, "corrections": 1, "orders": ("block",)}
    plain = calibrate(model, "tiny", samples, tmp_path / "plain", options=Options(**options))
    found = calibrate(model, "tiny", samples, tmp_path / "refined", options=Options(**options, refine=2))
    assert found.options["refine"] == 2
    for row, before in zip(found.evidence["constant"], plain.evidence["constant"], strict=True):
        assert row["fitted"] == {"kl": before["kl"], "agreement": before["agreement"]}
        assert row["kl"] == min(row["fitted"]["kl"], row["refined"]["kl"])
        assert len(row["refining"]) == 2
        kept = row["refined"]["kl"] < row["fitted"]["kl"]
        old, new = (profile.bridges([row["depth"]])[row["depth"]] for profile in (plain, found))
        assert all(torch.equal(new[layer].weight, old[layer].weight) != kept for layer in old)
    again = calibrate(model, "tiny", samples, tmp_path / "again", options=Options(**options, refine=2))
    assert again.tensors_sha256 == found.tensors_sha256


def test_bridges_that_refining_made_worse_stay_as_they_were_fitted(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, said = tiny("llama", "sdpa"), list[str]()
    options = {"min_depth": 6, "corrections": 0, "orders": ("block",)}
    plain = calibrate(model, "tiny", samples, tmp_path / "plain", options=Options(**options))
    monkeypatch.setattr(module, "RATE", 30.0)  # far too much: the maps are lost
    found = calibrate(model, "tiny", samples, tmp_path / "lost", options=Options(**options, refine=1), say=said.append)
    assert all(row["refined"]["kl"] > row["fitted"]["kl"] == row["kl"] for row in found.evidence["constant"])
    assert found.tensors_sha256 == plain.tensors_sha256
    assert found.damage == plain.damage
    assert sum("keeps its fitted bridges" in text for text in said) == len(found.evidence["constant"])


def test_what_refining_cannot_serve_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="refine=-1"):
        Options(refine=-1)
    with pytest.raises(SettingsError, match="leave it out"):
        calibrate(tiny("llama", "sdpa"), "tiny", samples, tmp_path, check=CheckCost(), options=Options(refine=1))
