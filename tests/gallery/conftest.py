"""A tiny model with prompts, and a profile of it with a damage table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import depthsched as ds
from depthsched.calibrate import Options, calibrate
from depthsched.score import load_samples

from ..sweep.helpers import PROMPTS
from ..tiny import make_tiny


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Answers of the tiny model do not go into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPTHSCHED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package")
def folder(smollm2, own_cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers that weigh more than the head of a vocabulary of 49 152, or no depth would save anything."""
    folder, tokenizer = tmp_path_factory.mktemp("gallery"), smollm2[1]
    model = make_tiny("llama", "sdpa", vocab_size=len(tokenizer), intermediate_size=4096)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in PROMPTS))
    return folder


@pytest.fixture(scope="package")
def profile(folder: Path) -> ds.Profile:
    model, _, samples = load_samples(str(folder / "model"), folder / "prompts.jsonl", None, 12)
    options = Options(min_depth=4, orders=("block",), corrections=0)
    return calibrate(model, "tiny", samples, folder / "profile", options=options)
