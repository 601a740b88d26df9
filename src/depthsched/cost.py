"""What decode steps cost: the one account of bytes and floating-point operations. Knows no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import PlanError

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Exchange:
    """What the ranks that share a model by tensor parallelism tell each other at every step.

    Attributes
    ----------
    ranks : int
        How many there are.
    hidden, vocabulary : int
        Sizes of a state and of a row of logits.
    """

    ranks: int
    hidden: int
    vocabulary: int

    def crossings(self, bridge: float) -> float:
        """Bridges of so many weights together."""
        return bridge / (self.hidden * (self.hidden + 1))

    def all_reduces(self, layers: int, bridge: float = 0) -> float:
        """Sums over the ranks in a step: two for each layer, one for the embedding, one for each bridge."""
        return 2 * layers + 1 + self.crossings(bridge)

    def values(self, layers: int, bridge: float = 0) -> float:
        """Values that a rank sends for one token: a sum of ``n`` takes ``2 n (N - 1) / N``, logits half of that."""
        states = self.all_reduces(layers, bridge) * self.hidden
        return (2 * states + self.vocabulary) * (self.ranks - 1) / self.ranks


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
    weight_bytes, kv_bytes : float
        Bytes of one weight that is not quantised, as a bridge's is, and of one cached value.
    layer_bytes : tuple of float
        Stored bytes of each layer's weights; left empty, ``layer_params * weight_bytes`` each.
    head_bytes : float or None
        Stored bytes of the final norm and the LM head; None is ``head_params * weight_bytes``.
    kv_weight_bytes : tuple of float
        Stored bytes of each layer's key and value projections; left empty, ``kv_params * weight_bytes`` each.
    exchange : Exchange or None
        Of a model that ranks share. Every other size is then that of one rank.

    Raises
    ------
    PlanError
        ``layer_bytes`` or ``kv_weight_bytes`` is not one number for each layer.
    """

    num_layers: int
    layer_params: int
    head_params: int
    kv_values: int
    attention_width: int
    kv_params: int = 0
    weight_bytes: float = 2
    kv_bytes: float = 2
    layer_bytes: tuple[float, ...] = ()
    head_bytes: float | None = None
    kv_weight_bytes: tuple[float, ...] = ()
    exchange: Exchange | None = None

    def __post_init__(self) -> None:
        for name in ("layer_bytes", "kv_weight_bytes"):
            if len(getattr(self, name)) not in (0, self.num_layers):
                raise PlanError(f"{name} has {len(getattr(self, name))} values; give one for each of the layers")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelShape:
        """Read back what ``dataclasses.asdict`` and JSON made of a shape."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
        return cls(**values)

    def sent(self, layers: int, bridge: float = 0) -> float:
        """Bytes that a rank sends for one token; 0 where no ranks share the model. In the model's dtype."""
        return 0.0 if self.exchange is None else self.exchange.values(layers, bridge) * self.kv_bytes

    def step_bytes(self, layers: int, context: float, batch: int = 1, written: int = 0, bridge: int = 0) -> float:
        """Bytes that one step of the first ``layers`` layers moves: weights, LM head, K and V of ``context`` tokens,
        and what a rank sends to the others.

        ``written`` more layers write their K and V all the same, ``bridge`` counts the weights of bridges.
        """
        fixed, per_token = _bytes(self, range(layers), range(layers, layers + written), bridge, batch)
        return fixed + per_token * context

    def step_flops(self, layers: int, context: float, batch: int = 1, written: int = 0, bridge: int = 0) -> float:
        """Floating-point operations of the same step."""
        fixed, per_token = _flops(self, range(layers), range(layers, layers + written), bridge, batch)
        return fixed + per_token * context


def _no_bytes() -> Floats:
    return np.zeros(0)


@dataclass(frozen=True, eq=False)
class Cost:
    """Cost of decode steps, in bytes moved or floating-point operations. Costs of several runs join with ``+``.

    Attributes
    ----------
    full, scheduled : array
        Of each step, float64 ``[steps]``: with every layer, and with the layers that the plan keeps.
    """

    full: Floats = field(default_factory=_no_bytes)
    scheduled: Floats = field(default_factory=_no_bytes)

    @property
    def total_full(self) -> float:
        """All steps at full depth."""
        return float(self.full.sum())

    @property
    def total(self) -> float:
        """All steps as scheduled."""
        return float(self.scheduled.sum())

    @property
    def ratio(self) -> float:
        """Full over scheduled: what a clock can reach. 1 where there is no step."""
        return self.total_full / self.total if self.total else 1.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(np.concatenate([self.full, other.full]), np.concatenate([self.scheduled, other.scheduled]))


