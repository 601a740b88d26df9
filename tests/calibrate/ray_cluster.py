"""``python -m tests.calibrate.ray_cluster FOLDER WORDS...``: a calibration on a Ray cluster of two workers, twice.

``WORDS`` are those of ``depthsched calibrate`` but ``--out``: the profiles are ``FOLDER/whole`` and ``FOLDER/killed``.
In the middle of the second a worker is killed that is at work on a piece. Prints what was seen, as JSON.
"""

from __future__ import annotations

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

from ..sweep.ray_cluster import busy


def main(folder: str, *words: str) -> None:
    cluster, workers = started()
    try:
        cluster.wait_for_nodes()
        common = [sys.executable, "-m", "depthsched", "calibrate", *words, "--ray", cluster.address]
        seen: dict[str, Any] = {}
        for name in ("whole", "killed"):
            out = Path(folder) / name
            with subprocess.Popen([*common, "--out", str(out)], stderr=subprocess.PIPE, text=True) as run:
                if name == "killed":
                    seen["victim"] = kill_one(run, workers, out / ".work")
                    seen["finished_before"] = len(list((out / ".work").glob("steps-*")))
                _, said = run.communicate(timeout=300)
            seen[name] = {"code": run.returncode, "said": said}
        print(json.dumps(seen))
    finally:
        cluster.shutdown()


def started(tries: int = 3) -> tuple[Cluster, list[Any]]:
    """A head and two workers of one CPU. Ray gives a node 30 s to start, which is not enough on a machine at work."""
    for left in reversed(range(tries)):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            return cluster, [cluster.add_node(num_cpus=1) for _ in range(2)]
        except Exception:
            cluster.shutdown()
            if not left:
                raise
    raise AssertionError


def kill_one(run: subprocess.Popen[str], workers: list[Any], work: Path) -> int:
    """Kill a worker in the middle of a piece, once bridges of two depths are there."""
    while run.poll() is None:
        time.sleep(0.002)
        if len(list(work.glob("steps-*"))) < 2:
            continue
        for process in filter(None, (busy(node, "_piece") for node in workers)):
            process.suspend()  # so that the piece cannot end between the look and the kill
            if is_at_work(process):
                os.kill(process.pid, signal.SIGKILL)
                return process.pid
            process.resume()
    raise RuntimeError("it ended before a worker was seen at work")


def is_at_work(process: psutil.Process) -> bool:
    return psutil.Process(process.pid).name().startswith("ray::_piece")


if __name__ == "__main__":
    main(*sys.argv[1:])
