"""An independent slow reference: no cache, everything recomputed from scratch at every step.

Every position that runs a layer gets the layer's output, every other passes through. What a position may attend
to inside a layer is one explicit mask: earlier, not padding, inside the sliding window, and with K and V in the
cache, which are those of the positions that ran the layer or, when skipped layers write K and V, of all.
Only the model's own layers are shared with the runtime under test.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from depthsched.signals import Signals

SLIDING_EVERYWHERE = {"ministral3", "mistral", "mixtral", "qwen3_moe", "starcoder2"}


@torch.no_grad()
def oracle_logits(
    model: Any,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    keep_sets: Sequence[Sequence[int]],
    *,
    write: bool,
    cosines: list[torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """Logits of every step, each ``[batch, vocabulary]`` in float32.

    ``sequences`` holds the prompt (whose mask is ``attention_mask``) and at least one token per step but the last.
    ``keep_sets[i]`` are the layers that ran at step ``i``. ``cosines`` gets, for each step, the mean cosine between the
    states before and after its layers, ``[batch]``.
    """
    assert model.config._attn_implementation == "eager", "the oracle adds its own mask; only eager takes any"
    steps, prompt = len(keep_sets), attention_mask.shape[1]
    assert sequences.shape[1] >= prompt + steps - 1
    generated = attention_mask.new_ones(len(sequences), steps - 1)
    mask = torch.cat([attention_mask, generated], dim=1).bool()
    num_layers = len(model.model.layers)
    # The prefill computes all positions of the prompt; step i then feeds one, the token of step i - 1.
    ran = [tuple(range(num_layers))] * prompt + [tuple(kept) for kept in keep_sets[1:]]
    return [
        _last_logits(model, sequences[:, :length], mask[:, :length], ran[:length], write=write, cosines=cosines)
        for length in range(prompt, prompt + steps)
    ]


def _last_logits(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, ran: list[tuple[int, ...]], *, write: bool,
    cosines: list[torch.Tensor] | None = None,
) -> torch.Tensor:  # fmt: skip
    config, decoder = model.config, model.model
    position_ids = (mask.long().cumsum(-1) - 1).clamp_min(0)
    hidden = decoder.embed_tokens(ids) * getattr(config, "embedding_multiplier", 1.0)
    turned = []
    for index, layer in enumerate(decoder.layers):
        computed = torch.tensor([index in layers for layers in ran])
        present = torch.ones_like(computed) if write else computed
        output = layer(
            hidden,
            attention_mask=_visible(mask, present, _window(config, index), hidden.dtype),
            position_ids=position_ids,
            position_embeddings=_rope(decoder, hidden, position_ids, index),
        )
        if computed[-1]:
            before, after = hidden[:, -1].double(), output[:, -1].double()
            turned.append((before * after).sum(-1) / before.norm(dim=-1) / after.norm(dim=-1))
        hidden = torch.where(computed[None, :, None], output, hidden)
    if cosines is not None:
        cosines.append(torch.stack(turned).mean(dim=0))
    logits = model.lm_head(decoder.norm(hidden[:, -1])).float()
    logits = logits / getattr(config, "logits_scaling", 1.0) * getattr(config, "logit_scale", 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _rope(decoder: Any, hidden: torch.Tensor, position_ids: torch.Tensor, layer: int) -> Any:
    """RoPE of one layer; some families have one for each type of attention."""
    by_type = "layer_type" in inspect.signature(decoder.rotary_emb.forward).parameters
    kind = (decoder.config.layer_types[layer],) if by_type else ()
    return decoder.rotary_emb(hidden, position_ids, *kind)


def _visible(mask: torch.Tensor, present: torch.Tensor, window: int | None, dtype: torch.dtype) -> torch.Tensor:
    """Additive mask ``[batch, 1, query, key]``."""
    length = mask.shape[1]
    query, key = torch.arange(length)[:, None], torch.arange(length)[None, :]
    allowed = key <= query
    if window is not None:
        allowed = allowed & (key > query - window)
    allowed = allowed & present[None, :]
    both = allowed[None] & mask[:, None, :]
    return torch.zeros(both.shape, dtype=dtype).masked_fill(~both, torch.finfo(dtype).min)[:, None]


def _window(config: Any, layer: int) -> int | None:
    window: int | None = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types is not None:
        return window if types[layer] == "sliding_attention" else None
    return window if config.model_type in SLIDING_EVERYWHERE else None


@torch.no_grad()
def renewed_logits(
    model: Any,
    sequences: torch.Tensor,
    attention_mask: torch.Tensor,
    plan: Any,
    steps: int,
    *,
    verify_below: float = 0.0,
    due: Callable[[int, int], bool] = lambda open_positions, step: False,
) -> tuple[list[torch.Tensor], list[tuple[int, int, int]]]:
    """Logits of every step of a run that renews its cache, and (depth, renewed positions, depth tried) of each.

    The rule, told without a cache: every generated position has the layers that ran for it when it was last computed.
    A step whose layers are not among those of an earlier position, or that is ``due``, or whose token is unsure,
    computes all positions since the last full one at full depth.
    """
    num_layers, prompt = len(model.model.layers), attention_mask.shape[1]
    every = tuple(range(num_layers))
    mask = torch.cat([attention_mask, attention_mask.new_ones(len(sequences), steps - 1)], dim=1).bool()
    ran = [every] * prompt

    def last(layers: list[tuple[int, ...]]) -> torch.Tensor:
        length = len(layers)
        return _last_logits(model, sequences[:, :length], mask[:, :length], layers, write=False)

    logits, told = [last(ran)], [(num_layers, 0, 0)]
    for step in range(1, steps):
        keep = plan.keep_sets[plan.decide(step, _signals(logits[-1]) if plan.adaptive else None)]
        reduced = sum(layers != every for layers in ran)
        holes = any(not set(keep) <= set(layers) for layers in ran)
        tried = 0
        if not holes and not due(reduced, step):
            found = last([*ran, tuple(keep)])
            if len(keep) == num_layers or not verify_below or _signals(found).margin >= verify_below:
                ran.append(tuple(keep))
                logits.append(found)
                told.append((len(keep), 0, 0))
                continue
            tried = len(keep)
        ran = [every] * (len(ran) + 1)
        logits.append(last(ran))
        told.append((num_layers, reduced, tried))
    return logits, told


def _signals(logits: torch.Tensor) -> Signals:
    p = logits.softmax(-1)
    top = p.sort(descending=True).values
    entropy = -(p * p.clamp_min(1e-30).log()).sum(-1)
    margin = top[:, 0] - top[:, 1]
    return Signals(entropy=float(entropy.max()), top1=float(top[:, 0].min()), margin=float(margin.min()))
