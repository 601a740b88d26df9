"""Small parts that runtime tests pass to generate."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor

import depthsched as ds


@dataclass(frozen=True)
class UpAndDown(ds.DepthSchedule):
    """A depth that falls and rises again: its plans are not nested."""

    monotone = False

    def depth(self, step: Any, num_layers: int) -> Any:
        return num_layers - (3 * step) % num_layers


def greedy(model: Any, inputs: Any, steps: int = 8, **kwargs: Any) -> Any:
    """transformers' own generate without sampling."""
    return model.generate(**inputs, max_new_tokens=steps, do_sample=False, **kwargs)


class Capture(LogitsProcessor):
    """Keeps the raw float32 logits of every step."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.logits.append(scores.clone())
        return scores


class RaiseAt(LogitsProcessor):
    """Raises an exception at one step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.left, self.error = step, error

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return scores


def closest(got: list[torch.Tensor], want: list[torch.Tensor]) -> float:
    """The largest difference between two runs' logits."""
    assert len(got) == len(want)
    return max(float((a - b).abs().max()) for a, b in zip(got, want, strict=True))


def padded_ids(tokenizer: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    """Token ids of texts, padded on the left."""
    encoded = tokenizer(texts, return_tensors="pt", padding=True)
    return {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
