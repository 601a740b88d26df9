"""``python -m tests.sweep.ray_cluster GRID OUT``: a sweep on a Ray cluster of two workers, one killed in the middle.

Prints the sweep's own JSON, and how many cells were finished when the worker died.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

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
        while sweep.poll() is None and len(list(cells.glob("*.json"))) < 3:
            time.sleep(0.02)
        finished = len(list(cells.glob("*.json")))
        cluster.remove_node(workers[0], allow_graceful=False)
        output, _ = sweep.communicate(timeout=240)
        print(json.dumps({"code": sweep.returncode, "finished_before": finished, "sweep": json.loads(output)}))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
