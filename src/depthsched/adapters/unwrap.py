"""From what a caller holds to the transformers model inside it: PEFT, ``torch.compile`` and parallel wrappers."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError

_PEFT_REFUSED = {
    "ADAPTION_PROMPT": "it wraps the attention that writes K and V",
    "SHADOW": "it carries a state from layer to layer, which a skipped layer would not update",
    "XLORA": "it runs the layers twice for each token",
}


def unwrap(model: Any) -> Any:
    """The transformers model inside any wrappers that keep it whole.

    Parameters
    ----------
    model : object
        A transformers model, or one in PEFT, ``torch.compile`` or DistributedDataParallel, nested in any order.

    Raises
    ------
    ModelError
        There is no transformers model inside, or what wraps it or compiled it cannot follow a plan.
    """
    while (inside := _inside(model)) is not None:
        model = inside
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        held = [name for name in ("module", "model") if isinstance(getattr(model, name, None), PreTrainedModel)]
        advice = f"pass its .{held[0]}" if held else "pass one from AutoModelForCausalLM"
        raise ModelError(f"{type(model).__name__} is not a transformers model; {advice}")
    _refuse_compiled(model)
    return model


def _inside(model: Any) -> Any:
    """What one wrapper holds, or None if this is not a wrapper. By name: PEFT need not be installed."""
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in type(model).__mro__}
    if ("torch", "OptimizedModule") in bases:
        return model._orig_mod
    if ("torch", "DataParallel") in bases:
        raise ModelError("DataParallel copies the model at every forward, out of reach of a plan; pass model.module")
    if ("torch", "DistributedDataParallel") in bases:
        return model.module
    if bases & {("peft", "PeftModel"), ("peft", "PeftMixedModel")}:
        return _inside_peft(model)
    return None


def _inside_peft(model: Any) -> Any:
    for config in model.peft_config.values():
        kind = getattr(config.peft_type, "value", config.peft_type)
        reason = _PEFT_REFUSED.get(kind)
        if config.is_prompt_learning:
            reason = "its learned prompt enters in the wrapper, outside the model that a plan drives"
        if reason:
            raise ModelError(f"PEFT type {kind} is refused: {reason}; adapters in the weights, such as LoRA, work")
    return model.base_model.model


def _refuse_compiled(model: Any) -> None:
    for name, module in model.named_modules():
        forward = module.forward
        wrapped = hasattr(forward, "_torchdynamo_orig_callable") and not hasattr(forward, "_torchdynamo_disable")
        if wrapped or module._compiled_call_impl is not None:
            raise ModelError(
                f"{name or type(model).__name__} was compiled in place, and compiled code may hold the layers of "
                "another depth; load the model without compile: backend='compiled' compiles for every depth"
            )
