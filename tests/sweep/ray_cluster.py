"""``python -m tests.sweep.ray_cluster GRID OUT``: a sweep on a Ray cluster of two workers, one killed in the middle.

Prints the sweep's own JSON, and how many cells were finished when the worker died.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster


def main(grid: str, out: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        command = [sys.executable, "-m", "depthsched", "sweep", grid, "--out", out, "--ray", "--json"]
        environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        sweep = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        cells = Path(out) / "cells"
        victim = None
        while sweep.poll() is None and victim is None:
            time.sleep(0.01)
            if len(list(cells.glob("*.json"))) >= 3:
                victim = next(filter(busy, workers), None)
        finished = len(list(cells.glob("*.json")))
        # The process in the middle of a cell, at once, and then its whole node.
        at_work = busy(victim)
        os.kill(at_work.pid, signal.SIGKILL)
        cluster.remove_node(victim, allow_graceful=False)
        output, _ = sweep.communicate(timeout=240)
        seen = {"code": sweep.returncode, "finished_before": finished, "killed": at_work.pid}
        print(json.dumps({**seen, "sweep": json.loads(output)}))
    finally:
        cluster.shutdown()


def busy(node: Any, function: str = "_remote") -> psutil.Process | None:
    """The process of a node that works, on a cell or what else: Ray names it after the function while it runs."""
    title = f"ray::{function}"
    for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children():
        with contextlib.suppress(psutil.Error):
            if process.name().startswith(title) or title in " ".join(process.cmdline()):
                return process
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
