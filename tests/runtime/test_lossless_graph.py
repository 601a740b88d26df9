"""Lossless runs of the cuda-graph backend: on the CPU under a double of the capture, on a GPU for real."""

from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.runtime.compiled import engine as engines

from ..tiny import MAIN, make_tiny, prompt
from .engines import compiled_is_the_graph_engine, store_of
from .test_lossless import PLANS, drafted, full


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_is_the_graph_engine(monkeypatch)


@pytest.mark.quick
@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("variant", MAIN)
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_tokens_are_those_of_full_depth(plan: Any, variant: str) -> None:
    """One engine for three runs: another batch, then another rule, find what the one before left."""
    model = make_tiny(variant, "sdpa")
    for batch, count in ((1, 3), (4, "auto"), (4, 1)):
        run = drafted(model, prompt(batch, 6), plan, draft_tokens=count, backend="compiled")
        assert run.trace.backend == "cuda-graph", run.trace.reason
        assert torch.equal(run.sequences, full(model, prompt(batch, 6)))


@pytest.mark.usefixtures("graphs")
def test_rows_that_end_and_contexts_that_grow() -> None:
    model, inputs = make_tiny("llama", "sdpa", max_position_embeddings=1024), prompt(4, 6)
    free = full(model, inputs, 160)
    end = int(free[1, 6 + 40])
    want = full(model, inputs, 160, eos_token_id=end, pad_token_id=0)
    for _ in range(2):
        run = drafted(
            model, inputs, "constant:depth=6", 160, draft_tokens=3, backend="compiled", eos_token_id=end, pad_token_id=0
        )
        assert torch.equal(run.sequences, want)
    layers = len(model.model.layers)
    assert store_of(model).captures["layer"] <= layers * 2 * 4  # two buckets; passes of 1 to 4 tokens


@pytest.mark.usefixtures("graphs")
def test_a_length_of_a_pass_is_captured_once() -> None:
    model = make_tiny("llama", "sdpa")
    for steps in (12, 20, 9):
        drafted(model, prompt(1, 6), "constant:depth=6", steps, draft_tokens=3, backend="compiled")
    store = store_of(model)
    assert {key[2] for key in store.graphs if key[0] == "layer"} <= {1, 2, 3, 4}
    before = store.captures.copy()
    drafted(model, prompt(1, 6), "constant:depth=4", 20, draft_tokens=3, backend="compiled")
    assert store.captures == before
    assert engines._ENGINES[model].passes.keys() <= {1, 2, 3, 4}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("batch", [1, 3])
def test_on_a_gpu(batch: int) -> None:
    model: Any = make_tiny("llama", "sdpa", max_position_embeddings=1024).cuda()
    want = full(model, prompt(batch, 6), 150)
    for plan in ("constant:depth=6", "d3:alpha=0.98"):
        for backend in ("compiled", "cuda-graph"):
            for count in (3, "auto"):
                run = ds.generate(
                    model,
                    prompt(batch, 6),
                    plan,
                    max_new_tokens=150,
                    lossless=True,
                    draft_tokens=count,
                    backend=backend,
                )
                assert run.trace.backend == backend, run.trace.reason
                assert torch.equal(run.sequences, want)
