"""A plan's own answer, token by token: which depth made it, how sure the model was, and what full depth would say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..display.views import token_map_html
from ..encoding import pieces
from ..plans import DepthPlan
from ..runtime.generate import generate

TOP = 3


@dataclass(frozen=True)
class TokenMap:
    """One greedy answer under a plan, and full depth's opinion on every token of it.

    Attributes
    ----------
    prompt : str
        As it was given, without the chat template.
    num_layers : int
    tokens, depths : tuple of int
        Ids, and layers that ran for each; the first comes out of the prefill.
    pieces : tuple of str
        The text that each token adds; empty where a character needs its next tokens.
    top : tuple
        The likeliest tokens under the plan, ``(text, probability)``, the token itself first.
    full : tuple
        Full depth's likeliest token at the same place, after the same text: ``(text, probability)``.
    full_probability : tuple of float
        What full depth gives the token that the plan chose.
    agree : tuple of bool
        Whether both have the same likeliest token.
    """

    prompt: str
    num_layers: int
    tokens: tuple[int, ...]
    depths: tuple[int, ...]
    pieces: tuple[str, ...]
    top: tuple[tuple[tuple[str, float], ...], ...]
    full: tuple[tuple[str, float], ...]
    full_probability: tuple[float, ...]
    agree: tuple[bool, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return token_map_html(self)


class _Likeliest:
    """A logits processor that changes nothing and keeps the likeliest tokens of every step."""

    def __init__(self) -> None:
        self.steps: list[tuple[list[int], list[float]]] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        found = torch.softmax(scores[0].float(), -1).topk(min(TOP, scores.shape[-1]))
        self.steps.append((found.indices.tolist(), found.values.tolist()))
        return scores


@torch.no_grad()
def token_map(
    model: Any, tokenizer: Any, plan: DepthPlan, text: str, prompt: Sequence[int], *, max_new_tokens: int = 128
) -> TokenMap:
    """Answer a prompt greedily under a plan and compare every token with full depth.

    Parameters
    ----------
    model, tokenizer
        As from :func:`depthsched.load_model`.
    plan : DepthPlan
        Any plan, adaptive ones too.
    text : str
    prompt : sequence of int
        The prompt to show, and its token ids.
    """
    seen = _Likeliest()
    ids = torch.tensor([prompt])
    run = generate(
        model,
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        plan,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        backend="eager",
        logits_processor=[seen],
        tokenizer=tokenizer,
    )
    tokens = run.tokens[0].tolist()
    # All positions at once: a step's logits depend on the tokens before it only.
    logits = model(input_ids=run.sequences, use_cache=False).logits[0, len(prompt) - 1 : -1]
    full = torch.softmax(logits.float(), -1)
    likeliest, chosen = full.max(-1), full.gather(-1, run.sequences[0, len(prompt) :, None])[:, 0]
    return TokenMap(
        prompt=text,
        num_layers=plan.num_layers,
        tokens=tuple(tokens),
        depths=tuple(run.trace.depths),
        pieces=tuple(pieces(tokenizer, tokens)),
        top=tuple(
            tuple((tokenizer.decode([i]), round(p, 5)) for i, p in zip(*step, strict=True)) for step in seen.steps
        ),
        full=tuple(
            (tokenizer.decode([i]), round(p, 5))
            for i, p in zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        ),
        full_probability=tuple(round(p, 5) for p in chosen.tolist()),
        agree=tuple(a == b for a, b in zip(likeliest.indices.tolist(), tokens, strict=True)),
    )
