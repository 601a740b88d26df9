"""A prefix held once for all rows, and rows that leave the batch: the tokens are those of the plain run."""

import pytest
import torch

import depthsched as ds
from depthsched.adapters import adapter_for
from depthsched.evaluate.prefixes import PromptStore, common_length
from depthsched.evaluate.shared import can_share, shared_prefix

from ..runtime.helpers import Capture, UpAndDown, closest
from ..tiny import VARIANTS, VOCAB

PREFIX, STEPS = 20, 10
SHARED = [name for name in VARIANTS if "sliding" not in name]
PLANS = ["full", "d3:alpha=0.9", UpAndDown()]


def rows(batch=3, tokens=6):
    """Rows with one prefix, padded behind it: row i by i tokens."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, VOCAB, (1, PREFIX), generator=generator).expand(batch, -1)
    own = torch.randint(3, VOCAB, (batch, tokens), generator=generator)
    mask = torch.ones(batch, PREFIX + tokens, dtype=torch.int64)
    for row in range(batch):
        mask[row, PREFIX : PREFIX + row] = 0
    return {"input_ids": torch.cat([ids, own], dim=-1) * mask, "attention_mask": mask}


def left_padded(inputs):
    """The same rows with all padding in front, as in any batch."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    whole = [row[keep.bool()] for row, keep in zip(ids, mask, strict=True)]
    pad = lambda row: torch.nn.functional.pad(row, (ids.shape[1] - len(row), 0))  # noqa: E731
    return {
        "input_ids": torch.stack([pad(row) for row in whole]),
        "attention_mask": torch.stack([pad(torch.ones_like(row)) for row in whole]),
    }


def logits_of(model, inputs, plan, **options):
    seen = Capture()
    run = ds.generate(model, inputs, plan, max_new_tokens=STEPS, logits_processor=[seen], **options)
    return run, seen.logits


def cache_of(model, inputs, *, dense=False, store=None):
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    store = store or PromptStore(adapter_for(model))
    prefix = tuple(ids[0, :PREFIX].tolist())
    return store.cache(prefix, ids[:, PREFIX:], mask[:, PREFIX:], STEPS + 1, dense=dense)


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("variant", SHARED)
def test_sharing_changes_no_logit(tiny_model, variant, plan):
    model, inputs = tiny_model(variant, "sdpa"), rows()
    plain, want = logits_of(model, inputs, plan, backend="eager")
    cache = cache_of(model, inputs)
    with shared_prefix(model):
        shared, got = logits_of(model, inputs, plan, backend="eager", past_key_values=cache)
    assert closest(got, want) < 1e-4
    assert shared.tokens.tolist() == plain.tokens.tolist()
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("backend", ["eager", "compiled"])
def test_every_backend_reads_a_prompt_computed_before(tiny_model, backend):
    model, inputs = tiny_model("llama", "sdpa"), rows()
    cache = cache_of(model, inputs, dense=True)
    usual = left_padded(inputs)
    plain, want = logits_of(model, usual, "d3:alpha=0.9", backend="eager")
    run, got = logits_of(model, usual, "d3:alpha=0.9", backend=backend, past_key_values=cache)
    assert run.trace.backend == backend
    assert closest(got, want) < 1e-4
    assert run.tokens.tolist() == plain.tokens.tolist()


def test_prompts_are_computed_once_for_all_plans(tiny_model):
    model, inputs = tiny_model("llama", "sdpa"), rows()
    store = PromptStore(adapter_for(model))
    for plan in PLANS:
        cache = cache_of(model, inputs, store=store)
        with shared_prefix(model):
            logits_of(model, inputs, plan, backend="eager", past_key_values=cache)
    own = int(inputs["attention_mask"][:, PREFIX:-1].sum())
    assert store.tokens == PREFIX + own
    other = {**inputs, "input_ids": inputs["input_ids"].clone()}
    other["input_ids"][:, -2] = 7
    cache_of(model, other, store=store)
    assert store.tokens == PREFIX + 2 * own


def test_batches_make_room(tiny_model):
    model, inputs = tiny_model("llama", "sdpa"), rows()
    store = PromptStore(adapter_for(model), limit_bytes=1)
    for _ in range(2):
        for token in (7, 8):
            other = {**inputs, "input_ids": inputs["input_ids"].clone()}
            other["input_ids"][:, -2] = token
            cache_of(model, other, store=store)
    assert len(store._rows) == 1
    assert store.tokens == PREFIX + 4 * int(inputs["attention_mask"][:, PREFIX:-1].sum())


def test_a_failed_run_gives_the_attention_back(tiny_model):
    model = tiny_model("llama", "sdpa")
    with pytest.raises(RuntimeError, match="stop"), shared_prefix(model):
        raise RuntimeError("stop")
    assert model.config._attn_implementation == "sdpa"


def test_sliding_windows_do_not_share(tiny_model):
    assert not can_share(adapter_for(tiny_model("mistral-sliding", "sdpa")))
    assert not can_share(adapter_for(tiny_model("qwen2-sliding", "sdpa")))
    assert can_share(adapter_for(tiny_model("qwen2", "sdpa")))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_rows_that_stopped_leave_the_batch(tiny_model, plan, shared):
    """Some rows stop early; the others go on as if nothing had happened, in fewer rows."""
    model, inputs = tiny_model("llama", "sdpa"), rows(batch=5)
    plain, _ = logits_of(model, inputs, plan, backend="eager")
    ends = [2, 9, 3, 2, 6]

    def stop(ids, scores, **kwargs):
        made = ids.shape[1] - inputs["input_ids"].shape[1]
        return torch.tensor([made >= end for end in ends])

    widths = []

    def watch(module, args, output):
        widths.append(len(output))

    handle = model.lm_head.register_forward_hook(watch)
    options = {"stopping_criteria": [stop], "eos_token_id": VOCAB - 1, "pad_token_id": 0}
    try:
        if shared:
            cache = cache_of(model, inputs)
            with shared_prefix(model):
                run = ds.generate(
                    model, inputs, plan, max_new_tokens=STEPS, backend="eager", drop_finished=True,
                    past_key_values=cache, **options,
                )  # fmt: skip
        else:
            run = ds.generate(model, inputs, plan, max_new_tokens=STEPS, backend="eager", drop_finished=True, **options)
    finally:
        handle.remove()
    assert sorted(set(widths), reverse=True) == [5, 3, 2, 1]
    for row, end in enumerate(ends):
        assert run.tokens[row, :end].tolist() == plain.tokens[row, :end].tolist()


def test_common_length_leaves_a_token_of_each_row():
    assert common_length([(1, 2, 3, 4), (1, 2, 5), (1, 2, 3, 9)]) == 2
    assert common_length([(1, 2), (1, 2)]) == 1
    assert common_length([(1, 2, 3), (1, 2)]) == 1
    assert common_length([(1, 2)]) == 0
    assert common_length(["abc", "abd"]) == 2
