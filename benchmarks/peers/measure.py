"""All variants in turns, each in a worker of its own that idles while the others run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depthsched.errors import ModelError

from ..process import ROOT
from .variants import Variant

Progress = Callable[[str], None]


@dataclass
class Found:
    """What one variant showed: answers of its workers.

    Attributes
    ----------
    variant : Variant
    starts : list of mapping
        One for each new process: the answers to ``load`` and to the first ``generate``, and ``ready_seconds`` from the
        start of the process to a loaded model.
    runs : list of mapping
        One ``generate`` for each round, in the process that started last.
    idle_seconds : float
        Processor time that this process took while others ran.
    peak_bytes : int
        The most that it has held.
    ids : list of int
        What the engine itself makes of the prompt's text.
    """

    variant: Variant
    starts: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    idle_seconds: float = 0.0
    peak_bytes: int = 0
    ids: list[int] = field(default_factory=list)


class Process:
    """A worker, seen from outside."""

    def __init__(self, variant: Variant, python: str, threads: int) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH") if variant.ours else None]))
        self.name, self.began = variant.name, time.perf_counter()
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in close
        self.process = subprocess.Popen(
            [python, "-m", "benchmarks.peers.worker", variant.engine],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request.

        Raises
        ------
        ModelError
            The engine failed, or its process is gone; with what it said.
        """
        assert self.process.stdin
        assert self.process.stdout
        try:
            print(json.dumps({"do": what, **arguments}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise ModelError(f"{self.name}: {what} failed: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        code = self.process.wait()
        self.errors.seek(0)
        return (self.errors.read().strip().splitlines() or [f"exit code {code}"])[-1]

    def close(self) -> None:
        """End it; one that does not listen is killed."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdout.close()
        try:
            self.process.stdin.close()
            self.process.wait(30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.errors.close()


def measure(
    variants: Sequence[Variant], models: Mapping[bool, str], pythons: Mapping[bool, str], prompt: Sequence[int],
    text: str, *, tokens: int, rounds: int, starts: int, threads: int, progress: Progress = lambda _: None,
) -> list[Found]:  # fmt: skip
    """Start every variant some times, and let the last of its processes run once a round.

    Parameters
    ----------
    variants : sequence of Variant
    models, pythons : mapping
        What to load and with which interpreter: under True for depthsched, under False for the peers.
    prompt, text : sequence of int, str
        The ids that all of them get, and the text of which each says what it would make.
    tokens, rounds, starts, threads : int
    """
    found = [Found(variant) for variant in variants]
    request = {"prompt": list(prompt), "tokens": tokens}
    with _closing() as alive:
        for turn in range(starts):
            for one in found:
                progress(f"start {turn + 1} of {starts}: {one.variant.name}")
                if one.variant.name in alive:
                    alive.pop(one.variant.name).close()
                process = Process(one.variant, pythons[one.variant.ours], threads)
                alive[one.variant.name] = process
                options = {"model": models[one.variant.ours], "threads": threads, "context": len(prompt) + tokens}
                loaded = process.ask("load", **options, **one.variant.options)
                ready = time.perf_counter() - process.began
                one.starts.append({**loaded, "ready_seconds": ready, "first": process.ask("generate", **request)})
        for one in found:
            one.ids = alive[one.variant.name].ask("encode", text=text)["ids"]
        for turn in range(rounds):
            for one in found:
                progress(f"round {turn + 1} of {rounds}: {one.variant.name}")
                one.runs.append(_run(alive[one.variant.name], request))
        for one in found:
            last = alive[one.variant.name].ask("memory")
            one.peak_bytes = last["peak_bytes"]
            one.idle_seconds = last["idle_seconds"] + sum(run["idle_seconds"] for run in one.runs)
    return found


def _run(process: Process, request: Mapping[str, Any]) -> dict[str, Any]:
    """One run, which must have been as long as asked.

    Raises
    ------
    ModelError
        It was not.
    """
    run = process.ask("generate", **request)
    if not len(run["ids"]) == len(run["times"]) == request["tokens"]:
        raise ModelError(
            f"{process.name}: {len(run['ids'])} tokens and {len(run['times'])} of them seen, not {request['tokens']}"
        )
    return run


@contextmanager
def _closing() -> Iterator[dict[str, Process]]:
    alive: dict[str, Process] = {}
    try:
        yield alive
    finally:
        for process in alive.values():
            process.close()


def templated(model: str, prompt: str) -> dict[str, Any]:
    """A prompt in the chat template of a model: its ``text``, and the ``ids`` that depthsched makes of it."""
    import depthsched as ds
    from depthsched.encoding import encode

    _, tokenizer = ds.load_model(model, device="cpu")
    chat = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return {"text": text, "ids": list(encode(tokenizer, prompt))}


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    rows = info.read_text().splitlines() if info.exists() else []
    return next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), sys.platform)
