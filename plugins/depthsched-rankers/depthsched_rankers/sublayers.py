"""Rankers that look at attention and MLP apart: AdaSkip (arXiv 2501.02336) and ConfLayers (arXiv 2604.14612)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

import depthsched as ds
from depthsched.errors import PlanError

from .states import cosine

if TYPE_CHECKING:
    import torch

    from depthsched.adapters import Adapter
    from depthsched.calibrate import Study

PARTS = ("attention", "mlp")
See = Callable[[int, "torch.Tensor", "torch.Tensor", "torch.Tensor"], None]
"""A layer, and states ``[tokens, hidden]`` in front of its attention, in front of its MLP and after it."""


@dataclass(frozen=True)
class AdaSkip(ds.LayerRanker):
    """The layers go first whose attention and MLP change the state of the prompt least, measured apart.

    AdaSkip (https://arxiv.org/abs/2501.02336) scores every sub-layer by the cosine of the states before and after it,
    ``s = mean_t cos(x_t, x_t + f(x_t))`` over the prompt, and skips the N sub-layers of the highest score.

    What differs here: AdaSkip skips attention and MLP apart; a plan of depthsched skips whole layers. A layer is ranked
    by the mean of its two scores: of all ways to skip 2 n sub-layers as n whole layers, the first n have the highest
    sum of scores. The evidence has every score, and the sub-layers that AdaSkip itself would choose. AdaSkip looks at
    the prompt of each request and skips in the prompt too; here the prompts are those of a calibration, once, and
    layers are left out while decoding only.

    Left open here: where it skips, AdaSkip multiplies the state by the mean ratio of norms, ``|after| / |before|``. The
    ratios are in the evidence and are not applied. A bridge of a calibration is an affine map, of which such a factor
    is a special case, but it is fitted on decode steps and for whole runs of layers.

    What the paper leaves open, and what is chosen here: the first and the last layer always run; of equal scores the
    lower layer goes first. A family whose attention and MLP stand side by side (Cohere) has no state between them and
    is refused.
    """

    name: ClassVar[str] = "adaskip"

    def rank(self, study: Study) -> Sequence[int]:
        cosines = {part: [0.0] * study.num_layers for part in PARTS}
        ratios = {part: [0.0] * study.num_layers for part in PARTS}

        def see(layer: int, *states: torch.Tensor) -> None:
            for part, before, after in zip(PARTS, states, states[1:], strict=False):
                cosines[part][layer] += float(cosine(before, after).sum())
                norms = after.double().norm(dim=-1) / before.double().norm(dim=-1)
                ratios[part][layer] += float(norms.sum())

        tokens = walk(study, see, prompt=True)
        score = {part: [total / tokens for total in row] for part, row in cosines.items()}
        every = sorted((-score[part][layer], layer, part) for layer in study.droppable for part in PARTS)
        study.evidence[self.spec()] = {
            "cosine": score,
            "norm_ratio": {part: [total / tokens for total in row] for part, row in ratios.items()},
            "published": [[layer, part] for _, layer, part in every[: 2 * study.drops]],
        }
        return sorted(study.droppable, key=lambda layer: (-sum(score[part][layer] for part in PARTS), layer))


@dataclass(frozen=True)
class ConfLayers(ds.LayerRanker):
    """The layers go first whose attention and MLP are the least confident, compared with the layers around them.

    ConfLayers (https://arxiv.org/abs/2604.14612) gives every layer the confidence ``c_i``, the sum over attention and
    MLP of ``1 - H(softmax(f(x))) / log(hidden)``, with H the entropy over the values of the output ``f(x)``, mean over
    tokens. A draft skips layer i where ``c_i < mean - m * deviation`` of the layers around it, and ``m`` is moved so
    that the share of skipped layers stays in a band.

    An order for every m: layer i is skipped from ``m = (mean - c_i) / deviation`` downwards, so that the sets of all m
    are nested, and the layers sorted by that figure are the order. A depth here is an m there, and the band is the
    ``--min-depth`` of a calibration; nothing is approximated by the order.

    What differs here: ConfLayers renews its set while it decodes one text, for drafts that full depth checks, and keeps
    the set that was accepted best. Here it is found once, on the decode steps of a calibration's answers; which depth
    drafts best, ``calibrate --for drafting`` finds. It is no adaptive schedule: those choose how many layers run, and
    this chooses which.

    What the paper leaves open, and what is chosen here: the window is ``window`` layers on either side, the layer
    itself left out, of those that may be dropped; the published code widens it with the curvature of ``c`` and with the
    height of the layer.
    The output of a sub-layer is what it adds to the state. The first and the last layer always run; of equal figures
    the lower layer goes first. Cohere's family is refused, as by ``adaskip``.
    """

    name: ClassVar[str] = "conflayers"

    window: int = ds.setting(4, low=1, high=1000, help="layers on either side that a layer is compared with")

    def rank(self, study: Study) -> Sequence[int]:
        totals = np.zeros(study.num_layers)

        def see(layer: int, before: torch.Tensor, middle: torch.Tensor, after: torch.Tensor) -> None:
            for added in (middle - before, after - middle):
                totals[layer] += float(confidence(added).sum())

        found = totals / walk(study, see, prompt=False)
        values = {layer: float(found[layer]) for layer in study.droppable}
        figure = {layer: multiple(values, layer, self.window) for layer in values}
        order = sorted(figure, key=lambda layer: (-figure[layer], layer))
        study.evidence[self.spec()] = [{"layer": i, "confidence": values[i], "multiple": figure[i]} for i in order]
        return order


def confidence(values: torch.Tensor) -> torch.Tensor:
    """1 minus the entropy of the softmax over each row ``[tokens, hidden]``, as a share of the largest there can be."""
    import torch

    log_p = torch.log_softmax(values.double(), dim=-1)
    return 1 + (log_p.exp() * log_p).sum(-1) / math.log(values.shape[-1])


def multiple(values: dict[int, float], layer: int, window: int) -> float:
    """The largest m at which a layer is skipped: how many deviations it lies below the layers around it."""
    around = [value for other, value in values.items() if 0 < abs(other - layer) <= window]
    if not around:
        return 0.0
    return float((np.mean(around) - values[layer]) / max(np.std(around), 1e-9))


def walk(study: Study, see: See, *, prompt: bool) -> int:
    """Show every layer's states at full depth, and say at how many tokens.

    Parameters
    ----------
    study : Study
    see : callable
    prompt : bool
        At the tokens of the prompts; else at the decode steps.
    """
    import torch

    from depthsched.encoding import left_padded

    count = 0
    for batch in study.fitted.batches:
        texts = [sample.prompt if prompt else (*sample.prompt, *sample.completion[:-1]) for sample in batch.samples]
        ids, mask = (part.to(study.adapter.device) for part in left_padded(texts))
        chosen = mask.bool()
        if not prompt:
            steps = torch.tensor(batch.counts, device=ids.device)
            chosen = torch.arange(ids.shape[1], device=ids.device) >= ids.shape[1] - steps[:, None]
        count += int(chosen.sum())
        decoder: Any = study.adapter.decoder
        with torch.no_grad(), _watched(study.adapter, chosen, see):
            positions = (mask.cumsum(-1) - 1).clamp_min(0)
            decoder(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    return count


@contextmanager
def _watched(adapter: Adapter, chosen: torch.Tensor, see: See) -> Iterator[None]:
    """Hooks that show the states of the chosen positions, off again afterwards."""
    with ExitStack() as stack:
        for index, layer in enumerate(adapter.layers):
            between: list[torch.Tensor] = []

            def keep(module: Any, args: Any, between: list[torch.Tensor] = between) -> None:
                between[:] = [args[0]]

            def show(
                module: Any, args: Any, after: torch.Tensor, index: int = index, between: list[torch.Tensor] = between
            ) -> None:
                see(index, args[0][chosen], between.pop()[chosen], after[chosen])

            stack.callback(before_mlp(layer).register_forward_pre_hook(keep).remove)
            stack.callback(layer.register_forward_hook(show).remove)
        yield


def before_mlp(layer: Any) -> Any:
    """The module of a layer whose input is the state between attention and MLP.

    Raises
    ------
    PlanError
        There is no such state: attention and MLP stand side by side.
    """
    for name in ("pre_feedforward_layernorm", "feedforward_layernorm"):  # Gemma 2 and 3, Apertus
        if hasattr(layer, name):
            return getattr(layer, name)
    if hasattr(layer, "post_feedforward_layernorm"):  # OLMo 2 and 3, EXAONE 4 normalise after attention and MLP only
        return layer.mlp
    if hasattr(layer, "post_attention_layernorm"):
        return layer.post_attention_layernorm
    raise PlanError(
        f"{type(layer).__name__} has no state between attention and MLP; use a ranker that compares whole layers, "
        "such as shortgpt"
    )
