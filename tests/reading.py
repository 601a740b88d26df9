"""What a run really reads, seen from outside: which modules ran in each decode step, and the cache they attended to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def bytes_by_hand(tensor: torch.Tensor) -> int:
    """Bytes of a weight; those of torchao's are the tensors that it holds as attributes."""
    inner = [value for value in vars(tensor).values() if isinstance(value, torch.Tensor)]
    return sum(map(bytes_by_hand, inner)) if inner else tensor.numel() * tensor.element_size()


def weights_by_hand(module: nn.Module) -> int:
    """Bytes of a module's own parameters."""
    return sum(bytes_by_hand(p) for p in module.parameters(recurse=False))


class Reading:
    """Bytes read by decode steps so far."""

    def __init__(self) -> None:
        self.decoding = False
        self.bytes = 0


@contextmanager
def reading(model: Any, weights: Callable[[nn.Module], int] = weights_by_hand) -> Iterator[Reading]:
    """Counts weights of every module that runs in a decode step (of the embedding only rows are read), and K and V."""
    seen = Reading()

    def begin(module: Any, args: Any, kwargs: Any) -> None:
        seen.decoding = kwargs["input_ids"].shape[1] == 1

    def ran(module: nn.Module, args: Any, output: Any) -> None:
        seen.bytes += seen.decoding * weights(module)

    def attended(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        layer = kwargs["past_key_values"].layers[module.layer_idx]
        seen.bytes += seen.decoding * (layer.keys.nbytes + layer.values.nbytes)

    hooks = [model.register_forward_pre_hook(begin, with_kwargs=True)]
    for module in model.modules():
        if not isinstance(module, nn.Embedding):
            hooks.append(module.register_forward_hook(ran))
        if hasattr(module, "layer_idx") and hasattr(module, "scaling"):
            hooks.append(module.register_forward_hook(attended, with_kwargs=True))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
