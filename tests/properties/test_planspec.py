"""A plan as a value: it prints, parses back, and is the same wherever its files lie."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched.errors import PlanError, ProfileError, SettingsError
from depthsched.files import digest
from depthsched.planspec import PlanText
from depthsched.profile import FORMAT, checksum

from .strategies import any_order, any_schedule, short_specs

LAYERS = 8
WORDS = st.text(st.characters(codec="ascii", exclude_characters="@+;", categories=("L", "N", "P")), min_size=1)


def save(folder: Path, drops: tuple[int, ...] = (3, 4, 5), tensors: bytes = b"bridges") -> Path:
    """A profile that says what a spec reads; its bridges are no tensors."""
    folder.mkdir()
    content: dict[str, Any] = {
        "format": FORMAT,
        "model": {"name": "m", "num_layers": LAYERS, "hidden_size": 4, "config": "", "weights": []},
        "drop_order": list(drops),
        "bridges": {},
        "tensors_bytes": len(tensors),
        "tensors_sha256": digest(tensors, 64),
    }
    (folder / "bridges.safetensors").write_bytes(tensors)
    (folder / "profile.json").write_text(json.dumps({**content, "checksum": checksum(content)}))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles")
    for name in ("a", "b"):
        save(path / name)
    save(path / "other", tensors=b"others!")
    return path


@given(any_schedule(), any_order(LAYERS))
def test_a_spec_parses_back_to_an_equal_one(schedule: Any, order: Any) -> None:
    spec = ds.PlanSpec.parse(schedule, order)
    again = ds.PlanSpec.parse(str(spec))
    assert again == spec
    assert (again.schedule, again.order, again.profile) == (schedule, order, None)
    assert (again.digest, hash(again), str(again)) == (spec.digest, hash(spec), str(spec))
    assert spec.label == str(spec)


@given(short_specs(LAYERS, 10), st.sampled_from(["ranked", None, "ranked:bridges=false"]))
def test_so_does_one_with_a_profile(home: Path, text: str, order: str | None) -> None:
    spec = ds.PlanSpec.parse(text, order, home / "a")
    assert (spec.profile is None) == (order == "ranked:bridges=false")
    again = ds.PlanSpec.parse(str(spec))
    assert again == spec
    assert again.resolve(LAYERS, 12) == spec.resolve(LAYERS, 12)
    assert spec.label == text


@given(short_specs(LAYERS, 10), any_order(LAYERS), st.integers(1, 30))
def test_a_spec_resolves_to_the_plan_of_its_parts(text: str, order: Any, horizon: int) -> None:
    spec = ds.PlanSpec.parse(f" {text}@{order} ")
    assert spec.label == f"{text}@{order}"
    want = ds.plan(text, order, num_layers=LAYERS, horizon=horizon)
    assert spec.resolve(LAYERS, horizon) == want == ds.plan(spec, num_layers=LAYERS, horizon=horizon)


@given(WORDS, st.just("") | WORDS, st.just("") | WORDS)
def test_the_parts_of_a_text_make_the_text(schedule: str, order: str, profile: str) -> None:
    parts = PlanText(schedule, order, profile)
    assert PlanText.of(str(parts)) == parts


def test_a_profile_counts_by_content_and_not_by_place(home: Path) -> None:
    one, same, other = (ds.PlanSpec.parse("d3", profile=home / name) for name in ("a", "b", "other"))
    assert one == same
    assert (one.digest, hash(one)) == (same.digest, hash(same))
    assert str(one) != str(same)
    assert one != other
    assert one.digest != other.digest
    assert one != ds.PlanSpec.parse("d3", one.order)  # the same layers without their bridges


def test_what_a_text_says_wins_over_the_defaults(home: Path) -> None:
    parse = ds.PlanSpec.parse
    assert parse("d3@strided", "early-exit", home / "a") == parse("d3@strided")
    assert parse(f"d3+profile={home / 'other'}", profile=home / "a") == parse("d3", profile=home / "other")
    assert parse("d3", "early-exit").order.name == "early-exit"
    assert parse("d3").order.name == "middle-out"
    assert parse("d3", profile=home / "a").order.name == "ranked"
    with pytest.raises(PlanError, match="fit its own order"):
        parse("d3", "strided", home / "a")


def test_a_spec_is_complete() -> None:
    spec = ds.PlanSpec.parse("d3@strided")
    assert ds.PlanSpec.parse(spec) is spec
    for more in ({"order": "strided"}, {"profile": "somewhere"}):
        with pytest.raises(PlanError, match="already"):
            ds.PlanSpec.parse(spec, **more)


def test_several_plans_read_each_profile_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    load = ds.Profile.load.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(ds.Profile, "load", lambda folder: (read.append(str(folder)), load(ds.Profile, folder))[1])
    own = f"d3+profile={home / 'other'}"
    specs = ds.PlanSpec.parse_all(f"d3; full@strided ;;{own};constant:depth=6;{own}", profile=home / "a")
    assert [spec.label for spec in specs] == ["d3", "full@strided", own, "constant:depth=6", own]
    assert sorted(read) == sorted([str(home / "a"), str(home / "other")])
    assert specs == [ds.PlanSpec.parse(spec) for spec in map(str, specs)]


@pytest.mark.parametrize("text", ["", " ; ;"])
def test_no_plan_at_all_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="no plan"):
        ds.PlanSpec.parse_all(text)


def test_a_bad_default_is_refused_whatever_the_plans_say() -> None:
    with pytest.raises(ProfileError, match="no profile in absent"):
        ds.PlanSpec.parse_all("full@strided", profile="absent")


@given(st.integers(1, 60), st.integers(1, 40), st.integers(2, 20))
def test_a_depth_that_the_model_has_not_is_clipped_and_said(depth: int, layers: int, horizon: int) -> None:
    plan = ds.plan(f"constant:depth={depth}", "early-exit", num_layers=layers, horizon=horizon)
    assert plan.depths[1:] == (min(depth, layers),) * (horizon - 1)
    assert plan.notes == (
        (f"depth clipped from {depth} to {layers}: the model has {layers} layers",) * (depth > layers)
    )


def test_a_note_names_the_deepest_step() -> None:
    plan = ds.plan("confidence:depth=50", num_layers=LAYERS, horizon=4)
    assert plan.notes == ("depth clipped from 50 to 8: the model has 8 layers",)
    assert ds.plan("constant:depth=50,start=9", num_layers=LAYERS, horizon=4).notes == ()  # it never gets there
    assert np.max(ds.plan("linear:end=4", num_layers=LAYERS).depths) == LAYERS


def test_the_module_and_the_function_have_names_of_their_own() -> None:
    assert callable(ds.plan)
    assert ds.plan.__module__ == "depthsched.plans"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("depthsched.plan")
