"""torchao's weight-only tensors, read exactly."""

from typing import Any

import pytest
import torch
from torch import nn

from depthsched.blocks.torchao import int4_groups, int8_rows

quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed: pip install torchao")


def quantised(config: Any, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(64, 24, bias=False)).to(dtype)
    quantization.quantize_(layer, config)
    return layer[0].weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_int8_is_exact(dtype: torch.dtype) -> None:
    weight = quantised(quantization.Int8WeightOnlyConfig(), dtype)
    found = int8_rows(weight)
    assert found is not None
    quants, scales = found
    assert (quants.dtype, scales.dtype, tuple(scales.shape)) == (torch.int8, torch.float32, (24,))
    assert torch.equal((quants * scales[:, None]).to(dtype), weight.dequantize())
    assert int4_groups(weight) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mapping", ["SYMMETRIC", "ASYMMETRIC"])
def test_int4_is_exact(dtype: torch.dtype, mapping: str) -> None:
    granularity, kind = quantization.PerGroup(32), getattr(quantization.MappingType, mapping)
    config = quantization.IntxWeightOnlyConfig(torch.int4, granularity=granularity, mapping_type=kind)
    weight = quantised(config, dtype)
    found = int4_groups(weight)
    assert found is not None
    quants, scales, zeros = found
    assert tuple(scales.shape) == tuple(zeros.shape) == (24, 2)
    values = (quants.view(24, 2, 32).float() - zeros[..., None]) * scales[..., None]
    assert torch.equal(values.view(24, 64).to(dtype), weight.dequantize())
    assert int8_rows(weight) is None


def test_other_tensors_are_left_alone() -> None:
    others = [
        torch.zeros(8, 32),
        quantised(quantization.Int8WeightOnlyConfig(granularity=quantization.PerGroup(32)), torch.float32),
        quantised(quantization.Int8WeightOnlyConfig(granularity=quantization.PerTensor()), torch.float32),
        quantised(quantization.Int8DynamicActivationInt8WeightConfig(), torch.float32),
        quantised(quantization.IntxWeightOnlyConfig(torch.int3, granularity=quantization.PerGroup(32)), torch.float32),
    ]
    for weight in others:
        assert int8_rows(weight) is None
        assert int4_groups(weight) is None
