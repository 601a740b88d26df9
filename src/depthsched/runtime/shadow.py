"""Methods of a model replaced on the instance for a while, and calls of its ``generate`` read by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..errors import AttachError


def shadow(stack: ExitStack, model: Any, name: str, method: Callable[..., Any]) -> None:
    """Put a method on the instance until the stack unwinds."""
    attributes = model.__dict__
    if name in attributes:
        stack.callback(attributes.__setitem__, name, attributes[name])
    else:
        stack.callback(attributes.pop, name, None)
    attributes[name] = method


def refuse_attached(model: Any) -> None:
    """Raise where another plan drafts on this model.

    Raises
    ------
    AttachError
    """
    if getattr(model.__dict__.get("generate"), "drafts", False):
        raise AttachError("this model already runs a plan; leave that block first, or load a second copy of the model")


def named(method: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call of ``generate`` by name."""
    bound = inspect.signature(method).bind(*args, **kwargs).arguments
    return {**{k: v for k, v in bound.items() if k != "kwargs"}, **bound.get("kwargs", {})}


def refuse_continuous_batching(*args: Any, **kwargs: Any) -> Any:
    """In place of a model's ``init_continuous_batching``.

    Raises
    ------
    AttachError
    """
    raise AttachError(
        "continuous batching (generate_batch) mixes rows at different steps in one pass, for which a plan has no one "
        "depth; use generate with a padded batch"
    )
