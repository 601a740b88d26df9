"""What a rank does in the tests of tensor parallelism, and a process alone to compare it with."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bridge import Bridge
from depthsched.cli import main
from depthsched.errors import RankError
from depthsched.parallel import launch
from depthsched.parallel.ranks import Ranks, joined
from depthsched.profile import ModelIdentity, Profile
from depthsched.runtime import selfcheck
from depthsched.score import Sample, score

Found = dict[str, Any]
TOKENS = 5


def imports() -> None:
    """Everything heavy, before the process forks."""
    torch.set_num_threads(1)
    families = [f"transformers.models.{name}.modeling_{name}" for name in ("llama", "mistral", "qwen3")]
    lm_eval = ["lm_eval.evaluator", "lm_eval.models.huggingface", "depthsched.evaluate.evaluation"]
    for name in ("torch.distributed.tensor", *families, *lm_eval):
        importlib.import_module(name)


def leave() -> None:
    """What an interpreter does at its end, and ``os._exit`` does not."""
    ranks = joined()
    if ranks is not None and ranks.watch is not None:
        ranks.watch.leave()


def load(name: str) -> Any:
    return ds.load_model(name, dtype="float32", device="cpu", tensor_parallel=launch.world() > 1)[0]


def profile(model: Any, folder: Path) -> str:
    """A profile with random bridges, written by the process alone and read by the ranks."""
    if launch.world() > 1:
        return str(folder)
    config = model.config
    layers, width = config.num_hidden_layers, config.hidden_size
    drops = [layers // 2 + i for i in range(layers // 4)]
    g = torch.Generator().manual_seed(0)

    def make() -> Bridge:
        scale = 0.1 / width**0.5
        return Bridge(torch.randn(width, width, generator=g) * scale, torch.randn(width, generator=g) * 0.05)

    bridges = {layers - n: {drops[0]: make(), layers - 1: make()} for n in range(1, len(drops) + 1)}
    return str(Profile(model=ModelIdentity.of(model, "tested"), drop_order=tuple(drops)).save(folder, bridges).folder)


def plans(layers: int, folder: str) -> list[str]:
    return [
        "full",
        "d3:alpha=0.8,start=2",
        f"constant:depth={layers - max(layers // 8, 1)}+profile={folder}",
        f"confidence:depth={layers // 2},margin={0.01 if layers < 20 else 0.2}",
    ]


@contextmanager
def counted() -> Iterator[list[int]]:
    """Every sum over the ranks that compiled code asks for, but for those of a check before its first run."""
    sums, real, examine = [], Ranks.reduce, selfcheck.examine

    def reduce(self: Ranks, values: torch.Tensor) -> None:
        sums.append(values.numel())
        real(self, values)

    def examined(*args: Any, **kwargs: Any) -> selfcheck.Check:
        before = len(sums)
        found = examine(*args, **kwargs)
        del sums[before:]
        return found

    with patch.object(Ranks, "reduce", reduce), patch.object(selfcheck, "examine", examined):
        yield sums


def tokens(model: Any, inputs: Any, plan: str, *, attach: bool) -> Found:
    """The tokens of a plan in every way, and how the ranks did it."""
    found: Found = {}
    for backend in ("eager", "compiled"):
        with counted() as sums:
            run = ds.generate(model, inputs, plan, max_new_tokens=TOKENS, do_sample=False, backend=backend)
        assert run.trace.backend == backend, run.trace.reason
        found[backend] = {"tokens": run.tokens.tolist(), "depths": run.trace.depths}
        found["ranks"], found["sums"] = run.ranks, len(sums)
    if not attach:
        return found
    with ds.attach(model, plan, horizon=TOKENS) as attached:
        output = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    found["attach"] = {"tokens": output[:, inputs["input_ids"].shape[1] :].tolist(), "depths": attached.trace.depths}
    return found


def drawn(model: Any, inputs: Any, rank: int) -> list[list[int]]:
    """Sampling, where every rank comes with another seed."""
    torch.manual_seed(7 if rank == 0 else 100 + rank)
    options = {"do_sample": True, "temperature": 1.5, "top_k": 0, "max_new_tokens": TOKENS, "backend": "eager"}
    found: list[list[int]] = ds.generate(model, inputs, "d3:alpha=0.8,start=2", **options).sequences.tolist()
    return found


def scored(model: Any, names: list[str]) -> list[Found]:
    layers = adapter_for(model).num_layers
    g = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 100, (2, 10), generator=g).tolist()
    samples = [Sample(tuple(row[:5]), tuple(row[5:])) for row in ids]
    found = score(model, [ds.plan(name, num_layers=layers, horizon=TOKENS) for name in names], samples)
    return [{"kl": r.kl.mean, "agreement": r.agreement.mean, "depth": r.mean_depth} for r in found]


def everything(folder: Path, rank: int, given: dict[str, Any]) -> Found:
    """All ways of some models."""
    found: Found = {}
    for name, source in given["models"].items():
        attach = not given["brief"] or name == "llama"
        model = load(source)
        folder_of = profile(model, folder / f"profile-{name}-{given['key']}")
        names = plans(model.config.num_hidden_layers, folder_of)
        inputs = {key: torch.tensor(value) for key, value in given["inputs"].items()}
        found[name] = {
            "plans": {plan.partition("+")[0]: tokens(model, inputs, plan, attach=attach) for plan in names},
            "drawn": drawn(model, inputs, rank),
            "score": scored(model, names) if attach else [],
            "shape": {k: getattr(adapter_for(model).shape(), k) for k in ("layer_params", "kv_values", "layer_bytes")},
        }
        if given.get("lossless"):
            with counted() as sums:
                run = ds.generate(model, inputs, names[1], max_new_tokens=TOKENS, do_sample=False, lossless=True)
            found[name]["lossless"] = run.tokens.tolist()
            found[name]["lossless_sums"] = len(sums), run.ranks
    if "eval" in given:
        found["eval"] = evaluated(given["eval"])
    return found


def evaluated(given: dict[str, Any]) -> list[Found]:
    """Twenty items."""
    from depthsched.evaluate.evaluation import Evaluation
    from depthsched.evaluate.options import EvalOptions

    options = {"limit": 10, "max_new_tokens": 5, "dtype": "float32", "device": "cpu", "backend": "auto", "batch": 5}
    tasks = ("gsm8k_cot", "bbh_cot_fewshot_boolean_expressions")
    evaluation = Evaluation(EvalOptions(model=given["model"], tasks=tasks, data=given["data"], **options))
    runs = evaluation.run("constant:depth=6")
    return [
        {"task": run.task, "items": [[i.doc_id, i.output, i.scores, list(i.depths)] for i in run.samples]}
        for run in runs
    ]


def commands(folder: Path, rank: int, given: dict[str, Any]) -> Found:
    """The command line, some calls one after another: a line of stdout is the JSON of a call."""
    codes = []
    for arguments in given["calls"]:
        try:
            main(arguments)
        except SystemExit as stop:
            codes.append(int(stop.code or 0))
    return {"codes": codes}


def command(folder: Path, rank: int, given: dict[str, Any]) -> Found:
    """One call, whose end is that of the process."""
    main(given["call"])
    return {}


def differ(folder: Path, rank: int, given: dict[str, Any]) -> Found:
    """Every rank asks for something of its own."""
    model, said = load(given["model"]), []
    inputs = {key: torch.tensor(value) for key, value in given["inputs"].items()}
    for plan, start, new in ((f"constant:depth={5 + rank}", 0, 4), ("full", rank, 4), ("full", 0, 4 + rank)):
        cut = {key: value[:, start:] for key, value in inputs.items()}
        try:
            ds.generate(model, cut, plan, max_new_tokens=new, do_sample=False)
        except RankError as error:
            said.append(str(error))
    run = ds.generate(model, inputs, "full", max_new_tokens=3, do_sample=False)
    return {"said": said, "tokens": run.tokens.tolist(), "pid": os.getpid()}
