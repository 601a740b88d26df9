"""What of tensor parallelism one process can show."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

import depthsched as ds
from depthsched.cost import Exchange, ModelShape
from depthsched.errors import ModelError, PlanError, SettingsError
from depthsched.parallel import launch
from depthsched.parallel.ranks import Ranks
from depthsched.runtime.policy import begin_on_ranks

pytestmark = pytest.mark.quick


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3))
def test_the_counts_that_work_are_those_that_divide_every_number_of_heads(heads: list[int]) -> None:
    assert launch.counts(heads) == [n for n in range(1, 201) if all(h % n == 0 for h in heads)]


def test_without_a_launcher_there_are_no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert (launch.launched(), launch.world(), launch.rank()) == (False, 1, 0)
    with pytest.raises(ModelError, match="torchrun --nproc-per-node N"):
        ds.load_model("smollm2", device="cpu", tensor_parallel=True)
    with pytest.raises(ModelError, match="use weights='dense'"):
        ds.load_model("smollm2", device="cpu", weights="native", tensor_parallel=True)


@pytest.mark.parametrize("said", ["", "soon", "0", "-3", "inf"])
def test_a_wait_that_is_no_time(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv(launch.PATIENCE, said)
    with pytest.raises(SettingsError, match=launch.PATIENCE):
        launch.patience()


@pytest.mark.parametrize("given", [{"max_time": 1.0}, {"generation_config": GenerationConfig(max_time=1.0)}])
def test_a_run_that_the_clock_would_end_is_refused_on_ranks(given: dict[str, Any]) -> None:
    plan = ds.plan("full", num_layers=2, horizon=3)
    begin_on_ranks(None, plan, given)
    with pytest.raises(PlanError, match="max_time would end them at different tokens"):
        begin_on_ranks(Ranks.__new__(Ranks), plan, given)


def test_what_ranks_send_is_in_the_account() -> None:
    """Counted by hand: a ring sends N - 1 parts of n / N values twice for a sum, once for parts of a row of logits."""
    sizes: dict[str, Any] = {"layer_params": 1000, "head_params": 500, "kv_values": 8, "attention_width": 16}
    alone = ModelShape(num_layers=6, weight_bytes=4, kv_bytes=4, **sizes)
    shared = ModelShape(num_layers=6, weight_bytes=4, kv_bytes=4, exchange=Exchange(4, 32, 100), **sizes)
    plan = ds.plan("constant:depth=4", num_layers=6, horizon=9)
    bridge = 32 * 33
    for layers, batch in ((4, 1), (6, 3)):
        sums = 2 * layers + 1
        sent = 4 * batch * (2 * 3 * 32 / 4 * sums + 3 * 100 / 4)
        extra = shared.step_bytes(layers, 7, batch) - alone.step_bytes(layers, 7, batch)
        assert extra == pytest.approx(sent)
        crossed = shared.step_bytes(layers, 7, batch, bridge=bridge) - shared.step_bytes(layers, 7, batch)
        assert crossed == pytest.approx(4 * bridge / 4 + 4 * batch * 2 * 3 * 32 / 4)
    assert plan.cost(shared, prompt_tokens=5).total > plan.cost(alone, prompt_tokens=5).total
