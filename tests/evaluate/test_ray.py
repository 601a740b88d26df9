"""Batches that go to workers: over the wire in this process, on a Ray cluster, and where a worker dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import depthsched as ds
from depthsched.errors import PlanError, SettingsError, WorkError
from depthsched.evaluate.evaluation import Evaluation
from depthsched.evaluate.options import EvalOptions
from depthsched.parallel import launch
from depthsched.work.cluster import Cluster
from depthsched.work.message import pack, unpack
from depthsched.work.pieces import Loaded

from ..plugins.distributions import ROOT, environment

TASK = "bbh_cot_fewshot_boolean_expressions"
OPTIONS = {"dtype": "float32", "device": "cpu", "backend": "eager", "batch": 2}
SOMEWHERE = Cluster("local")
"""Given to what never connects to it."""


def items(run: Any) -> list[Any]:
    """All that a run found out about its items, but for the time that they took."""
    return [(run.shared, run.notes), *(replace(item, seconds=0.0) for item in run.samples)]


class Wire:
    """What a worker does, in this process: a model of its own, and nothing but bytes goes to it and comes back."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.sent: list[bytes] = []

    def map(self, function: Any, shared: Any, pieces: Any) -> Iterator[Any]:
        common = pack(shared)
        for piece in pieces:
            self.sent.append(pack(piece))
            yield unpack(pack(function(self.loaded, unpack(common), unpack(self.sent[-1]))))


