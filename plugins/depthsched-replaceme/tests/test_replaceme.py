"""Needs nothing but this plug-in and the conformance kit."""

import json

import numpy as np
import pytest
import torch
import typer
from depthsched_replaceme import register_commands
from depthsched_replaceme.cut import RIDGES, Sums, best_fit, closest, fit_cut, fold, make, remove, walk
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.errors import PlanError, SettingsError
from depthsched.testing import tiny_study


@pytest.fixture
def study():
    with tiny_study() as made:
        yield made


def texts(study):
    return [sample for batch in study.fitted.batches for sample in batch.samples]


@pytest.fixture(scope="module")
def tokenizer():
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1", unk_token="w0")


@torch.no_grad()
def slow_rows(study, first, end):
    """``m, y, z`` of every token, from hooks on one plain forward for each text."""
    model, found = study.adapter.model, ([], [], [])
    for sample in texts(study):
        seen, hooks = {}, []
        layers = model.model.layers
        named = {"m": layers[first - 1].mlp, "y": layers[first - 1], "z": layers[end - 1]}
        for name, module in named.items():
            hooks.append(
                module.register_forward_hook(lambda m, a, out, name=name, seen=seen: seen.update({name: out[0]}))
            )
        model(torch.tensor([[*sample.prompt, *sample.completion]]), use_cache=False)
        for hook in hooks:
            hook.remove()
        for part, name in zip(found, "myz", strict=True):
            part.append(seen[name].double().numpy())
    return [np.concatenate(part) for part in found]


@pytest.mark.parametrize("cut", [(1, 2), (2, 4), (3, 5)])
def test_the_map_is_that_of_a_least_squares_solver(study, cut):
    fit = fit_cut(study.adapter, texts(study), *cut)
    m, y, z = slow_rows(study, *cut)
    a = fit.ridge * np.mean(np.diag(m.T @ m))
    padded = np.concatenate([m, np.sqrt(a) * np.eye(m.shape[1])])
    wanted = np.linalg.lstsq(padded, np.concatenate([z + m - y, np.zeros((m.shape[1],) * 2)]), rcond=None)[0]
    assert np.allclose(fit.t.numpy(), wanted, atol=1e-3)
    assert fit.ridge in RIDGES


def test_where_the_cut_is_a_linear_map_of_m_it_is_found():
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(6, 6, generator=draw, dtype=torch.float64)
    parts = [Sums(6), Sums(6)]
    for part in parts:
        m = torch.randn(50, 6, generator=draw, dtype=torch.float64)
        part.add(m, m @ wanted)
    fit = best_fit(*parts)
    assert fit.ridge == min(RIDGES)
    assert torch.allclose(fit.t, wanted, atol=1e-2)
    assert fit.left < 1e-3


@torch.no_grad()
def test_the_new_model_is_the_old_one_with_the_map_by_hand(study, tokenizer, tmp_path):
    sample = study.held.batches[0].samples[0]
    ids = torch.tensor([sample.prompt])
    cut = closest(study.adapter, texts(study), 2)
    t = fit_cut(study.adapter, texts(study), cut, cut + 2).t.float()
    model = study.adapter.model
    mapped = model.model.layers[cut - 1].mlp.register_forward_hook(lambda mod, args, out: out @ t)
    gone = [layer.register_forward_hook(lambda mod, args, out: args[0]) for layer in model.model.layers[cut : cut + 2]]
    wanted = model(ids, use_cache=False).logits
    for hook in (mapped, *gone):
        hook.remove()
    facts = make(study.adapter, tokenizer, texts(study), 4, tmp_path / "new")
    assert (facts["first"], facts["end"], facts["depth"]) == (cut, cut + 2, 4)
    new, _ = ds.load_model(str(tmp_path / "new"), dtype="float32", device="cpu")
    assert new.config.num_hidden_layers == len(new.model.layers) == 4
    assert torch.allclose(new(ids).logits, wanted, atol=1e-3)
    run = ds.generate(new, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, max_new_tokens=4)
    assert run.plan.num_layers == 4
    assert json.loads((tmp_path / "new" / "replaceme.json").read_text()) == facts


def test_the_cut_is_where_the_ends_are_closest(study):
    totals = {}
    for start in range(1, 4):
        _, y, z = slow_rows(study, start, start + 2)
        totals[start] = np.mean((y * z).sum(1) / np.linalg.norm(y, axis=1) / np.linalg.norm(z, axis=1))
    assert closest(study.adapter, texts(study), 2) == max(totals, key=totals.get)


def tiny(family, **changes):
    config = AutoConfig.for_model(
        family,
        num_hidden_layers=4,
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        vocab_size=64,
        pad_token_id=0,
        initializer_range=0.2,
        **changes,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


@pytest.mark.parametrize(("family", "changes"), [("gemma2", {}), ("granite", {"residual_multiplier": 0.3})])
def test_a_family_that_changes_what_its_mlp_gives_is_refused_and_left_as_it_was(study, family, changes):
    model = tiny(family, **changes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(PlanError, match="changes what its MLP gives before adding it"):
        fold(adapter_for(model), texts(study)[0], 1, 2 * torch.eye(16, dtype=torch.float64))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_biases_and_lists_of_layers_follow(study):
    model = tiny("llama", mlp_bias=True)
    torch.nn.init.normal_(model.model.layers[0].mlp.down_proj.bias)
    fold(adapter_for(model), texts(study)[0], 0, 2 * torch.eye(16, dtype=torch.float64))  # checks itself
    model = tiny("qwen3")
    model.config.layer_types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    adapter = adapter_for(model)
    remove(adapter, 1, 2)
    assert model.config.layer_types == ["full_attention"] * 3
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]


@pytest.mark.parametrize(
    ("depth", "first", "words"),
    [
        (6, None, "depth 6 must be between 2 and 5"),
        (1, None, "depth 1 must be between 2 and 5"),
        (4, 4, "first layer 4 must be between 1 and 3"),
    ],
)
def test_what_does_not_fit_is_refused(study, tmp_path, depth, first, words):
    with pytest.raises(SettingsError, match=words):
        make(study.adapter, None, texts(study), depth, tmp_path, first)
    assert not list(tmp_path.iterdir())


def test_a_mixture_of_experts_is_refused(study):
    model = tiny("mixtral")
    with pytest.raises(PlanError, match=r"layer 1 has no dense mlp\.down_proj"):
        next(walk(adapter_for(model), texts(study), 1))


def test_the_command(study, tokenizer, tmp_path):
    study.adapter.model.save_pretrained(tmp_path / "old")
    tokenizer.save_pretrained(tmp_path / "old")
    rows = [{"prompt": f"w{i} w5 w9", "completion": " w7 w8 w4 w20 w33"} for i in range(3, 9)]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    app = typer.Typer()
    app.callback()(lambda: None)
    register_commands(app)
    given = ["replaceme", "--model", tmp_path / "old", "--prompts", tmp_path / "q.jsonl", "--out", tmp_path / "new"]
    done = CliRunner().invoke(app, [*map(str, given), "--depth", "5", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["depth"] == 5
    again = CliRunner().invoke(app, [*map(str, given), "--depth", "5"])
    assert isinstance(again.exception, SettingsError)
    assert "holds a model already" in str(again.exception)
