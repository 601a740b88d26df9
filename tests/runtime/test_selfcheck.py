"""A fast backend that differs from eager, raises or cannot be built is not used, and says so once."""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.errors import AttachError, DepthschedWarning
from depthsched.runtime import selfcheck
from depthsched.runtime.backends import Backend
from depthsched.runtime.compiled import CudaGraphBackend
from depthsched.runtime.compiled import engine as engines
from depthsched.runtime.compiled.kernels import Kernels
from depthsched.runtime.eager import EagerBackend
from depthsched.runtime.selfcheck import TOLERANCE, check_depths, checked, distance, examine

from ..tiny import LAYERS, make_tiny, prompt
from .capture_double import CaptureDouble
from .engines import compiled_is_the_graph_engine, plain_kernels
from .helpers import UpAndDown

Changed = dict[str, Callable[..., Any]]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record of this machine or of another test."""
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(tmp_path))
    monkeypatch.setattr(selfcheck, "_passed", set())


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    return functools.partial(compiled_is_the_graph_engine, monkeypatch)


def with_kernels(**changed: Callable[..., Any]) -> Callable[..., Kernels]:
    """Kernels of which some are wrapped: ``layer=f`` gets ``f(kernel, x, *rest)``."""

    def make(model: Any, batch: int, **options: bool) -> Kernels:
        made = plain_kernels(model, batch, **options)
        parts = {name: functools.partial(f, getattr(made, name)) for name, f in changed.items()}
        return dataclasses.replace(made, **parts)

    return make


def wrong(kernel: Any, x: torch.Tensor, *rest: torch.Tensor) -> None:
    kernel(x, *rest)
    x.mul_(1.05)


def skips(kernel: Any, x: torch.Tensor, *rest: torch.Tensor) -> None:
    kernel(x.clone(), *rest)


def nan(kernel: Any, x: torch.Tensor, *rest: torch.Tensor) -> None:
    kernel(x, *rest)
    x.div_(0.0).mul_(0.0)


def reads_the_host(kernel: Any, x: torch.Tensor, *rest: torch.Tensor) -> None:
    kernel(x, *rest)
    if x.sum().item() > 0:
        x.add_(0)


def no_compiler(*args: Any, **options: Any) -> Kernels:
    raise ds.errors.ModelError("cannot compile a decoder layer (CppCompileError: no g++)")


def out_of_memory(kernel: Any, *tensors: torch.Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong layer": ({"kernels": with_kernels(layer=wrong)}, "logits differ from eager's by"),
    "NaN": ({"kernels": with_kernels(layer=nan)}, "logits differ from eager's by inf"),
    "a wrong head": ({"kernels": with_kernels(head=lambda k, x, out, *r: (k(x, out, *r), out.neg_()))}, "differ"),
    "an exception in capture": ({"kernels": with_kernels(layer=reads_the_host)}, "CaptureError: a host read"),
    "an exception in building": ({"kernels": no_compiler}, "ModelError: cannot compile"),
    "out of memory": ({"kernels": with_kernels(head=out_of_memory)}, "OutOfMemoryError: CUDA out of memory"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_backend_that_fails_is_not_used_and_says_so_once(name: str, use: Callable[..., None]) -> None:
    model, inputs = make_tiny("llama"), prompt(2, 6)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers = model.model.layers
    options, words = FAULTS[name]
    use(**options)
    plan = ds.plan("linear:end=3,over=8", num_layers=LAYERS, horizon=12)
    eager = ds.generate(model, inputs, plan, max_new_tokens=12, do_sample=False, backend="eager")
    with pytest.warns(DepthschedWarning, match="failed its self-check.*this model runs in eager") as said:
        run = ds.generate(model, inputs, plan, max_new_tokens=12, do_sample=False, backend="compiled")
    assert len(said) == 1
    assert run.trace.backend == "eager"
    assert words in run.trace.reason
    assert run.tokens.tolist() == eager.tokens.tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ds.generate(model, inputs, plan, max_new_tokens=12, do_sample=False, backend="compiled")
    assert (again.trace.backend, again.trace.reason) == ("eager", run.trace.reason)
    assert model.model.layers is layers
    assert model not in engines._ENGINES  # its buffers are given back
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_backend_that_passes_runs_and_is_checked_once(use: Callable[..., None], tmp_path: Path) -> None:
    model, inputs = make_tiny("llama"), prompt(2, 6)
    use()
    plan = ds.plan("linear:end=3,over=8", num_layers=LAYERS, horizon=12)
    runs = [ds.generate(model, inputs, plan, max_new_tokens=12, do_sample=False, backend=b) for b in ("eager", "x")]
    assert (runs[1].trace.backend, runs[1].trace.reason) == ("cuda-graph", "x")
    assert runs[1].tokens.tolist() == runs[0].tokens.tolist()
    (record,) = (tmp_path / "checks").iterdir()
    assert json.loads(record.read_text())["error"] < TOLERANCE[torch.float32]


def count_checks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    real = examine

    def counted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(selfcheck, "examine", counted)
    return calls


def graph_backend(model: Any, plan: ds.DepthPlan, **options: Any) -> Callable[[], Backend]:
    adapter = adapter_for(model)
    return functools.partial(
        CudaGraphBackend,
        adapter,
        plan,
        **{"kernels": plain_kernels, "capture": CaptureDouble, "max_tokens": 20, **options},
    )


def test_the_next_process_takes_the_record_and_a_damaged_one_is_checked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, plan = count_checks(monkeypatch), ds.plan("full", num_layers=LAYERS, horizon=8)

    def check(model: Any, **options: Any) -> None:
        selfcheck._passed.clear()  # as in a new process
        backend, reason = checked(graph_backend(model, plan), adapter_for(model), plan, "asked for", **options)
        assert (backend.name, reason) == ("cuda-graph", "asked for")

    model = make_tiny("llama")
    check(model)
    check(model)
    check(make_tiny("llama"))  # another model of the same shapes
    assert len(calls) == 1
    check(model, batch=2)
    check(make_tiny("llama", num_key_value_heads=4))
    assert len(calls) == 3
    monkeypatch.setattr(selfcheck, "code_digest", lambda kind: "changed")
    check(model)
    assert len(calls) == 4
    for damage in ("", "{}", "[]", '{"what": {}, "error": 0, "tolerance": 1}'):
        for file in (tmp_path / "checks").iterdir():
            file.write_text(damage)
        check(model)
    assert len(calls) == 8


def test_a_cache_folder_that_cannot_be_written_costs_only_the_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(tmp_path / "file" / "below"))
    calls, plan, model = count_checks(monkeypatch), ds.plan("full", num_layers=LAYERS, horizon=8), make_tiny("llama")
    for _ in range(2):
        assert checked(graph_backend(model, plan), adapter_for(model), plan, "")[0].name == "cuda-graph"
    assert len(calls) == 1  # still known in this process


def test_the_checks_buffers_and_graphs_serve_the_run() -> None:
    model, plan = make_tiny("llama"), ds.plan("full", num_layers=LAYERS, horizon=8)
    checked(graph_backend(model, plan), adapter_for(model), plan, "")
    assert engines._ENGINES[model].graphs(CaptureDouble).captures["layer"] == LAYERS


@pytest.mark.parametrize("write", [False, True])
def test_skipped_layers_and_rising_depths_are_checked(write: bool) -> None:
    plan = ds.plan(UpAndDown(), num_layers=LAYERS, horizon=20)
    depths = check_depths(plan, rising=write)
    assert depths == [8, 8, *depths[2:5], *([8] if write else [])]
    assert set(depths) <= set(plan.keep_sets)
    assert min(depths) == min(plan.keep_sets)
    model = make_tiny("qwen3")
    keep = lambda kernel, x, *rest: x  # noqa: E731 - a layer that writes nothing
    for kernels, passes in ((plain_kernels, True), (with_kernels(write_only=keep), not write)):
        make = graph_backend(model, plan, write_kv=write, kernels=kernels) if write else graph_backend(model, plan)
        assert examine(make, adapter_for(model), plan, batch=2, write_kv=write).ok is passes


def test_a_model_in_the_middle_of_a_run_is_no_finding() -> None:
    model, plan = make_tiny("llama"), ds.plan("full", num_layers=LAYERS, horizon=8)
    with ds.attach(model, plan), pytest.raises(AttachError):
        checked(graph_backend(model, plan), adapter_for(model), plan, "")
    assert checked(graph_backend(model, plan), adapter_for(model), plan, "")[0].name == "cuda-graph"


def test_an_interrupt_is_passed_on() -> None:
    def interrupt(kernel: Any, *tensors: torch.Tensor) -> None:
        raise KeyboardInterrupt

    model, plan = make_tiny("llama"), ds.plan("full", num_layers=LAYERS, horizon=8)
    with pytest.raises(KeyboardInterrupt):
        checked(graph_backend(model, plan, kernels=with_kernels(head=interrupt)), adapter_for(model), plan, "")
    with EagerBackend(adapter_for(model), plan):
        pass  # the model is free again


def test_a_run_in_inference_mode_leaves_buffers_that_any_run_can_write() -> None:
    from .engines import run_eager, run_graphs

    model, plan = make_tiny("llama"), ds.plan("linear:end=3,over=8", num_layers=LAYERS, horizon=130)
    expected = run_eager(model, prompt(1, 6), plan, 130)
    with torch.inference_mode():
        assert run_graphs(model, prompt(1, 6), plan, 130, max_tokens=0) == expected
    assert run_graphs(model, prompt(1, 6), plan, 130) == expected


@pytest.mark.quick
def test_the_distance_of_logits() -> None:
    inf, zero = float("inf"), torch.zeros(2, 3)
    rows = torch.tensor([[3.0, 4.0, 0.0], [1.0, 0.0, 0.0]])
    assert distance(rows, rows) == 0
    assert distance(rows + torch.tensor([[0.0], [0.5]]), rows) == pytest.approx(0.5 * 3**0.5)
    assert distance(rows, zero) > 1e30  # any length is infinitely more than none
    assert distance(rows[:1], rows) == inf
    for value in (inf, float("nan")):
        broken = rows.clone()
        broken[1, 2] = value
        assert distance(broken, rows) == inf
        assert distance(rows, broken) == inf
        assert distance(broken, broken) == 0


def test_half_precision_stays_inside_its_tolerance_and_a_skipped_layer_outside() -> None:
    plan = ds.plan("linear:end=3,over=8", num_layers=LAYERS, horizon=12)
    for dtype in (torch.bfloat16, torch.float16):
        model = make_tiny("llama", dtype=dtype)
        good = examine(graph_backend(model, plan), adapter_for(model), plan)
        assert good.ok, good
        skip = with_kernels(layer=skips)
        bad = examine(graph_backend(model, plan, kernels=skip), adapter_for(model), plan)
        assert bad.error > TOLERANCE[dtype]


@pytest.mark.quick
@pytest.mark.parametrize("batch", [1, 3])
def test_passes_of_several_tokens_are_compared_where_a_run_asks_for_them(batch: int) -> None:
    model, plan = make_tiny("llama", "sdpa"), ds.plan("constant:depth=5", num_layers=LAYERS, horizon=9)

    def broken_from_two_tokens_on(kernel: Any, x: torch.Tensor, *rest: torch.Tensor) -> None:
        kernel(x, *rest)
        if len(x) > batch:
            x[-1].mul_(1.05)

    for kernels, several, passes in (
        (plain_kernels, True, True),
        (with_kernels(layer=broken_from_two_tokens_on), False, True),
        (with_kernels(layer=broken_from_two_tokens_on), True, False),
    ):
        make = graph_backend(model, plan, batch=batch, kernels=kernels, several=True)
        check = examine(make, adapter_for(model), plan, batch=batch, several=several)
        assert check.ok == passes, check.reason
