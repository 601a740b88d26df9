"""Folders to sweep in."""

from __future__ import annotations

from pathlib import Path

import pytest

from .helpers import make_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory, small_tokenizer) -> Path:
    """A tiny model and prompts; do not change them."""
    return make_folder(tmp_path_factory.mktemp("sweep"), small_tokenizer)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Answers of the tiny model do not go into the user's cache."""
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
