"""Models with weights in blocks against the dense copies of the same files."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType, ReaderField

import depthsched as ds
from depthsched import files, models
from depthsched.adapters import adapter_for
from depthsched.adapters.storage import logical_weights, stored_bytes
from depthsched.blocks.modules import BlockEmbedding, BlockLinear, weights_form
from depthsched.blocks.reader import Reader, write_without_vocabulary
from depthsched.errors import ModelError
from depthsched.profile import ModelIdentity

from .files import LAYERS, WORDS, write_gguf

pytestmark = pytest.mark.quick

Pair = tuple[Any, Any, Any]


@pytest.fixture(scope="module", params=["llama-tied", "llama", "qwen2", "qwen2-tied", "qwen3"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The native model, the dense one, and their tokenizer."""
    family, _, tied = request.param.partition("-")
    folder = tmp_path_factory.mktemp("models")
    file = write_gguf(folder / "tiny.gguf", family, tied == "tied")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(files.CACHE, str(folder / "cache"))
        native, tokenizer = ds.load_model(str(file), "float32", "cpu", weights="native")
        dense, _ = ds.load_model(str(file), "float32", "cpu", weights="dense")
    return native, dense, tokenizer


def same_weights(native: Any, dense: Any) -> None:
    for name, weight in dense.state_dict().items():
        owner, _, part = name.rpartition(".")
        assert torch.equal(getattr(native.get_submodule(owner), part), weight), name


def agree(found: torch.Tensor, want: torch.Tensor) -> None:
    """Logits equal but for the library's rounding of activations to 16 bits."""
    assert (found - want).abs().max() <= 1e-3 * want.abs().max()


IDS = torch.tensor([[5, 17, 60, 33], [40, 41, 42, 9]])


def test_every_weight_is_that_of_the_dense_model(pair: Pair) -> None:
    native, dense, _ = pair
    assert (weights_form(native), weights_form(dense)) == ("native", "dense")
    same_weights(native, dense)
    blocks = [name for name, m in native.named_modules() if isinstance(m, BlockLinear)]
    assert len(blocks) == LAYERS * 7 - 1 + 1  # one of F16, and the head
    assert type(native.model.layers[1].mlp.up_proj) is torch.nn.Linear
    assert isinstance(native.get_input_embeddings(), BlockEmbedding)
    assert native.config.to_diff_dict() == dense.config.to_diff_dict()
    assert native.generation_config.to_dict() == dense.generation_config.to_dict()
    assert not native.training
    with torch.no_grad():
        agree(native(IDS).logits, dense(IDS).logits)


def test_a_tied_head_is_in_memory_once(pair: Pair) -> None:
    native, dense, _ = pair
    shared = native.lm_head.quants.data_ptr() == native.model.embed_tokens.quants.data_ptr()
    assert shared == dense.config.tie_word_embeddings
    for model in (native, copy.deepcopy(native)):
        head, embedding = stored_bytes(model.lm_head), stored_bytes(model.model.embed_tokens)
        both = stored_bytes(model.lm_head, model.model.embed_tokens)
        assert both == (head if shared else head + embedding)


def test_tying_weights_again_changes_nothing(pair: Pair) -> None:
    """As lm-eval does with every model that it is given."""
    native, dense, _ = pair
    with torch.no_grad():
        before = native(IDS).logits
        native.tie_weights()
        assert torch.equal(native(IDS).logits, before)
    same_weights(native, dense)


def test_generation_under_a_plan(pair: Pair) -> None:
    native, dense, _ = pair
    for plan in ("full", "constant:depth=4"):
        for backend in ("eager", "compiled"):
            options = {"max_new_tokens": 12, "output_logits": True}
            want = ds.generate(dense, IDS, plan, backend="eager", **options)
            found = ds.generate(native, IDS, plan, backend=backend, **options)
            assert found.trace.backend == backend
            for step, (got, exact) in enumerate(zip(found.logits, want.logits, strict=True)):
                same = (found.tokens[:, :step] == want.tokens[:, :step]).all(dim=1)
                agree(got[same], exact[same])
    with ds.attach(native, "constant:depth=4"), ds.attach(dense, "constant:depth=2"):
        made = [m.generate(IDS, max_new_tokens=2, do_sample=False) for m in (native, dense)]
    assert torch.equal(*made)
    ds.generate(native, IDS, "constant:depth=4", max_new_tokens=3)  # auto finds a backend that runs it


