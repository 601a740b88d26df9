"""The jobs of all tests of ranks, run once: see :mod:`.start`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import depthsched as ds
from depthsched import models
from depthsched.files import CACHE, cache_dir

from ..evaluate.rows import write_data
from ..tiny import make_tiny, prompt

TINY = ("llama", "mistral", "qwen3")
RANKS = (2, 4)
HERE = Path(__file__).parents[2]

# Rank 1 is killed in the middle of a run: every rank asks the schedule before a step.
DEADLY = """
import os, signal
from dataclasses import dataclass
import depthsched as ds

@dataclass(frozen=True)
class Deadly(ds.AdaptiveSchedule):
    rank: int = 1

    def depth(self, step, num_layers):
        return num_layers

    def decide(self, step, num_layers, signals):
        if step == 5 and os.environ.get("RANK") == str(self.rank):
            os.kill(os.getpid(), getattr(signal, os.environ["DEPTHSCHED_TEST_SIGNAL"]))
        return num_layers
"""


class Jobs:
    """What the ranks found and printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def found(self, name: str, rank: int = 0) -> Any:
        return json.loads((self.folder / f"{name}-{rank}.json").read_text())

    def ended(self, name: str) -> list[dict[str, Any]]:
        ended: list[dict[str, Any]] = json.loads((self.folder / f"{name}.json").read_text())
        return ended

    def printed(self, name: str, rank: int, kind: str = "out") -> str:
        return (self.folder / f"{name}-{rank}.{kind}").read_text()


def _ids(batch: int, length: int) -> dict[str, Any]:
    return {name: value.tolist() for name, value in prompt(batch, length).items()}


def _models(folder: Path, tokenizer: Any) -> dict[str, dict[str, str]]:
    """Folders of tiny models whose heads 2 and 4 ranks can share, and of one that reads SmolLM2's tokens."""
    made: dict[str, dict[str, str]] = {str(n): {} for n in RANKS}
    for ranks in RANKS:
        for variant in TINY:
            tied = {"tie_word_embeddings": variant == "mistral"}
            bias = {"attention_bias": True} if variant == "llama" else {}
            model = make_tiny(variant, "sdpa", num_key_value_heads=ranks, num_hidden_layers=6, **tied, **bias)
            path = folder / f"{variant}-{ranks}"
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[str(ranks)][variant] = str(path)
    wide = make_tiny("llama", "sdpa", vocab_size=len(tokenizer), max_position_embeddings=2048)
    wide.save_pretrained(folder / "wide")
    tokenizer.save_pretrained(folder / "wide")
    return made


def _jobs(folder: Path, made: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    wide, data = str(folder / "wide"), str(write_data(folder / "data"))
    (folder / "deadly.py").write_text(DEADLY)
    jobs = []

    def job(name: str, ranks: int, kind: str, **given: Any) -> None:
        jobs.append({"name": name, "ranks": ranks, "job": kind, "given": given})

    for ranks in RANKS:
        given = {
            "key": f"tiny{ranks}",
            "models": made[str(ranks)],
            "inputs": _ids(2, 5),
            "lossless": ranks == 2,
            "brief": ranks == 4,
        }
        extra = {"eval": {"model": wide, "data": data}} if ranks == 2 else {}
        for count in (1, ranks):
            job(f"tiny{ranks}of{count}", count, "everything", **given, **extra)
    for count in (1, 3):
        job(
            f"smollm2of{count}",
            count,
            "everything",
            key="smollm2",
            models={"smollm2": "smollm2"},
            inputs=_ids(1, 6),
            brief=False,
        )
    plain = ["--model", wide, "--dtype", "float32", "--device", "cpu", "--json"]
    (folder / "prompts.jsonl").write_text('{"prompt": "Name a colour.", "completion": "Blue, or green."}\n')
    for count in (1, 2):
        out = str(folder / f"out-{count}")
        calls = [
            ["generate", "Name a colour.", "-n", "8", *plain],
            [
                "generate",
                "Name a colour.",
                "-n",
                "8",
                "--temperature",
                "2",
                "--seed",
                "5",
                "--backend",
                "eager",
                *plain,
            ],
            ["bench", "--plans", "constant:depth=4", "--tokens", "4", "--repeats", "1", "--backends", "eager", *plain],
            ["score", "--prompts", str(folder / "prompts.jsonl"), "--plans", "constant:depth=4", *plain],
            ["eval", "--tasks", "gsm8k_cot", "--limit", "2", "--data", data, "-n", "3", "--out", out, *plain],
        ]
        job(f"commands-of{count}", count, "commands", calls=calls)
    job("differ", 2, "differ", model=made["2"]["llama"], inputs=_ids(2, 5))
    job("refused", 2, "command", call=["generate", "Hi", "--model", "smollm2", "-n", "4"])
    job("listed", 2, "command", call=["list"])
    deadly = f"{folder / 'deadly.py'}:Deadly:rank="
    for rank in (0, 1):
        job(f"killed{rank}", 2, "command", call=["generate", "Hi", "-n", "64", "--schedule", f"{deadly}{rank}", *plain])
    return jobs


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'depthsched[eval]'")
    folder = tmp_path_factory.mktemp("ranks")
    tokenizer = AutoTokenizer.from_pretrained(models.source_of("smollm2"))
    (folder / "jobs.json").write_text(json.dumps(_jobs(folder, _models(folder, tokenizer))))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "DEPTHSCHED_TEST_SIGNAL": "SIGKILL", "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # as the command line sets it before torch is there
        "HF_DATASETS_CACHE": str(folder / "datasets"), CACHE: str(cache_dir()),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(Path(ds.__file__).parents[1])]),
        "DEPTHSCHED_RANK_SECONDS": "200",  # the machine may stop one of them for a while
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.parallel.start", str(folder)], env=environment, cwd=HERE, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return Jobs(folder)


Running = Callable[..., Any]
