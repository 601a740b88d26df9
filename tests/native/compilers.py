"""Compilers of one's own making, to see what becomes of their output and of their faults."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from depthsched.native import build, library

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler: install g++"
)

# Objects are empty; a link copies a library made before, and leaves a line in the count.
_COPIES = """#!/bin/sh
while [ $# -gt 0 ]; do
  [ "$1" = -o ] && out="$2"
  shift
done
case "$out" in
  *.so) {before}echo link >>{count}; cp {made} "$out" ;;
  *) : >"$out" ;;
esac
"""

Fake = Callable[[str], Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, really compiled, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPTHSCHED_CACHE", str(tmp_path_factory.mktemp("made")))
        return build.build().path


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a process that has loaded nothing."""
    monkeypatch.setenv("DEPTHSCHED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_PROCESS", library._Process())
    return tmp_path / "cache"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """``compiler(script)`` is the machine's C++ compiler from now on."""

    def use(script: str) -> Path:
        path = tmp_path / "c++"
        path.write_text(script)
        path.chmod(0o755)
        monkeypatch.setenv("CXX", str(path))
        return path

    return use


@pytest.fixture
def copies(compiler: Fake, made: Path, tmp_path: Path) -> Path:
    """A compiler that copies a good library; returns the file with a line for each link."""
    compiler(_COPIES.format(made=made, count=tmp_path / "count", before=""))
    return tmp_path / "count"


@pytest.fixture
def slow_copies(compiler: Fake, made: Path, tmp_path: Path) -> Path:
    """The same, a second later."""
    compiler(_COPIES.format(made=made, count=tmp_path / "count", before="sleep 1; "))
    return tmp_path / "count"


def links(count: Path) -> int:
    return len(count.read_text().splitlines()) if count.exists() else 0
