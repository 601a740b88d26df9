"""The environment of the peers: a folder of its own, because their packages are none of depthsched's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from depthsched.errors import ModelError, SettingsError

OPENVINO = "openvino-genai==2026.4.1.0"
LLAMA = "llama-cpp-python==0.3.36"
MODULES = {"openvino": "openvino_genai", "llama": "llama_cpp"}
CMAKE = "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"
"""Code for this processor, as a wheel cannot have it, and nothing for images, which is half of the compiling."""


def setup(env: Path, progress: Callable[[str], None] = lambda _: None) -> None:
    """Make the environment and install the peers; llama.cpp is compiled here, which takes about ten minutes.

    Raises
    ------
    ModelError
        A step failed; with the last line that it wrote.
    """
    pip = [str(env / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    steps = {
        f"an environment in {env}": [sys.executable, "-m", "venv", str(env)],
        OPENVINO: [*pip, OPENVINO],
        f"{LLAMA}, compiled for this processor": [*pip, "--no-binary", "llama-cpp-python", LLAMA],
    }
    for what, command in steps.items():
        progress(what)
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CMAKE_ARGS": CMAKE})
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            raise ModelError(f"{what}: {said[-1]}")


def python_of(env: Path, engines: Iterable[str] = tuple(MODULES)) -> str:
    """The interpreter of the environment, in which some engines can be imported.

    Raises
    ------
    SettingsError
        Nobody made it, or not to its end.
    """
    found = env / "bin" / "python"
    ready = all(any(env.glob(f"lib/python*/site-packages/{MODULES[engine]}")) for engine in engines)
    if not found.exists() or not ready:
        raise SettingsError(f"no peers in {env}; make them: python -m benchmarks peers setup --env {env}")
    return str(found.absolute())
