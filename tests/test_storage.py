"""Bytes of weights as they lie in memory, against counts made by hand."""

import copy
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.adapters.storage import logical_weights, stored_bytes

from .reading import reading, weights_by_hand
from .tiny import CHOSEN, LAYERS, VARIANTS, make_tiny, prompt, tiny


@st.composite
def views(draw: st.DrawFn) -> Any:
    """A function from a buffer of 120 values to one view of it."""
    shape = draw(st.sampled_from([(120,), (8, 15), (4, 5, 6), (2, 60)]))
    steps = draw(st.lists(st.sampled_from(["slice", "transpose", "expand", "select"]), max_size=3))
    numbers = draw(st.lists(st.integers(0, 5), min_size=12, max_size=12))

    def view(buffer: torch.Tensor) -> torch.Tensor:
        found, take = buffer.view(shape), iter(numbers)
        for step in steps:
            if step == "slice":
                dim, first, by = next(take) % found.dim(), next(take), next(take) % 3 + 1
                found = found[(slice(None),) * dim + (slice(first, None, by),)]
            elif step == "transpose":
                found = found.transpose(0, -1)
            elif step == "expand":
                found = found.unsqueeze(0).expand(3, *found.shape)
            elif found.dim() > 1 and found.shape[-1]:
                found = found.select(-1, min(next(take), found.shape[-1] - 1))
        return found

    return view


@given(st.lists(views(), min_size=1, max_size=4), st.sampled_from([torch.int16, torch.int64]))
@pytest.mark.quick
def test_views_count_the_memory_they_cover_once(found: list[Any], dtype: torch.dtype) -> None:
    buffer, meta = torch.arange(120, dtype=dtype), torch.empty(120, dtype=dtype, device="meta")
    covered = {int(value) for view in found for value in view(buffer).flatten()}
    expected = len(covered) * dtype.itemsize
    assert stored_bytes(*(view(buffer) for view in found)) == expected
    assert stored_bytes(*(view(meta) for view in found)) == expected


@pytest.mark.quick
def test_plain_float8_shared_and_meta_weights() -> None:
    layer = nn.Linear(6, 4)
    assert stored_bytes(layer) == (24 + 4) * 4
    assert stored_bytes(layer, layer.weight, nn.ModuleList([layer, layer])) == (24 + 4) * 4
    assert stored_bytes(layer, nn.Linear(6, 4)) == 2 * (24 + 4) * 4
    assert stored_bytes(nn.Linear(6, 4, device="meta"), nn.Linear(6, 4, device="meta")) == 2 * (24 + 4) * 4
    layer.weight = nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    assert stored_bytes(layer) == 24 + 4 * 4
    layer.register_buffer("mask", torch.zeros(100), persistent=False)  # computed, not a weight
    layer.weight.grad = torch.zeros(4, 6, dtype=torch.float8_e4m3fn)
    assert stored_bytes(layer) == 24 + 4 * 4
    assert logical_weights(layer) == 28
    assert stored_bytes() == stored_bytes(nn.Identity()) == 0


class Packed(nn.Parameter):
    """As bitsandbytes' parameters: packed data, and what it takes to read them beside."""

    quant_state: Any
    SCB: Any


