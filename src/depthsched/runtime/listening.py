"""Signals inside transformers' own loop: hooks on the model hear the tokens before a pass and the logits after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import AttachError
from ..plans import DepthPlan
from .arguments import effective
from .depths import DepthLayers
from .signals import BY_ROW_ALONE, Decision, SignalReader


class Listener:
    """Hears every pass of an attached model and decides how deep the next one runs.

    Parameters
    ----------
    plan : DepthPlan
    layers : DepthLayers
    tokenizer : optional
        For a plan whose schedule asks for the class of tokens.
    """

    def __init__(self, plan: DepthPlan, layers: DepthLayers, tokenizer: Any) -> None:
        self.plan, self.layers, self.tokenizer = plan, layers, tokenizer
        self.begin()

    def begin(self) -> None:
        """Forget the run before."""
        self.reader = SignalReader(self.plan, self.tokenizer)
        self._logits: Tensor | None = None
        self._tokens: Tensor | None = None
        self._mask: Any = None

    @property
    def checked(self) -> Callable[[Tensor], None] | None:
        """Hears how often full depth agreed, where the schedule asks for it."""
        return self.reader.checked if self.reader.hears_checks else None

    def check(self, model: Any, given: Mapping[str, Any]) -> None:
        """Raise where a call of ``generate`` cannot give what the schedule asks for.

        Raises
        ------
        AttachError
        """
        asks = f"schedule {self.plan.schedule!r} asks for"
        moving = [name for name in self.plan.needs if name in BY_ROW_ALONE]
        if moving and (effective("num_beams", model, given) or 1) > 1:
            raise AttachError(f"{asks} {moving[0]}, and the beams of a beam search change places; set num_beams=1")
        if "token_class" in self.plan.needs and given.get("inputs_embeds") is not None:
            raise AttachError(f"{asks} token_class, which needs the ids of the prompt; give no inputs_embeds")

    def prompt(self, mask: Any) -> None:
        """The mask of the prompts as ``generate`` has it; what a pass is called with may be made of it already."""
        self._mask = mask

    def before(self, given: Mapping[str, Any], *, prefill: bool) -> None:
        """What a pass is called with.

        Raises
        ------
        AttachError
            The schedule asks for the length of the prompts, and nothing says which of their tokens are padding.
        """
        ids = given.get("input_ids")
        if prefill:
            fed = given.get("inputs_embeds") if ids is None else ids
            assert fed is not None, "transformers gives one of the two"
            held = given["past_key_values"].get_seq_length() if given.get("past_key_values") is not None else 0
            mask = self._mask
            if mask is not None and mask.dim() != 2 and "prompt_tokens" in self.plan.needs:
                raise AttachError("the schedule asks for prompt_tokens; give generate an attention_mask [rows, tokens]")
            if mask is None or mask.dim() != 2:  # transformers leaves out a mask that hides nothing
                mask = torch.ones(len(fed), int(held) + fed.shape[1], dtype=torch.long)
            self.reader.begin(ids, mask)
        elif ids is not None:
            self._tokens = ids[:, -1]

    def after(self, output: Any) -> None:
        """What a pass gave."""
        self._logits = output.logits[:, -1].clone()

    def decide(self, step: int) -> Decision:
        """The depth of a step that is about to run."""
        if not self.plan.adaptive:
            return Decision(self.plan.depth(step), None)
        assert self._logits is not None, "a step follows a pass"
        assert self._tokens is not None, "a step has a token"
        turned = self.layers.turned
        return self.reader.decide(step, self._logits, self._tokens, cosine=turned.mean if turned else None)
