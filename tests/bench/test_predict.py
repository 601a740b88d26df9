"""Predictions: the account of cost, a slow sum as oracle, published runs, and the machine's own pieces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bench import SHAPES, known_shape
from depthsched.bench.devices import ALL_REDUCE_SECONDS, DEVICES, LAYER_SECONDS, ROW_SECONDS, known_device
from depthsched.bench.here import cpu_costs, this_device
from depthsched.bench.predict import memory_bytes, predict
from depthsched.bench.subjects import Q4_BYTES, configured, model_subject, probe_model, shape_subject
from depthsched.errors import PlanError, UnknownNameError

from ..commands import Result
from ..tiny import make_tiny

Run = Callable[..., Result]


@given(
    name=st.sampled_from(sorted(SHAPES)),
    device=st.sampled_from(sorted(DEVICES)),
    batch=st.sampled_from([1, 3, 8, 512]),
    ranks=st.sampled_from([1, 2, 4]),
    plan=st.sampled_from(["full", "constant:depth=12", "d3:alpha=0.97"]),
)
def test_a_prediction_is_the_sum_of_its_steps(name: str, device: str, batch: int, ranks: int, plan: str) -> None:
    subject, target = shape_subject(name, torch.bfloat16), DEVICES[device]
    if subject.kv_heads % ranks or subject.heads % ranks:
        return
    layers, prompt, tokens = subject.shape.num_layers, 7, 20
    plans = {p: ds.plan(p, num_layers=layers, horizon=tokens) for p in {"full", plan}}
    found = {
        row.plan: row
        for row in predict(subject, target, plans, batches=[batch], ranks=ranks, prompt_tokens=prompt, tokens=tokens)
    }
    total, whole = 0.0, known_shape(name)
    for step, depth in enumerate(plans[plan].depths[1:], start=1):
        moved = whole.step_bytes(depth, prompt + step, batch) / ranks / target.copy_bytes_per_s
        assert target.flops_per_s is not None
        computed = whole.step_flops(depth, prompt + step, batch) / ranks / target.flops_per_s
        total += max(moved, computed) + depth * (LAYER_SECONDS + (batch - 1) * ROW_SECONDS)
        if ranks > 1:
            sums = 2 * depth + 1  # two a layer, one of the embedding; a ring sends a sum twice, a row of logits once
            sent = batch * 2 * (2 * sums * subject.hidden + subject.vocabulary) * (ranks - 1) / ranks
            assert target.link_bytes_per_s is not None
            total += sums * ALL_REDUCE_SECONDS + sent / target.link_bytes_per_s
    assert found[plan].tokens_per_second == pytest.approx(batch * (tokens - 1) / total, rel=1e-6)
    assert found["full"].speedup_vs_full == 1
    assert found[plan].speedup_vs_full >= 1
    assert sum(found[plan].seconds.values()) == pytest.approx(total / (tokens - 1), rel=1e-6)


def test_an_h200_is_predicted_as_it_ran() -> None:
    """Runs of docs/results/gpu.md that no figure was taken from: 13B, and depths of 7B."""
    for name, batch, depth, ran in (
        ("llama-2-13b", 1, 40, 128.3), ("llama-2-13b", 1, 16, 311.1), ("llama-2-7b", 1, 16, 430.4),
        ("llama-2-7b", 8, 24, 2169.0),
    ):  # fmt: skip
        subject = shape_subject(name, torch.bfloat16)
        plans = {
            p: ds.plan(p, num_layers=subject.shape.num_layers, horizon=128) for p in ("full", f"constant:{depth=}")
        }
        row = predict(subject, DEVICES["h200"], plans, batches=[batch])[-1]
        assert row.tokens_per_second == pytest.approx(ran, rel=0.05)


def test_memory_is_that_of_the_weights_and_buffers() -> None:
    subject = shape_subject("llama-2-7b", torch.bfloat16)
    model = configured_tiny = make_tiny("llama")
    assert memory_bytes(subject, 1, 1, 160) == pytest.approx(13.699e9, rel=0.02)  # an H200, docs/results/gpu.md
    assert memory_bytes(subject, 1, 8, 160) == pytest.approx(14.778e9, rel=0.02)
    halves = memory_bytes(subject, 2, 1, 160)
    assert halves == pytest.approx(memory_bytes(subject, 1, 1, 160) / 2, rel=0.05)
    own = model_subject("tiny", model)
    assert own.layers_bytes + own.head_bytes + own.embedding_bytes == sum(
        p.numel() * p.element_size() for p in configured_tiny.parameters()
    )


def test_a_known_shape_is_the_model_of_that_shape() -> None:
    for name, weights in (("smollm2-135m", "dense"), ("smollm2-135m", "native")):
        model = probe_model(name, torch.bfloat16, weights, 2)
        ours, theirs = shape_subject(name, torch.bfloat16, weights), model_subject(name, model)
        assert theirs.weights == weights
        assert (theirs.hidden, theirs.heads, theirs.kv_heads) == (ours.hidden, ours.heads, ours.kv_heads)
        assert theirs.layers_bytes / 2 == pytest.approx(ours.layers_bytes / 30, rel=0.002)
        assert theirs.head_bytes == pytest.approx(ours.head_bytes, rel=0.002)
        assert theirs.embedding_bytes == pytest.approx(0, abs=10)
        assert not any(p.is_meta for p in model.parameters())
    assert Q4_BYTES == 0.5625


def test_a_folder_is_read_without_its_weights(tmp_path: Path) -> None:
    model = make_tiny("llama")
    model.config.save_pretrained(tmp_path)
    found = model_subject("tiny", configured(str(tmp_path), torch.float32))
    assert found == model_subject("tiny", model)


def test_ranks_share_out_the_heads_or_are_refused() -> None:
    subject = shape_subject("llama-2-70b", torch.bfloat16)
    part = subject.share(8)
    assert part.layer_params * 8 == pytest.approx(subject.shape.layer_params, abs=8)
    assert part.kv_values * 8 == subject.shape.kv_values
    with pytest.raises(PlanError, match="must divide the 64 heads and 8 KV heads"):
        subject.share(16)
    with pytest.raises(UnknownNameError, match="did you mean 'h100'"):
        known_device("h10")


def test_the_pieces_of_this_machine_are_timed() -> None:
    """Layers and head run apart, for each batch."""
    model = probe_model("smollm2-135m", torch.bfloat16, "dense", 2)
    subject = model_subject("probe", model)
    device = cpu_costs(subject, model, this_device(torch.device("cpu")), [1, 8], 40)
    assert set(device.costs) == {1, 8}
    plans = {"full": ds.plan("full", num_layers=2, horizon=16)}
    one, eight = predict(subject, device, plans, batches=[1, 8], prompt_tokens=32, tokens=16)
    assert min(one.tokens_per_second, eight.tokens_per_second) > 0
    assert any("GB/s" in line and "batch 8" in line for line in device.assumptions)
    odd = make_tiny("gemma")
    with pytest.raises(PlanError, match="which cannot run odd here"):
        cpu_costs(model_subject("odd", odd), odd, device, [1], 8)


def test_the_command(cli: Run) -> None:
    words = ["predict", "--shape", "llama-2-70b", "--device", "h100", "--ranks", 8, "--batch", "1,8"]
    words += ["--plans", "constant:depth=60"]
    result = cli(*words, "--json")
    assert result.code == 0, result.err
    found = result.json()
    assert found["predicted"] is True
    assert [(row["plan"], row["batch"]) for row in found["rows"]] == [
        ("full", 1), ("constant:depth=60", 1), ("full", 8), ("constant:depth=60", 8),
    ]  # fmt: skip
    assert all(row["fits"] for row in found["rows"])
    assert any("all-reduce" in line for line in found["assumptions"])
    shown = cli(*words)
    assert "predicted, not measured" in shown.out
    for line in found["assumptions"]:
        assert line in shown.out
    assert "does not fit in 80 GB" in cli("predict", "--shape", "llama-2-70b", "--device", "h100").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("predict", "give either --shape"),
        ("predict --shape llama-2-7b --model smollm2", "give either --shape"),
        ("predict --shape llama-2-8b --device h100", "did you mean"),
        ("predict --shape llama-2-7b --device tpu", "use 'this' or a known one"),
        ("predict --shape llama-2-7b --device h100 --batch 1,x", "--batch '1,x' must be whole numbers"),
        ("predict --shape llama-2-7b --device h100 --weights native", "native weights run on a CPU"),
        ("predict --shape smollm2-135m --ranks 2", "--ranks needs devices whose links are known"),
        ("predict --shape llama-2-7b --device h100 --ranks 3", "must divide"),
    ],
)
def test_bad_input_is_one_line(cli: Run, words: str, said: str) -> None:
    result = cli(*words.split())
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1


def test_adapters_see_the_probe() -> None:
    assert adapter_for(probe_model("smollm2-135m", torch.float32, "dense", 2)).num_layers == 2


def test_a_named_device_reads_no_weights(cli: Run, tmp_path: Path) -> None:
    make_tiny("llama").config.save_pretrained(tmp_path)
    result = cli("predict", "--model", tmp_path, "--device", "a100", "--json", "--plans", "constant:depth=4")
    assert result.code == 0, result.err
    rows: list[dict[str, Any]] = result.json()["rows"]
    assert rows[1]["speedup_vs_full"] > 1
