"""Answers of a tiny model, and a profile calibrated on them."""

from pathlib import Path

import pytest
import torch

import depthsched as ds
from depthsched.calibrate import Options, Target, calibrate
from depthsched.score import Sample

from ..tiny import prompt, tiny

OPTIONS = Options(min_depth=4, corrections=1)


@pytest.fixture(scope="package")
def samples() -> list[Sample]:
    model = tiny("llama", "sdpa")
    rows = []
    for seed in range(16):
        inputs = prompt(tokens=4 + seed % 3, seed=seed)
        torch.manual_seed(seed)
        run = ds.generate(model, inputs, max_new_tokens=24, do_sample=True)
        rows.append(Sample(tuple(inputs["input_ids"][0].tolist()), tuple(run.tokens[0].tolist())))
    return rows


@pytest.fixture(scope="package")
def profile(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> ds.Profile:
    out: Path = tmp_path_factory.mktemp("profile")
    return calibrate(tiny("llama", "sdpa"), "tiny", samples, out, target=Target(speedup=1.2), options=OPTIONS)
