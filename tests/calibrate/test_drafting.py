"""Calibration for drafts: what is predicted is what lossless runs do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.calibrate import CheckCost, Options, Target, calibrate
from depthsched.calibrate.acceptance import _hits, draft_point, own_share, walk
from depthsched.calibrate.corpus import Corpus
from depthsched.drafts import draft_speedup, predict_drafting
from depthsched.errors import SettingsError
from depthsched.score import Sample

from ..tiny import LAYERS, prompt, tiny

STEPS = 24
OPTIONS = Options(min_depth=4, corrections=2)


@pytest.fixture(scope="module")
def greedy() -> list[Sample]:
    """The model's own greedy answers."""
    rows = []
    for seed in range(12):
        inputs = prompt(tokens=4 + seed % 3, seed=seed)
        run = ds.generate(tiny("llama", "sdpa"), inputs, max_new_tokens=STEPS, do_sample=False)
        rows.append(Sample(tuple(inputs["input_ids"][0].tolist()), tuple(run.tokens[0].tolist())))
    return rows


@pytest.fixture(scope="module")
def drafts(greedy: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> ds.Profile:
    out: Path = tmp_path_factory.mktemp("drafts")
    model = tiny("llama", "sdpa")
    return calibrate(model, "tiny", greedy, out, check=CheckCost(1.0, 0.05), options=OPTIONS)


@pytest.mark.parametrize("drafted", [1, 3])
@pytest.mark.parametrize("depth", [5, 7])
def test_the_walk_is_the_run(
    greedy: list[Sample], drafts: ds.Profile, tmp_path: Path, depth: int, drafted: int
) -> None:
    """Round for round: as many tokens drafted and kept as in a lossless run on the same prompt."""
    model = tiny("llama", "sdpa")
    plan = ds.plan(f"constant:depth={depth}", num_layers=LAYERS, horizon=STEPS, profile=drafts)
    bridges = drafts.bridges([depth]).get(depth, {})
    for number, sample in enumerate(greedy[:3]):
        corpus = Corpus(adapter_for(model), [sample], tmp_path / str(number))
        (texts,) = _hits(corpus, plan.keep(1), bridges, drafted)
        inputs = {"input_ids": torch.tensor([sample.prompt]), "attention_mask": torch.ones(1, len(sample.prompt))}
        run = ds.generate(
            model, inputs, plan, max_new_tokens=STEPS, do_sample=False, lossless=True, draft_tokens=drafted,
            backend="eager",
        )  # fmt: skip
        assert tuple(run.tokens[0].tolist()) == sample.completion
        rounds = [(r.drafted, r.accepted[0]) for r in run.trace.rounds or []]
        plain = next(i for i, (count, _) in enumerate(rounds) if count)  # a run begins with plain steps
        at = plain + sum(kept for _, kept in rounds[:plain])
        hits = texts[0][:, at:]
        found = walk([hits], drafted, 0.5, CheckCost())
        rest = rounds[plain:]
        assert (found.checks, found.drafted, found.kept) == (
            len(rest),
            sum(d for d, _ in rest),
            sum(k for _, k in rest),
        )


@st.composite
def tables(draw: st.DrawFn) -> list[list[bool]]:
    steps = draw(st.integers(1, 40))
    return draw(st.lists(st.lists(st.booleans(), min_size=steps, max_size=steps), min_size=4, max_size=4))


@given(hits=tables(), drafted=st.integers(1, 4))
def test_a_walk_counts_every_token_once(hits: list[list[bool]], drafted: int) -> None:
    table = np.array(hits)
    found = walk([table], drafted, 0.5, CheckCost(1.2, 0.1))
    assert found.tokens == found.checks + found.kept == table.shape[1]
    assert found.kept <= found.tried <= found.drafted <= drafted * found.checks
    full = found.drafted == drafted * found.checks
    assert found.cost >= 0.5 * found.drafted + found.checks
    if full:
        assert found.cost == pytest.approx(found.checks * (0.5 * drafted + 1.2 + 0.1 * drafted))


def test_a_token_is_judged_by_its_place_in_its_draft() -> None:
    """First places right, second ones wrong: every check keeps one token, the last has no draft."""
    hits = np.array([[True] * 7, [False] * 7])
    found = walk([hits], 2, 0.5, CheckCost())
    assert (found.checks, found.kept, found.tried, found.drafted) == (4, 3, 6, 6)
    swapped = walk([hits[::-1]], 2, 0.5, CheckCost())
    assert (swapped.checks, swapped.kept, swapped.tried) == (7, 0, 6)


@pytest.mark.parametrize(("acceptance", "drafted"), [(0.9, 2), (0.6, 4), (0.8, 1)])
def test_chance_alone_gives_the_formula(acceptance: float, drafted: int) -> None:
    """Tokens that are right by independent chance: the speed-up of Leviathan et al., and its acceptance."""
    hits = np.random.default_rng(0).random((drafted, 60_000)) < acceptance
    found = walk([hits], drafted, 0.6, CheckCost(1.1))
    assert found.acceptance == pytest.approx(acceptance, abs=0.01)
    assert found.speedup == pytest.approx(draft_speedup(acceptance, drafted, 0.6, 1.1), rel=0.01)


def test_the_longest_draft_that_pays_is_found(greedy: list[Sample], tmp_path: Path) -> None:
    """All layers, so that everything is kept: with a dear check long drafts pay, with dear rows short ones."""
    corpus = Corpus(adapter_for(tiny("llama", "sdpa")), greedy[:2], tmp_path)
    shape = corpus.adapter.shape()
    point = draft_point(corpus, shape, range(LAYERS), {}, CheckCost(3.0))
    every = [np.ones((16, STEPS - 1), dtype=bool)] * 2
    best = max(range(1, 17), key=lambda drafted: walk(every, drafted, 1.0, CheckCost(3.0)).speedup)
    assert (point.draft_tokens, point.acceptance, best > 4) == (best, 1.0, True)
    assert set(point.acceptance_by_place) == {1.0}
    short = draft_point(corpus, shape, range(LAYERS), {}, CheckCost(1.0, 1.0))
    assert short.draft_tokens == 1
    assert short.speedup < 1
    assert own_share(corpus) == 1


def test_the_best_is_chosen_and_written(drafts: ds.Profile) -> None:
    best, rows = drafts.drafting, drafts.evidence["drafts"]
    assert [row["depth"] for row in rows] == [7, 6, 5, 4]
    assert best["speedup"] == max(row["speedup"] for row in rows)
    assert drafts.schedule == f"constant:depth={best['depth']}"
    assert best["check"] == {"verify": 1.0, "row": 0.05}
    assert best["verify_cost"] == pytest.approx(1 + 0.05 * best["draft_tokens"])
    trials = {
        (spec, row["form"]): row["speedup"]
        for spec, about in drafts.evidence["orders"].items()
        for row in sorted(about["drafts"], key=lambda row: row["speedup"])
    }
    assert set(trials) == {(s, f) for s in ("block", "ranked") for f in ("plain", "bridges", "corrections")}
    assert trials[best["ranker"], best["form"]] == max(trials.values())
    assert list(drafts.drop_order) == drafts.evidence["orders"][best["ranker"]]["drop_order"]
    assert bool(drafts.bridged) == (best["form"] != "plain")
    shape = adapter_for(tiny("llama", "sdpa")).shape()
    cost = predict_drafting(shape, best["depth"], 1.0, 1, context=best["context"],
                            bridge=drafts.bridge_params(best["depth"]))  # fmt: skip
    assert best["draft_cost"] == pytest.approx(cost.draft_cost)
    assert best["own_answers"] == 1
    assert json.loads((drafts.folder / "profile.json").read_text())["drafting"] == best
    assert ds.Profile.load(drafts.folder).save(drafts.folder).drafting == best


def test_interrupted_it_gives_the_identical_profile(drafts: ds.Profile, greedy: list[Sample], tmp_path: Path) -> None:
    said: list[str] = []

    def stop(text: str) -> None:
        said.append(text)
        if len(said) == 12:
            raise KeyboardInterrupt

    arguments: Any = {"check": CheckCost(1.0, 0.05), "options": OPTIONS}
    with pytest.raises(KeyboardInterrupt):
        calibrate(tiny("llama", "sdpa"), "tiny", greedy, tmp_path, say=stop, **arguments)
    calibrate(tiny("llama", "sdpa"), "tiny", greedy, tmp_path, **arguments)
    for name in ("profile.json", "bridges.safetensors"):
        assert (tmp_path / name).read_bytes() == (drafts.folder / name).read_bytes()


def test_completions_of_others_are_told(greedy: list[Sample], tmp_path: Path) -> None:
    other = [Sample(s.prompt, tuple((t + 5) % 100 + 3 for t in s.completion)) for s in greedy[:3]]
    assert own_share(Corpus(adapter_for(tiny("llama", "sdpa")), other, tmp_path)) < 0.5


def test_a_target_for_drafts_is_refused(greedy: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="drafts lose no quality"):
        calibrate(tiny("llama", "sdpa"), "tiny", greedy, tmp_path, check=CheckCost(), target=Target(speedup=1.2))
    for wrong in ({"verify": 0.0}, {"row": -1.0}, {"verify": float("nan")}):
        with pytest.raises(SettingsError):
            CheckCost(**wrong)
