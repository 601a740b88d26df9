"""How far one distribution over the next token is from another."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ..adapters import Adapter

_CHUNK = 256


class Metrics(NamedTuple):
    """One value per position, float64 on the CPU."""

    kl: torch.Tensor
    """KL(full || scheduled) in nats."""
    agree: torch.Tensor
    """1 where both have the same most likely token."""
    nll_full: torch.Tensor
    """Negative log-likelihood of the target at full depth, in nats."""
    nll: torch.Tensor
    """The same under the plan."""


def compare_logits(full: torch.Tensor, scheduled: torch.Tensor, targets: torch.Tensor) -> Metrics:
    """Metrics of rows of logits ``[positions, vocabulary]`` for targets ``[positions]``."""
    log_p, log_q = torch.log_softmax(full.float(), -1), torch.log_softmax(scheduled.float(), -1)
    terms = log_p.exp() * (log_p - log_q)
    kl = torch.where(log_p == -torch.inf, 0, terms).sum(-1)
    agree = log_p.argmax(-1) == log_q.argmax(-1)
    gathered = [-log.gather(-1, targets[:, None])[:, 0] for log in (log_p, log_q)]
    return Metrics(*(values.double().cpu() for values in (kl.clamp_min(0), agree, *gathered)))


@torch.no_grad()
def compare_states(
    adapter: Adapter, full: torch.Tensor, scheduled: torch.Tensor, targets: torch.Tensor, chunk: int = _CHUNK
) -> Metrics:
    """Metrics of final states ``[positions, hidden]``; the LM head runs on ``chunk`` of them at a time."""
    parts = [
        compare_logits(adapter.logits(a), adapter.logits(b), t)
        for a, b, t in zip(*(torch.split(values, chunk) for values in (full, scheduled, targets)), strict=True)
    ]
    return Metrics(*(torch.cat(values) for values in zip(*parts, strict=True)))
