"""Prompt files of the quality measurements."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from depthsched.errors import SettingsError
from depthsched.score import read_prompts

TEST, FIT, GSM8K = 4, 6, 56


def prompts(data: Path, out: Path) -> dict[str, int]:
    """Write bbh-test.jsonl, the first 4 prompts of every task in DATA/bbh, and mixed.jsonl, to calibrate on.

    The second holds 56 training prompts of DATA/gsm8k and 6 other prompts of every BBH task.
    """
    tasks = [[p.text for p in read_prompts(path, TEST + FIT)] for path in sorted((data / "bbh").glob("*.json"))]
    if not tasks:
        raise SettingsError(f"{data / 'bbh'} holds no task; DATA needs bbh/*.json and gsm8k/train-2000.jsonl")
    gsm8k = [p.text for p in read_prompts(data / "gsm8k" / "train-2000.jsonl", GSM8K)]
    out.mkdir(parents=True, exist_ok=True)
    return {
        "bbh-test": _write(out / "bbh-test.jsonl", [text for task in tasks for text in task[:TEST]]),
        "mixed": _write(out / "mixed.jsonl", gsm8k + [text for task in tasks for text in task[TEST:]]),
    }


def _write(path: Path, texts: Iterable[str]) -> int:
    lines = [json.dumps({"prompt": text}) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)
