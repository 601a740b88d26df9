"""The prompts that a comparison runs on."""

from __future__ import annotations

from typing import Any

_PROMPTS = (
    "Explain in three sentences why the sky is blue.",
    "Write a short story about a lighthouse keeper who finds a map.",
    "What is 17 times 23?",
    "List four uses of copper and say which is the oldest.",
)


def bench_inputs(tokenizer: Any, batch: int, device: Any) -> dict[str, Any]:
    """``input_ids`` and ``attention_mask`` of prompts of different length, ``[batch, tokens]``, padded on the left."""
    texts = [_PROMPTS[row % len(_PROMPTS)] for row in range(batch)]
    if tokenizer.chat_template is not None:
        texts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
            )
            for text in texts
        ]
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    return {k: encoded[k].to(device) for k in ("input_ids", "attention_mask")}
