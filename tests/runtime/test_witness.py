"""No way in runs without the plan and says nothing."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import DynamicCache, GenerationConfig

import depthsched as ds
from depthsched.errors import AttachError, CacheError, DepthschedError, PlanError

from ..tiny import LAYERS, VOCAB, make_tiny, prompt
from .helpers import greedy

pytestmark = pytest.mark.quick
PLAN = ds.plan("constant:depth=5", num_layers=LAYERS, horizon=12)


def by_hand(model: Any, steps: int = 3) -> None:
    """A decode loop of the caller's own."""
    ids, cache = prompt(1, 5)["input_ids"], DynamicCache()
    for _ in range(steps):
        out = model(ids, past_key_values=cache, use_cache=True)
        ids = out.logits[:, -1:].argmax(-1)


@torch.no_grad()
def test_a_loop_of_the_callers_own_is_named(model: Any) -> None:
    by_hand(model)
    with ds.attach(model, PLAN), pytest.raises(AttachError, match=r"from .*by_hand.*outside of generate"):
        by_hand(model)
    by_hand(model)


@torch.no_grad()
def test_a_whole_text_at_once_is_no_decode_step(model: Any) -> None:
    inputs, cache = prompt(2, 5), DynamicCache()
    full = model(**inputs).logits
    with ds.attach(model, PLAN):
        assert torch.equal(model(**inputs).logits, full)
        assert torch.equal(model(**inputs, past_key_values=cache).logits, full)
        model(inputs["input_ids"], past_key_values=cache)  # a second turn is a prefill too


@torch.no_grad()
def test_a_loop_in_another_thread_is_named(model: Any) -> None:
    said: list[BaseException] = []

    def run() -> None:
        try:
            with torch.no_grad():
                by_hand(model)
        except AttachError as error:
            said.append(error)

    with ds.attach(model, PLAN):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(60)
    assert "no plan chose a depth" in str(said[0])


def test_continuous_batching_is_refused(model: Any) -> None:
    rows = [[3, 4, 5], [6, 7]]
    with ds.attach(model, PLAN):
        with pytest.raises(AttachError, match="continuous batching"):
            model.generate_batch(rows, generation_config=GenerationConfig(max_new_tokens=3))
        with pytest.raises(AttachError, match="continuous batching"):
            model.init_continuous_batching()
        with (
            pytest.raises(AttachError, match="continuous batching"),
            model.continuous_batching_context_manager(generation_config=GenerationConfig(max_new_tokens=3)),
        ):
            pass
        with pytest.raises(AttachError, match="continuous batching"):
            greedy(model, prompt(1, 5), 3, cache_implementation="paged")
    assert "init_continuous_batching" not in vars(model)


def test_a_packed_pass_of_a_manager_made_before_is_an_error(model: Any) -> None:
    """Continuous batching hands its own cache to the layers, and none to the model."""
    with ds.attach(model, PLAN), torch.no_grad(), pytest.raises(AttachError, match="no plan chose a depth"):
        model(prompt(1, 5)["input_ids"], use_cache=False, cache=object())


def test_a_decode_loop_that_goes_around_the_layer_list_is_an_error(model: Any) -> None:
    """generate made tokens and no step of it was planned."""

    def own_loop(inner: Any, input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.cat([input_ids, input_ids[:, :3]], dim=1)

    with ds.attach(model, PLAN), pytest.raises(AttachError, match="made 3 tokens and no step"):
        greedy(model, prompt(1, 5), 3, custom_generate=own_loop)


def test_a_decode_loop_of_the_callers_inside_generate_is_planned(model: Any) -> None:
    def own_loop(inner: Any, input_ids: torch.Tensor, generation_config: Any, **kwargs: Any) -> torch.Tensor:
        cache = kwargs["past_key_values"]
        inner._prefill(input_ids, generation_config, {"past_key_values": cache, "use_cache": True})
        for _ in range(3):
            input_ids = torch.cat([input_ids, input_ids[:, :1]], dim=1)
            inner(input_ids[:, -1:], past_key_values=cache, use_cache=True)
        return input_ids

    with ds.attach(model, PLAN) as attached, torch.no_grad():
        greedy(model, prompt(1, 5), 3, custom_generate=own_loop)
    assert attached.trace is not None
    assert attached.trace.depths == [LAYERS, 5, 5, 5]


def test_a_mode_that_feeds_several_tokens_is_named(model: Any) -> None:
    def several(inner: Any, input_ids: torch.Tensor, generation_config: Any, **kwargs: Any) -> torch.Tensor:
        cache = kwargs["past_key_values"]
        inner._prefill(input_ids, generation_config, {"past_key_values": cache, "use_cache": True})
        inner(input_ids[:, :2], past_key_values=cache, use_cache=True)
        return input_ids

    with ds.attach(model, PLAN), pytest.raises(AttachError, match=r"from .*several: it feeds 2 tokens"):
        greedy(model, prompt(1, 5), 3, custom_generate=several)


def attached(model: Any, ids: torch.Tensor, tokens: int) -> Any:
    with ds.attach(model, "constant:depth=5"):
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False)


def ours(model: Any, ids: torch.Tensor, tokens: int) -> Any:
    return ds.generate(model, ids, "constant:depth=5", max_new_tokens=tokens, do_sample=False).sequences


@pytest.mark.parametrize("run", [attached, ours])
@pytest.mark.parametrize("bad", [VOCAB, VOCAB + 7, -1])
def test_token_ids_outside_the_vocabulary(model: Any, run: Callable[..., Any], bad: int) -> None:
    ids = prompt(1, 5)["input_ids"].clone()
    ids[0, 3] = bad
    with pytest.raises(PlanError, match=rf"token id {bad} is not in the model's vocabulary of {VOCAB}"):
        run(model, ids, 3)


@pytest.mark.parametrize("run", [attached, ours])
def test_more_text_than_the_model_has_positions(run: Callable[..., Any]) -> None:
    model = make_tiny("llama", max_position_embeddings=16)
    ids = torch.ones(1, 12, dtype=torch.long) * 5
    with pytest.raises(PlanError, match="has 17 tokens and the model 16 positions"):
        run(model, torch.ones(1, 17, dtype=torch.long), 2)
    assert run(model, ids, 4).shape[1] == 16
    with pytest.warns(UserWarning, match="18 tokens and the model has 16 positions"):
        run(model, ids, 6)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"position_ids": torch.arange(5)[None]}, "does not take position_ids in its inputs"),
        ({"token_type_ids": torch.ones(1, 5)}, "does not take token_type_ids in its inputs"),
        ({"attention_mask": torch.ones(1, 4)}, r"attention_mask has shape \[1, 4\]"),
    ],
)
def test_inputs_that_would_be_ignored(model: Any, extra: Any, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        ds.generate(model, {**prompt(1, 5), **extra}, PLAN, max_new_tokens=3)


def test_token_types_that_say_nothing_are_no_matter(model: Any) -> None:
    types = torch.zeros(1, 5, dtype=torch.long)
    assert ds.generate(model, {**prompt(1, 5), "token_type_ids": types}, PLAN, max_new_tokens=3).tokens.shape == (1, 3)


def test_every_refusal_is_one_line(model: Any) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: ds.generate(model, prompt(1, 5), PLAN, dola_layers="low"),
        lambda: ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=3, use_cache=False),
        lambda: ds.generate(model, [1, 2], PLAN),
    ]
    for call in calls:
        with pytest.raises((DepthschedError, CacheError)) as caught:
            call()
        assert "\n" not in str(caught.value)
