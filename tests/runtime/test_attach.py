"""An attachment comes off without a trace, and says what it cannot do."""

import threading

import pytest
import torch
from transformers import LogitsProcessorList

import depthsched as ds
from depthsched.errors import AttachError, CacheError, PlanError

from ..tiny import LAYERS, prompt, tiny
from .helpers import Capture, RaiseAt, UpAndDown, greedy

PLAN = ds.plan("d3:alpha=0.85,start=1", "early-exit", num_layers=LAYERS, horizon=12)


def snapshot(model):
    """Everything an attachment could leave behind."""
    with torch.no_grad():
        logits = model(**prompt(2, 5), use_cache=False).logits
    return {
        "keys": list(model.state_dict()),
        "attributes": {name: id(value) for name, value in model.__dict__.items()},
        "decoder": {name: id(value) for name, value in model.model.__dict__.items()},
        "modules": {name: id(module) for name, module in model.named_modules()},
        "list": type(model.model.layers),
        "generate": model.generate.__func__,
        "hooks": [
            (name, dict(hooks))
            for name, module in model.named_modules()
            for hooks in (module._forward_hooks, module._forward_pre_hooks)
            if hooks
        ],
        "config": model.config.to_json_string(),
        "generation": model.generation_config.to_json_string(),
        "logits": logits.tolist(),
    }


class Own(Exception):
    pass


@pytest.mark.quick
@pytest.mark.parametrize("spec", ["d3:alpha=0.85", "confidence:depth=5,margin=0.02"])
@pytest.mark.parametrize("error", [None, Own("mine"), KeyboardInterrupt()], ids=["success", "exception", "interrupt"])
@pytest.mark.parametrize("way", ["attach", "generate"])
def test_no_trace_is_left(model, way, error, spec):
    before, tokens = snapshot(model), greedy(model, prompt(2, 5))
    processors = LogitsProcessorList([RaiseAt(4, error)] if error else [])

    def run():
        if way == "generate":
            ds.generate(model, prompt(2, 5), spec, max_new_tokens=8, logits_processor=processors)
        else:
            with ds.attach(model, spec):
                assert list(model.state_dict()) == before["keys"]
                greedy(model, prompt(2, 5), logits_processor=processors)

    if error is None:
        run()
    else:
        with pytest.raises(type(error)):
            run()
    assert snapshot(model) == before
    assert torch.equal(greedy(model, prompt(2, 5)), tokens)


@pytest.mark.quick
def test_an_error_inside_generate_leaves_the_attachment_usable(model):
    with ds.attach(model, PLAN) as attached:
        expected = greedy(model, prompt(1, 5))
        with pytest.raises(Own):
            greedy(model, prompt(1, 5), logits_processor=LogitsProcessorList([RaiseAt(3, Own())]))
        assert torch.equal(greedy(model, prompt(1, 5)), expected)
        assert attached.trace.depths == list(PLAN.depths[:8])


@pytest.mark.quick
def test_what_a_user_put_on_the_instance_comes_back(model):
    calls = []
    original = model.generate

    def mine(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    model.generate = mine
    with ds.attach(model, PLAN) as attached:
        greedy(model, prompt(1, 5))
    assert model.generate is mine
    assert calls == [1]
    assert attached.trace.depths == list(PLAN.depths[:8])


@pytest.mark.quick
def test_attachments_follow_each_other(model):
    expected = [ds.generate(model, prompt(1, 5), p, max_new_tokens=8).sequences for p in ("full", PLAN)]
    attached = ds.attach(model, PLAN)
    for _ in range(2):
        assert torch.equal(greedy(model, prompt(1, 5)), expected[0])
        with attached:
            assert torch.equal(greedy(model, prompt(1, 5)), expected[1])
            assert torch.equal(greedy(model, prompt(1, 5)), expected[1])


@pytest.mark.quick
def test_a_forward_outside_generate_runs_at_full_depth(model):
    with torch.no_grad():
        full = model(**prompt(1, 5)).logits
        with ds.attach(model, PLAN):
            assert torch.equal(model(**prompt(1, 5)).logits, full)
            greedy(model, prompt(1, 5))
            assert torch.equal(model(**prompt(1, 5)).logits, full)


@pytest.mark.quick
def test_a_second_attach_is_refused(model):
    with ds.attach(model, PLAN):
        with pytest.raises(AttachError, match="already runs a plan"), ds.attach(model, "full"):
            pass
        with pytest.raises(AttachError, match="already runs a plan"):
            ds.generate(model, prompt(1, 3), "full", max_new_tokens=2)
        assert greedy(model, prompt(1, 5)).shape == (1, 13)


@pytest.mark.quick
def test_one_attachment_entered_twice_is_refused_and_comes_off(model):
    before, attached = snapshot(model), ds.attach(model, PLAN)
    with attached, pytest.raises(AttachError), attached:
        pass
    assert snapshot(model) == before


class Wait(Capture):
    """Stops generate in its first step until told to go on."""

    def __init__(self):
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self, input_ids, scores):
        self.reached.set()
        assert self.go_on.wait(60)
        return super().__call__(input_ids, scores)