def step_costs(
    shape: ModelShape,
    depths: Sequence[int],
    prompt_tokens: int = 0,
    *,
    keep_sets: Mapping[int, Sequence[int]],
    batch: int = 1,
    writes: bool = False,
    bridge_params: Callable[[int], int] | None = None,
    flops: bool = False,
    renewed: Sequence[int] = (),
    tried: Sequence[int] = (),
) -> Cost:
    """Cost of decode steps: weights of the layers that run and of the LM head, K and V that are read, bridges.

    Parameters
    ----------
    shape : ModelShape
    depths : sequence of int
        Depth of each decode step. Step ``i``, from 1, reads the K and V of ``prompt_tokens + i`` tokens.
    prompt_tokens : int
    keep_sets : mapping of int to sequence of int
        The layers that run at each depth.
    batch : int
        Rows that share a step's weights.
    writes : bool
        Whether skipped layers write K and V: each then reads its projections and writes one token.
    bridge_params : callable, optional
        Weights that bridges add at a depth.
    flops : bool
        Floating-point operations, two for each weight and attention over the context, in place of bytes.
    renewed, tried : sequence of int, optional
        Of each step, the earlier positions that ran again in its pass, at full depth, and the depth of a pass before
        it that was thrown away, 0 for none. A pass over several positions reads the weights and the context once and
        writes K and V of each.
    """
    account = _flops if flops else _bytes
    layers = tuple(range(shape.num_layers))
    context = prompt_tokens + np.arange(1.0, len(depths) + 1)
    fixed, per_token = account(shape, layers, (), 0, batch)
    full = fixed + per_token * context
    lines = {}
    for depth in {*depths, *tried} - {0}:
        keep = keep_sets[depth]
        written = [layer for layer in layers if layer not in keep] if writes else []
        lines[depth] = account(shape, keep, written, bridge_params(depth) if bridge_params else 0, batch)
    picked = np.array([lines[depth] for depth in depths]).reshape(-1, 2)
    scheduled = picked[:, 0] + picked[:, 1] * context
    if any(tried):
        again = np.array([lines.get(depth, (0.0, 0.0)) for depth in tried]).reshape(-1, 2)
        scheduled += again[:, 0] + again[:, 1] * context
    if any(renewed):
        written_and_sent = shape.num_layers * shape.kv_values * shape.kv_bytes + shape.sent(shape.num_layers)
        position = full if flops else written_and_sent * batch
        scheduled += np.asarray(renewed) * position
    return Cost(full, scheduled)


def _bytes(
    shape: ModelShape, keep: Sequence[int], written: Sequence[int], bridge: int, batch: int
) -> tuple[float, float]:
    """Bytes of one step: those of any context, and those for each token of it."""
    weights = shape.layer_bytes or (shape.layer_params * shape.weight_bytes,) * shape.num_layers
    projections = shape.kv_weight_bytes or (shape.kv_params * shape.weight_bytes,) * shape.num_layers
    head = shape.head_params * shape.weight_bytes if shape.head_bytes is None else shape.head_bytes
    token = shape.kv_values * shape.kv_bytes * batch
    sent = shape.sent(len(keep), bridge) * batch
    read = bridge if shape.exchange is None else bridge / shape.exchange.ranks
    fixed = sum(weights[i] for i in keep) + head + read * shape.weight_bytes + sent
    return fixed + sum(projections[i] + token for i in written), len(keep) * token


def _flops(
    shape: ModelShape, keep: Sequence[int], written: Sequence[int], bridge: int, batch: int
) -> tuple[float, float]:
    """Floating-point operations of one step: those of any context, and those for each token of it."""
    crossed = bridge if shape.exchange is None else bridge / shape.exchange.ranks
    weights = len(keep) * shape.layer_params + shape.head_params + len(written) * shape.kv_params + crossed
    return 2 * batch * weights, batch * len(keep) * 4 * shape.attention_width
