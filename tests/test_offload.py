"""Models whose weights accelerate keeps on the disk or in another memory."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from transformers import AutoModelForCausalLM

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bridge import Bridge
from depthsched.errors import ModelError, ProfileError
from depthsched.fingerprint import weights_sample
from depthsched.profile import ModelIdentity, Profile

from .tiny import LAYERS, make_tiny, prompt

HIDDEN = 32
DROPS = (3, 4, 2, 5, 6)


def placed(head: str) -> dict[str, str]:
    layers = {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(LAYERS)}
    return {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "disk", "lm_head": head, **layers}


def disk(model: Any, folder: Path) -> Any:
    accelerate.disk_offload(model, str(folder))
    return model


def cpu(model: Any, folder: Path) -> Any:
    accelerate.cpu_offload(model)
    return model


def dispatched(model: Any, folder: Path) -> Any:
    return accelerate.dispatch_model(model, placed("cpu"), main_device="cpu", offload_dir=str(folder))


def loaded(model: Any, folder: Path) -> Any:
    model.save_pretrained(folder / "model")
    return AutoModelForCausalLM.from_pretrained(
        folder / "model",
        device_map=placed("cpu" if model.config.tie_word_embeddings else "disk"),
        offload_folder=str(folder / "offload"),
        attn_implementation="eager",
    )


WAYS = (disk, cpu, dispatched, loaded)


@pytest.fixture(params=[(way, tied) for way in WAYS for tied in (False, True)], ids=lambda p: f"{p[0].__name__}-{p[1]}")
def pair(request: Any, tmp_path: Path) -> tuple[Any, Any]:
    """A model, and the same one offloaded."""
    way, tied = request.param
    plain = make_tiny("llama", tie_word_embeddings=tied)
    return plain, way(copy.deepcopy(plain), tmp_path)


def profile_of(model: Any, folder: Path) -> ds.Profile:
    g = torch.Generator().manual_seed(0)

    def make() -> Bridge:
        return Bridge(torch.randn(HIDDEN, HIDDEN, generator=g) * 0.1, torch.randn(HIDDEN, generator=g))

    profile = Profile(model=ModelIdentity.of(model, "tiny"), drop_order=DROPS)
    return profile.save(folder, {LAYERS - n: {DROPS[0]: make(), LAYERS - 1: make()} for n in range(1, 6)})


@pytest.mark.quick
@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")  # transformers on ids on another device
def test_an_offloaded_model_gives_the_tokens_of_the_plain_one(pair: tuple[Any, Any], tmp_path: Path) -> None:
    plain, offloaded = pair
    inputs = prompt(2, 5)
    expected = plain.generate(**inputs, max_new_tokens=8, do_sample=False)
    run = ds.generate(offloaded, inputs, "full", max_new_tokens=8, do_sample=False)
    assert torch.equal(run.sequences, expected)
    for plan in ("constant:depth=4", f"linear:end=3,over=8+profile={profile_of(plain, tmp_path / 'profile').folder}"):
        for kv in ("omit", "write"):
            options = {"skipped_kv": kv}
            want = ds.generate(plain, inputs, plan, max_new_tokens=8, do_sample=False, backend="eager", **options)
            run = ds.generate(offloaded, inputs, plan, max_new_tokens=8, do_sample=False, **options)
            assert torch.equal(run.sequences, want.sequences)
            assert run.bytes_speedup == want.bytes_speedup
            assert not torch.equal(run.sequences, expected)
            with ds.attach(offloaded, plan, horizon=8, **options) as attached:
                found = offloaded.generate(**inputs, max_new_tokens=8, do_sample=False)
            assert torch.equal(found, want.sequences)
            assert attached.trace is not None
            assert attached.trace.depths == want.trace.depths


@pytest.mark.quick
def test_an_offloaded_model_is_known_and_measured_as_the_plain_one(pair: tuple[Any, Any], tmp_path: Path) -> None:
    plain, offloaded = pair
    ours, theirs = adapter_for(plain), adapter_for(offloaded)
    assert theirs.shape() == ours.shape()
    assert (theirs.device, theirs.dtype) == (torch.device("cpu"), torch.float32)
    assert weights_sample(offloaded) == weights_sample(plain)
    profile = profile_of(plain, tmp_path / "profile")
    profile.check_model(offloaded)
    other = make_tiny("llama", tie_word_embeddings=plain.config.tie_word_embeddings)
    with torch.no_grad():
        other.model.layers[5].mlp.up_proj.weight.mul_(1.05)
    with pytest.raises(ProfileError, match="weights differ"):
        profile.check_model(disk(other, tmp_path / "other"))


@pytest.mark.quick
@pytest.mark.parametrize("plan", ["full", "constant:depth=4"])
def test_a_model_that_was_never_loaded_is_refused_in_one_line(plan: str, tmp_path: Path) -> None:
    model = make_tiny("llama")
    shape, profile = adapter_for(model).shape(), profile_of(model, tmp_path)
    model.to("meta")
    assert adapter_for(model).shape() == shape
    calls: list[Callable[[], Any]] = [
        lambda: ds.attach(model, plan),
        lambda: ds.generate(model, prompt(1, 3), plan),
        lambda: profile.check_model(model),
    ]
    for call in calls:
        with pytest.raises((ModelError, ProfileError), match="meta device") as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.quick
def test_a_profile_of_a_quantised_model_is_its_own() -> None:
    ao = pytest.importorskip("torchao.quantization", reason="torchao is not installed: pip install torchao")
    model = make_tiny("llama")
    plain = weights_sample(model)
    ao.quantize_(model, ao.Int8WeightOnlyConfig())
    found = weights_sample(model)
    assert found != plain
    assert found == pytest.approx(plain, abs=0.01)