@pytest.mark.quick
def test_two_threads_on_one_attached_model(model):
    expected = ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8).sequences
    wait, results = Wait(), []
    with ds.attach(model, PLAN):
        thread = threading.Thread(
            target=lambda: results.append(greedy(model, prompt(1, 5), logits_processor=LogitsProcessorList([wait])))
        )
        thread.start()
        try:
            assert wait.reached.wait(60)
            with pytest.raises(AttachError, match="another thread"):
                greedy(model, prompt(1, 5))
        finally:
            wait.go_on.set()
            thread.join(60)
    assert torch.equal(results[0], expected)


@pytest.mark.quick
def test_two_threads_in_the_own_loop(model):
    expected = ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8).sequences
    wait, results = Wait(), []
    thread = threading.Thread(
        target=lambda: results.append(
            ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8, logits_processor=[wait]).sequences
        )
    )
    thread.start()
    try:
        assert wait.reached.wait(60)
        with pytest.raises(AttachError, match="another thread"):
            ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=8)
    finally:
        wait.go_on.set()
        thread.join(60)
    assert torch.equal(results[0], expected)


@pytest.mark.quick
def test_without_a_cache_there_is_no_plan(model):
    with ds.attach(model, PLAN), pytest.raises(CacheError, match="use_cache"):
        greedy(model, prompt(1, 5), use_cache=False)
    with pytest.raises(CacheError, match="use_cache"):
        ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=4, use_cache=False)


@pytest.mark.quick
@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 2}, {"assistant_early_exit": 2}])
def test_speculation_is_refused(model, options):
    with ds.attach(model, PLAN), pytest.raises(AttachError, match=next(iter(options))):
        greedy(model, prompt(1, 5), **options)


@pytest.mark.quick
def test_an_assistant_is_refused(model):
    with ds.attach(model, PLAN), pytest.raises(AttachError, match="assistant_model"):
        greedy(model, prompt(1, 5), assistant_model=tiny("llama"))


@pytest.mark.quick
def test_speculation_set_on_the_model_is_refused(model):
    model.generation_config.prompt_lookup_num_tokens = 2
    with ds.attach(model, PLAN), pytest.raises(AttachError):
        greedy(model, prompt(1, 5))


@pytest.mark.quick
def test_plans_that_do_not_fit(model):
    rises = ds.plan(UpAndDown(), num_layers=LAYERS)
    other = ds.plan("full", num_layers=LAYERS + 1)
    for call in (lambda: ds.attach(model, other), lambda: ds.generate(model, prompt(1, 3), other)):
        with pytest.raises(PlanError, match="9 layers and the model has 8"):
            call()
    for call in (
        lambda: ds.attach(model, rises, skipped_kv="omit"),
        lambda: ds.generate(model, prompt(1, 3), rises, skipped_kv="omit"),
    ):
        with pytest.raises(PlanError, match="not nested"):
            call()
    with pytest.raises(PlanError, match="order already"):
        ds.attach(model, PLAN, order="strided")
