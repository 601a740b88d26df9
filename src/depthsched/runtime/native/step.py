"""A run on a CPU: passes of a few tokens through the library, from token ids to logits."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...native.library import Library, Scratch
from ...native.structs import BRIDGE, REDUCE, RUN, WRITE, PassStruct
from .kv import NativeKV
from .model import NativeModel
from .reduce import Reduce

MOST_TOKENS = 64
"""Of one pass: a longer prompt runs in several."""


class NativeDecoder:
    """A run of a batch; ``starts`` are the first tokens of its rows after padding, int32 ``[batch]``."""

    def __init__(
        self, library: Library, model: NativeModel, kv: NativeKV, starts: Tensor,
        keep_sets: Mapping[int, Sequence[int]], *, write_kv: bool,
    ) -> None:  # fmt: skip
        self.library, self.model, self.kv, self.starts = library, model, kv, starts
        self.keep_sets, self.write_kv = keep_sets, write_kv
        self.rows = torch.arange(len(starts), dtype=torch.int32)
        self._scratch = Scratch(library)
        self._reduce = Reduce(model.ranks) if model.ranks is not None else None
        self._programs: dict[int, Tensor] = {}
        self._angles(kv.capacity)

    def step(self, tokens: Tensor, depth: int) -> Tensor:
        """Logits ``[batch, vocabulary]`` after one more token per row, ``[batch]``."""
        slots = torch.full_like(self.rows, self.kv.length)
        every = torch.arange(len(tokens), dtype=torch.int32)
        logits = self.forward(tokens, self.rows, slots, every, depth)
        self.kv.length += 1
        return logits

    def renew(self, tokens: Tensor, at: int, keep: int = 1) -> Tensor:
        """``tokens [batch, count]`` at the slots from ``at`` on: logits ``[batch, keep, vocabulary]`` of the last."""
        self.kv.length = at
        return self.prompt(tokens, keep=keep).view(len(tokens), -1, self.model.vocabulary)

    def held(self, length: int) -> list[tuple[Tensor, Tensor]]:
        """K and V of the first ``length`` slots of each layer, ``[batch, kv_heads, length, head_dim]``."""
        for row, start in enumerate(self.starts.tolist()):  # padding was never written, and others multiply it by zero
            for held in (*self.kv.keys, *self.kv.values):
                held[row, :, :start] = 0
        return [(k[:, :, :length], v[:, :, :length]) for k, v in zip(self.kv.keys, self.kv.values, strict=True)]

    def several(self, tokens: Tensor, at: Tensor, depth: int) -> Tensor:
        """Logits ``[rows, count, vocabulary]`` of ``tokens [rows, count]`` at the slots from ``at [rows]`` on."""
        batch, count = tokens.shape
        slots = (at[:, None] + torch.arange(count)).int().reshape(-1)
        rows, every = self.rows.repeat_interleave(count), torch.arange(batch * count, dtype=torch.int32)
        return self.forward(tokens.reshape(-1), rows, slots, every, depth).view(batch, count, -1)

    def prompt(self, input_ids: Tensor, chunk: int | None = None, keep: int = 1) -> Tensor:
        """Logits of the last ``keep`` tokens of each row of ``[batch, tokens]``, row by row; padding is left out."""
        held, batch, length = self.kv.length, *input_ids.shape
        slots = torch.arange(held, held + length, dtype=torch.int32).repeat(batch)
        rows = self.rows.repeat_interleave(length)
        real = slots >= self.starts[rows]
        ids, rows, slots = input_ids.reshape(-1)[real], rows[real], slots[real]
        self.kv.reserve(held + length)
        logits = []
        for part in torch.split(torch.arange(len(ids)), min(chunk or MOST_TOKENS, MOST_TOKENS)):
            last = (slots[part] >= held + length - keep).nonzero()[:, 0].int()
            logits.append(self.forward(ids[part], rows[part], slots[part], last, self.model.num_layers))
        self.kv.length = held + length
        return torch.cat(logits)

    def forward(self, ids: Tensor, rows: Tensor, slots: Tensor, wanted: Tensor, depth: int) -> Tensor:
        """One pass of any tokens: each with its row and the slot that it goes to; logits of those ``wanted``.

        A token sees what its row holds up to its slot, tokens of the same pass included.
        """
        kv, starts = self.kv, self.starts[rows]
        kv.reserve(int(slots.max()) + 1)
        if len(self.cos) < kv.capacity:
            self._angles(kv.capacity)
        program = self._program(depth)
        logits = torch.empty(len(wanted), self.model.head_rows)
        ids, slots = ids.contiguous(), slots.contiguous()
        run = PassStruct(
            tokens=len(ids), outputs=len(wanted), steps=len(program), threads=torch.get_num_threads(),
            ids=ids.data_ptr(), rows=rows.data_ptr(), slots=slots.data_ptr(), starts=starts.data_ptr(),
            program=program.data_ptr(), wanted=wanted.data_ptr(), cos=self.cos.data_ptr(), sin=self.sin.data_ptr(),
            keys=ctypes.addressof(kv.key_pointers), values=ctypes.addressof(kv.value_pointers),
            capacity=kv.capacity, logits=logits.data_ptr(), reduce=self._reduce.pointer if self._reduce else REDUCE(),
        )  # fmt: skip
        self.library.run(self.model.pointer, ctypes.byref(run), self._scratch.pointer)
        return logits if self._reduce is None else self._reduce.whole(logits, self.model.vocabulary)

    def drop_rows(self, rows: Tensor) -> None:
        """Go on with only these rows, indices into those held so far."""
        self.rows = self.rows[rows]

    def _program(self, depth: int) -> Tensor:
        """What a depth does, layer by layer: pairs of an operation and a layer or bridge, int32 ``[steps, 2]``."""
        if depth not in self._programs:
            kept = set(self.keep_sets[depth]) if depth < self.model.num_layers else set(range(self.model.num_layers))
            steps: list[tuple[int, int]] = []
            for i in range(self.model.num_layers + 1):
                skipped = i < self.model.num_layers and i not in kept
                if skipped and self.write_kv:
                    steps.append((WRITE, i))  # from the state as it comes, before its bridge
                if (depth, i) in self.model.bridge_index:
                    steps.append((BRIDGE, self.model.bridge_index[depth, i]))
                if i in kept:
                    steps.append((RUN, i))
            self._programs[depth] = torch.tensor(steps, dtype=torch.int32).view(len(steps), 2)
        return self._programs[depth]

    def _angles(self, positions: int) -> None:
        self.cos, self.sin = self.model.rotary(torch.arange(positions))