def test_what_a_step_costs(pair: Pair) -> None:
    """Bytes as they are stored, weights as many as in the dense model."""
    native, dense, _ = pair
    shape, plain = adapter_for(native).shape(), adapter_for(dense).shape()
    assert (shape.layer_params, shape.head_params, shape.kv_params) == (
        plain.layer_params,
        plain.head_params,
        plain.kv_params,
    )
    assert logical_weights(native.model.embed_tokens) == logical_weights(dense.model.embed_tokens)
    assert adapter_for(native).dtype == torch.float32
    for layer, counted in zip(native.model.layers, shape.layer_bytes, strict=True):
        bits = 0
        for module in layer.modules():
            if isinstance(module, BlockLinear):
                each = 8.5 if module.matrix.kind == "q8" else 4.5 if module.mins is None else 5
                bits += round(module.in_features * module.out_features * each)
        assert counted == bits / 8 + sum(p.nbytes for p in layer.parameters())
    assert 0.5 * sum(plain.layer_bytes) > sum(shape.layer_bytes)


def test_a_profile_of_one_is_accepted_on_the_other(pair: Pair) -> None:
    native, dense, _ = pair
    assert ModelIdentity.of(native, "x") == ModelIdentity.of(dense, "x")
    changed = copy.deepcopy(native)
    changed.model.layers[3].mlp.down_proj.scales.mul_(1.1)
    assert ModelIdentity.of(dense, "x").difference(native) is None
    assert ModelIdentity.of(dense, "x").difference(changed) == "weights differ"


def test_another_dtype_leaves_the_blocks_alone(pair: Pair) -> None:
    native, dense, _ = pair
    model = copy.deepcopy(native)
    for dtype in (torch.bfloat16, torch.float64, torch.float16, torch.bfloat16):
        model.to(dtype)
        assert model.model.embed_tokens(IDS).dtype == dtype
        assert adapter_for(model).dtype == dtype
    assert model.dtype == torch.bfloat16
    assert stored_bytes(model) < stored_bytes(native)
    exact = {n: m.weight for n, m in dense.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Embedding)}
    for name, module in model.named_modules():
        if isinstance(module, BlockLinear | BlockEmbedding):
            assert module.scales.dtype == torch.float16
            assert torch.equal(module.weight, exact[name])
    with torch.no_grad():
        close = torch.nn.functional.cosine_similarity(model(IDS).logits.float(), dense(IDS).logits, dim=-1)
    assert (close > 0.99).all()
    same_weights(native, dense)  # the copy was one


def test_state_dict_and_meta(pair: Pair) -> None:
    native, dense, _ = pair
    other = copy.deepcopy(native)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_state_dict(native.state_dict())
    same_weights(other, dense)
    empty = copy.deepcopy(native).to("meta")
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    assert empty.lm_head.scales.dtype == torch.float16
    with pytest.raises(ModelError, match="on the meta device"):
        ds.generate(empty, IDS, "full", max_new_tokens=2)
    with pytest.raises(ds.errors.ProfileError, match="on the meta device"):
        ModelIdentity.of(empty, "x")


