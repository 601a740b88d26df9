"""Measurements in a process of their own: ``python -m benchmarks.process MODULE:FUNCTION ARGUMENTS`` prints JSON."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from depthsched.errors import ModelError

ROOT = Path(__file__).resolve().parents[1]


def in_a_process(measure: Callable[..., Any], arguments: dict[str, Any], **environment: str) -> Any:
    """What ``measure(**arguments)`` returns in a new process; both travel as JSON.

    Raises
    ------
    ModelError
        It failed; with the last line that it wrote.
    """
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", __name__, f"{measure.__module__}:{measure.__name__}", json.dumps(arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"a measurement in a process of its own failed: {said[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))))
