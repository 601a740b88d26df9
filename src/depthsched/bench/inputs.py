"""The prompts that a comparison runs on."""

from __future__ import annotations

from typing import Any

from ..encoding import encode, model_inputs

_PROMPTS = (
    "Explain in three sentences why the sky is blue.",
    "Write a short story about a lighthouse keeper who finds a map.",
    "What is 17 times 23?",
    "List four uses of copper and say which is the oldest.",
)


def bench_inputs(tokenizer: Any, batch: int, device: Any) -> dict[str, Any]:
    """``input_ids`` and ``attention_mask`` of prompts of different length, ``[batch, tokens]``, padded on the left."""
    return model_inputs([encode(tokenizer, _PROMPTS[row % len(_PROMPTS)]) for row in range(batch)], device)
