"""``python -m tests.sweep.kill_nine GRID FOLDER SEED KILLS``: kill -9 a sweep at random moments, and go on after each.

A process of its own that has loaded torch and the model once; every sweep is a fork of it, so that a kill meets work
and not the start of Python. Prints what it saw as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from depthsched.sweep import Store, read_grid, run_sweep
from depthsched.sweep import measure as measuring
from depthsched.sweep.expand import cells_of


def main(grid: str, folder: str, seed: int, kills: int) -> dict[str, object]:
    torch.set_num_threads(1)  # a fork has no threads but its own
    cells = cells_of(read_grid(grid))
    os.environ["DEPTHSCHED_CACHE"] = str(Path(folder) / "cache-warm")
    measuring.measure(cells[0])  # loads the model and what Python imports late
    calm, stormy = Store(Path(folder) / "calm"), Store(Path(folder) / "stormy")
    began = time.monotonic()
    assert os.waitpid(start(cells, calm, folder), 0)[1] == 0
    whole = time.monotonic() - began

    draw = random.Random(seed)
    landed, seen, changed, unreadable = [], {}, [], []
    while len(landed) < kills:
        child = start(cells, stormy, folder)
        await_cells(stormy, len(seen) + draw.randrange(3), child)  # a busy machine may not be the speed of the calm run
        time.sleep(draw.uniform(0, 2 * whole / len(cells)))
        if os.waitpid(child, os.WNOHANG)[0]:
            break  # it was finished already
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        files = {path: path.stat().st_mtime_ns for path in (stormy.folder / "cells").glob("*.json")}
        unreadable += [str(path) for path in files if not readable(path)]
        changed += [str(path) for path in seen if files.get(path) != seen[path]]
        seen = files
        landed.append(len(files))
    assert os.waitpid(start(cells, stormy, folder), 0)[1] == 0
    left_over = [path.name for path in (stormy.folder / "cells").iterdir() if path.suffix != ".json"]
    return {
        "cells": len(cells),
        "finished_at_each_kill": landed,
        "unreadable": unreadable,
        "done_twice": changed,
        "left_over": left_over,
        "different": [c.label for c in cells if result(calm, c) != result(stormy, c)],
    }


def start(cells: list, store: Store, folder: str) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # Each with a cache of its own, so that answers are found again only by the sweep that made them.
            os.environ["DEPTHSCHED_CACHE"] = str(Path(folder) / f"cache-{store.folder.name}")
            store.prepare(cells, {})
            run_sweep(cells, store)
            code = 0
        finally:
            os._exit(code)
    return child


def await_cells(store: Store, count: int, child: int) -> None:
    """Return when the folder has so many cells, or the sweep has ended."""
    while len(list((store.folder / "cells").glob("*.json"))) < count:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)


def readable(path: Path) -> bool:
    try:
        return json.loads(path.read_text())["status"] == "done"
    except ValueError:
        return False


def result(store: Store, cell: object) -> object:
    record = store.read(cell)
    return record and (record.status, record.result, record.error)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
