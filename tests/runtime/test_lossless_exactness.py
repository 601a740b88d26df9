"""Lossless runs against plain full depth on the embedded model: 20 prompts, 512 tokens. An hour and a half: evidence.

Compiled runs take all prompts in batches of four, and one by one under d3. Other plans take the first four one by one,
and so do eager runs, which are several times slower and take the first eight in batches. With
``DEPTHSCHED_ANSWERS=FOLDER`` what full depth writes is kept there, so that a run that was cut off goes on.

Run by ``pytest -m evidence -s tests/runtime/test_lossless_exactness.py``, which also prints where runs parted from full
depth, and how far the two most likely tokens are apart there. ``DEPTHSCHED_PROFILE=FOLDER`` adds a plan with a profile,
``DEPTHSCHED_QUESTIONS=FOLDER`` takes the prompts from Spec-Bench's files there, in place of the tests' own, and
``DEPTHSCHED_DEVICE=cuda`` runs all of it on a GPU, where the backend cuda-graph stands for the compiled one.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import depthsched as ds
from depthsched.files import digest, write_json

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

DEVICE = os.environ.get("DEPTHSCHED_DEVICE", "cpu")
FAST = "compiled" if DEVICE == "cpu" else "cuda-graph"
pytestmark = [pytest.mark.evidence, compiles]


# Between these the order of the sums decides: of float32, and of bfloat16, whose logits here are steps of 1/16 to 1/8.
TIES = {"float32": 1e-3, "bfloat16": 0.5}
ARMS = [*((backend, "float32", plan) for backend in (FAST, "eager") for plan in (*PLANS, "profile"))]
ARMS[5:5] = [(FAST, "bfloat16", plan) for plan in ("d3", "constant", "profile")]


class Reference:
    """The embedded model in each dtype, and what plain full depth writes with it: computed when it is first wanted."""

    def __init__(self, float32: tuple[Any, Any]) -> None:
        self.models = {"float32": float32} if DEVICE == "cpu" else {}
        self.answers: dict[str, list[tuple[str, list[int]]]] = {}

    def model(self, dtype: str) -> tuple[Any, Any]:
        if dtype not in self.models:
            self.models[dtype] = ds.load_model("smollm2", dtype=dtype, device=DEVICE)
        return self.models[dtype]

    def wanted(self, dtype: str) -> list[tuple[str, list[int]]]:
        """Every prompt with the tokens of plain full depth."""
        if dtype not in self.answers:
            model, tokenizer = self.model(dtype)
            self.answers[dtype] = [(text, self.kept(dtype, text, model, tokenizer)) for text in prompts(tokenizer)]
        return self.answers[dtype]

    def kept(self, dtype: str, text: str, model: Any, tokenizer: Any) -> list[int]:
        folder = os.environ.get("DEPTHSCHED_ANSWERS")
        name = f"{dtype}-{TOKENS}-{digest(text)}.json" if DEVICE == "cpu" else f"{DEVICE}-{dtype}-{digest(text)}.json"
        file = Path(folder, name) if folder else None
        if file and file.is_file():
            found: list[int] = json.loads(file.read_text())
            return found
        found = plain(model, tokenizer, text)
        if file:
            write_json(file, found)
        return found


@pytest.fixture(scope="module")
def reference(smollm2: tuple[Any, Any]) -> Reference:
    return Reference(smollm2)


def prompts(tokenizer: Any) -> list[str]:
    folder = os.environ.get("DEPTHSCHED_QUESTIONS")
    if not folder:
        return questions(tokenizer)
    lines = [line for file in sorted(Path(folder).glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    turns = [json.loads(line)["turns"][0] for line in lines][:: max(len(lines) // 20, 1)][:20]
    as_turn = lambda text: [{"role": "user", "content": text}]  # noqa: E731
    assert len(turns) == 20, f"{folder} has {len(turns)} questions"
    return [tokenizer.apply_chat_template(as_turn(text), add_generation_prompt=True, tokenize=False) for text in turns]


def plain(model: Any, tokenizer: Any, text: str) -> list[int]:
    inputs = tokenizer(text, return_tensors="pt")
    tokens: list[int] = ds.generate(model, inputs, "full", backend=FAST, **OPTIONS).tokens[0].tolist()
    return tokens


def gap(model: Any, tokenizer: Any, text: str, tokens: list[int]) -> float:
    """How far apart the two most likely tokens of full depth are behind these, by transformers alone."""
    ids = tokenizer(text, return_tensors="pt")["input_ids"][0].tolist() + tokens
    with torch.no_grad():
        best = model(torch.tensor([ids], device=DEVICE)).logits[0, -1].float().topk(2).values
    return float(best[0] - best[1])


@pytest.mark.parametrize(("backend", "dtype", "plan"), ARMS)
def test_tokens_are_those_of_full_depth(reference: Reference, backend: str, dtype: str, plan: str) -> None:
    model, tokenizer = reference.model(dtype)
    profile = os.environ.get("DEPTHSCHED_PROFILE")
    if plan == "profile" and not profile:
        pytest.skip("DEPTHSCHED_PROFILE names no profile")
    options: dict[str, Any] = {"lossless": True, "draft_tokens": 3, "backend": backend, **OPTIONS}
    how: Any = "constant:depth=24" if plan == "profile" else PLANS[plan]
    options |= {"profile": profile} if plan == "profile" else {}
    tokenizer.padding_side = "left"
    runs, parted, wanted = 0, [], reference.wanted(dtype)
    wanted = wanted[:8] if backend == "eager" else wanted
    alone = len(wanted) if backend == FAST and plan == "d3" else 4
    for start in range(0, len(wanted), 4):
        group = wanted[start : start + 4]
        texts = [text for text, _ in group]
        asked = [(group, texts), *(([one], [one[0]]) for one in group if start < alone)]
        found = []
        for some, given in asked:
            run = ds.generate(model, tokenizer(given, return_tensors="pt", padding=True), how, **options)
            assert run.trace.backend == backend, run.trace.reason
            found += zip(some, run.tokens, strict=True)
        for (text, full), row in found:
            runs += 1
            at = next((i for i, (a, b) in enumerate(zip(row.tolist(), full, strict=True)) if a != b), None)
            if at is not None:
                parted.append((at, gap(model, tokenizer, text, full[:at])))
    print(f"{backend}, {dtype}, {plan}: {runs} runs, {len(parted)} parted, (token, gap): {parted}")
    assert all(apart < TIES[dtype] for _, apart in parted), parted
