"""What leaving out a block of layers costs, at every place of the block: KL on two kinds of prompts, and needles."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import depthsched as ds
from depthsched.adapters import Adapter, adapter_for
from depthsched.calibrate.corpus import Corpus
from depthsched.calibrate.fit import fit_keep_set
from depthsched.calibrate.judge import judge_constant
from depthsched.environment import versions
from depthsched.errors import SettingsError
from depthsched.evaluate.evaluation import Evaluation
from depthsched.evaluate.options import EvalOptions
from depthsched.fingerprint import ModelIdentity
from depthsched.profile import Profile
from depthsched.score import Prompt, Sample, own_answers, read_prompts

from .common import Count, numbers
from .prompts import SMOLLM2

EACH, HELD = (48, 32), (10, 8)
"""Prompts of the two kinds, and how many of them judge; the others are fitted on."""


def blocks(
    prompts: Annotated[Path, typer.Option(help="copying.jsonl, as `benchmarks prompts` writes it.")],
    data: Annotated[Path, typer.Option(help="For the needles: a folder with nltk_data.")],
    sizes: Annotated[str, typer.Option(help="Layers of a block.")] = "4,8",
    needle_tokens: Count = 256,
    limit: Annotated[int, typer.Option(help="Needles.")] = 48,
    model: str = "smollm2",
) -> dict[str, Any]:
    """Fit one bridge for each block, on both kinds of prompts; judge it on others of each, and on needles."""
    loaded, tokenizer = ds.load_model(model, dtype="float32", device="cpu")
    rows = read_prompts(prompts)
    kinds = [_answers(loaded, tokenizer, some) for some in (rows[: EACH[0]], rows[SMOLLM2:][: EACH[1]])]
    if any(len(some) <= held for some, held in zip(kinds, HELD, strict=True)):
        raise SettingsError(f"{prompts} has too few prompts of a kind: give copying.jsonl of `benchmarks prompts`")
    adapter = adapter_for(loaded)
    options = EvalOptions(model, ("niah_single_1",), str(data), limit, 24, batch=16, needle_tokens=needle_tokens)
    with tempfile.TemporaryDirectory() as scratch:
        study = _Blocks(adapter, kinds, Path(scratch), ModelIdentity.of(loaded, model), Evaluation(options))
        last = adapter.num_layers - 1
        found = [study.row(range(at, at + n)) for n in numbers("--sizes", sizes) for at in range(1, last - n + 1)]
    return {"rows": found, "needle_tokens": needle_tokens, "n": limit, "model": model, "versions": versions()}


def _answers(model: Any, tokenizer: Any, prompts: Sequence[Prompt]) -> list[Sample]:
    samples = own_answers(model, tokenizer, prompts, max_new_tokens=96, batch=8)
    return [sample for sample in samples if len(sample.completion) > 1]


class _Blocks:
    """Samples to fit on and to judge on, and the task."""

    def __init__(
        self, adapter: Adapter, kinds: Sequence[list[Sample]], scratch: Path, model: ModelIdentity, task: Evaluation
    ) -> None:
        held = [some[:n] for some, n in zip(kinds, HELD, strict=True)]
        fitted = [sample for some, n in zip(kinds, HELD, strict=True) for sample in some[n:]]
        self.held = [Corpus(adapter, some, scratch / f"held-{i}", None) for i, some in enumerate(held)]
        self.fitted = Corpus(adapter, fitted, scratch / "fit", None)
        self.layers, self.scratch, self.model, self.task = adapter.num_layers, scratch, model, task

    def row(self, block: range) -> dict[str, Any]:
        """What the block costs with its bridge."""
        keep = [layer for layer in range(self.layers) if layer not in block]
        bridges = {layer: fit.bridge for layer, fit in fit_keep_set(self.fitted, keep, []).items()}
        mixed, copied = (judge_constant(held, keep, bridges) for held in self.held)
        folder = self.scratch / f"block-{block.start}-{len(block)}"
        empty = Profile(self.model, drop_order=tuple(block), data={}, seed=0, options={}, versions={})
        empty.save(folder, {len(keep): bridges})
        (run,) = self.task.run(f"constant:depth={len(keep)}+profile={folder}")
        scores = [item.scores["string_match,none"] for item in run.samples]
        found = {"mixed": mixed._asdict(), "copying": copied._asdict(), "needles": sum(scores) / len(scores)}
        row: dict[str, Any] = {"start": block.start, "size": len(block), **found}
        typer.echo(json.dumps(row), err=True)
        return row
