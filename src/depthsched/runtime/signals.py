"""How sure the model was of a token."""

from __future__ import annotations

import torch

from ..schedule import Signals


def read_signals(logits: torch.Tensor) -> Signals:
    """Signals of the least certain row.

    Parameters
    ----------
    logits : torch.Tensor
        ``[batch, vocabulary]``, any floating dtype.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1)
    p = log_p.exp()
    entropy = -(p * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(-1)
    top = p.topk(2, dim=-1).values
    worst = torch.stack([entropy.max(), top[:, 0].min(), (top[:, 0] - top[:, 1]).min()])
    return Signals(*worst.tolist())
