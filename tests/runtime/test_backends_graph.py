"""The cuda-graph backend: on the CPU under a double of the capture, on a GPU for real."""

import dataclasses
import functools
import gc
import weakref
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bridge import Bridge
from depthsched.errors import SettingsError
from depthsched.runtime.compiled import engine as engines
from depthsched.runtime.compiled import fuse, kernels, release, step
from depthsched.runtime.compiled.capture import CudaCapture, SharedPool
from depthsched.runtime.compiled.graphs import WHOLE_STEP
from depthsched.runtime.compiled.kernels import Kernels
from depthsched.runtime.compiled.kv import bucket, room

from ..tiny import LAYERS, MAIN, make_tiny, prompt
from .capture_double import CaptureError, opaque
from .engines import plain_kernels, run_eager, run_graphs, store_of
from .helpers import RaiseAt, UpAndDown
from .test_backends import compiles


class _Bridged(ds.DepthPlan):
    """A plan with made-up bridges."""

    def __init__(self, plan: ds.DepthPlan, seed: int) -> None:
        super().__init__(**{f.name: getattr(plan, f.name) for f in dataclasses.fields(plan) if f.init})
        g = torch.Generator().manual_seed(seed)
        rows: dict[int, dict[int, Bridge]] = {}
        for depth, kept in plan.keep_sets.items():
            gaps = [i for i in range(1, LAYERS + 1) if i - 1 not in kept and (i == LAYERS or i in kept)]
            rows[depth] = {
                i: Bridge(torch.randn(32, 32, generator=g) * 0.2, torch.randn(32, generator=g)) for i in gaps
            }
        self.__dict__["bridges"] = rows


def deep_plan(steps: int, **changes: Any) -> ds.DepthPlan:
    return ds.plan("linear:end=2,over=40", num_layers=changes.pop("layers", LAYERS), horizon=steps, **changes)


@pytest.mark.slow
def test_two_hundred_runs_capture_once_per_layer_and_bucket() -> None:
    layers, steps = 22, 24
    model = make_tiny("llama", num_hidden_layers=layers)
    plans = [
        ds.plan("linear:end=3,over=20", num_layers=layers, horizon=steps, order=o) for o in ("strided", "early-exit")
    ]
    assert len(plans[0].keep_sets) >= 20
    expected = [run_eager(model, prompt(1, 6), plan, steps) for plan in plans]
    for number in range(200):
        plan = plans[number % 2]
        whole = number % 50 < 2  # most runs only begin: what is captured is what counts
        tokens = run_graphs(model, prompt(1, 6), plan, steps if whole else 3, max_tokens=6 + steps)
        assert tokens[0] == expected[number % 2][0][: len(tokens[0])]
    store = store_of(model)
    assert store.captures["layer"] <= layers * 1  # 30 tokens are one bucket
    assert store.captures == {"begin": 1, "head": 1, "layer": layers}
    assert store.capture.replays > 200 * layers  # type: ignore[attr-defined]


@pytest.mark.parametrize("variant", MAIN)
def test_ragged_batches_give_the_tokens_of_eager(variant: str) -> None:
    model = make_tiny(variant)
    for batch in (3, 1, 3):
        plan = deep_plan(30)
        assert run_graphs(model, prompt(batch, 6), plan, 30) == run_eager(model, prompt(batch, 6), plan, 30)


def test_bridges_of_any_plan_use_the_same_graphs() -> None:
    model = make_tiny("llama")
    plans = [_Bridged(deep_plan(30), seed) for seed in (1, 2)]
    plans.append(_Bridged(ds.plan("constant:depth=5@strided", num_layers=LAYERS, horizon=30), 3))
    for plan in (*plans, *plans):
        assert run_graphs(model, prompt(2, 6), plan, 30) == run_eager(model, prompt(2, 6), plan, 30)
    most = max(sum(map(len, plan.bridges.values())) for plan in plans)
    assert store_of(model).captures["bridge"] <= most
    assert store_of(model).captures["layer"] <= LAYERS


