"""A pass of the compiled backend: from token ids to logits, through the layers that its depth keeps.

:class:`CompiledDecoder` holds a run after its prefill; the functions below it are what its kernels are compiled from.
A pass takes one token of each row, or several; ``rows`` in a shape are those of the batch times the tokens of each.
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

    ``kernels`` gives those of passes of so many tokens a row; ``keep_sets`` are the layers of each depth, ``bridges``
    the number of each bridge by depth and layer.
    """

    def __init__(
        self, engine: Engine, model: FusedModel, kernels: Callable[[int], Kernels],
        keep_sets: Mapping[int, tuple[int, ...]], bridges: Mapping[int, Mapping[int, int]],
    ) -> None:  # fmt: skip
        self.engine, self.model, self.kernels = engine, model, kernels
        self.keep_sets, self.bridges = keep_sets, bridges
        self._live: Tensor | None = None

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        """Logits ``[batch, vocabulary]`` after one more token per row, ``[batch]``; valid until the next pass."""
        return self._pass(tokens[:, None], None, depth)[:, 0]

    def several(self, tokens: Tensor, at: Tensor, depth: int) -> Tensor:
        """Logits ``[rows, count, vocabulary]`` of ``tokens [rows, count]`` at the slots from ``at [rows]`` on.

        Valid until the next pass.
        """
        if self._live is None:
            return self._pass(tokens, at, depth)
        # Static buffers hold the whole batch: a row that has left repeats what another does, in its own slots.
        every = at.new_zeros(self.engine.batch)
        every[self._live] = torch.arange(len(at), device=at.device)
        return self._pass(tokens[every], at[every], depth)[self._live]

    def drop_rows(self, rows: Tensor) -> None:
        """Give the logits of only these rows, indices into those of the last pass."""
        self._live = rows if self._live is None else self._live[rows]

    def _pass(self, tokens: Tensor, at: Tensor | None, depth: int) -> Tensor:
        engine, count = self.engine, tokens.shape[1]
        engine.place(self.model, tokens, at)
        self.forward(depth, count)
        logits = engine.passes[count].logits
        return logits.view(len(tokens), count, logits.shape[1])

    def forward(self, depth: int, count: int) -> None:
        """One pass of ``count`` tokens a row, from the static inputs to the static logits."""
        self.pieces(depth, count)

    def kept(self, depth: int) -> tuple[int, ...]:
        """The layers of a depth; full depth keeps all, in any plan."""
        every = len(self.model.layers)
        return self.keep_sets[depth] if depth < every else tuple(range(every))

    def pieces(self, depth: int, count: int, run: Run = lambda _, function, *inputs: function(*inputs)) -> None:
        """Run what a depth keeps, piece by piece: each a key, a function, and the tensors it reads and changes."""
        e, kernels, last = self.engine, self.kernels(count), len(self.model.layers)
        p, context = e.passes[count], e.context
        kept, bridges = set(self.kept(depth)), self.bridges.get(depth, {})
        state, mask = (p.x, p.cos, p.sin, p.slot, p.row), p.mask[:, :, :context]
        run(("begin", count, context), begin, *state[:4], p.tokens, mask, *e.opening(context), self.model.embedding)
        for i, (keys, values, weights) in enumerate(zip(e.kv.keys, e.kv.values, self.model.layers, strict=True)):
            if i not in kept and kernels.write_only is not None:  # from the state as it comes, before its bridge
                run(("write", i, count), kernels.write_only, *state, keys, values, *weights)
            if i in bridges:
                run(("bridge", bridges[i], count), kernels.bridge, p.x, *e.bridges[bridges[i]])
            if i in kept:
                run(("layer", i, count, context), kernels.layer, *state, mask, keys, values, *weights)
        if last in bridges:
            run(("bridge", bridges[last], count), kernels.bridge, p.x, *e.bridges[bridges[last]])
        run(("head", count), kernels.head, p.x, p.logits, *self.model.head)


def begin(
    x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, tokens: Tensor, mask: Tensor, padding: Tensor, hidden: Tensor,
    all_cos: Tensor, all_sin: Tensor, embedding: Tensor,
) -> None:  # fmt: skip
    """Embed the tokens, look up their positions, and say what each sees: its row up to its own slot.

    ``mask`` is ``[batch, tokens, context]``, 0 where a slot is seen and minus infinity elsewhere; ``hidden``
    ``[batch, context]`` has minus infinity where the prompt is padded.
    """
    batch, count, context = mask.shape
    position = (slot.view(batch, count) - padding[:, None]).view(-1)
    cos.copy_(all_cos.index_select(0, position))
    sin.copy_(all_sin.index_select(0, position))
    behind = torch.arange(context, device=slot.device) > slot.view(batch, count, 1)
    mask.copy_(hidden[:, None].masked_fill(behind, float("-inf")))
    x.copy_(F.embedding(tokens.view(-1), embedding))


