"""Calibration end to end on a tiny model."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.calibrate import Options, Study, Target, calibrate
from depthsched.calibrate.candidates import Search
from depthsched.calibrate.corpus import Corpus
from depthsched.calibrate.fit import correction_sites, fit_keep_set, fit_run
from depthsched.calibrate.judge import Quality
from depthsched.calibrate.search import split
from depthsched.errors import PlanError, ProfileError, SettingsError
from depthsched.plugins import Entry, Origin
from depthsched.profiles.card import card
from depthsched.score import Sample, score

from ..tiny import LAYERS, VOCAB, make_tiny, prompt, tiny
from .conftest import OPTIONS


def test_a_profile_holds_order_bridges_schedule_and_evidence(profile: ds.Profile) -> None:
    assert len(profile.drop_order) == 4
    assert profile.depths == (4, 5, 6, 7)
    assert profile.schedule is not None
    evidence = profile.evidence
    assert set(evidence["orders"]) == {"block", "ranked"}
    assert evidence["chosen_point"]["bytes_speedup"] >= 1.2
    assert (profile.folder / "frontier.png").read_bytes()[:4] == b"\x89PNG"
    assert not (profile.folder / ".work").exists()


def test_the_damage_table_is_what_constant_depth_scores_on_the_held_out_prompts(
    profile: ds.Profile, samples: list[Sample]
) -> None:
    damage, (held, _) = profile.damage, split(samples, OPTIONS)
    assert damage is not None
    assert (damage.depths, damage.steps[0], damage.steps[-1]) == ((8, 7, 6, 5, 4), 1, 24)
    assert (damage.prompts, sum(damage.tokens)) == (len(held), sum(len(s.completion) - 1 for s in held))
    plan = ds.plan("constant:depth=5", num_layers=LAYERS, horizon=24, profile=profile)
    end = damage.steps[2]  # two ranges: what comes later changes nothing before it
    cut = [Sample(s.prompt, s.completion[:end]) for s in held]
    kl = score(tiny("llama", "sdpa"), [plan], cut)[0].kl.mean
    assert np.average(damage.kl[5][:2], weights=damage.tokens[:2]) == pytest.approx(kl, rel=1e-4)
    whole = next(row["kl"] for row in profile.evidence["constant"] if row["depth"] == 5)
    assert np.average(damage.kl[5], weights=damage.tokens) == pytest.approx(whole)
    best = ds.plan("optimal:budget=1.2", num_layers=LAYERS, horizon=24, profile=profile)
    assert best.bytes_speedup(damage.shape, damage.prompt_tokens) >= 1.2
    run = ds.generate(tiny("llama", "sdpa"), prompt(), best, max_new_tokens=24)
    assert list(run.trace.depths) == list(best.depths)


def test_bridges_beat_plain_skipping(profile: ds.Profile, samples: list[Sample]) -> None:
    model = tiny("llama", "sdpa")
    plans = [
        ds.plan(spec, num_layers=LAYERS, horizon=24, profile=profile)
        for spec in ("constant:depth=5", "constant:depth=5@ranked:bridges=false")
    ]
    bridged, plain = score(model, plans, samples)
    assert plans[0].drop_order == plans[1].drop_order
    assert bridged.kl.mean < 0.9 * plain.kl.mean
    assert bridged.bytes_speedup < plain.bytes_speedup  # the bridges are counted


def test_eager_attach_and_staircase_agree(profile: ds.Profile, samples: list[Sample]) -> None:
    model = tiny("llama", "sdpa")
    plan = ds.plan("linear:end=4", num_layers=LAYERS, horizon=16, profile=profile)
    one, other = (score(model, [plan], samples[:3], method=m)[0] for m in ("staircase", "step-by-step"))
    assert one.kl.mean == pytest.approx(other.kl.mean, abs=1e-5)
    inputs = prompt()
    run = ds.generate(model, inputs, plan, max_new_tokens=16, do_sample=False)
    plain = ds.generate(model, inputs, "linear:end=4", order=f"list:layers={'+'.join(map(str, plan.drop_order))}",
                        max_new_tokens=16, do_sample=False)  # fmt: skip
    with ds.attach(model, plan):
        attached = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    assert attached[:, inputs["input_ids"].shape[1] :].tolist() == run.tokens.tolist()
    assert run.tokens.tolist() != plain.tokens.tolist()
    assert run.bytes_speedup < plain.bytes_speedup


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler: install g++")
@pytest.mark.parametrize("skipped_kv", ["omit", "write"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_compiled_backend_crosses_the_same_bridges(profile: ds.Profile, skipped_kv: str, batch: int) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(batch, 5)
    plan = ds.plan("linear:end=4", num_layers=LAYERS, horizon=16, profile=profile)
    eager, fast = (
        ds.generate(model, inputs, plan, max_new_tokens=16, backend=b, skipped_kv=skipped_kv, do_sample=False)
        for b in ("eager", "compiled")
    )
    assert fast.trace.backend == "compiled"
    assert fast.tokens.tolist() == eager.tokens.tolist()


def test_interrupted_and_resumed_gives_the_identical_profile(
    profile: ds.Profile, samples: list[Sample], tmp_path: Path
) -> None:
    said: list[str] = []

    def stop(text: str) -> None:
        said.append(text)
        if len(said) == 6:
            raise KeyboardInterrupt

    model, target = tiny("llama", "sdpa"), Target(speedup=1.2)
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, "tiny", samples, tmp_path / "p", target=target, options=OPTIONS, say=stop)
    finished = sorted(path.name for path in (tmp_path / "p" / ".work").iterdir())
    assert any(name.startswith("rank-") for name in finished)
    resumed = calibrate(model, "tiny", samples, tmp_path / "p", target=target, options=OPTIONS)
    for name in ("profile.json", "bridges.safetensors"):
        assert (resumed.folder / name).read_bytes() == (profile.folder / name).read_bytes()


@dataclass(frozen=True)
class Counted(ds.LayerRanker):
    """Two layers and then the rest, and how often it was asked."""

    name: ClassVar[str] = "counted"
    asked: ClassVar[list[int]] = []

    def rank(self, study: Study) -> list[int]:
        self.asked.append(study.drops)
        study.evidence["asked"] = study.remember("times", lambda: len(self.asked))
        return [5, 2, *(layer for layer in study.droppable if layer not in (5, 2))]


def test_any_ranker_competes_and_is_asked_once(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ds.registry().rankers, "counted", Entry(Counted, Origin("tests", "1")))
    options = Options(min_depth=5, orders=("counted", "block"), corrections=0)
    said: list[str] = []

    def stop(text: str) -> None:
        said.append(text)
        if text.startswith("bridges of depth 6"):
            raise KeyboardInterrupt

    model = tiny("llama", "sdpa")
    with pytest.raises(KeyboardInterrupt):
        calibrate(model, "tiny", samples, tmp_path, options=options, say=stop)
    made = calibrate(model, "tiny", samples, tmp_path, options=options)
    assert Counted.asked == [3]
    assert {"ranking by counted", "ranking by block"} <= set(said)
    assert made.evidence["orders"]["counted"]["drop_order"] == [5, 2, 1]
    assert made.evidence["asked"] == 1
    assert made.evidence["blocks"]
    chosen = min(made.evidence["orders"], key=lambda name: made.evidence["orders"][name]["bridged"]["kl"])
    assert made.evidence["chosen"] == chosen
    assert list(made.drop_order) == made.evidence["orders"][chosen]["drop_order"]


def test_a_block_can_be_given_its_place(samples: list[Sample], tmp_path: Path) -> None:
    model = tiny("llama", "sdpa")
    options = Options(min_depth=5, orders=("block:start=3",), corrections=0)
    made = calibrate(model, "tiny", samples, tmp_path / "there", options=options)
    assert made.drop_order == (3, 4, 5)
    assert "blocks" not in made.evidence
    for start in (LAYERS - 1, LAYERS):
        wrong = Options(min_depth=5, orders=(f"block:start={start}",), corrections=0)
        with pytest.raises(SettingsError, match=f"block:start={start}: a block starts in 1 to {LAYERS - 2}"):
            calibrate(model, "tiny", samples, tmp_path / str(start), options=wrong)


def test_an_order_of_ones_own_gets_bridges(samples: list[Sample], tmp_path: Path) -> None:
    model = tiny("llama", "sdpa")
    made = calibrate(model, "tiny", samples, tmp_path, options=Options(5, ("list:layers=5+2+3+4",), corrections=0))
    assert made.drop_order == (5, 2, 3)
    assert [list(row) for _, row in sorted(made.bridges(made.depths).items())] == [[2, 5], [2, 5], [5]]
    for layers, problem in ((f"1+{LAYERS - 1}+2", f"layer {LAYERS - 1}, expected 1 to"), ("3+2", "returned 2 layers")):
        wrong = Options(5, (f"list:layers={layers}",), corrections=0)
        with pytest.raises(SettingsError, match=problem):
            calibrate(model, "tiny", samples, tmp_path / layers, options=wrong)


@pytest.mark.parametrize("help", [True, False])
def test_corrections_are_kept_where_they_lower_kl(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, help: bool
) -> None:
    judged = Search.constant

    def constant(self: Search, keep: Sequence[int], corrections: int | None) -> Quality:
        found = judged(self, keep, corrections)
        return found._replace(kl=found.kl + 100) if corrections == (0 if help else 1) else found

    monkeypatch.setattr(Search, "constant", constant)
    options = Options(min_depth=5, orders=("block",), corrections=1)
    said: list[str] = []
    made = calibrate(tiny("llama", "sdpa"), "tiny", samples, tmp_path, options=options, say=said.append)
    about = made.evidence["corrections"]
    assert about["kept"] is help
    assert ("did not lower KL" in card(made)) is not help
    assert made.evidence["judged_at_depth"] <= about["depth"] < LAYERS
    assert [text.endswith("kept" if help else "left out") for text in said if "corrections" in text] == [True]
    for row in made.evidence["constant"]:
        keep = [layer for layer in range(LAYERS) if layer not in made.drop_order[: LAYERS - row["depth"]]]
        sites = set(correction_sites(keep, LAYERS, 1))
        fitted = {fit["layer"] for fit in row["fits"]}
        assert fitted & sites == (sites if help else set())


def test_the_fit_finds_an_affine_map_exactly(tmp_path: Path) -> None:
    """With layers that only add an affine change, the bridge of a run is that change."""
    model = make_tiny("llama", "sdpa")
    weight = torch.randn(32, 32, generator=torch.Generator().manual_seed(0)) * 0.1

    class Affine(torch.nn.Module):
        def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            kwargs["past_key_values"].update(*[hidden.new_zeros(len(hidden), 2, hidden.shape[1], 8)] * 2, self.index)
            return hidden + hidden @ weight + 0.5

    for index in (3, 4):
        model.model.layers[index] = Affine()
        model.model.layers[index].index = index
    g = torch.Generator().manual_seed(2)

    def draw(tokens: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCAB, (tokens,), generator=g).tolist())

    corpus = Corpus(adapter_for(model), [Sample(draw(4), draw(40)) for _ in range(12)], tmp_path)
    bridge = fit_run(corpus, 3, 4)
    want = torch.eye(32) + weight
    assert bridge.unexplained < 1e-3
    assert (torch.eye(32) + bridge.bridge.weight - want).abs().max() < 0.05
    both = fit_keep_set(corpus, [0, 1, 2, 5, 6, 7])
    assert (torch.eye(32) + both[3].bridge.weight - want @ want).abs().max() < 0.05


def test_a_profile_of_another_model_is_refused(profile: ds.Profile) -> None:
    plan = ds.plan("constant:depth=5", num_layers=LAYERS, profile=profile)
    with pytest.raises(ProfileError, match="configuration differs"):
        ds.generate(make_tiny("llama", intermediate_size=72), prompt(), plan, max_new_tokens=2)
    tuned = make_tiny("llama")
    with torch.no_grad():
        tuned.model.layers[2].mlp.up_proj.weight.mul_(1.02)
    with pytest.raises(ProfileError, match="weights differ"):
        ds.generate(tuned, prompt(), plan, max_new_tokens=2)
    half = make_tiny("llama", "sdpa", torch.bfloat16)
    assert ds.generate(half, prompt(), plan, max_new_tokens=4, do_sample=False).tokens.shape == (1, 4)
    with pytest.raises(PlanError, match="8 layers"):
        ds.plan("constant:depth=5", num_layers=9, profile=profile)


def test_orders_and_profiles_in_specs(profile: ds.Profile) -> None:
    def spec(text: str, **options: Any) -> ds.DepthPlan:
        return ds.plan(text, num_layers=LAYERS, horizon=8, **options)

    own = spec(f"constant:depth=5+profile={profile.folder}")
    assert own.drop_order == profile.drop_order
    assert own.profile is not None
    assert own.digest != spec("constant:depth=5@ranked:bridges=false", profile=profile).digest
    assert spec("constant:depth=5@middle-out", profile=profile).profile is None
    assert ds.DepthPlan.from_json(own.to_json()) == own
    with pytest.raises(PlanError, match="comes from a profile"):
        spec("constant:depth=5@ranked")
    with pytest.raises(PlanError, match="fit its own order"):
        spec("constant:depth=5", order="middle-out", profile=profile)
    with pytest.raises(ProfileError, match="no profile in"):
        spec("constant:depth=5", profile="/nowhere")


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"max_kl": 0.1, "speedup": 2.0},
        {"max_kl": 0.0},
        {"max_kl": float("inf")},
        {"min_agreement": 1.0},
        {"speedup": 0.5},
        {"speedup": "fast"},
    ],
)
def test_a_target_is_one_sane_number(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Target(**bad)


@pytest.mark.parametrize(
    ("options", "target", "family", "message"),
    [
        (Options(min_depth=LAYERS), Target(speedup=1.2), "constant", "min depth 8 must be between 1 and 7"),
        (OPTIONS, Target(speedup=1.2), "d4", "unknown schedule family"),
        (OPTIONS, Target(speedup=1.2), "constant:depth=5", "leave it out"),
        (OPTIONS, Target(speedup=1.2), "step:at=3,drop=1", "no setting to solve"),
        (OPTIONS, Target(speedup=1.2), "d3:start=24", "out of reach"),
        (OPTIONS, None, "d3", "serves a target"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    samples: list[Sample], tmp_path: Path, options: Options, target: Target | None, family: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        calibrate(tiny("llama", "sdpa"), "tiny", samples, tmp_path, target=target, family=family, options=options)
    assert not list(tmp_path.iterdir())


def test_too_few_samples(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="at least 4"):
        calibrate(tiny("llama", "sdpa"), "tiny", samples[:3], tmp_path)
