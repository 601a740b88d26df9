"""The compiled library: made once for a machine, kept in the cache folder, never trusted without a look.

Its folder is named after what decides whether the code is right here: its source and the processor. The compiler is
not part of that: code that an older one made is as right, and a machine may have lost its compiler since.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import cache_dir, cache_folder, digest, write_json
from ..text import one_line
from . import toolchain

FORMAT = 1
ABOUT_SECONDS = 5
"""What compiling takes on two idle cores, roughly."""

_FOLDER = "native"
_STALE_SECONDS = 3600


@dataclass(frozen=True)
class Built:
    """A library that is ready to load, and the seconds that getting it took, 0 where it lay in the cache."""

    path: Path
    seconds: float


def build(*, again: bool = False) -> Built:
    """The library for this machine, from the cache folder or compiled now.

    Of several processes that find none, one compiles and the others wait for it.

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
    began, home = time.perf_counter(), cache_folder(_FOLDER)
    try:
        with _alone(home):
            found = None if again else ready()
            if found is None:
                _make(home)
                found = ready()
    except OSError as error:
        raise ModelError(f"cannot keep the compiled decoder step in {home}: {one_line(error)}") from error
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


def about() -> dict[str, Any]:
    """The manifest of the library in the cache, empty where none is good: ``compiler``, ``flags``, ``seconds``."""
    return dict(json.loads((folder() / "manifest.json").read_text())) if ready() else {}


def _make(home: Path) -> None:
    """Compile in a folder beside the final one, and move it in place whole."""
    _sweep(home)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=home))
    try:
        began = time.perf_counter()
        library = scratch / "engine.so"
        program, flags = toolchain.compile_library(library)
        made = {"compiler": program, "flags": list(flags), "seconds": round(time.perf_counter() - began, 1)}
        library.chmod(0o700)
        write_json(scratch / "manifest.json", {"key": _key(), "sha256": digest(library.read_bytes(), 64), **made})
        (scratch / "manifest.json").chmod(0o600)  # what a group may write is not trusted, whatever the umask
        _move(scratch, folder())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _mine(path: Path) -> bool:
    """Whether only this user can have written a file: it is code that will run."""
    if not hasattr(os, "getuid"):
        return True
    stat = path.stat()
    return stat.st_uid in (os.getuid(), 0) and not stat.st_mode & 0o022


@functools.cache
def _key() -> dict[str, str]:
    """What decides whether a library is right here."""
    here = Path(__file__).parent
    source = digest(b"".join((here / name).read_bytes() for name in (*toolchain.SOURCES, *toolchain.HEADERS)), 64)
    return {"format": str(FORMAT), "source": source, "flags": json.dumps(toolchain.FLAGS), "cpu": _cpu()}


def _cpu() -> str:
    """The processor and what it can do: code for another one may not run here."""
    with contextlib.suppress(OSError):
        wanted = ("model name", "flags", "Features", "CPU part")
        lines = {line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(wanted)}
        return digest("\n".join(sorted(lines)))
    return f"{platform.machine()} {platform.processor()} {platform.node()}"


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time, where files can be locked; the lock of a process that was killed is free."""
    try:
        import fcntl
    except ImportError:  # not on this system: several build, and each moves a whole folder in place
        yield
        return
    with (home / ".lock").open("a") as file:
        with contextlib.suppress(OSError):  # some network file systems cannot lock
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(home: Path) -> None:
    """Remove what killed processes left."""
    for path in home.glob(".building-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _move(scratch: Path, target: Path) -> None:
    """Put a folder in the place of another, whole; processes that have loaded the other keep it."""
    old = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        for _ in range(10):  # again where a process that cannot lock was faster
            with contextlib.suppress(OSError):
                target.rename(old / str(len(list(old.iterdir()))))
            with contextlib.suppress(OSError):
                scratch.rename(target)
                return
    finally:
        shutil.rmtree(old, ignore_errors=True)
