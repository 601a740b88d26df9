"""AdaSkip and ConfLayers. Needs nothing but this plug-in and the conformance kit."""

import math

import pytest
import torch
from depthsched_rankers.sublayers import AdaSkip, ConfLayers, before_mlp, multiple
from transformers import AutoConfig, AutoModelForCausalLM

from depthsched.errors import PlanError, SettingsError
from depthsched.testing import RankerConformance, tiny_study


class TestAdaSkip(RankerConformance):
    ranker = AdaSkip
    max_examples = 5


class TestConfLayers(RankerConformance):
    ranker = ConfLayers
    max_examples = 5


@pytest.fixture(scope="module")
def study():
    with tiny_study(drops=2, num_layers=8) as made:
        yield made


def keeping(seen, at):
    """A hook that keeps what goes in, or, after a forward, what comes out."""
    return lambda module, args, out=None: seen.update({at: args[0] if out is None else out})


@torch.no_grad()
def slow_outputs(study, *, prompt):
    """``{layer: [(x, attention(x), mlp(x + attention(x))), ...]}`` token by token, from hooks on a plain forward."""
    model = study.adapter.model
    found = {i: [] for i in range(study.num_layers)}
    for batch in study.fitted.batches:
        for sample in batch.samples:
            text = sample.prompt if prompt else sample.prompt + sample.completion[:-1]
            seen, hooks = {}, []
            for i, layer in enumerate(model.model.layers):
                hooks.append(layer.register_forward_pre_hook(keeping(seen, (i, "x"))))
                hooks.append(layer.self_attn.register_forward_hook(keeping(seen, (i, "attention"))))
                hooks.append(layer.mlp.register_forward_hook(keeping(seen, (i, "mlp"))))
            try:
                model(torch.tensor([text]), use_cache=False)
            finally:
                for hook in hooks:
                    hook.remove()
            for i in found:
                rows = zip(seen[i, "x"][0], seen[i, "attention"][0][0], seen[i, "mlp"][0], strict=True)
                found[i] += list(rows)[0 if prompt else len(sample.prompt) :]
    return found


def norm(row):
    return math.sqrt(float(row @ row))


def test_scores_are_those_of_plain_forwards_over_the_prompts(study):
    named = study.named("adaskip")
    order = AdaSkip().resolve(named)
    said, score = named.evidence["adaskip"], {}
    for layer, rows in slow_outputs(study, prompt=True).items():
        ends = {"attention": [(x, x + a) for x, a, _ in rows], "mlp": [(x + a, x + a + m) for x, a, m in rows]}
        for part, pairs in ends.items():
            cosines = [float(before @ after) / norm(before) / norm(after) for before, after in pairs]
            ratios = [norm(after) / norm(before) for before, after in pairs]
            score[layer, part] = sum(cosines) / len(cosines)
            assert said["cosine"][part][layer] == pytest.approx(score[layer, part], abs=1e-5)
            assert said["norm_ratio"][part][layer] == pytest.approx(sum(ratios) / len(ratios), abs=1e-4)
    layers = sorted(study.droppable, key=lambda layer: -score[layer, "attention"] - score[layer, "mlp"])
    assert list(order) == layers[:2]
    every = sorted(((layer, part) for layer, part in score if layer in study.droppable), key=score.get, reverse=True)
    assert [tuple(pair) for pair in said["published"]] == every[:4]
    assert len({round(value, 3) for value in score.values()}) > 8


def slow_confidence(row):
    p = row.double().softmax(-1)
    return 1 - float(-(p * p.log()).sum()) / math.log(len(row))


def test_what_a_multiple_skips_is_the_beginning_of_the_order(study):
    """The published rule, written down for each m: ``c_i < mean - m * deviation`` of the layers around."""
    outputs = slow_outputs(study, prompt=False)
    c = {i: sum(slow_confidence(a) + slow_confidence(m) for _, a, m in rows) / len(rows) for i, rows in outputs.items()}
    named, window = study.named("conflayers"), 2
    order = list(ConfLayers(window=window).rank(named))
    sizes = set()
    for m in torch.linspace(-5, 5, 201).tolist():
        skipped = set()
        for i in study.droppable:
            near = torch.tensor([c[j] for j in study.droppable if 0 < abs(i - j) <= window], dtype=torch.float64)
            if c[i] < float(near.mean() - m * near.std(correction=0)):
                skipped.add(i)
        assert skipped == set(order[: len(skipped)])
        sizes.add(len(skipped))
    assert len(sizes) > 4
    said = {row["layer"]: row["confidence"] for row in named.evidence["conflayers:window=2"]}
    assert said == pytest.approx({i: c[i] for i in study.droppable}, abs=1e-6)


def test_a_layer_without_neighbours_has_no_figure():
    assert multiple({3: 0.2}, 3, 4) == 0.0
    assert multiple({3: 0.2, 9: 0.1}, 3, 4) == 0.0


def tiny(family, **changes):
    config = AutoConfig.for_model(
        family,
        num_hidden_layers=6,
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


@pytest.mark.parametrize("family", ["llama", "gemma2", "olmo2", "granite", "glm4", "apertus"])
@torch.no_grad()
def test_the_state_between_is_what_a_layer_gives_whose_mlp_adds_nothing(family):
    """In every way of placing norms and scaling residuals."""
    model = tiny(family)
    seen = {}
    for i, layer in enumerate(model.model.layers):
        before_mlp(layer).register_forward_pre_hook(lambda m, args, i=i: seen.update({i: args[0]}))
    ids = torch.arange(3, 12)[None]
    for i, layer in enumerate(model.model.layers):
        silent = layer.mlp.register_forward_hook(lambda m, args, out: torch.zeros_like(out))
        after = layer.register_forward_hook(lambda m, args, out, i=i: seen.update({"after": out}))
        model(ids, use_cache=False)
        assert torch.allclose(seen[i], seen["after"], atol=1e-5)
        assert i or not torch.allclose(seen[i], model.model.embed_tokens(ids), atol=1e-3)
        silent.remove()
        after.remove()


def test_a_family_without_a_state_between_is_refused():
    with pytest.raises(PlanError, match="no state between attention and MLP; use a ranker that compares whole layers"):
        before_mlp(tiny("cohere").model.layers[0])
    with tiny_study(model=tiny("cohere")) as study, pytest.raises((PlanError, SettingsError), match="no state between"):
        AdaSkip().resolve(study)
