"""Which drafted tokens stay, and the token after them.

Greedy decoding keeps what full depth would have chosen. Sampling follows Leviathan et al. 2023 (arXiv 2211.17192): a
token drawn from q stays with probability min(1, p/q), and the first that does not is replaced by one drawn from what p
has more than q; the result is distributed as p.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Verdict(NamedTuple):
    """What full depth made of a draft.

    Attributes
    ----------
    accepted : int
        Drafted tokens that stay.
    token : int
        The one that comes after them.
    """

    accepted: int
    token: int


Scores = Callable[[int], Tensor]
"""Full depth's scores ``[vocabulary]`` after that many drafted tokens; asked in order, and no further than needed."""


def greedy(draft: list[int], scores: Scores) -> Verdict:
    """Keep the tokens that full depth finds most likely too."""
    for place, token in enumerate(draft):
        best = int(scores(place).argmax())
        if best != token:
            return Verdict(place, best)
    return Verdict(len(draft), int(scores(len(draft)).argmax()))


def sampled(
    draft: list[int], proposed: list[Tensor], scores: Scores, generator: torch.Generator | None = None
) -> Verdict:
    """Keep a token with the chance that makes the whole distributed as full depth's.

    Parameters
    ----------
    draft : list of int
    proposed : list of Tensor
        The distribution that each was drawn from, ``[vocabulary]``.
    scores : callable
    generator : torch.Generator, optional
    """
    for place, (token, q) in enumerate(zip(draft, proposed, strict=True)):
        p = torch.softmax(scores(place), dim=-1)
        chance = torch.rand((), generator=generator, device=p.device)
        if chance * q[token] >= p[token]:
            rest = (p - q).clamp_min(0)
            left = rest if bool(rest.sum() > 0) else p  # equal but for rounding
            return Verdict(place, int(torch.multinomial(left, 1, generator=generator)))
    last = torch.softmax(scores(len(draft)), dim=-1)
    return Verdict(len(draft), int(torch.multinomial(last, 1, generator=generator)))
