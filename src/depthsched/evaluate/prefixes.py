"""Prompts computed once: a task's few-shot prefix for all its items, and a batch of prompts for all plans.

The prefill runs every layer whatever the plan, so what it leaves in the cache belongs to the prompt alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..adapters import Adapter
from .shared import KV, SharedPrefixCache, can_share, shared_prefix

WORTH_SHARING = 16
"""Tokens from which on a common prefix is kept apart."""


def common_length(rows: Sequence[Any]) -> int:
    """How many tokens (or characters) all rows begin with; at least one of each row is left over."""
    if len(rows) < 2:
        return 0
    first, last = min(rows), max(rows)  # in lexical order, what these two share all rows between them share
    length = min(map(len, rows)) - 1
    return next((i for i in range(length) if first[i] != last[i]), length)


def common_text(texts: Sequence[str]) -> str:
    """The whole lines that all texts begin with, such as the few-shot examples of a task."""
    first = texts[0]
    return first[: first.rfind("\n", 0, common_length(texts)) + 1]


class PromptStore:
    """K and V of prompts, without their last token, kept for the next plan.

    Parameters
    ----------
    adapter : Adapter
    limit_bytes : int
        What batches of prompts may hold; the one not used for longest makes room. Prefixes stay.

    Attributes
    ----------
    tokens : int
        Prompt tokens computed so far.
    """

    def __init__(self, adapter: Adapter, limit_bytes: int = 3 << 30) -> None:
        self.adapter = adapter
        self.limit = limit_bytes
        self.tokens = 0
        self.shares = can_share(adapter)
        self._chosen: dict[tuple[int, ...], None] = {}
        self._prefixes: dict[tuple[int, ...], list[KV]] = {}
        self._rows: OrderedDict[Any, list[KV]] = OrderedDict()

    def cache(self, prefix: tuple[int, ...], ids: Tensor, mask: Tensor, room: int, *, dense: bool) -> Any:
        """A cache that holds a batch of prompts but for their last token.

        Parameters
        ----------
        prefix : tuple of int
            Tokens that all rows begin with.
        ids, mask : Tensor
            What follows the prefix, ``[batch, tokens]``, padded on the left; the mask is 0 for padding.
        room : int
            Tokens that the rows will add, their last prompt token included.
        dense : bool
            Repeat the prefix for each row, in a cache that every backend reads, rather than share it. Its rows are
            padded in front of the prefix, as those of a batch are, and not after it.
        """
        held = self._prefix(prefix)
        own = self._own(prefix, held, ids, mask)
        if not dense:
            cache = SharedPrefixCache(held, len(ids), ids.shape[1] - 1 + room)
            cache.put(own)
            return cache
        from transformers import DynamicCache

        cache = DynamicCache()
        for i, (shared, mine) in enumerate(zip(held, own, strict=True)):
            cache.update(*(_left_padded(*parts, mask[:, :-1]) for parts in zip(shared, mine, strict=True)), i)
        cache.scratch = True  # nobody reads it after the run
        return cache

    def choose(self, rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The prefix to compute once for these prompts; empty where there is none worth it.

        The longest one chosen before that all rows begin with, if it is most of what they share: few items of a task
        share more by chance than all of them do, and their few-shot examples are not computed again.
        """
        shared = common_length(rows)
        fits = [
            prefix
            for prefix in self._chosen
            if 2 * len(prefix) > shared and all(len(r) > len(prefix) and r[: len(prefix)] == prefix for r in rows)
        ]
        found = max(fits, key=len, default=()) or rows[0][:shared]
        if not self.shares or len(found) < WORTH_SHARING:
            return ()
        self._chosen[found] = None  # here and not where it is computed, which may be on a worker
        return found

    def _prefix(self, prefix: tuple[int, ...]) -> list[KV]:
        if prefix not in self._prefixes:
            from transformers import DynamicCache

            ids = torch.tensor([prefix], device=self.adapter.device)
            cache = DynamicCache()
            self._forward(ids, None, None, cache)
            self._prefixes[prefix] = [(layer.keys, layer.values) for layer in cache.layers]
        return self._prefixes[prefix]

    def _own(self, prefix: tuple[int, ...], held: list[KV], ids: Tensor, mask: Tensor) -> list[KV]:
        key = (prefix, tuple(map(tuple, (ids * mask).tolist())))
        if key not in self._rows:
            batch, length = ids.shape[0], ids.shape[1] - 1
            cache = SharedPrefixCache(held, batch, length)
            if length:
                full = torch.cat([mask.new_ones(batch, len(prefix)), mask[:, :-1]], dim=-1)
                places = (full.cumsum(-1) - 1)[:, len(prefix) :]
                with shared_prefix(self.adapter.model):
                    self._forward(ids[:, :-1], full, places, cache)
            self._rows[key] = cache.own()
            while sum(map(_bytes, self._rows.values())) > self.limit and len(self._rows) > 1:
                self._rows.popitem(last=False)
        self._rows.move_to_end(key)
        return self._rows[key]

    @torch.no_grad()
    def _forward(self, ids: Tensor, mask: Tensor | None, places: Tensor | None, cache: Any) -> None:
        self.tokens += int(ids.numel() if mask is None else mask[:, -ids.shape[1] :].sum())
        self.adapter.decoder(
            input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
        )


def _left_padded(prefix: Tensor, own: Tensor, mask: Tensor) -> Tensor:
    """K or V of rows, ``[batch, kv_heads, tokens, head_dim]``: the padding of their own part moves to the front."""
    whole = torch.cat([prefix.expand(len(own), -1, -1, -1), own], dim=-2)
    places = torch.arange(whole.shape[-2], device=whole.device).expand(len(own), -1)
    padding = torch.nn.functional.pad(mask == 0, (prefix.shape[-2], 0))
    order = places.where(~padding, places - whole.shape[-2]).argsort(dim=-1)
    return whole.gather(-2, order[:, None, :, None].expand_as(whole))


def _bytes(rows: list[KV]) -> int:
    return sum(part.numel() * part.element_size() for kv in rows for part in kv)
