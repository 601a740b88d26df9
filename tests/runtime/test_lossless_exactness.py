"""Lossless runs against plain full depth on the embedded model: 20 prompts, 512 tokens. Half an hour: evidence.

Run by ``pytest -m evidence tests/runtime/test_lossless_exactness.py``; ``DEPTHSCHED_PROFILE=FOLDER`` adds a plan with a
profile.
"""

import os
from typing import Any

import pytest
import torch

import depthsched as ds

from .helpers import UpAndDown
from .test_backends import compiles
from .test_exactness import questions, two_threads

__all__ = ["two_threads"]

PLANS: dict[str, Any] = {
    "d3": "d3:alpha=0.99",
    "constant": "constant:depth=24",
    "rising": UpAndDown(),
    "adaptive": "confidence:depth=24",
}
TOKENS = 512
OPTIONS = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}

pytestmark = [pytest.mark.evidence, compiles]


@pytest.fixture(scope="module")
def wanted(smollm2: tuple[Any, Any]) -> list[tuple[str, list[int]]]:
    """Every prompt with the tokens of plain full depth."""
    model, tokenizer = smollm2
    run = lambda text: ds.generate(model, tokenizer(text, return_tensors="pt"), "full", backend="compiled", **OPTIONS)  # noqa: E731
    return [(text, run(text).tokens[0].tolist()) for text in questions(tokenizer)]


def is_a_tie(model: Any, tokenizer: Any, text: str, tokens: list[int], at: int) -> bool:
    """Whether full depth, by transformers alone, has two most likely tokens within rounding of each other there."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0].tolist() + tokens[:at]
    with torch.no_grad():
        best = model(torch.tensor([ids])).logits[0, -1].topk(2).values
    gap = float(best[0] - best[1])
    print(f"token {at} of {text[-60:]!r}: the two most likely are {gap:.2g} apart")
    return gap < 1e-3


@pytest.mark.parametrize("plan", [*PLANS, "profile"])
def test_tokens_are_those_of_full_depth(
    smollm2: tuple[Any, Any], wanted: list[tuple[str, list[int]]], plan: str
) -> None:
    model, tokenizer = smollm2
    profile = os.environ.get("DEPTHSCHED_PROFILE")
    if plan == "profile" and not profile:
        pytest.skip("DEPTHSCHED_PROFILE names no profile")
    options: dict[str, Any] = {"lossless": True, "draft_tokens": 3, "backend": "compiled", **OPTIONS}
    how: Any = "constant:depth=24" if plan == "profile" else PLANS[plan]
    options |= {"profile": profile} if plan == "profile" else {}
    tokenizer.padding_side = "left"
    ties = 0
    for start in range(0, len(wanted), 4):
        group = wanted[start : start + 4]
        texts = [text for text, _ in group]
        alone = [ds.generate(model, tokenizer(t, return_tensors="pt"), how, **options).tokens[0] for t in texts]
        together = ds.generate(model, tokenizer(texts, return_tensors="pt", padding=True), how, **options).tokens
        for (text, full), rows in zip(group, zip(alone, together, strict=True), strict=True):
            for row in rows:
                at = next((i for i, (a, b) in enumerate(zip(row.tolist(), full, strict=True)) if a != b), None)
                assert at is None or is_a_tie(model, tokenizer, text, full, at)
                ties += at is not None
    print(f"{plan}: {2 * len(wanted)} runs, {ties} parted at a tie")
