"""Prompt files of the quality measurements: ``python docs/make_prompts.py DATA OUT``.

``bbh-test.jsonl`` holds the first 4 prompts of every BBH task in ``DATA/bbh``; ``mixed.jsonl`` holds 56 GSM8K training
prompts and 6 other prompts of every BBH task, to calibrate on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from depthsched.score import read_prompts

TEST, FIT, GSM8K = 4, 6, 56


def main(data: str, out: str) -> None:
    tasks = [[p.text for p in read_prompts(path, TEST + FIT)] for path in sorted(Path(data, "bbh").glob("*.json"))]
    gsm8k = [p.text for p in read_prompts(Path(data, "gsm8k", "train-2000.jsonl"), GSM8K)]
    Path(out).mkdir(parents=True, exist_ok=True)
    _write(Path(out, "bbh-test.jsonl"), (text for task in tasks for text in task[:TEST]))
    _write(Path(out, "mixed.jsonl"), gsm8k + [text for task in tasks for text in task[TEST:]])


def _write(path: Path, prompts: Iterable[str]) -> None:
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompts), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
