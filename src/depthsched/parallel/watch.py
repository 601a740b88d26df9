"""One rank that ends, ends them all: a thread in each tells the others that it is alive, and looks after the next one.

A process group alone does not do that: a rank that was killed is noticed by those that wait for it, a rank that fails
for a reason of its own by nobody until they do.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import Any

from ..text import one_line

_TICK = 0.5
_SILENT = 12.0
"""Seconds of this process's own time without a beat after which a rank counts as gone."""

_GRACE = 3.0
"""Seconds in which a process may end by itself after one of the ranks failed."""


class Watch(threading.Thread):
    """Beats, and reads the beat of the next rank. Ends the process where a rank failed or is gone.

    Parameters
    ----------
    store : torch.distributed.Store
        Of this thread alone.
    rank, size : int
    held_by_first : bool
        Whether the store ends with rank 0.
    """

    def __init__(self, store: Any, rank: int, size: int, *, held_by_first: bool) -> None:
        super().__init__(name="depthsched-watch", daemon=True)
        self.store, self.rank, self.size, self.next = store, rank, size, (rank + 1) % size
        self.held_by_first = held_by_first
        self._lock = threading.RLock()
        self._told = False
        self._leaving = threading.Event()

    def run(self) -> None:
        beat, silent, before, first_left = -1, 0.0, time.monotonic(), False
        while not self._leaving.wait(_TICK):
            now = time.monotonic()
            # Of a pause of the whole machine, or of all its processes, a tick counts and no more.
            silent, before = silent + min(now - before, 2 * _TICK), now
            try:
                self._add(f"beat-{self.rank}", 1)
                found = self._add(f"beat-{self.next}", 0)
                gone, failed = self._add(f"left-{self.next}", 0), self._add("failed", 0)
                first_left = first_left or bool(self._add("left-0", 0))
            except RuntimeError:  # the store went with the process that held it
                if not (self._leaving.is_set() or first_left):
                    self.fail("the process that holds the ranks together ended", wait=False)
                    self._end()
                return
            if found != beat or gone:
                beat, silent = found, 0.0
            if silent > _SILENT:
                self.fail(f"rank {self.next} ended or does not answer")
            if failed or silent > _SILENT:
                self._end()

    def fail(self, message: str, *, wait: bool = True) -> None:
        """Tell all ranks that this one fails, and why. Rank 0 says it; where it cannot, the first that told."""
        with self._lock:
            if self._told:
                return
            self._told = True
            with contextlib.suppress(Exception):
                first = self._add("failed", 1) == 1
                if first:
                    self.store.set("message", message)
                if self.rank == 0:
                    self._say(message if first else self._message(message))
                    return
                until = time.monotonic() + (2 * _TICK + 1.0 if wait else 0.0)
                while time.monotonic() < until:
                    if self._add("said", 0):
                        return
                    time.sleep(0.1)
                if self._add("said", 1) == 1:
                    say(message)
                return
            if self.rank == (1 if self.held_by_first else 0):  # the store is gone, and one rank says so
                say(message)

    def leave(self) -> None:
        """This process ends, and looks after no other any more. The store stays until all know."""
        self._leaving.set()
        with contextlib.suppress(Exception):
            self._add(f"left-{self.rank}", 1)
            until = time.monotonic() + 2 * _GRACE
            while self.rank == 0 and self.held_by_first and time.monotonic() < until:
                if all(self._add(f"left-{rank}", 0) for rank in range(self.size)):
                    return
                time.sleep(0.05)

    def _message(self, otherwise: str) -> str:
        """What the rank that failed first said."""
        for _ in range(20):
            if self.store.check(["message"]):
                return str(self.store.get("message").decode())
            time.sleep(0.05)
        return otherwise

    def _say(self, message: str) -> None:
        self._add("said", 1)
        say(message)

    def _end(self) -> None:
        """Leave, whatever the main thread waits for; it may get there first."""
        if self.rank == 0:
            self.fail(self._message("another rank ended"))
        time.sleep(_GRACE)
        self.leave()
        os._exit(1)

    def _add(self, key: str, count: int) -> int:
        return int(self.store.add(key, count))


def say(message: str) -> None:
    """One line on the stderr of the process, as it was before other ranks were silenced."""
    line = f"depthsched: {one_line(message, 5000)}\n".encode()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
        os.write(ERRORS.descriptor, line)


class _Errors:
    descriptor = 2


ERRORS = _Errors()
"""Where :func:`say` writes."""
