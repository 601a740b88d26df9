"""Adapters: what the runtime needs of a model family."""

from typing import Any

from ..errors import ModelError
from .base import Adapter
from .families import REFUSED
from .llama import LlamaAdapter
from .unwrap import unwrap

BUILTIN = (LlamaAdapter,)

__all__ = ["BUILTIN", "Adapter", "LlamaAdapter", "adapter_for"]


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
    from ..plugins import adapter_classes

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
