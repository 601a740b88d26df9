"""The profiles are small, whole and found by their names; they fit the embedded model and no other."""

from pathlib import Path

import depthsched_profile_smollm2
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import depthsched as ds
from depthsched.errors import ProfileError
from depthsched.plugins import registry
from depthsched.profiles import find_profile

ROOT = Path(depthsched_profile_smollm2.__file__).parent
FOLDERS = depthsched_profile_smollm2.FOLDERS


@pytest.fixture(params=FOLDERS)
def named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ds.Profile:
    """A profile by its name, whether or not the plug-in is installed."""
    if request.param not in registry().profiles:
        found: dict[str, Path] = {}
        depthsched_profile_smollm2.register_profiles(found.__setitem__)
        from depthsched.plugins import BUILTIN, Entry, Origin

        monkeypatch.setitem(registry().profiles, request.param, Entry(found[request.param], Origin(BUILTIN, "")))
    return find_profile(request.param)


@pytest.mark.parametrize("folder", FOLDERS.values())
def test_the_files_are_these_two_and_at_most_12_mb(folder: str) -> None:
    sizes = {file.name: file.stat().st_size for file in (ROOT / folder).iterdir()}
    assert sorted(sizes) == ["bridges.safetensors", "profile.json"]
    assert sum(sizes.values()) <= 12e6


def test_it_loads_under_its_name(named: ds.Profile) -> None:
    assert (named.folder, named.num_layers) == (ROOT / FOLDERS[named.place], 30)
    bridges = named.bridges(named.depths)
    assert tuple(bridges) == named.depths != ()
    assert all(torch.isfinite(bridge.weight).all() for row in bridges.values() for bridge in row.values())
    assert named.evidence["packed"]["dtype"] == "bfloat16"


def test_it_fits_the_embedded_model_and_stands_in_for_layers(named: ds.Profile) -> None:
    model, tokenizer = ds.load_model("smollm2")
    inputs = tokenizer("Why is the sky blue?", return_tensors="pt")
    run = ds.generate(
        model, inputs, f"constant:depth={named.depths[0]}", profile=named.place, max_new_tokens=4, do_sample=False
    )
    assert run.to_json()["profile"] == named.place
    assert run.trace.decode_depths == [named.depths[0]] * (run.tokens.shape[1] - 1)


def test_another_model_is_refused_with_the_reason(named: ds.Profile) -> None:
    torch.manual_seed(0)
    other = LlamaForCausalLM(
        LlamaConfig(
            num_hidden_layers=30, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2,
            vocab_size=64,
        )
    )  # fmt: skip
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    with pytest.raises(
        ProfileError, match=rf"the profile in {named.place} is for model .*, whose configuration differs"
    ):
        ds.generate(other, inputs, f"constant:depth={named.depths[0]}", profile=named, max_new_tokens=4)
