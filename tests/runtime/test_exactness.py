"""The compiled backend against the eager one on the embedded model: 20 prompts, 128 tokens. Eight minutes: evidence.

Run by ``make evidence-speed``, or ``pytest -m evidence tests/runtime/test_exactness.py``.
"""

import os
from typing import Any

import pytest
import torch

import depthsched as ds

from .helpers import Capture
from .test_backends import compiles

PLANS = ("full", "d3:alpha=0.99", "linear:end=12", "step:at=24+64,drop=3+8")
TOKENS = 128
QUESTIONS = (
    "Explain in three sentences why the sky is blue.",
    "A shop sells pens at 3 coins each. How much do 14 pens cost?",
    "List four uses of copper.",
    "Write a short story about a lighthouse keeper.",
    "What is the difference between a lake and a pond?",
    "Translate 'good morning' into French and German.",
    "Is the expression not ( True and False ) or False true or false? Show each step.",
    "Name the planets in order of their distance from the sun.",
    "How do I boil an egg?",
    "Give three reasons to learn to swim.",
    "Tom has 12 apples, eats 3 and buys twice as many as are left. How many has he now?",
    "Describe a thunderstorm to someone who never saw one.",
    "What does a compiler do?",
    "Write a polite note that declines an invitation.",
    "Why do leaves change colour in autumn?",
    "Make a list of what to pack for two days in the mountains.",
    "Who invented the telephone, and when?",
    "Sum up the story of Cinderella.",
    "Which is heavier, a kilogram of feathers or a kilogram of iron?",
    "Write two lines of verse about the sea.",
)

pytestmark = [pytest.mark.evidence, compiles]


@pytest.fixture(autouse=True, scope="module")
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    yield
    torch.set_num_threads(before)


def questions(tokenizer: Any) -> list[str]:
    as_turn = lambda text: [{"role": "user", "content": text}]  # noqa: E731
    return [tokenizer.apply_chat_template(as_turn(q), add_generation_prompt=True, tokenize=False) for q in QUESTIONS]


def run(model: Any, inputs: Any, plan: str, backend: str) -> tuple[ds.Run, list[torch.Tensor]]:
    capture = Capture()
    options = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    found = ds.generate(
        model, inputs, plan, max_new_tokens=TOKENS, backend=backend, logits_processor=[capture], **options
    )
    assert found.trace.backend == backend
    return found, capture.logits


@pytest.mark.parametrize("plan", PLANS)
def test_tokens_and_logits_of_eager(smollm2: tuple[Any, Any], plan: str) -> None:
    model, tokenizer = smollm2
    texts = questions(tokenizer)
    alone = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt")
        eager, wanted = run(model, inputs, plan, "eager")
        fast, got = run(model, inputs, plan, "compiled")
        assert fast.tokens.tolist() == eager.tokens.tolist(), text
        assert max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(wanted, got, strict=True)) < 1e-3
        alone.append(fast.tokens[0].tolist())
    tokenizer.padding_side = "left"
    together, _ = run(model, tokenizer(texts, return_tensors="pt", padding=True), plan, "compiled")
    assert together.tokens.tolist() == alone
