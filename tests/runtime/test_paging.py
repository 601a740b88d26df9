"""Weights in a mapped file: what fusing replaces stops counting as memory, and nothing is lost."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from depthsched.adapters import adapter_for
from depthsched.runtime.compiled import fuse
from depthsched.runtime.compiled.paging import clean_mapping, forget

from ..tiny import make_tiny

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def mapped(tmp_path: Path) -> Any:
    """A model that transformers loaded from a file; wide enough for a weight to hold whole pages."""
    make_tiny("llama", hidden_size=256, head_dim=32).save_pretrained(tmp_path)
    return AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()


def resident(tensor: torch.Tensor) -> int:
    """Pages of the mapping of a tensor that count as this process's memory, in bytes."""
    address, inside = tensor.data_ptr(), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(part, 16) for part in first.split("-"))
            inside = low <= address < high
        elif inside and line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("not mapped")


def test_replaced_weights_stop_counting_and_still_read_the_same(mapped: Any) -> None:
    held = {name: value.detach() for name, value in mapped.state_dict().items()}  # views of the file
    copies = {name: value.clone() for name, value in held.items()}  # touches every page
    query = held["model.layers.0.self_attn.q_proj.weight"]
    assert clean_mapping(query) is not None
    before = resident(query)
    fuse(adapter_for(mapped))
    assert resident(query) < before
    assert all(torch.equal(value, copies[name]) for name, value in mapped.state_dict().items())
    assert all(torch.equal(value, copies[name]) for name, value in held.items())


def test_a_mapping_that_was_written_to_is_left_alone(mapped: Any) -> None:
    weights = {name: value.detach() for name, value in mapped.state_dict().items()}
    query = weights["model.layers.2.self_attn.q_proj.weight"]
    with torch.no_grad():
        query.mul_(3)
    wanted = query.clone()
    assert clean_mapping(query) is None
    fuse(adapter_for(mapped))
    assert torch.equal(query, wanted)
    assert torch.equal(mapped.model.layers[2].self_attn.q_proj.weight, wanted)


def test_memory_that_is_no_file_is_none_of_its_business() -> None:
    tensor = torch.full((300_000,), 7.0)
    assert clean_mapping(tensor) is None
    forget(tensor, None)
    assert bool((tensor == 7).all())