@pytest.mark.parametrize("bridged", [False, True])
def test_skipped_layers_write_kv(bridged: bool) -> None:
    model = make_tiny("qwen3")
    plan = ds.plan(UpAndDown(), num_layers=LAYERS, horizon=20)
    plan = _Bridged(plan, 1) if bridged else plan
    assert not plan.nested
    got = run_graphs(model, prompt(2, 6), plan, 20, write_kv=True)
    assert got == run_eager(model, prompt(2, 6), plan, 20, skipped_kv="write")
    assert store_of(model).captures["write"] <= LAYERS


def test_contexts_buckets_and_buffers_that_grow() -> None:
    model = make_tiny("llama", max_position_embeddings=1024)
    plan = deep_plan(150)
    expected = run_eager(model, prompt(1, 6), plan, 150)
    assert run_graphs(model, prompt(1, 6), plan, 150) == expected
    store = store_of(model)
    assert store.captures["layer"] <= LAYERS * 2  # 128 and 256
    before = store.captures.copy()
    assert run_graphs(model, prompt(1, 6), plan, 30)[0] == expected[0][:36]  # a shorter run in the larger buffers
    assert store.captures == before
    release(model)
    assert run_graphs(model, prompt(1, 6), plan, 150, max_tokens=0) == expected  # grows on its way


def test_a_later_longer_run_gets_larger_buffers() -> None:
    model, plan = make_tiny("llama", max_position_embeddings=1024), deep_plan(140)
    for steps in (20, 140, 20):
        assert run_graphs(model, prompt(2, 6), plan, steps) == run_eager(model, prompt(2, 6), plan, steps)
    assert engines._ENGINES[model].kv.capacity == 256


def test_a_run_that_raises_leaves_nothing_behind() -> None:
    model, plan = make_tiny("llama"), deep_plan(30)
    expected = run_eager(model, prompt(2, 6), plan, 30)
    with pytest.raises(ValueError, match="stop"):
        run_graphs(model, prompt(2, 6), plan, 30, generate={"logits_processor": [RaiseAt(20, ValueError("stop"))]})
    for buffer in (*engines._ENGINES[model].kv.keys, engines._ENGINES[model].passes[1].x):
        buffer.fill_(float("nan"))  # the worst that a run can leave
    assert run_graphs(model, prompt(2, 6), plan, 30) == expected


def test_weights_replaced_between_two_runs() -> None:
    model, plan = make_tiny("llama"), deep_plan(20)
    run_graphs(model, prompt(1, 6), plan, 20)
    first = engines._ENGINES[model]
    with torch.no_grad():  # in place: the graphs read the new values
        model.model.layers[0].mlp.down_proj.weight.mul_(-2)
    assert run_graphs(model, prompt(1, 6), plan, 20) == run_eager(model, prompt(1, 6), plan, 20)
    assert engines._ENGINES[model] is first
    old = model.model.layers[1].mlp.down_proj.weight
    model.model.layers[1].mlp.down_proj.weight = torch.nn.Parameter(old.detach() * -3, requires_grad=False)
    assert run_graphs(model, prompt(1, 6), plan, 20) == run_eager(model, prompt(1, 6), plan, 20)
    assert engines._ENGINES[model] is not first
    model.double().float()
    assert run_graphs(model, prompt(1, 6), plan, 20) == run_eager(model, prompt(1, 6), plan, 20)


def test_a_rotary_embedding_that_changed_between_two_runs() -> None:
    model, plan = make_tiny("llama"), deep_plan(20)
    run_graphs(model, prompt(1, 6), plan, 20)
    model.model.rotary_emb.inv_freq.mul_(0.5)
    assert run_graphs(model, prompt(1, 6), plan, 20) == run_eager(model, prompt(1, 6), plan, 20)


def test_an_engine_goes_with_its_model() -> None:
    model = make_tiny("llama")
    run_graphs(model, prompt(1, 6), deep_plan(5), 5)
    engine = weakref.ref(engines._ENGINES[model])
    weight = weakref.ref(model.lm_head.weight)
    del model
    gc.collect()
    assert engine() is None
    assert weight() is None


