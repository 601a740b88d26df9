"""Prompt files of the quality measurements, and the data that is left to judge on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable
from pathlib import Path

from depthsched.errors import SettingsError
from depthsched.score import read_prompts

from .copying import copying

TEST, FIT, GSM8K = 4, 12, 160
IFEVAL_FIT, IFEVAL_TEST, XQUAD_TEST = 150, 48, 48
SMOLLM2, COPYING = 128, 64


def prompts(data: Path, out: Path) -> dict[str, int]:
    """Write what is judged on, and mixed.jsonl, to calibrate on; no prompt is in both.

    bbh-test.jsonl has the first 4 prompts of the second half of every task in DATA/bbh, ifeval-test.jsonl 48 rows of
    DATA/ifeval after the first 150, xquad-test.jsonl 48 questions of DATA/xquad with their texts. mixed.jsonl has 160
    training questions of DATA/gsm8k, 12 prompts of the first half of every BBH task, and the first 150 rows of IFEval.
    copying.jsonl has 128 of these, drawn at random (those of the profile smollm2), and 64 lists to copy a number from.
    OUT/rest is a folder for ``eval --data`` without these: IFEval after its first 150 rows, the second half of every
    BBH task, all of XQuAD.
    """
    tasks = [[p.text for p in read_prompts(path)] for path in sorted((data / "bbh").glob("*.json"))]
    if not tasks:
        raise SettingsError(f"{data / 'bbh'} holds no task; DATA needs bbh, gsm8k, ifeval and xquad")
    halves = [(task[: len(task) // 2], task[len(task) // 2 :]) for task in tasks]
    gsm8k = [p.text for p in read_prompts(data / "gsm8k" / "train-2000.jsonl", GSM8K)]
    ifeval = [p.text for p in read_prompts(_only(data / "ifeval"))]
    out.mkdir(parents=True, exist_ok=True)
    fit = gsm8k + [text for first, _ in halves for text in first[:FIT]] + ifeval[:IFEVAL_FIT]
    drawn = list(fit)
    random.Random(0).shuffle(drawn)
    files = {
        "mixed": fit,
        "copying": drawn[:SMOLLM2] + copying(COPYING),
        "bbh-test": [text for _, second in halves for text in second[:TEST]],
        "ifeval-test": ifeval[IFEVAL_FIT : IFEVAL_FIT + IFEVAL_TEST],
        "xquad-test": _xquad(_only(data / "xquad"))[:XQUAD_TEST],
    }
    _rest(data, out / "rest")
    return {name: _write(out / f"{name}.jsonl", texts) for name, texts in files.items()}


def _rest(data: Path, rest: Path) -> None:
    """The data of the tasks without the rows that a profile may be fitted on."""
    for name in ("bbh", "ifeval", "xquad", "nltk_data"):
        if (data / name).is_dir():
            shutil.copytree(data / name, rest / name, dirs_exist_ok=True)
    for path in (rest / "bbh").glob("*.json"):
        task = json.loads(path.read_text(encoding="utf-8"))
        task["examples"] = task["examples"][len(task["examples"]) // 2 :]
        path.write_text(json.dumps(task), encoding="utf-8")
    rows = _only(rest / "ifeval")
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join(lines[IFEVAL_FIT:]), encoding="utf-8")


def _only(folder: Path) -> Path:
    """The one file of rows in a folder."""
    files = sorted(folder.glob("*.jsonl"))
    if len(files) != 1:
        raise SettingsError(f"{folder} has {len(files)} files *.jsonl; it needs one")
    return files[0]


def _xquad(file: Path) -> list[str]:
    """One question of every text, with the text in front."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    first = {row["context"]: row["question"] for row in reversed(rows)}
    return [f"{context}\n\nQuestion: {question}" for context, question in reversed(first.items())]


def _write(path: Path, texts: Iterable[str]) -> int:
    lines = [json.dumps({"prompt": text}) + "\n" for text in texts]
    path.write_text("".join(lines), encoding="utf-8")
    return len(lines)
