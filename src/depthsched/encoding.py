"""Prompts as token ids, through the chat template of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import SettingsError

if TYPE_CHECKING:
    import torch


def encode(tokenizer: Any, text: str, *, raw: bool = False) -> tuple[int, ...]:
    """Token ids of a prompt, through the chat template if the tokenizer has one and the prompt is not ``raw``.

    Raises
    ------
    SettingsError
        The prompt has no tokens.
    """
    if not raw and getattr(tokenizer, "chat_template", None):
        chat = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
    if not ids:
        raise SettingsError("a prompt has no tokens")
    return tuple(ids)


def left_padded(rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids as one int64 tensor ``[rows, longest]`` padded on the left, and its attention mask."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def model_inputs(rows: Sequence[Sequence[int]], device: Any = None) -> dict[str, torch.Tensor]:
    """:func:`left_padded` rows as a model takes them: ``input_ids`` and ``attention_mask``."""
    ids, mask = left_padded(rows)
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def pieces(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """The text that each token adds."""
    found, done = [], ""
    for end in range(1, len(tokens) + 1):
        now = tokenizer.decode(tokens[:end])
        if now.endswith("�") and end < len(tokens):
            found.append("")  # a character that needs its next tokens
            continue
        found.append(now[len(done) :])
        done = now
    return found
