"""Weights in blocks of 32 that share a scale, as GGUF files hold them: never blown up to one number each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .matrix import BlockMatrix
    from .modules import BlockEmbedding, BlockLinear, weights_form

_WHERE = {
    "BlockEmbedding": ".modules",
    "BlockLinear": ".modules",
    "BlockMatrix": ".matrix",
    "weights_form": ".modules",
}
__all__ = ["BlockEmbedding", "BlockLinear", "BlockMatrix", "weights_form"]


def __getattr__(name: str) -> object:
    """Import what is asked for on its first use: the rest of the package needs no torch for it."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name], __name__), name)
