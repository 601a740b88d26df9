"""Samples at full depth, on disk: what every part of a calibration reads, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ..adapters import Adapter
from ..files import write_atomic
from ..score.answers import Sample
from ..score.scorer import batches
from ..score.staircase import Staircase
from ..score.streams import Streams

BATCH_TOKENS = 4096
Kind = TypeVar("Kind", bound=Staircase)


class Corpus:
    """Samples in batches, each with the KV of its prompts and its full-depth states at every layer in a folder.

    Memory holds one batch at a time, however many samples there are; the disk holds about
    ``tokens * hidden * (layers + 1)`` float32 values and the KV of the prompts. Batches that are in the folder
    already are not computed again.

    Parameters
    ----------
    adapter : Adapter
    samples : sequence of Sample
    folder : Path
        For these samples only.
    """

    def __init__(self, adapter: Adapter, samples: Sequence[Sample], folder: Path) -> None:
        self.adapter = adapter
        self.batches = [
            Batch(adapter, chunk, folder / str(i)) for i, chunk in enumerate(batches(samples, BATCH_TOKENS))
        ]

    @property
    def tokens(self) -> int:
        """Decode steps of all samples."""
        return sum(sum(batch.counts) for batch in self.batches)

    def numbered(self) -> Iterator[tuple[int, Batch]]:
        """Every batch with the number of its first sample."""
        before = 0
        for batch in self.batches:
            yield before, batch
            before += len(batch.samples)


class Batch:
    """Some samples of a corpus. States are the rows of real decode steps, ``[tokens, hidden]``, float32."""

    def __init__(self, adapter: Adapter, samples: Sequence[Sample], folder: Path) -> None:
        self.adapter, self.samples, self.folder = adapter, samples, folder
        self.counts = [len(sample.completion) - 1 for sample in samples]
        if not (folder / "done").is_file():
            self._compute()

    def _compute(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        staircase = Staircase(self.adapter, self.samples)
        keys = torch.stack([torch.stack(pair) for pair in staircase.keys])
        np.save(self.folder / "keys.npy", keys.float().cpu().numpy())
        staircase.full(tap=lambda layer, hidden: self.put(str(layer), hidden[staircase.valid]))
        write_atomic(self.folder / "done", b"")

    def put(self, name: str, states: torch.Tensor) -> None:
        """Keep states under a name."""
        np.save(self.folder / f"{name}.npy", states.float().cpu().numpy())

    def get(self, name: str | int) -> torch.Tensor:
        """States kept under a name; a number is the full-depth state that enters this layer."""
        return torch.from_numpy(np.load(self.folder / f"{name}.npy")).to(self.adapter.device)

    def staircase(self) -> Staircase:
        """The samples with their prompts run already."""
        return Staircase(self.adapter, self.samples, self._keys())

    def streams(self, most: int) -> Iterator[Streams]:
        """The same for drafts, as many samples at once as have ``most`` positions with padding; one at least."""
        return self._pieces(most, Streams)

    def stairs(self, most: int) -> Iterator[Staircase]:
        """:meth:`staircase` in pieces of like size, for what keeps more of each position than its state."""
        return self._pieces(most, Staircase)

    def _pieces(self, most: int, kind: type[Kind]) -> Iterator[Kind]:
        keys = self._keys()
        prompt, steps = keys[0][0].shape[2], max(self.counts)
        size = max(most // (prompt + steps), 1)
        for begin in range(0, len(self.samples), size):
            end = begin + size
            yield kind(self.adapter, self.samples[begin:end], self._same_prompts(keys, begin, end))

    def _keys(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """K and V of the prompts, a pair for each layer."""
        keys = torch.from_numpy(np.load(self.folder / "keys.npy")).to(self.adapter.device, self.adapter.dtype)
        return [(pair[0], pair[1]) for pair in keys]

    def _same_prompts(
        self, keys: Sequence[tuple[torch.Tensor, torch.Tensor]], begin: int, end: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Those of some samples, without the padding that only longer prompts of the batch needed."""
        longest = max(len(sample.prompt) for sample in self.samples[begin:end])
        return [(k[begin:end, :, -longest:], v[begin:end, :, -longest:]) for k, v in keys]

    def advance(self, states: torch.Tensor, first: int, end: int, keep: Sequence[int]) -> torch.Tensor:
        """States that enter layer ``first``, taken through the kept layers below ``end``."""
        layers = [layer for layer in keep if first <= layer < end]
        if not layers:
            return states
        staircase = self.staircase()
        found = [states]

        def tap(layer: int, hidden: torch.Tensor) -> torch.Tensor | None:
            if layer == first:
                hidden = torch.zeros_like(hidden)
                hidden[staircase.valid] = states.to(hidden)
                return hidden
            if layer == end:
                found[0] = hidden[staircase.valid].float()
            return None

        staircase.run([1] * staircase.steps, {1: layers}, tap=tap)
        return found[0]
