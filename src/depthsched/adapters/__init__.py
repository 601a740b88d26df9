"""Adapters: what the runtime needs of a model family."""

from collections.abc import Callable
from typing import Any

from ..errors import ModelError
from ..hookspecs import hookimpl
from ..plugins import adapter_classes
from .base import Adapter
from .families import REFUSED
from .llama import LlamaAdapter
from .unwrap import unwrap

__all__ = ["Adapter", "LlamaAdapter", "adapter_for"]


@hookimpl
def register_adapters(register: Callable[[type[Adapter]], None]) -> None:
    """Offer the built-in adapters."""
    register(LlamaAdapter)


def adapter_for(model: Any, *, force: bool = False) -> Adapter:
    """The adapter of a model.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Also inside PEFT, ``torch.compile`` or DistributedDataParallel: ``adapter.model`` is then the model inside.
    force : bool
        Drive a family that is unknown or refused as if it were a Llama.

    Raises
    ------
    ModelError
        The family is unknown or unsafe and ``force`` is off, the model has no decoder layers, or a wrapper or
        compiled code is in the way.
    """
    model = unwrap(model)
    config = model.config.get_text_config(decoder=True)
    family = config.model_type
    known = {f: entry.value for entry in adapter_classes().values() for f in entry.value.families}
    if family not in known and not force:
        reason = REFUSED.get(family, "nobody has checked that its layers can be skipped")
        raise ModelError(f"model family {family!r} is refused: {reason}; known: {', '.join(sorted(known))} (or force)")
    if getattr(config, "is_encoder_decoder", False) or model.get_output_embeddings() is None:
        raise ModelError(f"{type(model).__name__} is not a causal language model; load it with AutoModelForCausalLM")
    adapter: Adapter = known.get(family, LlamaAdapter)(model)
    _ = adapter.layers  # a model without layers is refused here, before anything is attached
    return adapter
