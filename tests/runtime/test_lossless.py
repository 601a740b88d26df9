"""Lossless runs: the text is that of full depth, whatever drafts it, in whatever batch, and however it stops."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import AutoConfig, DynamicCache, StaticCache

import depthsched as ds
from depthsched.errors import PlanError
from depthsched.runtime.lossless import accept
from depthsched.runtime.rounds import Round, acceptance

from ..covering import covering
from ..tiny import LAYERS, MAIN, VARIANTS, make_tiny, prompt, tiny
from .helpers import RaiseAt, UpAndDown
from .test_backends import compiles

STEPS = 20
PLANS: dict[str, Any] = {
    "d3": "d3:alpha=0.9",
    "constant": "constant:depth=6",
    "early-exit": "constant:depth=5",
    "rising": UpAndDown(),
    "adaptive": "confidence:depth=5",
}
backends = pytest.mark.parametrize("backend", ["eager", pytest.param("compiled", marks=compiles)])


def full(model: Any, inputs: Any, steps: int = STEPS, **options: Any) -> torch.Tensor:
    return ds.generate(model, inputs, "full", max_new_tokens=steps, backend="eager", **options).sequences


def drafted(model: Any, inputs: Any, plan: Any, steps: int = STEPS, **options: Any) -> ds.Run:
    return ds.generate(model, inputs, plan, max_new_tokens=steps, lossless=True, **options)


# Any two of model, plan, batch and rule with each backend; test_any_plan_draft_and_end draws from all of them.
CASES = covering(MAIN, PLANS, (1, 4), (1, 3, "auto", "confidence:0.2", "del"))


@pytest.mark.quick
@backends
@pytest.mark.parametrize(("variant", "plan", "batch", "count"), CASES)
def test_tokens_are_those_of_full_depth(variant: str, plan: Any, batch: int, count: Any, backend: str) -> None:
    model, inputs = tiny(variant, "sdpa"), prompt(batch, 6)
    run = drafted(model, inputs, plan, draft_tokens=count, backend=backend)
    assert run.trace.backend == backend
    assert torch.equal(run.sequences, full(model, inputs))
    assert run.trace.rounds
    assert sum(1 for _ in run.trace.steps) == STEPS


@pytest.mark.parametrize("variant", sorted(set(VARIANTS) - set(MAIN)))
def test_in_the_other_families(variant: str) -> None:
    model, inputs = tiny(variant, "sdpa"), prompt(3, 6)
    if "sliding" in variant:
        with pytest.raises(PlanError, match=r"sliding window|another state"):
            drafted(model, inputs, "constant:depth=6", draft_tokens=2)
        return
    run = drafted(model, inputs, "constant:depth=6", draft_tokens=2)
    assert torch.equal(run.sequences, full(model, inputs))


@pytest.mark.quick
@backends
@settings(max_examples=30)
@given(st.data())
def test_any_plan_draft_and_end(backend: str, data: st.DataObject) -> None:
    model = tiny(data.draw(st.sampled_from(MAIN)), "sdpa")
    inputs = prompt(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9)))
    steps = data.draw(st.integers(1, 24))
    free = full(model, inputs, steps)
    options: dict[str, Any] = {"pad_token_id": 0}
    if data.draw(st.booleans()):
        options["eos_token_id"] = data.draw(
            st.sampled_from(sorted(set(free[:, inputs["input_ids"].shape[1] :].flatten().tolist())))
        )
    if data.draw(st.booleans()):
        options["repetition_penalty"] = 1.7
    plan = data.draw(st.sampled_from([*PLANS.values()]))
    count = data.draw(st.sampled_from([1, 2, 3, 5, 16, "auto", "confidence", "confidence:0.2", "del"]))
    run = drafted(model, inputs, plan, steps, draft_tokens=count, backend=backend, **options)
    assert torch.equal(run.sequences, full(model, inputs, steps, **options))


@pytest.mark.quick
@backends
def test_a_row_that_ends_with_its_first_token_leaves_the_batch(backend: str) -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(3, 6)
    first = full(model, inputs, 1)[:, -1]
    options = {"eos_token_id": int(first[0]), "pad_token_id": 0}
    assert (first == first[0]).sum() < 3, "the others go on"
    run = drafted(model, inputs, "constant:depth=6", draft_tokens=2, backend=backend, **options)
    assert torch.equal(run.sequences, full(model, inputs, **options))


@backends
def test_stop_strings_and_streamers(smollm2: tuple[Any, Any], backend: str) -> None:
    model, tokenizer = smollm2
    inputs = tokenizer("One, two, three, four,", return_tensors="pt")
    options = {"stop_strings": [" seven"], "tokenizer": tokenizer, "do_sample": False}
    want = full(model, inputs, 24, **options)
    assert want.shape[1] < inputs["input_ids"].shape[1] + 24
    seen: list[int] = []

    class Keep:
        def put(self, value: torch.Tensor) -> None:
            seen.extend(value.flatten().tolist())

        def end(self) -> None:
            seen.append(-1)

    run = drafted(model, inputs, "constant:depth=24", 24, draft_tokens=4, backend=backend, streamer=Keep(), **options)
    assert torch.equal(run.sequences, want)
    assert seen == [*want[0].tolist(), -1]


class Breaks:
    """Fails at its ``left``-th use, as a streamer, a stopping criterion or a schedule."""

    def __init__(self, left: int, error: BaseException) -> None:
        self.left, self.error = left, error

    def put(self, value: torch.Tensor) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error

    def end(self) -> None:
        """Nothing is held back."""

    def __call__(self, ids: torch.Tensor, scores: Any) -> torch.Tensor:
        self.put(ids)
        return torch.zeros(len(ids), dtype=torch.bool)


def broken_at(step: int, where: str) -> dict[str, Any]:
    if where == "processor":
        return {"logits_processor": [RaiseAt(step, KeyboardInterrupt())]}
    if where == "streamer":
        return {"streamer": Breaks(step + 1, KeyboardInterrupt())}
    return {"stopping_criteria": [Breaks(step, KeyboardInterrupt())]} if where == "criterion" else {}


@dataclass(frozen=True)
class Unsure(ds.AdaptiveSchedule):
    """Adaptive, and broken from a step on."""

    at: int = 0

    def depth(self, step: Any, num_layers: int) -> Any:
        return 5

    def decide(self, step: int, num_layers: int, signals: Any) -> Any:
        if step >= self.at:
            raise KeyboardInterrupt
        return 5


@pytest.mark.quick
@backends
@pytest.mark.parametrize("where", ["processor", "streamer", "criterion", "schedule"])
def test_nothing_is_left_after_an_exception(backend: str, where: str) -> None:
    model, inputs = make_tiny("llama", "sdpa"), prompt(1, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    want, whole = full(model, inputs), DynamicCache(config=model.config)
    full(model, inputs, past_key_values=whole)
    for step in (0, 3, 9):
        plan: Any = Unsure(at=step) if where == "schedule" else "constant:depth=5"
        options = broken_at(step, where)
        cache = DynamicCache(config=model.config) if backend == "eager" else None
        own = {} if cache is None else {"past_key_values": cache}
        with pytest.raises(KeyboardInterrupt):
            drafted(model, inputs, plan, draft_tokens=3, backend=backend, **options, **own)
        assert type(model.model.layers) is torch.nn.ModuleList
        assert "generate" not in vars(model)
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        if cache is not None:  # nothing of the draft is in it, and it can be gone on with
            held = cache.get_seq_length()
            assert held > 7 or step < 9  # what was checked before the draft is kept
            assert {layer.get_seq_length() for layer in cache.layers} == {held}
            for layer, other in zip(cache.layers, whole.layers, strict=True):
                torch.testing.assert_close(layer.keys, other.keys[:, :, :held])
            text = {"input_ids": want[:, : held + 1], "attention_mask": torch.ones(1, held + 1, dtype=torch.long)}
            rest = drafted(model, text, "constant:depth=5", want.shape[1] - held - 1, past_key_values=cache)
            assert torch.equal(rest.sequences, want)
    assert torch.equal(drafted(model, inputs, "constant:depth=5", backend=backend).sequences, want)


@pytest.mark.quick
@pytest.mark.parametrize("variant", ["llama", "mistral-long"])
@pytest.mark.parametrize("eos", [False, True])
def test_the_callers_cache_holds_the_text(variant: str, eos: bool) -> None:
    model = make_tiny("mistral", "sdpa", sliding_window=200) if "long" in variant else tiny(variant, "sdpa")
    inputs, caches = prompt(1, 6), [DynamicCache(config=model.config) for _ in range(2)]
    end = {"eos_token_id": int(full(model, inputs)[0, 16]), "pad_token_id": 0} if eos else {}
    want = full(model, inputs, past_key_values=caches[0], **end)
    run = drafted(model, inputs, "d3:alpha=0.8", draft_tokens=4, past_key_values=caches[1], **end)
    assert torch.equal(run.sequences, want)
    assert [c.get_seq_length() for c in caches] == [want.shape[1] - 1] * 2
    for mine, plain in zip(caches[1].layers, caches[0].layers, strict=True):
        torch.testing.assert_close(mine.keys, plain.keys)
        torch.testing.assert_close(mine.values, plain.values)
    both = [model.generate(want, past_key_values=c, max_new_tokens=5, do_sample=False) for c in caches]
    assert torch.equal(*both)


@pytest.mark.quick
def test_the_prompt_is_computed_once() -> None:
    model, inputs = make_tiny("llama", "sdpa"), prompt(1, 9)
    tokens: list[int] = []
    handle = model.model.layers[0].register_forward_hook(lambda _, args, __: tokens.append(args[0].shape[1]))
    try:
        run = drafted(model, inputs, "constant:depth=6", draft_tokens=3, backend="eager")
    finally:
        handle.remove()
    rounds = run.trace.rounds or []
    assert tokens[0] == 9
    assert sum(tokens[1:]) == sum(2 * r.drafted + 1 for r in rounds)


@pytest.mark.quick
def test_what_a_run_says() -> None:
    model, inputs = tiny("llama", "sdpa"), prompt(1, 6)
    run = drafted(model, inputs, "constant:depth=7", draft_tokens=3)
    rounds = run.trace.rounds or []
    assert sum(1 + sum(r.accepted) for r in rounds) >= STEPS - 1
    said = run.to_json()["lossless"]
    assert said["drafted"] == sum(r.drafted for r in rounds)
    assert said["accepted"] == sum(sum(r.accepted) for r in rounds)
    assert "drafted tokens accepted" in run.report()
    weights = sum(r.drafted * 7 + LAYERS for r in rounds)
    assert run.trace.mean_depth == pytest.approx(weights / (STEPS - 1))
    always = drafted(model, inputs, "constant:depth=8", draft_tokens=3)  # the draft is full depth itself
    assert all(r.accepted == (r.drafted,) for r in always.trace.rounds or [])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lossless": True, "draft_tokens": 0}, "draft_tokens=0 must be auto, a whole number from 1 to 16"),
        ({"lossless": True, "draft_tokens": "many"}, "draft_tokens='many' must be auto"),
        ({"lossless": True, "draft_tokens": "confidence:2"}, "the threshold must be a number from 0 to 1"),
        ({"lossless": True, "skipped_kv": "write"}, "a lossless run leaves every layer's K and V"),
        ({"lossless": True, "cache_implementation": "static"}, "cache_implementation='static': a lossless run"),
        ({"lossless": True, "past_key_values": StaticCache(AutoConfig.for_model("llama"), 8)}, "is a StaticCache"),
        ({"lossless": True, "draft_tokens": True}, "draft_tokens=True must be auto"),
        ({"draft_tokens": 3}, "add lossless=True"),
        ({"lossless": True, "output_scores": True}, "output_scores is not kept"),
        ({"lossless": True, "drop_finished": True}, "drop_finished is what a lossless run always does"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        ds.generate(tiny("llama"), prompt(1, 4), "constant:depth=5", max_new_tokens=2, **options)


@pytest.mark.quick
def test_a_cache_of_several_rows_is_refused() -> None:
    model = tiny("llama", "sdpa")
    for inputs, more in ((prompt(2, 4), {}), (prompt(1, 4), {"num_return_sequences": 2, "do_sample": True})):
        cache = DynamicCache(config=model.config)
        with pytest.raises(PlanError, match="past_key_values of 2 rows"):
            drafted(model, inputs, "constant:depth=5", 4, past_key_values=cache, **more)
        assert cache.get_seq_length() == 0


def p_and_q(seed: int, size: int = 6) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.softmax(2 * torch.randn(3, size, generator=generator), dim=-1)  # noqa: E731
    return list(draw()), list(draw())


def first_tokens(rule: Any, draws: int, seed: int) -> tuple[list[int], torch.Tensor]:
    """How often each token comes first under an acceptance rule, and how often it should."""
    p, q = p_and_q(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    counts: Counter[int] = Counter()
    for _ in range(draws):
        draft = [int(torch.multinomial(one, 1, generator=generator)) for one in q[:2]]
        verdict = rule(draft, q[:2], lambda place: p[place].log(), generator)
        counts[[*draft[: verdict.accepted], verdict.token][0]] += 1
    return [counts[i] for i in range(len(p[0]))], p[0] * draws


@pytest.mark.parametrize("seed", range(3))
def test_sampling_is_distributed_as_full_depth(seed: int) -> None:
    found, wanted = first_tokens(accept.sampled, 20_000, seed)
    assert chisquare(found, wanted.double().numpy(), sum_check=False).pvalue > 1e-3


def always(draft: Any, proposed: Any, scores: Any, generator: Any) -> accept.Verdict:
    """Keeps whatever was drafted."""
    return accept.Verdict(len(draft), 0)


def from_p(draft: Any, proposed: Any, scores: Any, generator: Any) -> accept.Verdict:
    """Rejects as it should, and then draws from all of full depth's distribution, not from the rest."""
    found = accept.sampled(draft, proposed, scores, generator)
    p = torch.softmax(scores(found.accepted), dim=-1)
    return found._replace(token=int(torch.multinomial(p, 1, generator=generator)))


