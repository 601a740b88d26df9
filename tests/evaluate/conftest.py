"""Data, and a home for the caches of the libraries that lm-eval brings."""

import logging
import os

import pytest

from ..tiny import make_tiny
from .rows import write_data

os.environ.setdefault("TQDM_DISABLE", "1")


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'depthsched[eval]'")
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    yield write_data(tmp_path_factory.mktemp("data"))
    datasets.config.HF_DATASETS_CACHE = before


@pytest.fixture(scope="session")
def folder(tmp_path_factory, smollm2):
    """A tiny model with the vocabulary of SmolLM2."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    path = tmp_path_factory.mktemp("tiny")
    _, tokenizer = smollm2
    model = make_tiny("llama", "sdpa", vocab_size=len(tokenizer), max_position_embeddings=2048)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
