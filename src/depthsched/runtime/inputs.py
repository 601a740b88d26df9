"""What a run may be given: token ids that the model knows, and no more of them than it has positions for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from ..adapters import Adapter
from ..errors import DepthschedWarning, PlanError


def read_inputs(adapter: Adapter, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, ``[batch, tokens]`` each, on the model's device.

    Parameters
    ----------
    adapter : Adapter
    inputs : mapping or torch.Tensor
        ``input_ids`` and maybe ``attention_mask``, or the ids alone.

    Raises
    ------
    PlanError
        They are not ids of this model, empty, padded on the right, or come with something that would be ignored.
    """
    given = dict(inputs) if isinstance(inputs, Mapping) else {"input_ids": inputs}
    ids, mask = given.pop("input_ids", None), given.pop("attention_mask", None)
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.is_floating_point():
        raise PlanError(
            "inputs must be token ids of shape [batch, tokens], such as tokenizer(text, return_tensors='pt')"
        )
    if ids.shape[1] == 0 or ids.shape[0] == 0:
        raise PlanError("the prompt is empty; give at least one token")
    for name, value in given.items():  # tokenizers of some Llamas return token types, all 0, that no Llama reads
        if not (name == "token_type_ids" and not bool(torch.as_tensor(value).any())):
            raise PlanError(f"ds.generate does not take {name} in its inputs; use ds.attach with model.generate")
    mask = torch.ones_like(ids) if mask is None else mask
    if mask.shape != ids.shape:
        raise PlanError(f"attention_mask has shape {list(mask.shape)} and input_ids {list(ids.shape)}")
    if mask.shape[0] > 1 and not bool(mask[:, -1].all()):
        raise PlanError("the batch is padded on the right; set tokenizer.padding_side = 'left'")
    check_ids(adapter, ids)
    return ids.to(adapter.device), mask.to(adapter.device)


def check_ids(adapter: Adapter, ids: torch.Tensor) -> None:
    """Raise unless every id has a row in the model's embedding.

    Raises
    ------
    PlanError
    """
    embedding = adapter.model.get_input_embeddings()
    rows = getattr(embedding, "num_embeddings", None) or embedding.weight.shape[0]
    low, high = (int(end) for end in torch.aminmax(ids)) if ids.numel() else (0, 0)
    if low < 0 or high >= rows:
        raise PlanError(
            f"token id {low if low < 0 else high} is not in the model's vocabulary of {rows}; "
            "the tokenizer is another model's"
        )


def check_lengths(adapter: Adapter, prompt: int, new: int = 0) -> None:
    """Compare a run with the positions that the model was made for.

    Parameters
    ----------
    adapter : Adapter
    prompt, new : int
        Tokens of the prompt, and most tokens after it.

    Raises
    ------
    PlanError
        The prompt alone is longer. A longer run only warns.
    """
    positions = getattr(adapter.config, "max_position_embeddings", None)
    if positions is None:
        return
    if prompt > positions:
        raise PlanError(f"the prompt has {prompt} tokens and the model {positions} positions; shorten the prompt")
    if prompt + new > positions:
        warnings.warn(
            f"prompt and answer may reach {prompt + new} tokens and the model has {positions} positions; "
            "text past them is of no use: ask for fewer new tokens",
            DepthschedWarning,
            stacklevel=3,
        )
