"""Rules for an adapter, checked on a model of its family. Torch is imported inside functions: the kit needs none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import DepthPlan, DepthSchedule, plan
from ..adapters import Adapter, adapter_for
from ..errors import ModelError
from .report import CheckReport, Finding, one_line, run_checks

if TYPE_CHECKING:
    import torch

PROMPT, STEPS, TOLERANCE = 6, 12, 1e-4


@dataclass(frozen=True)
class _UpAndDown(DepthSchedule):
    """A depth that falls and rises again, so that skipped layers come back to what was written for them."""

    monotone = False

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - (3 * step) % num_layers


def check_adapter(model: Any) -> CheckReport:
    """Check the registered adapter of a model, without pytest.

    A tiny model with random weights will do, if they are large enough (``initializer_range=0.2``) for every layer to
    change the logits. The reference is the model itself in one forward pass without a cache, in which a position
    passes by the layers that it skipped.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        In float32.

    Returns
    -------
    CheckReport
        ``full_depth``: tokens equal those of ``generate``. ``fixed_depth`` and ``returning_layers``: logits of
        every step equal the reference, the latter with K and V written by the adapter. ``logits`` and ``shape``:
        what these methods return is what the model does.

    Raises
    ------
    ModelError
        No adapter knows the family, or the model is not in float32.
    """
    import torch

    adapter = adapter_for(model)
    if model.dtype != torch.float32:
        raise ModelError(f"the model is in {model.dtype}; load it in float32, where rounding hides no error")
    rules: dict[str, Callable[[], None]] = {
        "full_depth": lambda: _full_depth(adapter),
        "fixed_depth": lambda: _fixed_depth(adapter),
        "returning_layers": lambda: _returning_layers(adapter),
        "logits": lambda: _logits(adapter),
        "shape": lambda: _shape(adapter),
    }
    finders = {name: _finder(name, rule) for name, rule in rules.items()}
    return run_checks(f"{adapter.name}:{adapter.config.model_type}", "adapter", finders)


def _finder(name: str, rule: Callable[[], None]) -> Callable[[], Finding | None]:
    def find() -> Finding | None:
        try:
            rule()
        except Finding as finding:
            return finding
        except Exception as error:
            return Finding(name, f"{name}: failed with {type(error).__name__}: {one_line(error)}")
        return None

    return find


def _full_depth(adapter: Adapter) -> None:
    from .. import attach

    model, inputs = adapter.model, _prompt(adapter)
    expected = _generate(model, inputs).sequences
    with attach(model, "full"):
        found = _generate(model, inputs).sequences
    if not found.equal(expected):
        raise Finding("full_depth", "full_depth: the tokens differ from those of generate without a plan")


def _fixed_depth(adapter: Adapter) -> None:
    layers = adapter.num_layers
    for first in (1, 2):  # every second layer is left out, then the others: each once, with the next one running
        if first >= layers:
            continue
        skipped = range(first, layers, 2)
        order = "list:layers=" + "+".join(map(str, skipped))
        steps = plan(f"constant:depth={layers - len(skipped)}", order, num_layers=layers, horizon=STEPS)
        _plan_logits(adapter, steps, "fixed_depth", "its layers share state, or write_kv is wrong")


def _returning_layers(adapter: Adapter) -> None:
    steps = plan(_UpAndDown(), "strided:head=0,tail=0", num_layers=adapter.num_layers, horizon=STEPS)
    _plan_logits(adapter, steps, "returning_layers", "write_kv is wrong")


def _plan_logits(adapter: Adapter, steps: DepthPlan, name: str, advice: str) -> None:
    from .. import attach

    inputs = _prompt(adapter)
    with attach(adapter.model, steps):
        run = _generate(adapter.model, inputs)
    keep = [range(adapter.num_layers)] * PROMPT + [steps.keep(i) for i in range(1, STEPS)]
    expected = _reference(adapter, run.sequences[:, :-1], inputs["attention_mask"], keep)[:, PROMPT - 1 :]
    for step, found in enumerate(run.logits):
        apart = float((found - expected[:, step]).abs().max())
        if not apart <= TOLERANCE * max(1.0, float(expected[:, step].abs().max())):
            raise Finding(
                name, f"{name}: at step {step}, depth {steps.depth(step)}, logits are off by {apart:.2g}; {advice}"
            )


def _reference(adapter: Adapter, ids: torch.Tensor, mask: torch.Tensor, keep: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of all positions, ``[batch, tokens, vocabulary]``; position ``p`` runs the layers ``keep[p]``."""
    import torch

    mask = torch.cat([mask, mask.new_ones(len(ids), ids.shape[1] - mask.shape[1])], dim=1)
    hooks = []
    for index, layer in enumerate(adapter.layers):
        ran = torch.tensor([index in kept for kept in keep], device=ids.device)[:, None]
        hooks.append(layer.register_forward_hook(lambda _, args, output, ran=ran: torch.where(ran, output, args[0])))
    try:
        with torch.no_grad():
            logits: torch.Tensor = adapter.model(
                input_ids=ids, attention_mask=mask, position_ids=_positions(mask), use_cache=False
            ).logits
    finally:
        for hook in hooks:
            hook.remove()
    return logits


def _logits(adapter: Adapter) -> None:
    import torch

    inputs = _prompt(adapter)
    inputs["position_ids"] = _positions(inputs["attention_mask"])
    with torch.no_grad():
        expected = adapter.model(**inputs).logits
        decoder: Any = adapter.decoder
        found = adapter.logits(decoder(**inputs).last_hidden_state)
    if not torch.allclose(found, expected, atol=TOLERANCE):
        raise Finding("logits", "logits: differ from the model's own for the same final states; does it scale them?")


def _shape(adapter: Adapter) -> None:
    import torch

    shape = adapter.shape()
    with torch.no_grad():
        cache = adapter.model(input_ids=_prompt(adapter)["input_ids"][:1, :1], use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers) / len(cache.layers)
    for name, found, expected in (
        ("num_layers", shape.num_layers, adapter.num_layers),
        ("kv_values", shape.kv_values, held),
    ):
        if found != expected:
            raise Finding("shape", f"shape: {name} is {found}, and the model has {expected:g}")


def _prompt(adapter: Adapter) -> dict[str, Any]:
    """Two rows of tokens, the second padded on the left."""
    import torch

    device = adapter.model.device
    ids = torch.randint(0, adapter.config.vocab_size, (2, PROMPT), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 0] = 0
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp_min(0)


def _generate(model: Any, inputs: dict[str, Any]) -> Any:
    return model.generate(
        **inputs,
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
