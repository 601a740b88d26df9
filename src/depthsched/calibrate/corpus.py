"""Samples at full depth, on disk: what every part of a calibration reads, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeVar, overload

import torch

from ..adapters import Adapter
from ..score.answers import Sample
from ..score.scorer import batches
from ..score.staircase import Staircase
from ..score.streams import Streams
from ..work.pieces import Function, Local, Work
from .store import Folder, Store

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
    work : Work, optional
        The workers of a cluster, which :meth:`map` goes to where there are several batches. Each keeps states of its
        own, and those in the folder are computed only for what reads a batch here.
    """

    def __init__(self, adapter: Adapter, samples: Sequence[Sample], folder: Path, work: Work | None = None) -> None:
        self.adapter = adapter
        self.centre: list[torch.Tensor] | None = None  # what the moments of its states are counted from
        self.batches: list[Batch] = []
        first = 0
        for i, chunk in enumerate(batches(samples, BATCH_TOKENS)):
            self.batches.append(Batch(adapter, chunk, Folder(folder / str(i)), first))
            first += len(chunk)
        self.spread = work is not None and len(self.batches) > 1
        self._work: Work = work if work is not None and self.spread else Local(adapter.model)
        self._study = str(folder.resolve().parent)
        if not self.spread:
            for batch in self.batches:
                batch.prepare()

    @property
    def tokens(self) -> int:
        """Decode steps of all samples."""
        return sum(sum(batch.counts) for batch in self.batches)

    def map(
        self, function: Function, shared: Any = None, *, most: int | None = None, kept: str | None = None
    ) -> Iterator[Any]:
        """What a function finds for each batch, in their order, here or on workers.

        Parameters
        ----------
        function : callable
            Of the model, ``shared`` and a piece, which :func:`~depthsched.calibrate.pieces.batch_of` makes a batch.
            It stands at the top of a module and gives back JSON with tensors in it.
        shared
            JSON with tensors in it.
        most : int, optional
            Only so many batches.
        kept : str, optional
            States, kept here under this name, that the function reads too.
        """
        some = self.batches[:most]
        return self._work.map(function, shared, _Messages(some, self._study, kept) if self.spread else some)


class _Messages(Sequence[Any]):
    """Batches as what goes to a worker, each made when it goes: memory holds those that are on their way."""

    def __init__(self, batches: Sequence[Batch], study: str, kept: str | None) -> None:
        self.batches, self.study, self.kept = batches, study, kept

    def __len__(self) -> int:
        return len(self.batches)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return _Messages(self.batches[index], self.study, self.kept)
        batch = self.batches[index]
        samples = [list(sample) for sample in map(astuple, batch.samples)]
        kept = {self.kept: batch.kept(self.kept)} if self.kept else {}
        return {"study": self.study, "samples": samples, "first": batch.first, "kept": kept}


class Batch:
    """Some samples of a corpus. States are the rows of real decode steps, ``[tokens, hidden]``, float32.

    Attributes
    ----------
    samples : sequence of Sample
    counts : list of int
        Decode steps of each.
    first : int
        Number of the first one in its corpus.
    """

    def __init__(self, adapter: Adapter, samples: Sequence[Sample], store: Store, first: int = 0) -> None:
        self.adapter, self.samples, self.first = adapter, samples, first
        self.counts = [len(sample.completion) - 1 for sample in samples]
        self._store = store

    def prepare(self) -> None:
        """Run the samples at full depth, unless that is done."""
        if self._store.whole:
            return
        staircase = Staircase(self.adapter, self.samples)
        keys = torch.stack([torch.stack(pair) for pair in staircase.keys])
        self._store.save("keys", keys.float().cpu().numpy())
        staircase.full(tap=lambda layer, hidden: self.put(str(layer), hidden[staircase.valid]))
        self._store.finish()

    def put(self, name: str, states: torch.Tensor) -> None:
        """Keep states under a name."""
        self._store.save(name, states.float().cpu().numpy())

    def kept(self, name: str) -> torch.Tensor:
        """States that :meth:`put` kept under a name."""
        return torch.from_numpy(self._store.load(name)).to(self.adapter.device)

    def get(self, name: str | int) -> torch.Tensor:
        """States kept under a name; a number is the full-depth state that enters this layer."""
        self.prepare()
        return self.kept(str(name))

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
        self.prepare()
        keys = torch.from_numpy(self._store.load("keys")).to(self.adapter.device, self.adapter.dtype)
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
