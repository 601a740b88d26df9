"""Data, and a home for the caches of the libraries that lm-eval brings."""

import os

import pytest

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
