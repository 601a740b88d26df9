"""One engine in a process of its own, which lives through all rounds: ``python -m benchmarks.peers.worker ENGINE``.

A request is one line of JSON on stdin, ``{"do": NAME, ...}``, an answer one on stdout, with ``error`` if it failed.
Whatever else the engine's libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Engine(Protocol):
    """What a module of ``benchmarks.peers.engines`` calls ``Engine``."""

    def __init__(self, model: str, threads: int, context: int, **options: Any) -> None:
        """Load the model, for sequences of up to ``context`` tokens."""

    def encode(self, text: str) -> list[int]:
        """The ids that the engine makes of a text in which the chat template is applied."""

    def generate(self, prompt: list[int], tokens: int, seen: Callable[[], None]) -> list[int]:
        """Greedy ids after the prompt, as many as asked; ``seen`` is called at each as it comes out."""

    def versions(self) -> dict[str, str]:
        """Of the packages that do the work."""


class Worker:
    """Answers requests; the time that the process takes between an answer and the next request is not nothing."""

    def __init__(self, engine: str) -> None:
        began = time.perf_counter()
        self.kind: Callable[..., Engine] = importlib.import_module(f"benchmarks.peers.engines.{engine}").Engine
        self.imported = {"import_seconds": time.perf_counter() - began, "import_bytes": _memory("VmRSS")}
        self.busy = time.process_time()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a request asks for, and the processor time since the last answer."""
        idle = time.process_time() - self.busy
        arguments = {key: value for key, value in request.items() if key != "do"}
        try:
            found = getattr(self, f"do_{request['do']}")(**arguments)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        self.busy = time.process_time()
        return {**found, "idle_seconds": idle}

    def do_load(self, **options: Any) -> dict[str, Any]:
        """Load the model."""
        began = time.perf_counter()
        self.engine = self.kind(**options)
        loaded = time.perf_counter() - began
        return {"load_seconds": loaded, **self.imported, "versions": self.engine.versions()}

    def do_encode(self, text: str) -> dict[str, Any]:
        """The ids of a text."""
        return {"ids": self.engine.encode(text)}

    def do_generate(self, prompt: list[int], tokens: int) -> dict[str, Any]:
        """One run: its ids, when each came out, in seconds from the call, and when the call was over."""
        times: list[float] = []
        began = time.perf_counter()
        ids = self.engine.generate(prompt, tokens, lambda: times.append(time.perf_counter() - began))
        return {"ids": ids, "times": times, "seconds": time.perf_counter() - began}

    def do_memory(self) -> dict[str, Any]:
        """The most that the process has held."""
        return {"peak_bytes": _memory("VmHWM")}


def _memory(field: str) -> int:
    """Bytes, as Linux tells them of this process; 0 elsewhere."""
    status = Path("/proc/self/status")
    rows = status.read_text().splitlines() if status.exists() else []
    return next((int(row.split()[1]) * 1024 for row in rows if row.startswith(f"{field}:")), 0)


def main(engine: str) -> None:
    """Answer until stdin is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(engine)
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