def four_bit(rows: int, columns: int) -> nn.Linear:
    layer = nn.Linear(columns, rows)
    data = torch.zeros(rows * columns // 2, 1, dtype=torch.uint8)
    layer.weight = Packed(data, requires_grad=False)
    inner = SimpleNamespace(absmax=torch.zeros(3), code=torch.zeros(256), shape=None, state2=None)
    outer = SimpleNamespace(absmax=torch.zeros(16, dtype=torch.uint8), code=torch.zeros(16), offset=torch.tensor(1.0))
    outer.state2, outer.shape, outer.dtype = inner, torch.Size((rows, columns)), torch.bfloat16
    layer.weight.quant_state = layer.quant_state = outer  # type: ignore[assignment]
    return layer


@pytest.mark.quick
def test_weights_of_the_bitsandbytes_kind() -> None:
    layer = four_bit(8, 64)
    tables = 16 + 16 * 4 + 4 + 3 * 4 + 256 * 4
    assert stored_bytes(layer) == 8 * 64 // 2 + tables + 8 * 4
    assert stored_bytes(layer.weight) == 8 * 64 // 2 + tables
    assert logical_weights(layer) == 8 * 64 + 8

    layer = nn.Linear(64, 8, bias=False)
    layer.weight = Packed(torch.zeros(8, 64, dtype=torch.int8), requires_grad=False)
    layer.weight.SCB = torch.zeros(8)
    assert stored_bytes(layer) == 8 * 64 + 8 * 4
    # After the first forward the module holds both, and the weight only its data.
    layer.state = SimpleNamespace(CB=layer.weight.data, SCB=layer.weight.SCB, threshold=6.0)  # type: ignore[assignment]
    layer.weight.SCB = None
    assert stored_bytes(layer) == 8 * 64 + 8 * 4
    assert logical_weights(layer) == 8 * 64


class Gptq(nn.Module):
    """As GPTQ and AWQ layers: no parameters, packed buffers."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.in_features, self.out_features = columns, rows
        self.register_buffer("qweight", torch.zeros(columns // 8, rows, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(columns // 32, rows // 8, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(columns // 32, rows, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(rows, dtype=torch.float16))


class Hqq(nn.Module):
    """As HQQ layers: a packed parameter, scales in a dictionary that is nested where these are packed too."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.in_features, self.out_features = columns, rows
        self.W_q = nn.Parameter(torch.zeros(columns * rows // 2, dtype=torch.uint8), requires_grad=False)
        self.meta = {"scale": torch.zeros(rows), "shape": (rows, columns), "meta_zero": {"scale": torch.zeros(2)}}


@pytest.mark.quick
def test_weights_in_buffers_and_dictionaries() -> None:
    gptq = Gptq(64, 16)
    assert stored_bytes(gptq) == 4 * (8 * 16 + 2 * 2) + 2 * (2 * 16 + 16)
    assert logical_weights(nn.Sequential(gptq, nn.Linear(2, 2))) == 64 * 16 + 16 + 6
    assert stored_bytes(Hqq(64, 16)) == 64 * 16 // 2 + 4 * (16 + 2)
    assert logical_weights(Hqq(64, 16)) == 64 * 16


@pytest.mark.quick
def test_a_model_with_packed_layers_has_a_shape() -> None:
    model = make_tiny("llama", tie_word_embeddings=True, dtype=torch.bfloat16)
    plain = adapter_for(model).shape()
    for layer in model.model.layers:
        layer.self_attn.k_proj, layer.self_attn.v_proj = four_bit(16, 32), Gptq(32, 16)
    model.lm_head = Hqq(32, 128)
    shape = adapter_for(model).shape()
    assert shape.layer_params == plain.layer_params + 16 + 16  # their biases
    assert shape.head_params == plain.head_params
    assert shape.head_bytes == 128 * 32 // 2 + 4 * (128 + 2) + 2 * 32
    changed = stored_bytes(four_bit(16, 32)) + stored_bytes(Gptq(32, 16))
    assert shape.kv_weight_bytes == (changed,) * LAYERS
    assert shape.layer_bytes == tuple(before - 2 * 2 * 16 * 32 + changed for before in plain.layer_bytes)
    assert (shape.weight_bytes, shape.kv_bytes) == (2, 2)
    assert adapter_for(model).dtype == torch.bfloat16


@pytest.mark.quick
@pytest.mark.parametrize("variant", VARIANTS)
def test_bytes_of_plain_models(variant: str) -> None:
    model = tiny(variant)
    shape = adapter_for(model).shape()
    read = {name: CHOSEN if ".experts." in name else 1 for name in model.model.layers.state_dict()}
    by_layer = [
        sum(4 * p.numel() * read[f"{i}.{name}"] for name, p in layer.state_dict().items())
        for i, layer in enumerate(model.model.layers)
    ]
    assert shape.layer_bytes == pytest.approx(by_layer)
    assert shape.head_bytes == 4 * shape.head_params
    attention = model.model.layers[0].self_attn
    projections = [getattr(attention, name, None) for name in ("k_proj", "v_proj")]
    bias = sum(4 * p.bias.numel() for p in projections if p is not None and p.bias is not None)
    assert shape.kv_weight_bytes == (4 * shape.kv_params + bias,) * LAYERS, attention
    with ds.attach(model, "constant:depth=4"):
        assert adapter_for(model).shape() == shape
    meta = adapter_for(copy.deepcopy(model).to("meta")).shape()
    assert meta == shape


@pytest.mark.quick
def test_fused_weights_are_not_counted_twice(model: Any) -> None:
    before = adapter_for(model).shape()
    for layer in model.model.layers:
        parts = [getattr(layer.self_attn, name).weight for name in ("q_proj", "k_proj", "v_proj")]
        whole, start = torch.cat([part.detach() for part in parts]), 0
        for part in parts:
            part.data, start = whole[start : start + len(part)], start + len(part)
    assert adapter_for(model).shape() == before


def quantised(model: Any, config: str, only: Any = None) -> Any:
    """A copy quantised by torchao, linear layers whose name ``only`` accepts."""
    ao = pytest.importorskip("torchao.quantization", reason="torchao is not installed: pip install torchao")
    model = copy.deepcopy(model)
    keep = {} if only is None else {"filter_fn": lambda m, name: isinstance(m, nn.Linear) and only(name)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao speaks of its own plans
        ao.quantize_(model, getattr(ao, config)(), **keep)
    return model


def decoded(model: Any, inputs: Any, plan: str, **kwargs: Any) -> tuple[ds.Run, int]:
    with reading(model) as seen:
        run = ds.generate(model, inputs, plan, max_new_tokens=9, backend="eager", do_sample=False, **kwargs)
    return run, seen.bytes


QUANTISED = ["Int8WeightOnlyConfig", "Float8WeightOnlyConfig"]


@pytest.mark.parametrize("config", QUANTISED)
@pytest.mark.parametrize("only", [None, lambda name: "mlp" in name, lambda name: name == "lm_head"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv", ["omit", "write"])
def test_a_saving_in_bytes_is_that_of_the_bytes_read(config: str, only: Any, tied: bool, kv: str) -> None:
    model = quantised(make_tiny("llama", tie_word_embeddings=tied, hidden_size=64, num_hidden_layers=12), config, only)
    inputs = prompt(1, 6)
    _, full = decoded(model, inputs, "full")
    run, scheduled = decoded(model, inputs, "constant:depth=5", skipped_kv=kv)
    assert full > scheduled > 0
    assert run.bytes_speedup == pytest.approx(full / scheduled, rel=0.01)


def test_a_model_of_which_some_layers_are_quantised() -> None:
    model = quantised(make_tiny("llama"), "Int8WeightOnlyConfig", lambda name: "layers.3." in name or "head" in name)
    shape = adapter_for(model).shape()
    layers = model.model.layers
    assert shape.layer_bytes == tuple(sum(map(weights_by_hand, layer.modules())) for layer in layers)
    assert shape.layer_bytes[3] < shape.layer_bytes[2] / 2
    run, scheduled = decoded(model, prompt(1, 6), "constant:depth=5")
    read = sum(shape.layer_bytes[i] for step in range(1, 9) for i in run.plan.keep(step)) + 8 * (shape.head_bytes or 0)
    kv = sum(5 * (6 + step) * shape.kv_values * shape.kv_bytes for step in range(1, 9))
    assert read + kv == pytest.approx(scheduled, rel=0.01)


@pytest.mark.parametrize("config", QUANTISED)
def test_a_quantised_model_runs_as_in_transformers(config: str) -> None:
    model, inputs = quantised(make_tiny("llama"), config), prompt(2, 6)
    expected = model.generate(**inputs, max_new_tokens=9, do_sample=False)
    run, _ = decoded(model, inputs, "full")
    assert torch.equal(run.sequences, expected)
    with ds.attach(model, "full"):
        assert torch.equal(model.generate(**inputs, max_new_tokens=9, do_sample=False), expected)
    run, _ = decoded(model, inputs, "constant:depth=4", skipped_kv="write")
    with ds.attach(model, "constant:depth=4", skipped_kv="write"):
        assert torch.equal(model.generate(**inputs, max_new_tokens=9, do_sample=False), run.sequences)
    assert adapter_for(model).dtype == torch.float32


@pytest.mark.slow
def test_the_saving_of_smollm2_in_int8(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    model = quantised(model, "Int8WeightOnlyConfig")
    inputs = tokenizer("Once upon a time", return_tensors="pt")
    run, full = decoded(model, inputs, "full")
    assert torch.equal(run.sequences, model.generate(**inputs, max_new_tokens=9, do_sample=False))
    run, scheduled = decoded(model, inputs, "constant:depth=20")
    assert run.bytes_speedup == pytest.approx(full / scheduled, rel=0.01)
    # The weights that 0.1.0 counted, all at the dtype of the head, would give another answer.
    layer = sum(map(weights_by_hand, model.model.layers[0].modules()))
    assert run.shape.layer_bytes == (layer,) * 30
    assert layer < 0.3 * run.shape.layer_params * run.shape.weight_bytes


def test_a_shape_is_that_of_the_weights_as_they_are_now() -> None:
    """It is remembered between runs; weights that are replaced, or given another dtype, are counted anew."""
    model = make_tiny("llama")
    before = adapter_for(model).shape()
    assert adapter_for(model).shape() is before
    model.half()
    halved = adapter_for(model).shape()
    assert halved.head_bytes == before.head_bytes / 2
    model.model.layers[3].mlp.up_proj = torch.nn.Identity()
    assert adapter_for(model).shape().layer_bytes[3] < halved.layer_bytes[3]
    assert adapter_for(make_tiny("llama")).shape() == before


def test_a_shape_follows_the_configuration() -> None:
    """A token that is sent to more experts reads more, also in a model whose weights are the same."""
    model = make_tiny("mixtral")
    before = adapter_for(model).shape()
    model.config.num_experts_per_tok = 4
    assert adapter_for(model).shape().layer_bytes[0] > before.layer_bytes[0]
