"""The cut, the map and the new model.

The layers ``[first, end)`` go. With ``m`` what the MLP of the layer before them adds to the state, ``y`` the state
after that layer and ``z`` the state after the cut, the map is ``T = (M'M + aI)^-1 M'(z + m - y)``, where the rows of M
are the m of many tokens: then ``y - m + m T`` is as close to z as a linear map of m can take it. Since m is linear in
the weights of the down projection, T is multiplied into them, and the new model costs what it has in layers and nothing
more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depthsched.adapters import Adapter
from depthsched.encoding import left_padded
from depthsched.errors import ModelError, PlanError, SettingsError
from depthsched.score.answers import Sample

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Tried as shares of the mean diagonal of M'M."""
_HOLD_OUT = 4
_ROWS = 8


class Sums:
    """``M'M``, ``M'R`` and ``|R|^2`` of rows m and r = z + m - y, in float64."""

    def __init__(self, size: int, device: Any = None) -> None:
        self.mm = torch.zeros(size, size, dtype=torch.float64, device=device)
        self.mr, self.rr = torch.zeros_like(self.mm), 0.0

    def add(self, m: torch.Tensor, r: torch.Tensor) -> None:
        """Take in rows ``[tokens, hidden]`` of both."""
        m, r = m.double(), r.double()
        self.mm += m.T @ m
        self.mr += m.T @ r
        self.rr += float(r.pow(2).sum())

    def __add__(self, other: Sums) -> Sums:
        both = Sums(len(self.mm), self.mm.device)
        both.mm, both.mr, both.rr = self.mm + other.mm, self.mr + other.mr, self.rr + other.rr
        return both

    def solve(self, ridge: float) -> torch.Tensor:
        """T, ``[hidden, hidden]``, with ``a`` a share of the mean diagonal of M'M."""
        a = ridge * float(self.mm.diagonal().mean()) + 1e-12
        return torch.linalg.solve(self.mm + a * torch.eye(len(self.mm), dtype=self.mm.dtype).to(self.mm), self.mr)

    def error(self, t: torch.Tensor) -> float:
        """``|M T - R|^2``: the squared distance from z of the state that has the map."""
        return self.rr - 2 * float((t * self.mr).sum()) + float((t * (self.mm @ t)).sum())


@dataclass(frozen=True)
class Fit:
    """A map, its ridge, and the error it leaves on held-out texts as a share of the error without it."""

    t: torch.Tensor
    ridge: float
    left: float


def best_fit(seen: Sums, held: Sums) -> Fit:
    """The map of all rows, with the ridge for which that of ``seen`` is closest on ``held``."""
    errors = {ridge: held.error(seen.solve(ridge)) for ridge in RIDGES}
    ridge = min(errors, key=lambda r: (errors[r], r))
    without = held.error(torch.eye(len(held.mm), dtype=held.mm.dtype).to(held.mm))
    return Fit((seen + held).solve(ridge), ridge, errors[ridge] / max(without, 1e-30))


def make(
    adapter: Adapter, tokenizer: Any, samples: Sequence[Sample], depth: int, out: Path, first: int | None = None
) -> dict[str, Any]:
    """Cut a model down to ``depth`` layers, in place, write it to a folder, and say what was done.

    Parameters
    ----------
    adapter : Adapter
        Of a model in float32, which is the shallower one afterwards.
    tokenizer
        Saved beside it.
    samples : sequence of Sample
        Texts to fit on, every fourth of them to choose the ridge; all their positions, since the prompt runs through
        the new model as well.
    depth : int
    out : Path
        Must not hold a model.
    first : int, optional
        First layer of the cut.

    Raises
    ------
    SettingsError, PlanError, ModelError
        A depth or a first layer that does not fit, a model whose layers do not add their MLP's output as it is, or
        one that reads back from the folder as another.
    """
    layers = adapter.num_layers
    if not 2 <= depth < layers:
        raise SettingsError(f"depth {depth} must be between 2 and {layers - 1}: the first and the last layer stay")
    if len(samples) < 2:
        raise SettingsError(f"{len(samples)} prompts: give two or more, of which one chooses the ridge")
    size = layers - depth
    if first is None:
        first = closest(adapter, samples, size)
    if not 1 <= first <= layers - 1 - size:
        raise SettingsError(f"first layer {first} must be between 1 and {layers - 1 - size} for a cut of {size} layers")
    check_folder(out)
    fit = fit_cut(adapter, samples, first, first + size)
    fold(adapter, samples[0], first - 1, fit.t)
    remove(adapter, first, first + size)
    facts = {"depth": depth, "first": first, "end": first + size, "ridge": fit.ridge, "left": fit.left}
    adapter.model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "replaceme.json").write_text(json.dumps(facts), encoding="utf-8")
    _check_saved(adapter, samples[0], out)
    return facts


def check_folder(out: Path) -> None:
    """Raise where a folder holds a model already."""
    if (out / "config.json").exists():
        raise SettingsError(f"{out} holds a model already; give another folder")


