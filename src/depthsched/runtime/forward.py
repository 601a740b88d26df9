"""Passes through a whole model: what every backend does for the prompt, and the eager one for each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .gate import LayerGate


def run_prompt(
    gate: LayerGate, input_ids: Tensor, attention_mask: Tensor, cache: Any, chunk: int | None = None, layers: Any = None
) -> tuple[Tensor, Tensor]:
    """Run the prompt at full depth.

    Parameters
    ----------
    gate : LayerGate
        Entered.
    input_ids : Tensor
        ``[batch, tokens]``: what the cache does not hold yet.
    attention_mask : Tensor
        ``[batch, held + tokens]``; padding on the left has 0.
    cache : transformers.Cache
        Gets K and V of every layer.
    chunk : int, optional
        Most tokens of one pass, to bound its memory.
    layers : sequence, optional
        What runs in place of the model's own layers.

    Returns
    -------
    tuple of Tensor
        Logits of the last position ``[batch, vocabulary]``, and its position in each row, ``[batch, 1]``.
    """
    positions = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
    end = attention_mask.shape[1] - input_ids.shape[1]
    logits = torch.empty(0)
    for part in torch.split(input_ids, chunk or input_ids.shape[1], dim=1):
        begin, end = end, end + part.shape[1]
        logits = run_tokens(gate, layers or gate.full, part, attention_mask[:, :end], positions[:, begin:end], cache)
    return logits, positions[:, -1:]


def run_tokens(
    gate: LayerGate, layers: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Any
) -> Tensor:
    """One pass of these layers; logits of the last position ``[batch, vocabulary]``."""
    return run_all(gate, layers, input_ids, attention_mask, position_ids, cache, keep=1)[:, -1]


def run_all(
    gate: LayerGate, layers: Any, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Any,
    keep: int = 0,
) -> Tensor:  # fmt: skip
    """One pass of these layers; logits of the last ``keep`` positions, 0 for all, ``[batch, keep, vocabulary]``."""
    output = gate.run(
        layers,
        lambda: gate.adapter.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
            return_dict=True,
        ),
    )
    logits: Tensor = output.logits
    return logits


def run_several(
    gate: LayerGate, layers: Any, input_ids: Tensor, seen: Tensor, position_ids: Tensor, cache: Any
) -> Tensor:
    """One pass of these layers over some tokens of each row; logits of all of them, ``[batch, tokens, vocabulary]``.

    ``seen`` says which slots of the cache each token attends to, bool ``[batch, 1, tokens, slots]``.
    """
    dtype = gate.adapter.dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
    output = gate.run(
        layers,
        lambda: gate.adapter.model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            return_dict=True,
        ),
    )
    logits: Tensor = output.logits
    return logits
