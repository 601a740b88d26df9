"""The conformance kit on rankers, and rankers as plug-ins: named, parsed, listed, checked from the shell."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched import testing
from depthsched.errors import SettingsError, UnknownNameError
from depthsched.plugins import split_rankers

from .distributions import command, distribution
from .zoo_rankers import WRONG_RANKERS

RANKERS = sorted(
    name
    for name, entry in ds.registry().rankers.items()
    if entry.origin.plugin == "depthsched" and name != "list"  # which ranks what it is given, and no more
)


@pytest.mark.parametrize("name", RANKERS)
def test_built_in_rankers_pass(name: str) -> None:
    report = testing.check_ranker(name, max_examples=5)
    assert report.passed, report.failures
    assert (report.kind, report.subject) == ("ranker", name)


@pytest.mark.parametrize(("cls", "check", "words"), WRONG_RANKERS, ids=lambda v: getattr(v, "__name__", None))
def test_wrong_rankers_are_refused_by_the_right_check(cls: type[ds.LayerRanker], check: str, words: list[str]) -> None:
    report = testing.check_ranker(cls, max_examples=3)
    own = {r.name: r.message for r in report.failures if not r.message.startswith("not checked, because")}
    assert list(own) == [check]
    for word in words:
        assert word in own[check]
    assert "\n" not in own[check]


class TestRankerConformance(testing.RankerConformance):
    """The class form on a built-in ranker, run here as an author would."""

    ranker = "block"
    max_examples = 3


def test_both_forms_run_the_same_checks() -> None:
    report = testing.check_ranker("block", max_examples=1)
    form = testing.RankerConformance
    assert {f"test_{r.name}" for r in report.results} == {n for n in dir(form) if n.startswith("test_")}


@dataclass(frozen=True)
class Shifted(ds.LayerRanker):
    """Layers from the bottom, ``by`` places later; ``by`` must be given."""

    by: int = ds.setting(low=0, high=100)

    def rank(self, study: Any) -> Any:
        layers = list(study.droppable)
        return layers[self.by % len(layers) :] + layers[: self.by % len(layers)]


def test_a_ranker_with_a_required_setting_is_checked() -> None:
    assert testing.check_ranker(Shifted, max_examples=3).passed
    assert testing.check_ranker(Shifted(2), max_examples=3).subject == "shifted:by=2"


def test_what_is_ranked_beyond_what_was_asked_for_is_cut() -> None:
    with testing.tiny_study(drops=2) as study:
        assert Shifted(1).resolve(study) == (2, 3)
        with pytest.raises(SettingsError, match=r"ranker 'layer-ranker' does not define rank\(self, study\)"):
            ds.LayerRanker().resolve(study)


def test_a_study_holds_the_full_depth_states() -> None:
    with testing.tiny_study() as study, torch.no_grad():
        batch = study.fitted.batches[0]
        sample = batch.samples[0]
        ids = torch.tensor([[*sample.prompt, *sample.completion]])
        states = study.adapter.model(ids, output_hidden_states=True).hidden_states
        for layer in (0, 3):
            rows = batch.get(layer)[: batch.counts[0]]
            expected = states[layer][0, len(sample.prompt) : -1]
            assert (rows - expected).abs().max() < 1e-5


_SPECS = st.sampled_from(["block", "ranked", "swift:steps=200", "swift:steps=3,ratio=0.4", "a/b.py:C:x=1,y=2", "s:a=1"])


@given(st.lists(_SPECS, max_size=4))
def test_joined_specs_come_apart_again(specs: list[str]) -> None:
    assert split_rankers(",".join(specs)) == tuple(specs)
    assert split_rankers(" , ".join(specs)) == tuple(specs)


def test_a_ranker_is_told_from_an_order_and_a_schedule() -> None:
    assert ds.parse_ranker("block") == ds.registry().ranker("block")()
    for parse in (ds.parse_schedule, ds.parse_order):
        with pytest.raises(
            UnknownNameError, match=r"'block' is a ranker and no .*: depthsched calibrate --order block"
        ):
            parse("block")
    with pytest.raises(UnknownNameError, match="did you mean 'block'"):
        ds.parse_ranker("blok")
    with pytest.raises(SettingsError, match="the ranker is empty"):
        ds.parse_ranker(" ")


def test_a_ranker_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nimport depthsched as ds\n"
        "@dataclass(frozen=True)\nclass Upwards(ds.LayerRanker):\n    '''Upwards.'''\n"
        "    def rank(self, study):\n        return study.droppable\n"
    )
    assert ds.parse_ranker(str(file)).spec() == f"{file}:Upwards"
    with pytest.raises(SettingsError, match="has no schedule class 'Upwards'"):
        ds.parse_schedule(f"{file}:Upwards")


CODE = """
    from dataclasses import dataclass
    import depthsched as ds

    @dataclass(frozen=True)
    class Upwards(ds.LayerRanker):
        '''From the bottom upwards.'''
        skip: int = ds.setting(0, low=0, high=3)
        def rank(self, study):
            layers = list(study.droppable)
            return layers[self.skip:] + layers[:self.skip]

    @ds.hookimpl
    def register_rankers(register):
        register(Upwards)
"""


def test_a_plug_in_ranker_is_listed_and_checked_from_the_shell(tmp_path: Path) -> None:
    distribution(tmp_path, "up-plugin", CODE)
    rows = json.loads(command("list", "--json", folders=(tmp_path,)).stdout)["rows"]
    assert {"kind": "ranker", "name": "upwards", "plugin": "up-plugin", "version": "1.0",
            "summary": "From the bottom upwards."} in rows  # fmt: skip
    done = command("check", "upwards", "--examples", "3", "--json", folders=(tmp_path,))
    assert json.loads(done.stdout)["kind"] == "ranker", done.stderr
    assert done.returncode == 0
    wrong = command("check", "upwards", "--kind", "order", folders=(tmp_path,))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "'upwards' is a ranker and no order" in wrong.stderr