@pytest.fixture
def wire(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Wire:
    """In place of the workers of a cluster."""
    from depthsched.evaluate import lm

    ours = Wire(Loaded(*ds.load_model(str(folder), dtype="float32", device="cpu")))
    here = lm.working

    @contextmanager
    def working(model: Any, tokenizer: Any, cluster: Cluster | None) -> Iterator[Any]:
        with here(model, tokenizer, None) as local:
            yield ours if cluster else local

    monkeypatch.setattr(lm, "working", working)
    return ours


@pytest.mark.parametrize(
    ("plan", "rules"),
    [
        ("full", {}),
        ("constant:depth=5@early-exit", {}),
        ("d3:alpha=0.9", {"backend": "compiled"}),
        ("confidence:depth=5", {}),
        ("constant:depth=5", {"renew": 4}),
        ("constant:depth=5", {"renew": "sentence", "verify_below": 2e-4}),
    ],
)
def test_what_comes_back_over_the_wire_is_what_one_process_finds(
    folder: Path, data: Path, wire: Wire, plan: str, rules: dict[str, Any]
) -> None:
    options = EvalOptions(str(folder), (TASK,), str(data), limit=5, max_new_tokens=10, **{**OPTIONS, **rules})
    (want,) = Evaluation(options).run(plan)
    assert not wire.sent, "one process sends nothing"
    (got,) = Evaluation(options, cluster=SOMEWHERE).run(plan)
    assert items(got) == items(want)
    assert len({item.output for item in got.samples}) > 1
    alone = plan.startswith("confidence") or "verify_below" in rules
    assert len(wire.sent) == (5 if alone else 3), "a piece is a batch"
    assert all(len(piece) < 100_000 for piece in wire.sent), "tokens go to a worker, and no cache"


def test_rows_end_where_those_of_one_process_do(
    folder: Path, data: Path, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model hardly ever says its end token, so here one token in seven is one."""
    from depthsched.evaluate.lm import DepthLM

    monkeypatch.setattr(DepthLM, "_eos", lambda lm: list(range(0, len(lm.tokenizer), 7)))
    options = EvalOptions(str(folder), (TASK,), str(data), limit=5, max_new_tokens=10, **OPTIONS)
    (want,) = Evaluation(options).run("constant:depth=5")
    (got,) = Evaluation(options, cluster=SOMEWHERE).run("constant:depth=5")
    assert items(got) == items(want)
    assert len({len(item.depths) for item in got.samples}) > 1


def test_a_worker_needs_no_lm_eval() -> None:
    said = "import sys, depthsched.evaluate.batches; print('lm_eval' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", said], env=environment(ROOT), capture_output=True, text=True, timeout=200
    )
    assert done.stdout.strip() == "False", done.stderr


def test_items_in_rounds_choose_the_prefix_that_one_process_does(folder: Path, data: Path, wire: Wire) -> None:
    """Few items share more than all: the prefix of the first round is taken again, wherever it is computed."""
    options = EvalOptions(str(folder), (TASK,), str(data), max_new_tokens=4, **OPTIONS)
    rounds = [list(range(6)), [7, 9]]
    seen = []
    for cluster in (None, SOMEWHERE):
        evaluation = Evaluation(options, cluster=cluster)
        runs = [evaluation.run("constant:depth=5", items={TASK: some})[0] for some in rounds]
        *_, store = evaluation._load()
        seen.append(([items(run) for run in runs], list(store._chosen)))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) == 1
    assert store.tokens == 0, "the process that gives the work out computes no prompt"


def test_a_worker_with_another_tokenizer_is_an_error(folder: Path, data: Path, wire: Wire) -> None:
    class Other:
        def decode(self, tokens: Any) -> str:
            return "something else"

    wire.loaded = Loaded(wire.loaded.model, Other())
    options = EvalOptions(str(folder), (TASK,), str(data), limit=1, max_new_tokens=4, **OPTIONS)
    with pytest.raises(WorkError, match="the tokenizer beside the model"):
        Evaluation(options, cluster=SOMEWHERE).run("full")


def test_answers_drawn_at_random_stay_in_one_process(folder: Path, data: Path, wire: Wire) -> None:
    from lm_eval.api.instance import Instance

    from depthsched.evaluate.lm import DepthLM

    settings = {"until": ["\n"], "max_gen_toks": 4, "do_sample": True, "temperature": 0.7}
    request = Instance("generate_until", {}, ("Two and two are", settings), 0, ("drawn", 0, 1))
    assert DepthLM(str(folder), device="cpu").generate_until([request])
    with pytest.raises(PlanError, match="task 'drawn' draws its answers at random"):
        DepthLM(str(folder), device="cpu", cluster=SOMEWHERE).generate_until([request])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
        (["--ray", "somewhere"], "must be HOST:PORT"),
        (["--ray-cpus", "2"], "goes with --ray"),
    ],
)
def test_what_cannot_work_is_one_line(cli: Any, folder: Path, data: Path, given: list[str], said: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'depthsched[ray]'")
    done = cli("eval", "--tasks", TASK, "--data", data, "--model", folder, *given)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_ranks_share_a_model_and_give_no_work_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from depthsched.cli.cluster import cluster_of

    monkeypatch.setattr(launch, "world", lambda: 2)
    with pytest.raises(SettingsError, match="ranks share one model, and a Ray cluster spreads whole ones"):
        cluster_of("auto", None)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[Any]]]:
    """The address of a Ray cluster, and its two nodes of one CPU."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'depthsched[ray]'")
    from ray.cluster_utils import Cluster as Nodes

    cache = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:  # a node hands its variables on to its workers
        for name, value in environment(ROOT, OMP_NUM_THREADS="1", DEPTHSCHED_CACHE=cache).items():
            patch.setenv(name, value)
        cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            found = [cluster.add_node(num_cpus=1) for _ in range(2)]
            cluster.wait_for_nodes()
            yield cluster.address, found
        finally:
            cluster.shutdown()


def kept(folder: Path) -> dict[str, Any]:
    """What an evaluation kept, without times."""
    found = {path.name: json.loads(path.read_text()) for path in (folder / "samples").glob("*.json")}
    for run in found.values():
        for sample in run["samples"]:
            assert sample.pop("seconds") >= 0
    return found


def rows(result: Any) -> list[Any]:
    """The rows of a result, without times."""
    return [{k: v for k, v in row.items() if k not in ("speedup", "tokens_per_second")} for row in result["rows"]]


@pytest.mark.slow
def test_two_workers_find_what_one_process_finds(
    cli: Any, folder: Path, data: Path, tmp_path: Path, nodes: tuple[str, list[Any]]
) -> None:
    call = ["eval", "--tasks", TASK, "--plans", "d3:alpha=0.9;confidence:depth=5", "--data", data, "--model", folder]
    call += ["--limit", 6, "-n", 8, "--batch", 2, "--dtype", "float32", "--device", "cpu", "--json"]
    one = cli(*call, "--out", tmp_path / "one")
    two = cli(*call, "--out", tmp_path / "two", "--ray", nodes[0])
    assert (one.code, two.code) == (0, 0), two.err
    assert rows(two.json()) == rows(one.json())
    assert kept(tmp_path / "two") == kept(tmp_path / "one")
    assert len(kept(tmp_path / "two")) == 3
    assert f"--ray {nodes[0]}" in two.json()["context"]["command"]


def kill_one(nodes: list[Any], samples: Path, killed: list[int]) -> None:
    """End, without a word, a process in the middle of a piece, once the first round of full depth is kept."""
    from ..sweep.ray_cluster import busy

    end = time.monotonic() + 200
    while not killed and time.monotonic() < end:
        time.sleep(0.005)
        victim = next(filter(None, (busy(node, "_piece") for node in nodes)), None) if any(samples.glob("*")) else None
        if victim is not None:
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)


@pytest.mark.slow
def test_a_worker_dies_in_the_middle_of_a_piece_and_no_item_is_lost(
    cli: Any, folder: Path, data: Path, tmp_path: Path, nodes: tuple[str, list[Any]]
) -> None:
    call = ["eval", "--tasks", TASK, "--plans", "confidence:depth=5", "--data", data, "--model", folder, "-n", 40]
    call += ["--batch", 2, "--dtype", "float32", "--device", "cpu", "--until", "decided", "--json"]
    one = cli(*call, "--out", tmp_path / "one")
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(nodes[1], tmp_path / "two" / "samples", killed))
    killer.start()
    two = cli(*call, "--out", tmp_path / "two", "--ray", nodes[0])
    killer.join()
    assert (one.code, two.code) == (0, 0), two.err
    assert len(killed) == 1
    assert "worker died" in two.err, "Ray's own words, beside the progress"
    assert rows(two.json()) == rows(one.json())
    assert two.json()["pooled"] == one.json()["pooled"]
    assert kept(tmp_path / "two") == kept(tmp_path / "one")
