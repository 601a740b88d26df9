"""Plain values and tensors as bytes: JSON inside a safetensors file."""

from __future__ import annotations

import json
from typing import Any

_TENSOR = "\0tensor"


def pack(value: Any) -> bytes:
    """Bytes that :func:`unpack` reads back; tuples become lists.

    Parameters
    ----------
    value
        JSON with tensors in it; a mapping has text as keys.
    """
    import torch
    from safetensors.torch import save

    tensors: dict[str, torch.Tensor] = {}

    def plain(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            name = str(len(tensors))
            tensors[name] = part.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {_TENSOR: name}
        if isinstance(part, dict):
            if not all(isinstance(key, str) for key in part):
                raise TypeError(f"keys must be text, not {list(part)[:3]}")  # JSON would make them text, silently
            return {key: plain(inner) for key, inner in part.items()}
        return [plain(inner) for inner in part] if isinstance(part, (list, tuple)) else part

    text = json.dumps(plain(value))
    content: bytes = save(tensors, metadata={"value": text})
    return content


def unpack(content: bytes) -> Any:
    """What :func:`pack` was given."""
    from safetensors.torch import load

    size = int.from_bytes(content[:8], "little")
    text = json.loads(content[8 : 8 + size])["__metadata__"]["value"]
    tensors = load(content)

    def whole(part: dict[str, Any]) -> Any:
        return tensors[part[_TENSOR]] if _TENSOR in part else part

    return json.loads(text, object_hook=whole)
