"""A tiny model in a folder with prompts and a profile, data of tasks, and ``python -m benchmarks`` in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main

from ..commands import Result
from ..evaluate.conftest import data
from ..plugins.distributions import command
from ..tiny import make_tiny

__all__ = ["data"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2: tuple[Any, Any]) -> Path:
    """``model``, ``prompts.jsonl`` and ``profile``, which was calibrated on them."""
    root: Path = tmp_path_factory.mktemp("benchmarks")
    tokenizer = smollm2[1]
    # Layers as large as the embeddings, or a plan would save no bytes.
    changes = {"vocab_size": len(tokenizer), "intermediate_size": 2048, "max_position_embeddings": 4096}
    make_tiny("llama", "sdpa", **changes).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    texts = [f"Tom has {i + 2} boxes with {i * i + 3} pens each. How many pens?" for i in range(16)]
    (root / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    words = ["--model", root / "model", "--prompts", root / "prompts.jsonl", "--out", root / "profile"]
    words += "--max-new-tokens 24 --min-depth 4 --corrections 1 --target-speedup 1.2".split()  # noqa: SIM905
    done = command("calibrate", *map(str, words), DEPTHSCHED_CACHE=str(root / "cache"))
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run ``python -m benchmarks``; answers of the tiny model do not go into the user's cache."""

    def benchmarks(*words: object) -> Result:
        monkeypatch.setenv("DEPTHSCHED_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Result(int(left.value.code or 0), out, err)

    return benchmarks
