"""What the CPU engine does beyond one row at a time: ragged prompts, rows that leave, stored weights, odd masks."""

from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.native.toolchain import compiler
from depthsched.runtime.native import NativeBackend
from depthsched.runtime.native.kv import starts_of
from depthsched.runtime.native.step import MOST_TOKENS

from ..tiny import LAYERS, MAIN, VOCAB, make_tiny, prompt

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler: install g++")
PLAN = "d3:alpha=0.97,start=3"


def ids(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variant", MAIN)
@pytest.mark.parametrize("length", [1, 15, MOST_TOKENS, MOST_TOKENS + 1, 150])
def test_prompts_of_any_length(variant: str, length: int) -> None:
    model = make_tiny(variant)
    runs = [
        ds.generate(model, ids(1, length), PLAN, max_new_tokens=8, do_sample=False, backend=backend)
        for backend in ("eager", "compiled")
    ]
    assert runs[1].trace.backend == "compiled"
    assert runs[0].tokens.tolist() == runs[1].tokens.tolist()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_of_a_ragged_prompt(chunk: int) -> None:
    model = make_tiny("llama")
    inputs = {"input_ids": ids(3, 40), "attention_mask": torch.ones(3, 40, dtype=torch.int64)}
    inputs["attention_mask"][1, :17] = 0
    inputs["attention_mask"][2, :39] = 0
    runs = [
        ds.generate(model, inputs, PLAN, max_new_tokens=8, do_sample=False, backend=backend, prefill_chunk_size=chunk)
        for backend in ("eager", "compiled")
    ]
    assert runs[0].tokens.tolist() == runs[1].tokens.tolist()


def test_finished_rows_leave() -> None:
    model, inputs = make_tiny("llama"), prompt(4, 6)
    options: dict[str, Any] = {"max_new_tokens": 24, "do_sample": False, "pad_token_id": 0}
    free = ds.generate(model, inputs, PLAN, backend="eager", **options)
    end = int(free.tokens[1, 3])  # ends one row early, and others where they say it
    runs = [
        ds.generate(model, inputs, PLAN, backend=backend, drop_finished=drop, eos_token_id=end, **options)
        for backend, drop in (("eager", False), ("compiled", True))
    ]
    assert runs[1].trace.backend == "compiled"
    assert runs[0].tokens.tolist() == runs[1].tokens.tolist()


def test_a_mask_with_a_hole_runs_eager_and_says_so() -> None:
    model = make_tiny("llama")
    mask = torch.ones(1, 9, dtype=torch.int64)
    mask[0, 4] = 0
    inputs = {"input_ids": ids(1, 9), "attention_mask": mask}
    run = ds.generate(model, inputs, PLAN, max_new_tokens=4, do_sample=False)
    assert run.trace.backend == "eager"
    assert "holes" in run.trace.reason
    assert starts_of(mask) is None
    assert starts_of(torch.tensor([[0, 0, 1], [1, 1, 1]])).tolist() == [2, 0]  # type: ignore[union-attr]


def test_several_tokens_of_a_row_in_one_pass_equal_one_by_one() -> None:
    """What verifying drafts does: each token sees those before it in the same pass."""
    model = make_tiny("qwen3")
    adapter, prompts = adapter_for(model), ids(2, 7)
    backend = NativeBackend(adapter, ds.plan("full", num_layers=LAYERS), batch=2, max_tokens=32)
    more = ids(2, 5, seed=1)
    with backend, torch.no_grad():
        decoders = [backend.prefill(prompts, torch.ones_like(prompts), DynamicCache())[1] for _ in range(2)]
        single = torch.stack([decoders[0].step(more[:, i], LAYERS) for i in range(5)], dim=1)
        rows = torch.tensor([0, 1], dtype=torch.int32).repeat_interleave(5)
        slots = torch.arange(7, 12, dtype=torch.int32).repeat(2)
        every = torch.arange(10, dtype=torch.int32)
        together = decoders[1].forward(more.reshape(-1), rows, slots, every, LAYERS).view(2, 5, -1)
    assert torch.allclose(single, together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_where_transformers_does(dtype: torch.dtype) -> None:
    model = make_tiny("llama", dtype=dtype)
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "output_logits": True}
    eager, fast = (ds.generate(model, ids(1, 9), "full", backend=b, **options) for b in ("eager", "compiled"))
    assert fast.trace.backend == "compiled"
    for step, (got, want) in enumerate(zip(fast.logits or (), eager.logits or (), strict=True)):
        if fast.tokens[0, :step].tolist() != eager.tokens[0, :step].tolist():
            break
        assert (got - want).norm() <= 0.1 * want.norm()
    assert step > 2


def test_int8_weights_of_torchao_as_they_are_stored() -> None:
    torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    model = make_tiny("llama", hidden_size=64, intermediate_size=96, head_dim=16)
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    options: dict[str, Any] = {"max_new_tokens": 12, "do_sample": False, "output_logits": True}
    eager, fast = (ds.generate(model, ids(2, 9), PLAN, backend=b, **options) for b in ("eager", "compiled"))
    assert fast.trace.backend == "compiled", fast.trace.reason
    for got, want in zip(fast.logits or (), eager.logits or (), strict=True):
        assert (got - want).abs().max() <= 2e-3 * want.abs().max()
