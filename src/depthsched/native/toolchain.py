"""The system's C++ compiler: finding it, and running it on the sources in parallel."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import ModelError

COMPILERS = ("g++", "clang++")
SOURCES = ("engine.cpp", "products.cpp")
"""Compiled side by side, since together they take twice as long."""

HEADERS = ("products.h", "weights.h", "attention.h", "simd.h")
_COMMON = ("-O2", "-std=c++17", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-fno-tree-reassoc")
# The first set that the compiler takes. Without OpenMP one thread does all.
_CHOICES = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())
FLAGS = (_COMMON, _CHOICES)
_SECONDS = 180.0
_LOG = logging.getLogger("depthsched")


def compiler() -> list[str] | None:
    """The command of the C++ compiler: ``$CXX``, or the first that is installed; None where there is none.

    Raises
    ------
    ModelError
        ``$CXX`` names no program.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    if asked:
        program = shutil.which(asked[0])
        if program is None:
            raise ModelError(f"there is no program {asked[0]!r}, which CXX names; unset CXX or name a C++ compiler")
        return [program, *asked[1:]]
    return next(([path] for path in map(shutil.which, COMPILERS) if path), None)


def compile_library(library: Path) -> tuple[str, tuple[str, ...]]:
    """Compile the sources into a shared library.

    Returns
    -------
    tuple
        The compiler, and the flags that it took.

    Raises
    ------
    ModelError
        There is no compiler, it failed, or it did not end.
    """
    program = compiler()
    if program is None:
        raise ModelError("there is no C++ compiler; install g++, or use backend='eager'")
    failure = ""
    for flags in _CHOICES:
        failure = _attempt(program, flags, library)
        if not failure:
            if "-fopenmp" not in flags:
                _LOG.warning(
                    "%s knows no OpenMP: the decoder step runs on one thread; install g++ and "
                    "run `depthsched compile --again`", program[0],
                )  # fmt: skip
            return shlex.join(program), flags
    raise ModelError(f"cannot compile the decoder step with {program[0]}: {failure}; use backend='eager'")


def _attempt(program: list[str], flags: Sequence[str], library: Path) -> str:
    """The first error, empty where all went well."""
    with tempfile.TemporaryDirectory(dir=library.parent) as place:
        return _attempt_in(Path(place), program, flags, library)


def _attempt_in(place: Path, program: list[str], flags: Sequence[str], library: Path) -> str:
    here = Path(__file__).parent
    objects = [place / f"{Path(name).stem}.o" for name in SOURCES]
    commands = [
        [*program, *_COMMON, *flags, "-c", "-o", str(to), str(here / name)]
        for name, to in zip(SOURCES, objects, strict=True)
    ]
    link = [*program, "-shared", *flags, "-o", str(library), *map(str, objects)]
    return _together(commands, place) or _together([link], place)


def _together(commands: list[list[str]], place: Path) -> str:
    """Run commands side by side; the first error."""
    # Messages in English, and intermediate files where they go away with everything else.
    environment = os.environ | {"LC_ALL": "C", "TMPDIR": str(place)}
    until = time.monotonic() + _SECONDS
    with contextlib.ExitStack() as stack:
        running = []
        for number, command in enumerate(commands):
            said = stack.enter_context((place / f"said-{number}").open("w+b"))
            try:
                process = stack.enter_context(_process(command, said.fileno(), environment))
            except OSError as error:
                raise ModelError(f"cannot run the C++ compiler {command[0]}: {error.strerror}") from error
            running.append((process, said))
        for process, said in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise ModelError(
                    f"the C++ compiler {commands[0][0]} did not end within {_SECONDS:.0f} s; use backend='eager'"
                ) from None
            if process.returncode:
                said.seek(0)
                return _first_error(said.read().decode(errors="replace")) or f"exit code {process.returncode}"
    return ""


@contextlib.contextmanager
def _process(command: list[str], said: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone at the end, with those that it started."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _first_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "")
