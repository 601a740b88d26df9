"""One decoded token of the compiled backend: from a token id to logits, through the layers that its depth keeps.

:class:`CompiledDecoder` holds a run after its prefill; the functions below it are what its kernels are compiled from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from .engine import Engine
    from .kernels import Kernels
    from .weights import FusedModel, LayerSpec


Run = Callable[..., Any]


class CompiledDecoder:
    """A run after its prefill, in the static tensors of an engine.

    ``keep_sets`` are the layers of each depth, ``bridges`` the number of each bridge by depth and layer.
    """

    def __init__(
        self, engine: Engine, model: FusedModel, kernels: Kernels, keep_sets: Mapping[int, tuple[int, ...]],
        bridges: Mapping[int, Mapping[int, int]],
    ) -> None:  # fmt: skip
        self.engine, self.model, self.kernels = engine, model, kernels
        self.keep_sets, self.bridges = keep_sets, bridges

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        """Logits ``[batch, vocabulary]`` after one more token per row, ``[batch]``; valid until the next step."""
        self.engine.place(self.model, tokens)
        self.forward(depth)
        return self.engine.logits

    def forward(self, depth: int) -> None:
        """One step, from the static inputs to the static logits."""
        self.pieces(depth)

    def what_runs(self, depth: int) -> tuple[Any, ...]:
        """What tells one step's pieces from another's."""
        bridges = tuple(sorted(self.bridges.get(depth, {}).items()))
        return self.keep_sets[depth], bridges, self.kernels.write_only is not None

    def pieces(self, depth: int, run: Run = lambda _, function, *inputs: function(*inputs)) -> None:
        """Run what a depth keeps, piece by piece: each a key, a function, and the tensors it reads and changes."""
        e, kernels, last = self.engine, self.kernels, len(self.model.layers)
        kept, bridges = set(self.keep_sets[depth]), self.bridges.get(depth, {})
        state = (e.x, e.cos, e.sin, e.slot)
        run(("begin",), begin, *state, e.tokens, e.padding, e.kv.mask, *e.tables, self.model.embedding)
        for i, (window, weights) in enumerate(zip(e.windows, self.model.layers, strict=True)):
            if i not in kept and kernels.write_only is not None:  # from the state as it comes, before its bridge
                run(("write", i), kernels.write_only, *state, e.kv.keys[i], e.kv.values[i], *weights)
            if i in bridges:
                run(("bridge", bridges[i]), kernels.bridge, e.x, *e.bridges[bridges[i]])
            if i in kept:
                run(("layer", i, e.context), kernels.layer, *state, e.mask, *window, *weights)
        if last in bridges:
            run(("bridge", bridges[last]), kernels.bridge, e.x, *e.bridges[bridges[last]])
        run(("head",), kernels.head, e.x, e.logits, *self.model.head)


def begin(
    x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, tokens: Tensor, padding: Tensor, mask: Tensor, all_cos: Tensor,
    all_sin: Tensor, embedding: Tensor,
) -> Tensor:  # fmt: skip
    """Embed the tokens, look up their positions, and open their slot of the cache."""
    position = slot - padding
    cos.copy_(all_cos.index_select(0, position))
    sin.copy_(all_sin.index_select(0, position))
    mask.index_fill_(0, slot, 0.0)
    return x.copy_(F.embedding(tokens, embedding))


def layer(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, mask: Tensor, keys: Tensor, values: Tensor,
    *weights: Tensor,
) -> Tensor:  # fmt: skip
    """One decoder layer on states ``x`` ``[batch, hidden]``, in place; writes K and V at ``slot``, int64 ``[1]``."""
    w = dict(zip(spec.names, weights, strict=True))
    width = spec.heads * spec.head_dim
    qkv = linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"], w.get("qkv_bias"))
    query = qkv[:, :width].view(-1, spec.heads, spec.head_dim)
    if "q_norm" in w:
        query = rms_norm(query, w["q_norm"], spec.eps)
    write_kv(spec, w, qkv[:, width:], cos, sin, slot, keys, values)
    attention_output = attend(rope(query, cos, sin), keys, values, mask, spec.scale, spec.chunk)
    hidden = x + linear(attention_output, w["out"], w.get("out_bias"))
    gate, up = linear(rms_norm(hidden, w["norm2"], spec.eps), w["gate_up"], w.get("gate_up_bias")).chunk(2, dim=-1)
    return x.copy_(hidden + linear(F.silu(gate) * up, w["down"], w.get("down_bias")))


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, chunk: int = 0) -> Tensor:
    """Attention of one query per row, ``[batch, heads, head_dim]``, over the filled part of the cache.

    ``keys`` and ``values`` are ``[context, batch, kv_heads, head_dim]``: time first, so that growing the buffer changes
    no stride. ``mask`` is ``[context, batch]`` float32, 0 where a position may be read and minus infinity elsewhere.
    Each ``chunk`` of the context has a softmax of its own, and the sums are merged by its largest score.
    """
    batch, heads, width = query.shape
    kv_heads, size = keys.shape[2], chunk or keys.shape[0]
    groups = query.view(1, 1, batch, kv_heads, heads // kv_heads, width).float()
    held, read = (t.view(-1, size, batch, kv_heads, 1, width).float() for t in (keys, values))
    scores = (groups * held).sum(-1) * scale + mask.view(-1, size, batch, 1, 1)
    # A chunk may be masked whole: its largest score is then no infinity, which would make NaN of the difference.
    top = scores.amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).min)
    weights = torch.exp(scores - top)
    share = torch.exp(top - top.amax(0, keepdim=True))[:, 0, ..., None]
    total = (weights.sum(1)[..., None] * share).sum(0)
    output = ((weights[..., None] * read).sum(1) * share).sum(0) / total
    return output.to(query.dtype).view(batch, heads * width)


def write_kv(
    spec: LayerSpec, w: dict[str, Tensor], kv: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, keys: Tensor,
    values: Tensor,
) -> None:  # fmt: skip
    """Put K (with RoPE) and V into the cache, from their joint projection ``[batch, 2 * kv_heads * head_dim]``."""
    key, value = kv.view(kv.shape[0], 2, spec.kv_heads, spec.head_dim).unbind(1)
    if "k_norm" in w:
        key = rms_norm(key, w["k_norm"], spec.eps)
    keys.index_copy_(0, slot, rope(key, cos, sin)[None])
    values.index_copy_(0, slot, value[None])


def write_only(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, keys: Tensor, values: Tensor, *weights: Tensor
) -> Tensor:
    """What a skipped layer leaves in the cache: K and V of the state that passes through; returns ``x``."""
    w = dict(zip(spec.names, weights, strict=True))
    width = spec.heads * spec.head_dim
    bias = w["qkv_bias"][width:] if "qkv_bias" in w else None
    kv = linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"][width:], bias)
    write_kv(spec, w, kv, cos, sin, slot, keys, values)
    return x


def bridge(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A bridge over a skipped run: adds ``x @ weight.T + bias``, ``weight`` ``[hidden, hidden]`` with outputs first."""
    return x.copy_(x + linear(x, weight, bias))


def head(eps: float, x: Tensor, logits: Tensor, norm: Tensor, *weight_and_bias: Tensor) -> Tensor:
    """Final norm and LM head into ``logits`` ``[batch, vocabulary]``."""
    return logits.copy_(linear(rms_norm(x, norm, eps), *weight_and_bias))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalised in float32 and rounded before the weight is applied, as transformers does."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions for ``[batch, heads, head_dim]``; ``cos`` and ``sin`` are ``[batch, head_dim]``."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for ``[rows, inputs]``.

    One row is bound by reading the weight, and a compiled multiply-and-reduce reads it two to three times as fast as
    the library's product on a CPU. So does it for a few rows in float32, if there are outputs enough to spread over
    the threads; in bfloat16 the library is faster from two rows on.
    """
    rows, outputs = x.shape[0], weight.shape[0]
    few = x.dtype == torch.float32 and x.device.type == "cpu" and rows <= 16 and outputs >= 256 * rows
    if rows > 1 and not few:
        return F.linear(x, weight, bias)
    product = (x.float()[None] * weight.float()[:, None]).sum(-1).t()
    if bias is not None:
        product = product + bias.float()
    return product.to(x.dtype)