def test_whole_steps_are_captured_when_asked_for_and_used_often() -> None:
    model, plan = make_tiny("llama"), ds.plan("step:at=10+20,drop=2+5", num_layers=LAYERS, horizon=30)
    expected = run_eager(model, prompt(2, 6), plan, 30)
    for _ in range(2):
        assert run_graphs(model, prompt(2, 6), plan, 30, whole_after=4) == expected
    assert store_of(model).captures["step"] == 3
    many = ds.plan("linear:end=2,over=7", num_layers=LAYERS, horizon=30)
    assert run_graphs(model, prompt(2, 6), many, 30, whole_after=0) == run_eager(model, prompt(2, 6), many, 30)
    assert store_of(model).captures["step"] == 3


def test_whole_steps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from depthsched.runtime.compiled import graphs

    monkeypatch.setattr(graphs, "MAX_WHOLE", 2)
    model, plan = make_tiny("llama"), ds.plan("step:at=10+20,drop=2+5", num_layers=LAYERS, horizon=30)
    assert run_graphs(model, prompt(1, 6), plan, 30, whole_after=4) == run_eager(model, prompt(1, 6), plan, 30)
    assert store_of(model).captures["step"] == 2


def test_the_environment_asks_for_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = make_tiny("llama"), deep_plan(12)
    monkeypatch.setenv(WHOLE_STEP, "often")
    with pytest.raises(SettingsError, match=r"DEPTHSCHED_WHOLE_STEP='often' must be a whole number"):
        run_graphs(model, prompt(1, 6), plan, 4)
    monkeypatch.setenv(WHOLE_STEP, "1")
    full = ds.plan("full", num_layers=LAYERS, horizon=12)
    assert run_graphs(model, prompt(1, 6), full, 12) == run_eager(model, prompt(1, 6), full, 12)
    assert store_of(model).captures["step"] == 1


def test_buffers_that_move_under_the_graphs_are_noticed() -> None:
    """The double sees what the engine must never do."""
    model, plan = make_tiny("llama"), deep_plan(10)
    run_graphs(model, prompt(1, 6), plan, 10)
    engine = engines._ENGINES[model]
    engine.kv.keys[3] = engine.kv.keys[3].clone()
    with pytest.raises(CaptureError, match="moved address"):
        run_graphs(model, prompt(1, 6), plan, 10)


def test_graphs_of_other_kernels_are_not_replayed() -> None:
    model, plan = make_tiny("llama"), deep_plan(10)
    run_graphs(model, prompt(1, 6), plan, 10)
    first = store_of(model).captures["layer"]
    other = dataclasses.replace(plain_kernels(fuse(adapter_for(model)), 1), layer=lambda x, *rest: x)
    assert run_graphs(model, prompt(1, 6), plan, 10, kernels=lambda *a, **o: other) != run_eager(
        model, prompt(1, 6), plan, 10
    )
    assert run_graphs(model, prompt(1, 6), plan, 10) == run_eager(model, prompt(1, 6), plan, 10)
    assert store_of(model).captures["layer"] == 3 * first


@compiles
@pytest.mark.slow
def test_compiled_kernels_in_the_double_give_the_tokens_of_eager() -> None:
    @functools.cache
    def once(kernel: Any) -> Any:
        return opaque(kernel) if kernel else None

    def real(model: Any, batch: int, **options: Any) -> Kernels:
        made = kernels.kernels_for(model, batch, **options)
        before, after = made.layer.args[1:]  # type: ignore[attr-defined]
        parts = {name: once(getattr(made, name)) for name in ("head", "write_only", "bridge")}
        return Kernels(layer=around(model.layout.spec, once(before), once(after)), **parts, seconds=0.0)

    around = functools.cache(functools.partial(functools.partial, step.layer))
    model = make_tiny("llama", max_position_embeddings=1024)
    plan = _Bridged(ds.plan(UpAndDown(), num_layers=LAYERS, horizon=140), 1)
    for _ in range(2):
        got = run_graphs(model, prompt(2, 6), plan, 140, kernels=real, write_kv=True)
        assert got == run_eager(model, prompt(2, 6), plan, 140, skipped_kv="write")
    assert store_of(model).captures["layer"] <= LAYERS * 2