def test_saving_it_is_refused(pair: Pair, tmp_path: Path) -> None:
    for model in (pair[0], copy.deepcopy(pair[0])):
        with pytest.raises(ModelError, match="weights='dense' to save"):
            model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(files.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def refused(name: Any, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        ds.load_model(str(name), **{"device": "cpu", "weights": "native", **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_packed_once_and_mapped_from_then_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    first, _ = ds.load_model(str(file), device="cpu", weights="native")
    (folder,) = cache.iterdir()
    assert "-native-" in folder.name
    assert not list(folder.glob("*.bin")) + list(folder.glob("model*"))
    monkeypatch.setattr("depthsched.blocks.load.pack", lambda *_: pytest.fail("packed twice"))
    again, _ = ds.load_model(str(file), "bfloat16", "cpu", weights="native")
    assert torch.equal(first.lm_head.quants, again.lm_head.quants)
    assert again.model.norm.weight.dtype == torch.bfloat16
    assert all(m.quants.data_ptr() % 64 == 0 for m in again.modules() if isinstance(m, BlockLinear))


def test_a_damaged_pack_says_what_to_delete(cache: Path, tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    ds.load_model(str(file), device="cpu", weights="native")
    (packed,) = cache.glob("*/blocks.safetensors")
    whole = packed.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"x" * 100):
        packed.write_bytes(content)
        assert f"the packed model {packed.parent} is damaged, delete it" in refused(file)


def test_what_cannot_be_native(cache: Path, tmp_path: Path) -> None:
    assert "unknown weights 'packed'; use auto, native, dense" in refused("smollm2", weights="packed")
    assert "native weights are the blocks of a GGUF file" in refused(tmp_path)
    assert "native weights are the blocks of a GGUF file" in refused("some/hub-id")
    assert "run on the CPU, not on meta" in refused("smollm2", device="meta")
    plain = write_gguf(tmp_path / "plain.gguf", kind=lambda *_: Type.F16)
    assert "plain.gguf has no weights in blocks of Q4_0, Q4_1, Q8_0, but F16, F32; use dense" in refused(plain)
    odd = write_gguf(tmp_path / "odd.gguf", extra="blk.0.attn_q.bias")
    assert "odd.gguf holds blk.0.attn_q.bias, for which its architecture has no place" in refused(odd)
    short = write_gguf(tmp_path / "short.gguf", leave_out="blk.3.ffn_norm.weight")
    assert "short.gguf has no blk.3.ffn_norm.weight, which its architecture needs" in refused(short)
    heads = write_gguf(tmp_path / "heads.gguf", "qwen3", width=16)
    assert "is [64, 64] in the file and [512, 64] in the model" in refused(heads)
    (tmp_path / "fake.gguf").write_bytes(b"GGUF" + bytes(64))
    assert "fake.gguf is not a GGUF file" in refused(tmp_path / "fake.gguf")
    assert list(cache.iterdir()) == []


def test_auto_is_one_choice(cache: Path) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert models.pick_weights("native", True, "auto", cpu) == "native"
    assert models.pick_weights("dense", True, "auto", cpu) == "dense"
    assert models.pick_weights("auto", True, "auto", cpu) == "native"
    assert models.pick_weights("auto", True, "float32", cpu) == "dense"
    assert models.pick_weights("auto", False, "auto", cpu) == "dense"
    assert models.pick_weights("auto", True, "auto", cuda) == "dense"


def test_the_embedded_model(smollm2: tuple[Any, Any]) -> None:
    """All 135 million weights and the logits of the embedded file, bit for bit."""
    dense, tokenizer = smollm2
    native, _ = ds.load_model("smollm2", "float32", "cpu", weights="native")
    same_weights(native, dense)
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        agree(native(**ids).logits, dense(**ids).logits)
    assert ModelIdentity.of(native, "x") == ModelIdentity.of(dense, "x")


def test_a_configuration_is_read_without_the_vocabulary(tmp_path: Path) -> None:
    """Arrays of every form: flat ones are copied, those that gguf's writer refuses are left out."""
    reader = Reader(write_gguf(tmp_path / "tiny.gguf"))
    array, number = GGUFValueType.ARRAY, GGUFValueType.UINT32
    one = np.array([7], dtype=np.uint32)
    for name, parts, types in (
        ("some.flat", [one], [array, number]),
        ("some.empty", [], [array]),
        ("some.nested", [one], [array, array, number]),
    ):
        reader.fields[name] = ReaderField(0, name, parts, [*range(len(parts))], types)
    write_without_vocabulary(reader, tmp_path / "small.gguf")
    small = Reader(tmp_path / "small.gguf").fields
    assert small["some.flat"].contents() == [7]
    assert not {"some.empty", "some.nested", "tokenizer.ggml.tokens"} & small.keys()
    assert small["llama.vocab_size"].contents() == WORDS
