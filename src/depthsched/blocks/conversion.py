"""What every conversion of a GGUF file needs, into blocks or into dense weights."""

from __future__ import annotations

import struct
from typing import Any

NOT_GGUF = (ValueError, KeyError, IndexError, ImportError, RuntimeError, struct.error)
"""What the readers of GGUF files raise on files that they cannot read."""


def repair_chat_tokens(model: Any, tokenizer: Any) -> None:
    """ChatML models end a turn with ``<|im_end|>``; older converters name another token."""
    end = "<|im_end|>"
    if end in tokenizer.get_vocab():
        tokenizer.eos_token = tokenizer.pad_token = end
        number = tokenizer.convert_tokens_to_ids(end)
        for config in (model.config, model.generation_config):
            config.eos_token_id = config.pad_token_id = number
