"""The checks of an adapter: those that come with depthsched pass, and each way of being wrong is found by its check."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from depthsched.adapters import LlamaAdapter
from depthsched.errors import ModelError
from depthsched.testing import CheckReport, check_adapter

from ..tiny import VARIANTS, make_tiny, tiny

CHECKS = ["full_depth", "fixed_depth", "returning_layers", "logits", "shape"]


@pytest.mark.quick
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_built_in_adapter_passes(variant: str) -> None:
    report = check_adapter(tiny(variant))
    assert report.passed, report.failures
    assert [result.name for result in report.results] == CHECKS
    assert report.subject == f"llama:{VARIANTS[variant][0]}"


def failed(report: CheckReport) -> list[str]:
    assert all("\n" not in result.message and result.message for result in report.failures)
    return [result.name for result in report.failures]


def swapped(self: Any, layer: Any, hidden: Any, cache: Any, position_embeddings: Any) -> None:
    key, value = self._project(layer.self_attn, layer.input_layernorm(hidden))  # without RoPE
    cache.update(key, value, layer.self_attn.layer_idx)


def scaled(self: Any, hidden: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = self.model.lm_head(hidden) * 2
    return logits


@pytest.mark.parametrize(
    ("method", "wrong", "check"),
    [
        ("write_kv", swapped, ["returning_layers"]),
        ("write_kv", lambda *_: None, ["returning_layers"]),
        ("logits", scaled, ["logits"]),
        ("shape", lambda self: 1 / 0, ["shape"]),
    ],
    ids=["keys without RoPE", "nothing written", "scaled logits", "a shape that fails"],
)
def test_a_wrong_method_is_found(monkeypatch: pytest.MonkeyPatch, method: str, wrong: Any, check: list[str]) -> None:
    monkeypatch.setattr(LlamaAdapter, method, wrong)
    assert failed(check_adapter(make_tiny("llama"))) == check


def test_layers_that_share_state_are_found() -> None:
    """A layer that reads what the layer before it left behind breaks when that one is skipped."""
    model, left = make_tiny("llama"), {}

    def leave(module: Any, args: Any, output: Any) -> None:
        left["state"] = output

    def read(module: Any, args: Any) -> Any:
        return (args[0] + 0.5 * left["state"][:, -args[0].shape[1] :],)

    model.model.layers[3].mlp.register_forward_hook(leave)
    model.model.layers[4].mlp.register_forward_pre_hook(read)
    assert "fixed_depth" in failed(check_adapter(model))


@pytest.mark.parametrize("layers", [1, 2])
def test_models_of_few_layers(layers: int) -> None:
    report = check_adapter(make_tiny("llama", num_hidden_layers=layers))
    assert report.passed, report.failures


def test_what_cannot_be_checked() -> None:
    with pytest.raises(ModelError, match="float32"):
        check_adapter(make_tiny("llama", dtype=torch.bfloat16))
    model = make_tiny("llama")
    model.config.model_type = "nobody"
    with pytest.raises(ModelError, match="nobody"):
        check_adapter(model)


def test_the_kit_is_imported_without_torch() -> None:
    code = "import sys, depthsched.testing; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
