"""Measurements in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import ModelError


def in_a_process(module: str, options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Any:
    """What ``python -m module --one`` prints last, as JSON; options are given as ``--name value``.

    Raises
    ------
    ModelError
        It failed; with the last line that it wrote.
    """
    command = [sys.executable, "-m", module, "--one"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"a measurement in a process of its own failed: {said[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
