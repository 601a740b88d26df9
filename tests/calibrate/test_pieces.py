"""A calibration whose batches go out as messages, as to workers, is the one whose batches stay here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.calibrate import CheckCost, Options, Target, calibrate, search
from depthsched.calibrate import corpus as module
from depthsched.calibrate.corpus import Corpus
from depthsched.calibrate.fit import centre, fit_run, moments
from depthsched.calibrate.store import Scratch
from depthsched.score import Sample
from depthsched.work.cluster import Cluster
from depthsched.work.message import pack, unpack
from depthsched.work.pieces import Function, Loaded

from ..tiny import tiny

OPTIONS = Options(min_depth=4, corrections=1, held_out=0.4, seed=1)
FILES = ("profile.json", "bridges.safetensors")
WAYS: list[dict[str, Any]] = [
    {"target": Target(speedup=1.2), "family": "linear"},
    {"check": CheckCost(1.0, 0.05)},
]


class ByMessage:
    """What a worker does with a message, in this process."""

    def __init__(self, model: Any) -> None:
        self.model, self.done = model, 0

    def map(self, function: Function, shared: Any, pieces: Sequence[Any]) -> Iterator[Any]:
        common = pack(shared)
        for piece in [pack(piece) for piece in pieces]:
            self.done += 1
            yield unpack(pack(function(Loaded(self.model, None), unpack(common), unpack(piece))))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_TOKENS", 100)


def spread(monkeypatch: pytest.MonkeyPatch, work: ByMessage) -> Cluster:
    @contextmanager
    def working(*_: Any) -> Iterator[ByMessage]:
        yield work

    monkeypatch.setattr(search, "working", working)
    return Cluster("local")


@pytest.mark.parametrize("way", WAYS, ids=["skipping", "drafting"])
def test_batches_as_messages_give_the_same_profile(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    model = tiny("llama", "sdpa")
    here = calibrate(model, "tiny", samples, tmp_path / "here", options=OPTIONS, **way)
    assert "constant" not in here.evidence or here.evidence["corrections"]  # so that states go from fit to fit
    work = ByMessage(model)
    said: list[str] = []
    cluster = spread(monkeypatch, work)
    calibrate(model, "tiny", samples, tmp_path / "there", options=OPTIONS, say=said.append, cluster=cluster, **way)
    assert work.done > 50
    (line,) = [text for text in said if text.startswith("on workers: fits (")]
    assert "solving and choosing" in line
    for file in FILES:
        assert (tmp_path / "there" / file).read_bytes() == (tmp_path / "here" / file).read_bytes(), file


def test_refining_stays_and_what_began_here_goes_on_there(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(min_depth=6, corrections=0, held_out=0.4, refine=1, orders=("block",))
    model, said = tiny("llama", "sdpa"), []
    whole = calibrate(model, "tiny", samples, tmp_path / "here", options=options)

    def stop(text: str) -> None:
        if text.startswith("refining"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(model, "tiny", samples, tmp_path / "there", options=options, say=stop)
    work = ByMessage(model)
    cluster = spread(monkeypatch, work)
    calibrate(model, "tiny", samples, tmp_path / "there", options=options, say=said.append, cluster=cluster)
    assert any(text.startswith("on workers") and text.endswith("refining") for text in said)
    assert work.done
    for file in FILES:
        assert (tmp_path / "there" / file).read_bytes() == (whole.folder / file).read_bytes(), file


def test_a_fit_of_pieces_is_that_of_all_rows_at_once(samples: list[Sample], tmp_path: Path) -> None:
    corpus = Corpus(adapter_for(tiny("llama", "sdpa")), samples, tmp_path)
    assert len(corpus.batches) > 3
    before, after = (torch.cat([batch.get(layer) for batch in corpus.batches]).double().numpy() for layer in (2, 5))
    found = fit_run(corpus, 2, 5)
    x, y = before - before.mean(0), (after - before) - (after - before).mean(0)
    gram = x.T @ x
    weight = np.linalg.solve(gram + found.ridge * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)
    assert found.bridge.weight.numpy() == pytest.approx(weight, abs=1e-4)
    counts = [count for batch in corpus.batches for count in batch.counts]
    rows = (torch.from_numpy(part).split(counts) for part in (before, after))
    means = centre(corpus)
    seen, held = moments([(i, *row) for i, row in enumerate(zip(*rows, strict=True))], means[2], means[5] - means[2])
    assert seen.count == sum(count for i, count in enumerate(counts) if i % 4 != 3)
    assert held.count == corpus.tokens - seen.count


def test_batches_are_run_here_only_when_something_reads_them(samples: list[Sample], tmp_path: Path) -> None:
    adapter = adapter_for(tiny("llama", "sdpa"))
    corpus = Corpus(adapter, samples, tmp_path / "lazy", ByMessage(adapter.model))
    whole = Corpus(adapter, samples, tmp_path / "whole")
    assert not list((tmp_path / "lazy").rglob("done"))
    assert torch.equal(corpus.batches[1].get(3), whole.batches[1].get(3))
    assert [path.parent.name for path in (tmp_path / "lazy").rglob("done")] == ["1"]


def test_scratch_reads_back_what_it_was_given_and_names_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Scratch()
    arrays = {name: np.random.default_rng(i).random((i + 1, 3)) for i, name in enumerate("abc")}
    for name, array in arrays.items():
        store.save(name, array)
    for name, other in (("b", arrays["b"] + 1), ("a", np.arange(7.0)), ("c", arrays["c"] * 2)):
        store.save(name, other)  # as large as before in its place, another size behind the others
        arrays[name] = other
    for name, array in arrays.items():
        assert np.array_equal(store.load(name), array)
    assert not list(tmp_path.iterdir())
    assert not store.whole
    store.finish()
    assert store.whole


def test_a_cluster_needs_a_model_with_a_name(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(ds.errors.ModelError, match="by its name"):
        calibrate(tiny("llama", "sdpa"), "tiny", samples, tmp_path, cluster=Cluster("local"))
