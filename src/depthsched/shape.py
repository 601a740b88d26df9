"""The sizes of a model that decide what a decode step costs. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder-only model with one repeated layer.

    Attributes
    ----------
    num_layers : int
    layer_params : int
        Weights of one decoder layer.
    head_params : int
        Weights read by the final norm and the LM head at every step.
    kv_values : int
        Keys plus values that one token leaves in one layer: ``2 * kv_heads * head_dim``.
    attention_width : int
        ``heads * head_dim``.
    kv_params : int
        Weights of one layer's key and value projections: what a skipped layer still reads when its K and V are written.
    weight_bytes, kv_bytes : int
        Bytes of one weight and of one cached value.
    layer_bytes, kv_weight_bytes : tuple of float
        Bytes of the weights of each layer, and of its key and value projections, as they are stored. Left out, they
        follow from the number of weights.
    head_bytes : float, optional
        Bytes of the final norm and the LM head as they are stored.
    """

    num_layers: int
    layer_params: int
    head_params: int
    kv_values: int
    attention_width: int
    kv_params: int = 0
    weight_bytes: int = 2
    kv_bytes: int = 2
    layer_bytes: tuple[float, ...] = ()
    head_bytes: float | None = None
    kv_weight_bytes: tuple[float, ...] = ()

    def step_bytes(self, layers: int, context: float, batch: int = 1, written: int = 0, bridge: int = 0) -> float:
        """Bytes one decode step moves: weights of ``layers`` layers, LM head, KV read of ``context`` tokens.

        ``written`` counts skipped layers whose K and V are written all the same, ``bridge`` the weights of bridges.
        """
        head = self.head_params * self.weight_bytes if self.head_bytes is None else self.head_bytes
        layer = _mean(self.layer_bytes, self.layer_params * self.weight_bytes)
        kv_weights = _mean(self.kv_weight_bytes, self.kv_params * self.weight_bytes)
        kv = (layers * context + written) * self.kv_values * batch
        return layers * layer + head + written * kv_weights + bridge * self.weight_bytes + kv * self.kv_bytes

    def step_flops(self, layers: int, context: float, batch: int = 1, written: int = 0, bridge: int = 0) -> float:
        """Floating-point operations of one decode step: two per weight, and attention over ``context`` tokens."""
        weights = layers * self.layer_params + self.head_params + written * self.kv_params + bridge
        return batch * (2 * weights + layers * 4 * self.attention_width * context)


def _mean(stored: Sequence[float], otherwise: float) -> float:
    return sum(stored) / len(stored) if stored else otherwise


def cost_ratio(
    cost: Callable[..., float],
    depths: Sequence[int],
    shape: ModelShape,
    prompt_tokens: int = 0,
    *,
    batch: int = 1,
    writes: bool = False,
    bridge_params: Callable[[int], int] | None = None,
) -> float:
    """Full cost over scheduled cost of decode steps that ran at ``depths``.

    ``cost`` is :meth:`ModelShape.step_bytes` or :meth:`ModelShape.step_flops`; decode step ``i`` reads
    ``prompt_tokens + i`` tokens. With ``writes`` a skipped layer still pays for its K and V;
    ``bridge_params`` gives the weights that bridges add at a depth.
    """
    bridge = bridge_params or (lambda depth: 0)
    full = scheduled = 0.0
    for context, depth in enumerate(depths, start=prompt_tokens + 1):
        full += cost(shape.num_layers, context, batch)
        scheduled += cost(depth, context, batch, (shape.num_layers - depth) * writes, bridge(depth))
    return full / scheduled if scheduled else 1.0
