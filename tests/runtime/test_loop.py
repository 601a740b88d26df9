"""Looking at tokens several steps at a time changes nothing but when the loop looks."""

from typing import Any

import pytest
import torch
from transformers import StoppingCriteria

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.runtime.eager import EagerBackend
from depthsched.runtime.loop import DecodeLoop

from ..covering import covering
from ..tiny import LAYERS, prompt, tiny

PLAN = ds.plan("d3:alpha=0.95,start=2", num_layers=LAYERS, horizon=24)


class Counts(EagerBackend):
    """Counts the steps that were run."""

    steps = 0

    def prefill(self, *args: Any) -> Any:
        logits, decoder = super().prefill(*args)
        step = decoder.step

        def counted(tokens: torch.Tensor, depth: int) -> torch.Tensor:
            self.steps += 1
            return step(tokens, depth)

        decoder.step = counted  # type: ignore[method-assign]
        return logits, decoder


def run(stride: int, batch: int = 1, **options: Any) -> tuple[list[list[int]], DecodeLoop, int]:
    model = tiny("llama")
    torch.manual_seed(3)
    with Counts(adapter_for(model), PLAN) as backend:
        loop = DecodeLoop(backend, PLAN, stride=stride)
        out = type(model).generate(
            model, **prompt(batch, 6), max_new_tokens=24, pad_token_id=0, custom_generate=loop, **options
        )
    return out.tolist(), loop, backend.steps


def stops(batch: int, at: list[int], **options: Any) -> list[int]:
    """End tokens with which the rows stop about there."""
    free, _, _ = run(1, batch, eos_token_id=None, **options)
    return [row[-24 + place] for row, place in zip(free, at, strict=True)]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("stride", "sample", "at"), covering((2, 5, 8, 40), (False, True), ([9], [0], [23], [4, 14, 11]))
)
def test_a_longer_stride_gives_the_same_run(stride: int, sample: bool, at: list[int]) -> None:
    options: dict[str, Any] = {"do_sample": sample}
    options["eos_token_id"] = stops(len(at), at, **options)
    tokens, loop, steps = run(1, len(at), **options)
    late_tokens, late, late_steps = run(stride, len(at), **options)
    assert late_tokens == tokens
    assert late.trace.depths == loop.trace.depths
    assert [s.tokens for s in late.trace.steps] == [s.tokens for s in loop.trace.steps]
    assert steps <= late_steps < steps + stride
    assert all(s.seconds > 0 for s in late.trace.steps)


@pytest.mark.quick
def test_without_an_end_token_the_length_ends_it() -> None:
    assert run(7, eos_token_id=None)[2] == run(1, eos_token_id=None)[2] == 23


@pytest.mark.quick
def test_a_criterion_of_the_callers_is_asked_at_every_step() -> None:
    """It may count, or look at the clock: no step may run behind its word."""

    class AfterFive(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 11)

    assert run(8, stopping_criteria=[AfterFive()])[2] == 4
