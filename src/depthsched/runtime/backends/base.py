"""The interface between the decode loop and whatever executes a step."""

from __future__ import annotations

from typing import Any, Protocol, Self

import torch


class Backend(Protocol):
    """Executes the prefill and single steps of one run. A context manager: the model is as before on exit."""

    name: str
    compile_seconds: float
    """What compiling took on entering this run; 0 where nothing is compiled."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def prefill(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, cache: Any) -> torch.Tensor:
        """Run the prompt at full depth.

        Parameters
        ----------
        input_ids, attention_mask : torch.Tensor
            ``[batch, tokens]``; padding on the left has mask 0.
        cache : transformers.Cache

        Returns
        -------
        torch.Tensor
            Logits of the last position, ``[batch, vocabulary]``.
        """
        ...

    def step(self, tokens: torch.Tensor, depth: int) -> torch.Tensor:
        """Run one token per row, ``[batch]``, through the layers of ``depth``; logits as in :meth:`prefill`."""
        ...
