"""What the ranks of a tensor-parallel run agree on."""

from __future__ import annotations

import atexit
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import ModelError, RankError
from ..files import digest
from ..text import one_line
from . import launch
from .watch import Watch

_START = timedelta(minutes=30)
"""How long ranks may be apart where one of them reads, converts or compiles what the others have already."""

_C10D: Any = dist  # of which not all is typed
_Found = TypeVar("_Found")


class Ranks:
    """The ranks that hold one model, as this one sees them. Each method is called by all of them, in the same order.

    Attributes
    ----------
    size, rank : int
    """

    def __init__(self, control: Any, watch: Watch | None) -> None:
        self.size, self.rank = dist.get_world_size(), dist.get_rank()
        self.watch = watch
        self._control = control

    def same(self, what: str, value: Any) -> None:
        """Raise on every rank unless all have the same value.

        Raises
        ------
        RankError
        """
        found = self.each(int(digest(repr(value), 12), 16))
        others = [rank for rank, one in enumerate(found) if one != found[0]]
        if others:
            named = "rank " + ", ".join(map(str, others)) + (" has" if len(others) == 1 else " have")
            raise RankError(f"the ranks do not do the same: {named} another {what} than rank 0")

    def each(self, value: int) -> list[int]:
        """The whole number of every rank."""
        found = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with guarded(self):
            dist.all_gather(found, torch.tensor([int(value)]), group=self._control)
        return [int(one) for one in found]

    def first(self, value: int) -> int:
        """Rank 0's number."""
        held = torch.tensor([value])
        with guarded(self):
            dist.broadcast(held, 0, group=self._control)
        return int(held)

    def begin(self, what: str, *values: Any) -> None:
        """Before a run: all do the same one, and draw the same random numbers in it."""
        self.same(what, values)
        states = [(torch.get_rng_state(), torch.set_rng_state)]
        cuda: Any = torch.cuda
        if cuda.is_available() and cuda.is_initialized():
            states.append((torch.cuda.get_rng_state(), torch.cuda.set_rng_state))
        for state, put in states:
            with guarded(self):
                dist.broadcast(state, 0, group=self._control)
            put(state)

    def reduce(self, partial: Tensor) -> None:
        """Sum a tensor over the ranks, in place."""
        dist.all_reduce(partial)

    def gather_columns(self, part: Tensor, columns: int) -> Tensor:
        """``[rows, columns]`` from each rank's ``[rows, some]``, of which only the last may have fewer."""
        each = -(-columns // self.size)
        mine = part if part.shape[1] == each else torch.nn.functional.pad(part, (0, each - part.shape[1]))
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        with guarded(self):
            dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts, dim=1)[:, :columns]

    def in_turn(self, make: Callable[[], _Found]) -> _Found:
        """What ``make`` gives, on one rank of each machine first: the others find what it left on disk."""
        alone = launch.local_rank() == 0
        try:
            if alone:
                return make()
        finally:
            self.each(0)
        return make()


@dataclass
class _Process:
    """A process is one rank, of one group."""

    ranks: Ranks | None = None


_PROCESS = _Process()


def ranks_of(model: Any) -> Ranks | None:
    """The ranks that a model is split over; None for a model in one process.

    Raises
    ------
    ModelError
        It is split in another way than over all processes.
    """
    size = getattr(model, "_tp_size", None) or 1
    if size == 1:
        return None
    if size != dist.get_world_size():
        raise ModelError(
            f"the model is split over {size} of {dist.get_world_size()} processes; tensor parallelism over all of "
            "them is what depthsched runs: load_model(name, tensor_parallel=True)"
        )
    return join(torch.device(model.device))


def join(device: torch.device) -> Ranks:
    """Meet the other ranks, once in a process.

    Raises
    ------
    ModelError
        No launcher started this process, or there are more ranks here than devices.
    RankError
        The others do not come.
    """
    if _PROCESS.ranks is None:
        _PROCESS.ranks = _join(device)
    return _PROCESS.ranks


def joined() -> Ranks | None:
    """The ranks that this process met; None if it did not yet."""
    return _PROCESS.ranks


def _join(device: torch.device) -> Ranks:
    if not launch.launched():
        raise ModelError(
            "tensor_parallel splits a model over processes, and this is a single one; start the program with "
            "torchrun --nproc-per-node N"
        )
    if device.type == "cuda":
        if launch.local_world() > torch.cuda.device_count():
            raise ModelError(
                f"{launch.local_world()} ranks on a machine with {torch.cuda.device_count()} GPUs: give each its own"
            )
        torch.cuda.set_device(launch.local_rank())
    try:
        store = _store()
        if not _C10D.is_initialized():
            _met(store)
            _initialise(store, device)
        control = dist.new_group(backend="gloo", timeout=_START)
    except (RuntimeError, ValueError) as error:
        raise RankError(f"the ranks did not meet: {one_line(error)}") from error
    store = _C10D.PrefixStore(_prefix("watch"), _store())
    watch = Watch(store, launch.rank(), launch.world(), held_by_first=not _agent())
    watch.start()
    atexit.register(watch.leave)
    return Ranks(control, watch)


def _initialise(store: Any, device: torch.device) -> None:
    cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=_C10D.PrefixStore(_prefix("group"), store),
        rank=launch.rank(),
        world_size=launch.world(),
        timeout=timedelta(seconds=launch.patience()),
        device_id=torch.device("cuda", launch.local_rank()) if cuda else None,
    )


def _store() -> Any:
    """A connection of its own to where the launcher keeps what ranks tell each other; rank 0 where it does not."""
    return _C10D.TCPStore(
        os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=launch.rank() == 0 and not _agent(),
        timeout=_START, wait_for_workers=False, multi_tenant=True,
    )  # fmt: skip


def _agent() -> bool:
    """Whether the launcher keeps the store, and not rank 0."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _prefix(name: str) -> str:
    return f"depthsched-{name}-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _met(store: Any) -> None:
    """Wait until all ranks are here: from then on none is late for long."""
    key = _prefix("here")
    if store.add(key, 1) == launch.world():
        store.set(f"{key}-all", "1")
    until = time.monotonic() + _START.total_seconds()
    while not store.check([f"{key}-all"]):  # no wait in the store: a signal shall end this one
        if time.monotonic() > until:
            raise RankError(f"not all of {launch.world()} ranks came within {_START}")
        time.sleep(0.05)


@contextmanager
def guarded(ranks: Ranks | None) -> Iterator[None]:
    """What a process group raises when another rank ended, as a :class:`RankError`."""
    try:
        yield
    except RankError:
        raise
    except RuntimeError as error:
        if ranks is None or not of_the_group(error):
            raise
        raise RankError(lost(error)) from error


def lost(error: BaseException) -> str:
    """What an error of the group says, without the place in a library that found it and advice for its developers."""
    said = re.sub(r"^\[[^\]]*\] ", "", one_line(error)).partition(". ")[0]
    return f"another rank ended or does not answer: {said}"


def of_the_group(error: BaseException) -> bool:
    """Whether an error comes from the connection to the other ranks."""
    kinds: tuple[type, ...] = tuple(
        kind for name in ("DistError", "DistBackendError", "DistNetworkError") if (kind := getattr(dist, name, None))
    )
    text = str(error).lower()
    return isinstance(error, kinds) or any(word in text for word in ("gloo", "nccl", "connection closed by peer"))
