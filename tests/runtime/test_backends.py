"""The fast backends give the tokens of the eager one, leave the model as it was, and say when they cannot run it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers.cache_utils import DynamicCache

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.errors import AttachError, PlanError, ScheduleError
from depthsched.runtime.compiled import fuse
from depthsched.runtime.native import NativeBackend
from depthsched.runtime.plain import why_not

from ..tiny import LAYERS, MAIN, make_tiny, prompt, tiny

compiles = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler: install g++"
)
PLANS = (
    "full",
    "d3:alpha=0.98,start=4",
    "linear:end=3,over=30@early-exit",
    "step:at=8+16,drop=2+5@strided",
    "constant:depth=5@list:layers=1+4+6",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other at every small step crawl on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokens(model: Any, plan: Any, backend: str, batch: int = 1, n: int = 24, **kwargs: Any) -> ds.Run:
    kwargs.setdefault("do_sample", False)
    return ds.generate(model, prompt(batch, 6), plan, max_new_tokens=n, backend=backend, **kwargs)


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("variant", MAIN)
def test_tokens_and_logits_of_the_eager_backend(variant: str) -> None:
    model = make_tiny(variant)
    for plan in PLANS:
        eager = tokens(model, plan, "eager")
        fast = tokens(model, plan, "compiled")
        assert fast.trace.backend == "compiled"
        assert fast.tokens.tolist() == eager.tokens.tolist(), plan
        assert fast.trace.depths == eager.trace.depths


@compiles
@pytest.mark.slow
def test_ragged_batch_equals_its_rows_and_the_eager_backend() -> None:
    model, inputs = make_tiny("qwen3"), prompt(3, 6)
    plan = ds.plan("d3:alpha=0.98", num_layers=LAYERS, horizon=16)
    batch = ds.generate(model, inputs, plan, max_new_tokens=16, backend="compiled", do_sample=False)
    assert (batch.trace.backend, batch.trace.reason) == ("compiled", "asked for")
    eager = ds.generate(model, inputs, plan, max_new_tokens=16, backend="eager", do_sample=False)
    assert batch.tokens.tolist() == eager.tokens.tolist()
    for row in range(3):
        kept = inputs["attention_mask"][row].bool()
        alone = inputs["input_ids"][row][kept][None]
        one = ds.generate(model, alone, plan, max_new_tokens=16, backend="compiled", do_sample=False)
        assert one.tokens[0].tolist() == batch.tokens[row].tolist()


@compiles
@pytest.mark.parametrize("dtype", [torch.float32])
def test_logits_agree_step_by_step(dtype: torch.dtype) -> None:
    model = make_tiny("llama", dtype=dtype)
    plan = ds.plan("d3:alpha=0.9", num_layers=LAYERS, horizon=10)
    seen: dict[str, list[torch.Tensor]] = {}
    for backend in ("eager", "compiled"):
        run = tokens(model, plan, backend, n=10, logits_processor=[_Recorder(seen.setdefault(backend, []))])
        assert run.trace.backend == backend
    for a, b in zip(seen["eager"], seen["compiled"], strict=True):
        assert (a - b).abs().max() <= 1e-3 * a.abs().max()


@compiles
@pytest.mark.slow
def test_tokens_of_the_embedded_model(smollm2: tuple[Any, Any]) -> None:
    model, tokenizer = smollm2
    turn = [{"role": "user", "content": "Why is the sky blue?"}]
    inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    for plan in ("full", "d3:alpha=0.98"):
        runs = [
            ds.generate(model, inputs, plan, max_new_tokens=16, do_sample=False, backend=backend)
            for backend in ("eager", "compiled")
        ]
        assert runs[1].trace.backend == "compiled"
        assert runs[0].tokens.tolist() == runs[1].tokens.tolist()


class _Recorder:
    def __init__(self, seen: list[torch.Tensor]) -> None:
        self.seen = seen

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.seen.append(scores.clone())
        return scores


@compiles
def test_sampling_draws_the_same_tokens() -> None:
    model = make_tiny("llama")
    drawn = []
    for backend in ("eager", "compiled"):
        torch.manual_seed(7)
        drawn.append(tokens(model, "constant:depth=6", backend, do_sample=True, temperature=2.0).tokens.tolist())
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0][0])) > 3


@compiles
@pytest.mark.slow
def test_skipped_layers_write_kv_for_an_adaptive_plan() -> None:
    model = make_tiny("qwen2")
    plan = ds.plan("confidence:depth=4", num_layers=LAYERS, horizon=24)
    assert plan.adaptive
    eager, fast = tokens(model, plan, "eager"), tokens(model, plan, "compiled")
    assert fast.trace.backend == "compiled"
    assert fast.wrote_kv
    assert fast.trace.depths == eager.trace.depths
    assert fast.tokens.tolist() == eager.tokens.tolist()
    written = tokens(model, "constant:depth=4", "compiled", skipped_kv="write")
    assert written.tokens.tolist() == tokens(model, "constant:depth=4", "eager").tokens.tolist()


@compiles
def test_a_cache_that_grows_in_a_long_run() -> None:
    model = make_tiny("llama", max_position_embeddings=2048)
    for plan in ("full", "d3:alpha=0.999"):
        long = tokens(model, plan, "compiled", n=600)  # the buffers begin with room for 256
        assert long.tokens.tolist() == tokens(model, plan, "eager", n=600).tokens.tolist()


@compiles
def test_the_model_after_a_run_is_the_model_before_it(tmp_path: Any) -> None:
    model = make_tiny("qwen2")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    parameters = dict(model.named_parameters())
    first = tokens(model, "d3", "compiled")
    assert all(parameters[k] is p for k, p in model.named_parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in again.state_dict().items())
    assert tokens(again, "d3", "compiled").tokens.tolist() == first.tokens.tolist()
    with torch.no_grad():  # views or not, changing a weight changes the next run
        model.model.layers[0].self_attn.k_proj.weight.mul_(-3)
    assert tokens(model, "d3", "compiled").tokens.tolist() == tokens(model, "d3", "eager").tokens.tolist()


def test_fused_weights_hold_no_second_copy() -> None:
    model = make_tiny("qwen3")
    fuse(adapter_for(model))
    attention = model.model.layers[3].self_attn
    buffer = attention.q_proj.weight.untyped_storage()
    assert buffer.data_ptr() == attention.v_proj.weight.untyped_storage().data_ptr()
    rows = sum(p.weight.shape[0] for p in (attention.q_proj, attention.k_proj, attention.v_proj))
    assert buffer.nbytes() == rows * 32 * 4
    fuse(adapter_for(model))  # a second run finds the views
    assert attention.q_proj.weight.untyped_storage().data_ptr() == buffer.data_ptr()


@compiles
@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError, ValueError])
def test_a_run_that_fails_leaves_the_next_one_intact(error: type[BaseException]) -> None:
    model = make_tiny("llama")
    expected = tokens(model, "d3", "compiled").tokens.tolist()
    layers = model.model.layers

    class Fails:
        calls = 0

        def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls == 5:
                raise error("stop")
            return scores

    with pytest.raises(error):
        tokens(model, "d3", "compiled", logits_processor=[Fails()])
    assert model.model.layers is layers
    assert tokens(model, "d3", "compiled").tokens.tolist() == expected
    assert tokens(model, "d3", "eager").tokens.tolist() == expected


@compiles
@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_a_schedule_that_raises_in_the_middle_leaves_the_model_intact(backend: str) -> None:
    @dataclass(frozen=True)
    class Breaks(ds.AdaptiveSchedule):
        def depth(self, step: Any, num_layers: int) -> Any:
            return num_layers - 2

        def decide(self, step: int, num_layers: int, signals: Any) -> Any:
            if step == 5:
                raise ZeroDivisionError("of the plug-in")
            return num_layers - 2

    model = make_tiny("llama")
    layers, expected = model.model.layers, tokens(model, "d3", backend).tokens.tolist()
    with pytest.raises(ScheduleError, match="ZeroDivisionError: of the plug-in"):
        tokens(model, Breaks(), backend)
    assert model.model.layers is layers
    assert tokens(model, "d3", backend).tokens.tolist() == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.train(), "training mode"),
        (lambda m: m.model.layers[2].mlp.register_forward_hook(lambda *a: None), "forward hooks"),
        (lambda m: setattr(m.model.layers[1].self_attn, "q_proj", _Lora(32, 32)), "_Lora"),
        (lambda m: m.model.layers[1].double(), "several devices or dtypes"),
        (lambda m: setattr(m.model.layers[4].mlp, "forward", m.model.layers[4].mlp.forward), "forward replaced"),
    ],
)
def test_what_a_compiled_step_does_not_compute_runs_in_eager_and_says_so(change: Any, words: str) -> None:
    model = make_tiny("llama")
    change(model)
    weights = {name: p.data_ptr() for name, p in model.named_parameters()}
    assert words in str(why_not(adapter_for(model), 32))
    if words != "several devices or dtypes":
        run = tokens(model, "constant:depth=6", "compiled", n=3)
        assert run.trace.backend == "eager"
        assert words in run.trace.reason
        assert {name: p.data_ptr() for name, p in model.named_parameters()} == weights  # nothing was fused for it


@pytest.mark.parametrize("asked", ["output_hidden_states", "output_attentions"])
def test_what_transformers_leaves_on_a_model_it_asked_for_states_costs_nothing(asked: str) -> None:
    model = make_tiny("llama", "eager")
    before = tokens(model, "constant:depth=6", "compiled", n=4)
    with torch.no_grad():
        model(torch.tensor([[1, 2, 3]]), **{asked: True})
    assert any(module._forward_hooks for module in model.modules())
    after = tokens(model, "constant:depth=6", "compiled", n=4)
    assert after.trace.backend == before.trace.backend == "compiled"
    assert after.tokens.tolist() == before.tokens.tolist()


def test_a_report_says_why_it_was_eager_unless_one_asked_for_that() -> None:
    model = make_tiny("llama")
    assert "backend eager\n" in tokens(model, "constant:depth=6", "eager", n=3).report()
    model.model.layers[0].register_forward_pre_hook(lambda *a: None)
    for name in ("auto", "compiled"):
        assert (
            "backend eager (the model's own layers run: layers.0 has forward hooks)"
            in tokens(model, "constant:depth=6", name, n=3).report()
        )


class _Lora(torch.nn.Linear):
    pass


@pytest.mark.parametrize("variant", ["olmo2", "phi3", "granite", "smollm3", "mistral-sliding"])
def test_other_families_run_in_eager_and_say_so(variant: str) -> None:
    run = tokens(tiny(variant), "constant:depth=6", "compiled", n=3)
    assert run.trace.backend == "eager"
    assert "own layers run" in run.trace.reason


def test_auto_says_why() -> None:
    run = tokens(make_tiny("llama", hidden_size=48), "full", "auto", n=4)
    assert run.trace.backend == "eager"
    assert "the heads are 12 wide" in run.trace.reason
    assert run.to_json()["backend_reason"] == run.trace.reason


def test_a_cache_of_the_callers_is_filled_by_eager() -> None:
    cache = DynamicCache()
    run = tokens(make_tiny("llama"), "full", "compiled", n=3, past_key_values=cache)
    assert run.trace.backend == "eager"
    assert cache.get_seq_length() == 8


def test_refusals_are_one_line() -> None:
    model = make_tiny("llama")
    with pytest.raises(PlanError, match="unknown backend 'fast'"):
        tokens(model, "full", "fast")
    if not torch.cuda.is_available():
        with pytest.raises(PlanError, match="needs a model on a CUDA device"):
            tokens(model, "full", "cuda-graph")


@compiles
def test_an_attached_model_is_refused() -> None:
    model = make_tiny("llama")
    adapter = adapter_for(model)
    backend = NativeBackend(adapter, ds.plan("full", num_layers=LAYERS))
    with ds.attach(model, ds.plan("full", num_layers=LAYERS)), pytest.raises(AttachError), backend:
        pass
    assert tokens(model, "full", "compiled", n=3).trace.backend == "compiled"