@pytest.mark.parametrize("rule", [always, from_p])
def test_a_wrong_rule_is_found_out(rule: Any) -> None:
    found, wanted = first_tokens(rule, 20_000, 0)
    assert chisquare(found, wanted.double().numpy(), sum_check=False).pvalue < 1e-6


@backends
def test_two_sampled_tokens_of_a_model(backend: str) -> None:
    """Through the whole loop, on a vocabulary small enough to count every pair."""
    size, draws = 6, 20_000
    model = make_tiny("llama", "sdpa", vocab_size=size, pad_token_id=None, bos_token_id=None)
    ids = torch.tensor([[1, 4, 2]])
    with torch.no_grad():
        one = torch.softmax(model(ids).logits[0, -1], dim=-1)
        both = torch.cat([ids.expand(size, -1), torch.arange(size)[:, None]], dim=-1)
        pairs = one[:, None] * torch.softmax(model(both).logits[:, -1], dim=-1)
        third = torch.cat([both.repeat_interleave(size, 0), torch.arange(size).repeat(size)[:, None]], dim=-1)
        wanted = (pairs.reshape(-1, 1) * torch.softmax(model(third).logits[:, -1], dim=-1)).sum(0)
    torch.manual_seed(0)
    run = ds.generate(
        model, ids.expand(500, -1), "constant:depth=5", max_new_tokens=3, do_sample=True, top_k=0, lossless=True,
        draft_tokens=2, backend=backend,
    )  # fmt: skip
    rows = [run.tokens]
    for seed in range(1, draws // 500):
        torch.manual_seed(seed)
        rows.append(
            ds.generate(
                model, ids.expand(500, -1), "constant:depth=5", max_new_tokens=3, do_sample=True, top_k=0,
                lossless=True, draft_tokens=2, backend=backend,
            ).tokens
        )  # fmt: skip
    found = torch.cat(rows)[:, 2].bincount(minlength=size)
    assert chisquare(found.numpy(), (wanted * draws).double().numpy(), sum_check=False).pvalue > 1e-3


def test_acceptance_by_place() -> None:
    rounds = [Round(5, 3, (3, 1), 0.0, 0.0), Round(5, 3, (0,), 0.0, 0.0), Round(5, 0, (0,), 0.0, 0.0)]
    assert acceptance(rounds) == [pytest.approx(2 / 3), pytest.approx(1 / 2), 1.0]
