"""What decoding will take on a device, from bytes, bandwidth and what layers cost beside them. Runs nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cost import Exchange, ModelShape
from ..errors import PlanError
from ..plans import DepthPlan
from .devices import ALL_REDUCE_SECONDS, Device

OTHER_BYTES = 2e8
"""Of memory beside weights and K and V: what torch held on an H200 for a 7B shape was 0.1 to 0.2 GB more."""


@dataclass(frozen=True)
class Subject:
    """The model that a prediction is about.

    Attributes
    ----------
    name, dtype, weights : str
        ``weights`` is ``dense`` or ``native``.
    shape : ModelShape
    hidden, heads, kv_heads, vocabulary : int
    embedding_bytes : float
        Of the embedding, where it is not the LM head; it is held and not read.
    """

    name: str
    shape: ModelShape
    hidden: int
    heads: int
    kv_heads: int
    vocabulary: int
    embedding_bytes: float
    dtype: str
    weights: str = "dense"

    @property
    def layers_bytes(self) -> float:
        """All decoder layers as stored."""
        shape = self.shape
        return sum(shape.layer_bytes) or shape.num_layers * shape.layer_params * shape.weight_bytes

    @property
    def head_bytes(self) -> float:
        """Final norm and LM head as stored."""
        head = self.shape.head_bytes
        return self.shape.head_params * self.shape.weight_bytes if head is None else head

    def share(self, ranks: int) -> ModelShape:
        """What one of several tensor-parallel ranks reads: its part of layers, LM head, K and V.

        Raises
        ------
        PlanError
            The heads cannot be shared out.
        """
        if ranks < 1 or self.heads % ranks or self.kv_heads % ranks:
            raise PlanError(f"--ranks {ranks} must divide the {self.heads} heads and {self.kv_heads} KV heads")
        shape = self.shape
        part: dict[str, Any] = {
            name: math.ceil(getattr(shape, name) / ranks)
            for name in ("layer_params", "head_params", "kv_values", "attention_width", "kv_params")
        }
        part |= {name: tuple(b / ranks for b in getattr(shape, name)) for name in ("layer_bytes", "kv_weight_bytes")}
        part["head_bytes"] = None if shape.head_bytes is None else shape.head_bytes / ranks
        part["exchange"] = Exchange(ranks, self.hidden, self.vocabulary) if ranks > 1 else None
        return dataclasses.replace(shape, **part)


@dataclass(frozen=True)
class PredictedRow:
    """One plan with one batch.

    Attributes
    ----------
    plan : str
    batch, ranks : int
    mean_depth : float
        Of the decode steps.
    tokens_per_second : float
        Decoded tokens of all rows.
    theoretical_bytes, speedup_vs_full : float
        Full depth over the plan: in bytes moved, and in predicted seconds.
    seconds : mapping of str to float
        Of a mean step: ``bytes`` (or operations, where they take longer), ``layers`` and ``step`` beside them, and
        ``ranks``, in which ranks wait for each other.
    memory_bytes : float
        Of each device: weights, K and V of the longest context, 0.2 GB of the rest.
    fits : bool
        Whether the device has that much.
    """

    plan: str
    batch: int
    ranks: int
    mean_depth: float
    tokens_per_second: float
    theoretical_bytes: float
    speedup_vs_full: float
    seconds: Mapping[str, float]
    memory_bytes: float
    fits: bool

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)


def predict(
    subject: Subject,
    device: Device,
    plans: Mapping[str, DepthPlan],
    *,
    batches: Sequence[int] = (1,),
    ranks: int = 1,
    prompt_tokens: int = 32,
    tokens: int = 128,
) -> list[PredictedRow]:
    """Tokens a second and memory of plans on a device.

    Parameters
    ----------
    subject : Subject
    device : Device
    plans : mapping of str to DepthPlan
        It must hold ``full``. A plan that decides while decoding is taken at its curve.
    batches : sequence of int
        Rows that share a step.
    ranks : int
        Devices that share each layer.
    prompt_tokens, tokens : int
        Of each row; new ones include the one from the prefill.

    Raises
    ------
    PlanError
        The ranks cannot share the heads, or nothing is known about how such devices talk.
    """
    shape = subject.share(ranks)
    if ranks > 1 and device.link_bytes_per_s is None:
        raise PlanError(f"--ranks {ranks}: nothing is known of links between devices such as {device.name}; name a GPU")
    rows = []
    for batch in batches:
        held = memory_bytes(subject, ranks, batch, prompt_tokens + tokens)
        full = _seconds(shape, device, plans["full"], batch, prompt_tokens)
        for name, plan in plans.items():
            took = _seconds(shape, device, plan, batch, prompt_tokens)
            steps, total = len(plan.depths) - 1, sum(took.values())
            rows.append(
                PredictedRow(
                    plan=name,
                    batch=batch,
                    ranks=ranks,
                    mean_depth=plan.mean_depth,
                    tokens_per_second=batch * steps / total,
                    theoretical_bytes=plan.bytes_speedup(shape, prompt_tokens, batch),
                    speedup_vs_full=sum(full.values()) / total,
                    seconds={part: value / steps for part, value in took.items()},
                    memory_bytes=held,
                    fits=held <= device.memory_bytes,
                )
            )
    return rows


def _seconds(shape: ModelShape, device: Device, plan: DepthPlan, batch: int, prompt: int) -> dict[str, float]:
    """Seconds of all decode steps, by what takes them."""
    depths = plan.depths[1:]
    passes = [(depth, plan.bridge_params(depth)) for depth in depths]
    sent = batch * np.array([shape.sent(*one) for one in passes])
    moving = (plan.cost(shape, prompt_tokens=prompt, batch=batch).scheduled - sent) / device.copy_bytes_per_s
    if device.flops_per_s is not None:
        computing = plan.cost(shape, prompt_tokens=prompt, batch=batch, flops=True).scheduled / device.flops_per_s
        moving = np.maximum(moving, computing)
    beside = device.beside(batch)
    waits = 0.0
    if shape.exchange is not None:
        assert device.link_bytes_per_s is not None
        waits = sum(shape.exchange.all_reduces(*one) for one in passes) * ALL_REDUCE_SECONDS
        waits += float(sent.sum()) / device.link_bytes_per_s
    return {
        "bytes": float(moving.sum()),
        "layers": sum(depths) * beside.layer_seconds,
        "step": len(depths) * beside.step_seconds,
        "ranks": waits,
    }


def memory_bytes(subject: Subject, ranks: int, batch: int, context: int) -> float:
    """Memory of each device: its part of the weights, K and V of ``context`` tokens, the rest."""
    from ..runtime.compiled.kv import room

    shape = subject.share(ranks)
    weights = (subject.layers_bytes + subject.head_bytes + subject.embedding_bytes) / ranks
    cache = batch * shape.num_layers * shape.kv_values * shape.kv_bytes * room(context)
    return weights + cache + OTHER_BYTES


def assumptions(device: Device, ranks: int) -> Iterator[str]:
    """What a prediction stands on, one line each."""
    yield from device.assumptions
    if ranks > 1:
        yield (
            f"{ranks} ranks share layers, embedding, K and V and the LM head evenly; two all-reduces a layer, one for "
            f"the embedding and one for each bridge take {ALL_REDUCE_SECONDS * 1e6:.0f} us each (from gpt-fast's "
            "published figures on A100) and the time of their bytes"
        )
    yield "K and V lie in buffers for the whole run; 0.2 GB of memory go to the rest; the prompt's pass is not counted"
