"""The profile is small, whole and found by its name; it fits the embedded model and no other."""

from pathlib import Path

import depthsched_profile_smollm2
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import depthsched as ds
from depthsched.errors import ProfileError
from depthsched.plugins import registry
from depthsched.profiles import find_profile

FOLDER = Path(depthsched_profile_smollm2.__file__).parent / "data"


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> ds.Profile:
    """The profile by its name, whether or not the plug-in is installed."""
    if "smollm2" not in registry().profiles:
        found: dict[str, Path] = {}
        depthsched_profile_smollm2.register_profiles(found.__setitem__)
        from depthsched.plugins import BUILTIN, Entry, Origin

        monkeypatch.setitem(registry().profiles, "smollm2", Entry(found["smollm2"], Origin(BUILTIN, "")))
    return find_profile("smollm2")


def test_the_files_are_these_two_and_at_most_12_mb() -> None:
    sizes = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert sorted(sizes) == ["bridges.safetensors", "profile.json"]
    assert sum(sizes.values()) <= 12e6


def test_it_loads_under_its_name(named: ds.Profile) -> None:
    assert (named.place, named.folder, named.num_layers) == ("smollm2", FOLDER, 30)
    bridges = named.bridges(named.depths)
    assert tuple(bridges) == named.depths != ()
    assert all(torch.isfinite(bridge.weight).all() for row in bridges.values() for bridge in row.values())
    assert named.evidence["packed"]["dtype"] == "bfloat16"


def test_it_fits_the_embedded_model_and_stands_in_for_layers(named: ds.Profile) -> None:
    model, tokenizer = ds.load_model("smollm2")
    inputs = tokenizer("Why is the sky blue?", return_tensors="pt")
    run = ds.generate(
        model, inputs, f"constant:depth={named.depths[0]}", profile="smollm2", max_new_tokens=4, do_sample=False
    )
    assert run.to_json()["profile"] == "smollm2"
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
    with pytest.raises(ProfileError, match=r"the profile in smollm2 is for model .*, whose configuration differs"):
        ds.generate(other, inputs, f"constant:depth={named.depths[0]}", profile=named, max_new_tokens=4)
