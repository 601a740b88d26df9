"""Renewal inside transformers' own loop: a step of it may run over several positions, or twice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import CacheError
from ..plans import DepthPlan
from .cache import can_cut, cut
from .depths import DepthLayers
from .renewal import Ran, Renewal, Steps


class AttachedSteps:
    """The steps of runs on an attached model, for :class:`~depthsched.runtime.renewal.Steps` to drive.

    transformers prepares each step, with the whole text, and calls the model's forward with one token; what stands in
    place of these two is :meth:`prepare` and :meth:`forward`.

    Parameters
    ----------
    plan : DepthPlan
    layers : DepthLayers
    renewal : Renewal
    """

    def __init__(self, plan: DepthPlan, layers: DepthLayers, renewal: Renewal) -> None:
        self.plan, self.layers, self.renewal = plan, layers, renewal
        self.begin(None)

    def begin(self, checked: Callable[[Tensor], None] | None) -> None:
        """Forget the run before; ``checked`` as of :class:`~depthsched.runtime.renewal.Steps`."""
        self._checked = checked
        self.running: Sequence[Any] | None = None
        self._steps: Steps | None = None
        self._text: Tensor | None = None

    def prepare(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """``prepare_inputs_for_generation`` that remembers the text."""

        @functools.wraps(original)
        def prepare(input_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
            self._text = input_ids
            return original(input_ids, *args, **kwargs)

        return prepare

    def step_of(self, original: Callable[..., Any], given: dict[str, Any], depth: int) -> tuple[Any, Ran]:
        """One step: what the forward returns for it, and what ran."""
        assert self._text is not None, "transformers prepares a step before it calls the model"
        self._forward, self._given = original, given
        if self._steps is None:
            self._steps = Steps(self, self.plan, self._text.shape[1] - 1, self.renewal, self._checked)
        try:
            _, ran = self._steps(self._text, depth)
        finally:
            self.running = None
        return self._output, ran

    def step(self, tokens: Tensor, depth: int, unfinished: Any) -> Tensor:
        """The step as transformers asked for it, at a depth."""
        return self._run(self.layers[depth], self._given)[:, -1]

    def renew(self, tokens: Tensor, at: int, keep: int = 1) -> Tensor:
        """The same at full depth, over the tokens from slot ``at`` on; logits of the last ``keep`` of them."""
        cache, mask = self._given["past_key_values"], self._given.get("attention_mask")
        cut(cache, at)
        if mask is None:
            mask = torch.ones(len(tokens), at + tokens.shape[1], dtype=torch.long, device=tokens.device)
        positions = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, at:]
        several = {"input_ids": tokens, "position_ids": positions, "logits_to_keep": keep}
        return self._run(self.layers[self.plan.num_layers], {**self._given, **several})

    def _run(self, layers: Sequence[Any], given: dict[str, Any]) -> Tensor:
        self.running = layers
        self._output = self._forward(**given)
        logits: Tensor = self._output.logits
        return logits


def refuse_to_renew(cache: Any) -> None:
    """Raise where a cache cannot be cut.

    Raises
    ------
    CacheError
    """
    if not can_cut(cache):
        raise CacheError(
            f"skipped_kv='recompute' takes positions off the cache and runs them again, which this "
            f"{type(cache).__name__} cannot; give past_key_values=DynamicCache(), which keeps every position, "
            "or use ds.generate"
        )