def closest(adapter: Adapter, samples: Sequence[Sample], size: int) -> int:
    """The first layer of the cut whose two ends have the highest mean cosine."""
    starts = range(1, adapter.num_layers - size)
    totals = dict.fromkeys(starts, 0.0)
    for states, chosen, _ in walk(adapter, samples):
        for start in starts:
            ends = (states[layer][chosen].double() for layer in (start, start + size))
            totals[start] += float(torch.cosine_similarity(*ends, dim=-1).sum())
    return max(totals, key=lambda start: (totals[start], -start))


def fit_cut(adapter: Adapter, samples: Sequence[Sample], first: int, end: int) -> Fit:
    """The map for a cut ``[first, end)``."""
    parts = [Sums(adapter.config.hidden_size, adapter.device) for _ in range(2)]
    number = 0
    for states, chosen, added in walk(adapter, samples, first - 1):
        for row in range(len(chosen)):
            m, y, z = (part[row][chosen[row]] for part in (added, states[first], states[end]))
            parts[number % _HOLD_OUT == _HOLD_OUT - 1 or number == len(samples) - 1].add(m, z + m - y)
            number += 1
    return best_fit(*parts)


def walk(
    adapter: Adapter, samples: Sequence[Sample], mlp: int | None = None
) -> Iterator[tuple[dict[int, torch.Tensor], torch.Tensor, torch.Tensor]]:
    """For a few texts at a time: states that enter each layer, which positions are real, and what one MLP adds."""
    for begin in range(0, len(samples), _ROWS):
        ids, mask = left_padded([[*s.prompt, *s.completion] for s in samples[begin : begin + _ROWS]])
        states, added = _look(adapter, ids.to(adapter.device), mask.to(adapter.device), mlp)
        yield states, mask.to(adapter.device).bool(), added


@torch.no_grad()
def _look(
    adapter: Adapter, ids: torch.Tensor, mask: torch.Tensor, mlp: int | None
) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    states: dict[int, torch.Tensor] = {}
    added = [mask]
    decoder: Any = adapter.decoder
    with ExitStack() as stack:
        for i, layer in enumerate(adapter.layers):
            stack.callback(layer.register_forward_pre_hook(_keeper(states, i)).remove)
        if mlp is not None:
            down = down_projection(adapter, mlp)
            stack.callback(down.register_forward_hook(lambda module, args, out: added.append(out)).remove)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        decoder(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    return states, added[-1]


def _keeper(states: dict[int, torch.Tensor], layer: int) -> Callable[[Any, Any], None]:
    return lambda module, args: states.update({layer: args[0]})


def down_projection(adapter: Adapter, layer: int) -> nn.Linear:
    """The last matrix of a layer's MLP.

    Raises
    ------
    PlanError
        The layer has none: a mixture of experts.
    """
    found = getattr(getattr(adapter.layers[layer], "mlp", None), "down_proj", None)
    if not isinstance(found, nn.Linear):
        raise PlanError(f"layer {layer} has no dense mlp.down_proj to fold a map into; ReplaceMe needs one")
    return found


@torch.no_grad()
def fold(adapter: Adapter, sample: Sample, layer: int, t: torch.Tensor) -> None:
    """Multiply a map into the down projection of a layer, and check on one text that the layer then does what it says.

    Raises
    ------
    PlanError
        The layer scales or normalises what its MLP gives before it is added, so that the map would not be the one
        fitted. Its weights are as before.
    """
    states, chosen, m = next(walk(adapter, [sample], layer))
    y = states[layer + 1]
    down = down_projection(adapter, layer)
    weight, bias = down.weight.clone(), None if down.bias is None else down.bias.clone()
    down.weight.copy_(t.T @ weight.double())
    if bias is not None:
        down.bias.copy_(bias.double() @ t)
    found = next(walk(adapter, [sample]))[0][layer + 1][chosen].double()
    wanted = (y - m)[chosen].double() + m[chosen].double() @ t
    if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().mean())):
        down.weight.copy_(weight)
        if bias is not None:
            down.bias.copy_(bias)
        raise PlanError(
            f"{type(adapter.layers[layer]).__name__} changes what its MLP gives before adding it, so a map folded into "
            "the MLP is another one; ReplaceMe needs a family like Llama's"
        )


def remove(adapter: Adapter, first: int, end: int) -> None:
    """Take layers out of a model, and out of every list of its configuration that has one entry for each."""
    layers, config = list(adapter.layers), adapter.config
    kept = layers[:first] + layers[end:]
    for index, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == len(layers):
            setattr(config, name, value[:first] + value[end:])
    config.num_hidden_layers = len(kept)
    decoder: Any = adapter.decoder
    decoder.layers = nn.ModuleList(kept)


@torch.no_grad()
def _check_saved(adapter: Adapter, sample: Sample, out: Path) -> None:
    from depthsched import load_model

    ids = torch.tensor([sample.prompt], device=adapter.device)
    again = load_model(str(out), dtype=adapter.dtype, device=str(adapter.device))[0]
    if not torch.allclose(again(ids).logits, adapter.model(ids).logits, rtol=1e-3, atol=1e-3):
        raise ModelError(f"the model written to {out} computes something else than the one in memory; do not use it")
