"""Placement through load_model and the command line: a layer that is skipped is never moved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.bench import compare
from depthsched.errors import ModelError
from depthsched.placement import moved_shape, placing, read_device_map
from depthsched.score import Sample, score

from .commands import Result
from .tiny import LAYERS, make_tiny, prompt

Run = Callable[..., Result]
MAP: dict[str, Any] = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
DISK = {**MAP, "model.layers": "disk"}
SPLIT = {**MAP, **{f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(LAYERS)}}


class Counting(Mapping[str, Any]):
    """The weights of an offloaded module, counting what is read."""

    def __init__(self, inner: Any, layer: int, counts: Counter[int]) -> None:
        self.inner, self.layer, self.counts = inner, layer, counts

    def __getitem__(self, name: str) -> Any:
        found = self.inner[name]
        self.counts[self.layer] += found.numel() * found.element_size()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


ENDS = -1
"""Embedding, last norm and head."""


def count_moves(model: Any) -> Counter[int]:
    """Bytes moved of each layer from now on."""
    counts: Counter[int] = Counter()
    for i, layer in enumerate(model.model.layers):
        _count(layer, i, counts)
    for end in (model.model.embed_tokens, model.model.norm, model.lm_head):
        _count(end, ENDS, counts)
    return counts


def _count(module: Any, name: int, counts: Counter[int]) -> None:
    for part in module.modules():
        hook = getattr(part, "_hf_hook", None)
        for one in getattr(hook, "hooks", [hook]):
            if getattr(one, "offload", False):
                one.weights_map = Counting(one.weights_map, name, counts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smollm2: tuple[Any, Any]) -> Path:
    root: Path = tmp_path_factory.mktemp("placed")
    tokenizer = smollm2[1]
    make_tiny("llama", "sdpa", vocab_size=len(tokenizer)).save_pretrained(root)
    tokenizer.save_pretrained(root)
    return root


@pytest.fixture(params=["disk", "split"])
def placed(request: Any, folder: Path, tmp_path: Path) -> tuple[Any, Any]:
    """The model as it is, and placed."""
    plain, _ = ds.load_model(str(folder), dtype="float32", device="cpu")
    device_map = DISK if request.param == "disk" else SPLIT
    return plain, ds.load_model(str(folder), dtype="float32", device_map=device_map, offload_folder=tmp_path)[0]


PLAN = "constant:depth=5"


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
def test_only_layers_that_run_are_moved(placed: tuple[Any, Any]) -> None:
    plain, model = placed
    adapter = adapter_for(model)
    moved = moved_shape(adapter)
    assert moved is not None
    inputs, tokens = prompt(1, 5), 6
    plan = ds.plan(PLAN, num_layers=LAYERS, horizon=tokens)
    kept = set(plan.keep_sets[5])
    want = ds.generate(plain, inputs, plan, max_new_tokens=tokens, do_sample=False, backend="eager")

    def expected(steps: int) -> dict[int, float]:
        """The prompt moves every layer once, each step those it keeps."""
        return {i: b * (1 + steps * (i in kept)) for i, b in enumerate(moved.layer_bytes) if b}

    counts = count_moves(model)
    run = ds.generate(model, inputs, plan, max_new_tokens=tokens, do_sample=False)
    assert torch.equal(run.sequences, want.sequences)
    assert counts == expected(tokens - 1)
    assert sum(counts.values()) - sum(moved.layer_bytes) == pytest.approx(plan.cost(moved).total)

    counts.clear()
    with ds.attach(model, plan, horizon=tokens):
        found = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    assert torch.equal(found, want.sequences)
    assert counts == expected(tokens - 1)


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
@pytest.mark.parametrize("device_map", [{"": "disk"}, {**MAP, "model.embed_tokens": "disk", "model.layers": "cpu"}])
def test_embedding_and_head_count_where_they_are_moved(
    folder: Path, tmp_path: Path, device_map: dict[str, Any]
) -> None:
    model, _ = ds.load_model(str(folder), dtype="float32", device_map=device_map, offload_folder=tmp_path)
    moved = moved_shape(adapter_for(model))
    assert moved is not None
    assert moved.head_bytes
    counts, tokens = count_moves(model), 6
    ds.generate(model, prompt(1, 5), PLAN, max_new_tokens=tokens, do_sample=False)
    assert counts[ENDS] == moved.head_bytes * tokens  # at the prompt and at every step


@pytest.mark.filterwarnings("ignore:You are calling .generate:UserWarning")
def test_what_a_lossless_row_moves_has_its_drafts_and_checks(folder: Path, tmp_path: Path) -> None:
    model, _ = ds.load_model(str(folder), dtype="float32", device_map=DISK, offload_folder=tmp_path)
    result = compare(
        model,
        prompt(1, 5),
        {spec: ds.plan(spec, num_layers=LAYERS, horizon=6) for spec in ("full", PLAN)},
        ["eager"],
        tokens=6,
        repeats=1,
        baseline=False,
        draft_tokens=2,
    )
    drafted = next(row for row in result.rows if row.drafts)
    assert drafted.theoretical_moved is not None
    assert drafted.theoretical_moved < 1  # a random model's drafts are thrown away
    assert drafted.theoretical_moved == pytest.approx(drafted.theoretical_bytes, abs=0.2)


def test_scoring_moves_a_layer_as_often_as_it_runs(placed: tuple[Any, Any]) -> None:
    plain, model = placed
    plan = ds.plan("constant:depth=5", num_layers=LAYERS, horizon=8)
    samples = [Sample((3, 4, 5, 6), (7, 8, 9, 10))]
    kept, moved = set(plan.keep_sets[5]), moved_shape(adapter_for(model))
    assert moved is not None
    for method, steps, passes in (("staircase", 1, 2), ("step-by-step", 3, 2)):
        want = score(plain, [plan], samples, method=method)[0]
        counts = count_moves(model)
        found = score(model, [plan], samples, method=method)[0]
        assert found.kl.mean == pytest.approx(want.kl.mean, abs=1e-6)
        # Prompt(s) and full depth run every layer, the plan those that it keeps.
        prompts = 1 if method == "staircase" else passes
        full = prompts + steps
        assert counts == {i: b * (full + steps * (i in kept)) for i, b in enumerate(moved.layer_bytes) if b}
        for layer in model.model.layers:  # each method counts anew
            for part in layer.modules():
                hook = getattr(part, "_hf_hook", None)
                if isinstance(getattr(hook, "weights_map", None), Counting):
                    hook.weights_map = hook.weights_map.inner


def test_compiled_backends_decline_by_name(placed: tuple[Any, Any]) -> None:
    model = placed[1]
    for backend in ("auto", "compiled"):
        run = ds.generate(model, prompt(1, 4), PLAN, max_new_tokens=3, do_sample=False, backend=backend)
        assert run.trace.backend == "eager"
        assert "other memory or on disk" in run.trace.reason


def test_a_comparison_says_what_is_moved(placed: tuple[Any, Any]) -> None:
    model = placed[1]
    plans = {name: ds.plan(name, num_layers=LAYERS, horizon=4) for name in ("full", PLAN)}
    result = compare(model, prompt(1, 4), plans, ["auto"], tokens=4, repeats=1, baseline=False)
    full, shallow = result.rows
    moved = moved_shape(adapter_for(model))
    assert moved is not None
    assert full.theoretical_moved == 1
    assert shallow.theoretical_moved == pytest.approx(plans[PLAN].cost(moved).ratio)
    assert result.context["moved_bytes"] == sum(moved.layer_bytes)


def test_nothing_is_moved_of_a_model_in_one_place() -> None:
    assert moved_shape(adapter_for(make_tiny("llama"))) is None


def test_the_command_line(cli: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(json.dumps(DISK))
    words = ["generate", "Tell me", "--model", folder, "--dtype", "float32", "-n", 4, "--schedule", PLAN, "--json"]
    plain = cli(*words)
    assert plain.code == 0, plain.err
    found = cli(*words, "--device-map", tmp_path / "map.json", "--offload", tmp_path / "off")
    assert found.code == 0, found.err
    assert found.json()["tokens"] == plain.json()["tokens"]
    everywhere = cli(*words, "--device-map", "auto")
    assert everywhere.json()["tokens"] == plain.json()["tokens"]
    bench = ["bench", "--model", folder, "--dtype", "float32", "--tokens", 4, "--repeats", 1, "--backends", "auto"]
    bench += ["--plans", PLAN, "--device-map", tmp_path / "map.json", "--offload", tmp_path / "off"]
    shown = cli(*bench)
    assert shown.code == 0, shown.err
    assert "full depth moves 1.60 times its bytes" in shown.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"offload_folder": "x"}, "give a device map too"),
        ({"device_map": "auto", "device": "cpu"}, "leave device 'cpu' out"),
        ({"device_map": "auto", "weights": "native"}, "for weights='dense'"),
        ({"device_map": {"": "disk"}}, "give an offload folder"),
        ({"device_map": {}}, "a device map is auto, or modules"),
        ({"device_map": "balance"}, "a device map is auto, or modules"),
        ({"device_map": {"lm_head": 1.5}}, "a device map is auto, or modules"),
    ],
)
def test_what_nothing_would_follow_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        placing(**{"device_map": None, "offload_folder": None, **options})
    assert "\n" not in str(caught.value)


def test_a_map_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither auto nor a JSON file"):
        read_device_map(str(tmp_path / "absent.json"))
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ModelError, match="neither auto nor a JSON file"):
        read_device_map(str(tmp_path / "bad.json"))