@pytest.mark.quick
def test_sizes_are_buckets_that_double() -> None:
    assert [bucket(n) for n in (1, 128, 129, 256, 257, 5000)] == [128, 128, 256, 256, 512, 8192]
    assert [room(n) for n in (1, 129, 2048, 2049, 4096, 5000)] == [128, 256, 2048, 4096, 4096, 6144]
    assert all(room(n) % 128 == 0 and n <= room(n) <= max(128, 2 * n, n + 2048) for n in range(1, 20_000, 37))


@pytest.mark.quick
def test_example_sizes_are_no_sizes_of_the_model() -> None:
    model = fuse(adapter_for(make_tiny("llama", intermediate_size=61)))
    spec = model.layout.spec
    for batch in (1, 67):
        rows, slots = kernels._unlike(model, batch)
        assert rows != slots
        assert not {rows, slots} & {batch, spec.heads, spec.kv_heads, spec.head_dim, 61}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("whole", [0, 3])
def test_captured_graphs_give_the_tokens_of_eager(batch: int, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WHOLE_STEP, str(whole))
    model: Any = make_tiny("llama").cuda()
    for plan in ("full", "d3:alpha=0.98", "linear:end=3,over=30", UpAndDown()) * 2:
        eager = ds.generate(model, prompt(batch, 6), plan, max_new_tokens=150, do_sample=False, backend="eager")
        for backend in ("compiled", "cuda-graph"):
            fast = ds.generate(model, prompt(batch, 6), plan, max_new_tokens=150, do_sample=False, backend=backend)
            assert fast.trace.backend == backend, fast.trace.reason
            assert fast.tokens.tolist() == eager.tokens.tolist()
    store = engines._ENGINES[model].graphs(CudaCapture)
    assert store.captures["layer"] <= 2 * LAYERS


def test_a_pool_lasts_as_long_as_its_graphs() -> None:
    """With its last graph CUDA's allocator gives a pool up, and a capture into it is an internal error there."""
    handles = iter(range(9))
    pool = SharedPool(lambda: next(handles))
    first = pool.handle()
    graphs = [pool.held_by(lambda: None), pool.held_by(lambda: None)]
    assert pool.handle() == first
    graphs.pop()
    assert pool.handle() == first
    graphs.clear()
    assert pool.handle() != first


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_buffers_that_grow_capture_again() -> None:
    model: Any = make_tiny("llama", "sdpa", max_position_embeddings=1024).cuda()
    for tokens in (20, 400, 20, 700):
        options: dict[str, Any] = {"max_new_tokens": tokens, "do_sample": False}
        eager = ds.generate(model, prompt(1, 6), "constant:depth=6", backend="eager", **options)
        fast = ds.generate(model, prompt(1, 6), "constant:depth=6", backend="cuda-graph", **options)
        assert fast.trace.backend == "cuda-graph", fast.trace.reason
        assert fast.tokens.tolist() == eager.tokens.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("context", [128, 4096])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_on_a_gpu(context: int, count: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(0)
    query = torch.randn(2 * count, 8, 64, generator=g)
    keys, values = torch.randn(2, context, 2, 2, 64, generator=g).unbind()
    mask = torch.full((2, count, context), float("-inf"))
    mask[:, :, 5 : context - 9] = 0
    whole = step.attend(query, keys, values, mask, 0.1)
    there = step.attend(*(t.cuda().to(dtype) for t in (query, keys, values, mask)), 0.1).cpu()
    assert torch.allclose(whole, there.float(), atol=1e-4 if dtype == torch.float32 else 2e-2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("heads", [(8, 8), (8, 2)])
@pytest.mark.parametrize("batch", [1, 2])
def test_contexts_past_a_bucket_in_bfloat16(heads: tuple[int, int], batch: int) -> None:
    """A layer that was compiled through its attention had the first bucket's length fixed by the compiler."""
    sizes = {
        "hidden_size": 512,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "initializer_range": 0.05,
    }
    model: Any = make_tiny("llama", "sdpa", torch.bfloat16, max_position_embeddings=1024, **sizes).cuda()
    for plan in ("full", "linear:end=3,over=30"):
        run = ds.generate(model, prompt(batch, 6), plan, max_new_tokens=600, do_sample=False, backend="cuda-graph")
        assert run.trace.backend == "cuda-graph", run.trace.reason
        assert run.tokens.shape == (batch, 600)