def layer(
    spec: LayerSpec, before: Run, after: Run, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, row: Tensor,
    mask: Tensor, keys: Tensor, values: Tensor, *weights: Tensor,
) -> None:  # fmt: skip
    """One decoder layer on states ``x`` ``[rows, hidden]``, in place; writes K and V.

    What is compiled stands around attention, not through it, so that no compiled code knows the length of the context.
    """
    split, context = spec.split, mask.shape[2]
    query = before(x, cos, sin, slot, row, keys, values, *weights[:split])
    after(x, attend(query, keys[:context], values[:context], mask, spec.scale), *weights[split:])


def before(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, row: Tensor, keys: Tensor, values: Tensor,
    *weights: Tensor,
) -> Tensor:  # fmt: skip
    """Queries ``[rows, heads, head_dim]`` of a layer; its K and V go to their slots."""
    w = dict(zip(spec.names, weights, strict=False))
    width = spec.heads * spec.head_dim
    qkv = F.linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"], w.get("qkv_bias"))
    query = qkv[:, :width].view(-1, spec.heads, spec.head_dim)
    if "q_norm" in w:
        query = rms_norm(query, w["q_norm"], spec.eps)
    write_kv(spec, w, qkv[:, width:], cos, sin, slot, row, keys, values)
    return rope(query, cos, sin)


def after(spec: LayerSpec, x: Tensor, attended: Tensor, *weights: Tensor) -> Tensor:
    """The rest of a layer after attention ``[rows, heads * head_dim]``: its projection and the MLP, into ``x``."""
    w = dict(zip(spec.names[spec.split :], weights, strict=True))
    hidden = x + F.linear(attended, w["out"], w.get("out_bias"))
    gate, up = F.linear(rms_norm(hidden, w["norm2"], spec.eps), w["gate_up"], w.get("gate_up_bias")).chunk(2, dim=-1)
    return x.copy_(hidden + F.linear(F.silu(gate) * up, w["down"], w.get("down_bias")))


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of ``query`` ``[rows, heads, head_dim]`` over the filled part of the cache.

    ``keys`` and ``values`` are ``[context, batch, kv_heads, head_dim]``, ``mask`` ``[batch, tokens, context]``. In half
    precision torch takes cuDNN's kernel here, which splits the context and reads grouped heads once: within a quarter
    of what memory allows from 2048 tokens on.
    """
    batch, count, context = mask.shape
    heads, width = query.shape[1:]
    output = F.scaled_dot_product_attention(
        query.view(batch, count, heads, width).transpose(1, 2),
        keys.permute(1, 2, 0, 3),
        values.permute(1, 2, 0, 3),
        attn_mask=mask[:, None].expand(batch, heads, count, context),
        scale=scale,
        enable_gqa=keys.shape[2] != heads,
    )
    return output.transpose(1, 2).reshape(len(query), heads * width)


def write_kv(
    spec: LayerSpec, w: dict[str, Tensor], kv: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, row: Tensor,
    keys: Tensor, values: Tensor,
) -> None:  # fmt: skip
    """Put K (with RoPE) and V into the cache, from their joint projection ``[rows, 2 * kv_heads * head_dim]``."""
    key, value = kv.view(kv.shape[0], 2, spec.kv_heads, spec.head_dim).unbind(1)
    if "k_norm" in w:
        key = rms_norm(key, w["k_norm"], spec.eps)
    keys.index_put_((slot, row), rope(key, cos, sin))
    values.index_put_((slot, row), value)


def write_only(
    spec: LayerSpec, x: Tensor, cos: Tensor, sin: Tensor, slot: Tensor, row: Tensor, keys: Tensor, values: Tensor,
    *weights: Tensor,
) -> Tensor:  # fmt: skip
    """What a skipped layer leaves in the cache: K and V of the state that passes through; returns ``x``."""
    w = dict(zip(spec.names, weights, strict=True))
    width = spec.heads * spec.head_dim
    bias = w["qkv_bias"][width:] if "qkv_bias" in w else None
    kv = F.linear(rms_norm(x, w["norm1"], spec.eps), w["qkv"][width:], bias)
    write_kv(spec, w, kv, cos, sin, slot, row, keys, values)
    return x


def bridge(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A bridge over a skipped run: adds ``x @ weight.T + bias``, ``weight`` ``[hidden, hidden]`` with outputs first."""
    return x.copy_(x + F.linear(x, weight, bias))


def head(eps: float, x: Tensor, logits: Tensor, norm: Tensor, *weight_and_bias: Tensor) -> Tensor:
    """Final norm and LM head into ``logits`` ``[rows, vocabulary]``."""
    return logits.copy_(F.linear(rms_norm(x, norm, eps), *weight_and_bias))


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalised in float32 and rounded before the weight is applied, as transformers does."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions for ``[rows, heads, head_dim]``; ``cos`` and ``sin`` are ``[rows, head_dim]``."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos[:, None] + turned * sin[:, None]
