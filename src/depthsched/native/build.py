"""The compiled library: made once for a machine, kept in the cache folder, never trusted without a look."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..environment import COMPILERS
from ..errors import ModelError
from ..files import cache_dir, cache_folder, digest, write_json
from ..text import one_line

SOURCES = ("engine.cpp", "products.h", "attention.h", "simd.h")
_FOLDER = "native"
_COMMON = ("-O2", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=fast", "-fno-tree-reassoc")
# The first set of flags that the compiler takes. Without OpenMP one thread does all.
_FLAGS = (("-march=native", "-fopenmp"), ("-mcpu=native", "-fopenmp"), ("-fopenmp",), ("-march=native",), ())
_SECONDS = 300


@dataclass(frozen=True)
class Built:
    """A library that is ready to load, and the seconds that compiling it took now, 0 where it lay in the cache."""

    path: Path
    seconds: float


def build(*, again: bool = False) -> Built:
    """The library for this machine, from the cache folder or compiled now.

    Two processes may build at once: each moves a whole folder in place, and the second one's is as good.

    Parameters
    ----------
    again : bool
        Compile also where a good library lies there.

    Raises
    ------
    ModelError
        There is no C++ compiler, or it failed.
    SettingsError
        The cache folder cannot be written.
    """
    found = None if again else ready()
    if found is not None:
        return Built(found, 0.0)
    began = time.perf_counter()
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=cache_folder(_FOLDER)))
    try:
        library = scratch / "engine.so"
        command = _compile(library)
        manifest = {"key": _key(), "sha256": digest(library.read_bytes(), 64), "command": command}
        write_json(scratch / "manifest.json", manifest)
        _move(scratch, folder())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found = ready()
    if found is None:
        raise ModelError(f"the compiled library in {folder()} is not the one that was just built; remove that folder")
    return Built(found, time.perf_counter() - began)


def folder() -> Path:
    """Where this machine's library lies, built or not."""
    return cache_dir() / _FOLDER / digest(json.dumps(_key(), sort_keys=True))


def ready() -> Path | None:
    """The library in the cache, if it is whole, of this version and this CPU, and nobody else's; None otherwise."""
    library, manifest = folder() / "engine.so", folder() / "manifest.json"
    try:
        known = json.loads(manifest.read_text())
        private = all(_mine(path) for path in (folder(), library, manifest))
        whole = private and known["key"] == _key() and known["sha256"] == digest(library.read_bytes(), 64)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return library if whole else None


def _mine(path: Path) -> bool:
    """Whether only this user can have written a file: it is code that will run."""
    if not hasattr(os, "getuid"):
        return True
    stat = path.stat()
    return stat.st_uid in (os.getuid(), 0) and not stat.st_mode & 0o022


@functools.cache
def _key() -> dict[str, str]:
    """What decides the compiled code."""
    here = Path(__file__).parent
    source = digest(b"".join((here / name).read_bytes() for name in SOURCES), 64)
    program = compiler()
    version = _output([program, "--version"]) if program else "none"
    return {
        "source": source, "flags": json.dumps([_COMMON, _FLAGS]), "compiler": version.splitlines()[0], "cpu": _cpu(),
    }  # fmt: skip


def _cpu() -> str:
    """The processor and what it can do: code for another one may not run here."""
    with contextlib.suppress(OSError):
        wanted = ("model name", "flags", "Features", "CPU part")
        lines = {line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(wanted)}
        return digest("\n".join(sorted(lines)))
    return f"{platform.machine()} {platform.processor()} {platform.node()}"


def compiler() -> str | None:
    """The C++ compiler: ``$CXX``, or the first that is installed."""
    asked = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [*([asked] if asked else []), *COMPILERS])), None)


def _compile(library: Path) -> list[str]:
    program = compiler()
    if program is None:
        raise ModelError("there is no C++ compiler; install g++, or use backend='eager'")
    here = Path(__file__).parent
    failure = ""
    for flags in _FLAGS:
        command = [program, *_COMMON, *flags, "-o", str(library), str(here / "engine.cpp")]
        failure = _failure(command)
        if not failure:
            library.chmod(0o700)
            return [Path(part).name if part.startswith(os.sep) else part for part in command]
    raise ModelError(f"cannot compile the decoder step: {failure}; use backend='eager'")


def _failure(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return one_line(error)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    return (errors or done.stderr.splitlines() or [f"exit code {done.returncode}"])[0]


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout or "unknown"
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def _move(scratch: Path, target: Path) -> None:
    """Put a folder in the place of another, whole; the other may be in use and goes away when it is not."""
    for _ in range(10):
        with _aside(target), contextlib.suppress(OSError):
            scratch.rename(target)
            return
        if ready() is not None:  # another process was first
            return


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[None]:
    old = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    with contextlib.suppress(OSError):
        target.rename(old / "old")
    try:
        yield
    finally:
        shutil.rmtree(old, ignore_errors=True)
