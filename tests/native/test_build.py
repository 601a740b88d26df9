"""The library in the cache folder: found when good, made again when not, whole under every accident."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from depthsched.errors import DepthschedError, ModelError, SettingsError
from depthsched.native import build, toolchain

from .compilers import Fake, compiler, copies, fresh, links, made, needs_compiler, slow_copies

__all__ = ["compiler", "copies", "fresh", "made", "slow_copies"]
pytestmark = [needs_compiler, pytest.mark.usefixtures("fresh")]

BUILD = "from depthsched.native import build; print(build.build().path)"


def manifest() -> Path:
    return build.folder() / "manifest.json"


def edit(**changes: Any) -> None:
    manifest().write_text(json.dumps(json.loads(manifest().read_text()) | changes))


def key(**changes: str) -> None:
    edit(key=json.loads(manifest().read_text())["key"] | changes)


def engine() -> Path:
    return build.folder() / "engine.so"


def flip() -> None:
    content = bytearray(engine().read_bytes())
    content[len(content) // 2] ^= 1
    engine().write_bytes(content)


DAMAGE: dict[str, Callable[[], object]] = {
    "a changed bit": flip,
    "a truncated library": lambda: engine().write_bytes(engine().read_bytes()[:-100]),
    "an empty library": lambda: engine().write_bytes(b""),
    "no library": lambda: engine().unlink(),
    "no manifest": lambda: manifest().unlink(),
    "a broken manifest": lambda: manifest().write_text('{"key": '),
    "a manifest of bytes": lambda: manifest().write_bytes(b"\xff\xfe\x00"),
    "a manifest that is a list": lambda: manifest().write_text("[1]"),
    "another version": lambda: key(source="0" * 64),
    "another processor": lambda: key(cpu="another"),
    "other flags": lambda: key(flags="[]"),
    "another layout of the manifest": lambda: key(format="0"),
    "no key": lambda: edit(key=None),
    "no digest": lambda: edit(sha256=None),
    "a library others may write": lambda: engine().chmod(0o722),
    "a manifest its group may write": lambda: manifest().chmod(0o660),
    "a folder others may write": lambda: build.folder().chmod(0o777),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_good_is_made_again(copies: Path, damage: str) -> None:
    assert build.build().path == build.ready()
    DAMAGE[damage]()
    assert build.ready() is None
    assert build.about() == {}
    assert build.build().path == build.ready()
    assert links(copies) == 2
    assert build.build().seconds == 0
    assert links(copies) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_another_users_files_are_not_trusted(copies: Path) -> None:
    build.build()
    os.chown(engine(), 12345, 12345)
    assert build.ready() is None


def test_a_folder_made_for_another_machine_is_left_alone(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.build().path
    with monkeypatch.context() as patch:
        patch.setattr(build, "_cpu", lambda: "another")
        build._key.cache_clear()
        assert build.ready() is None
        assert build.build().path != first
    build._key.cache_clear()
    assert build.ready() == first


def test_a_good_library_needs_no_compiler(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build.build().path
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    assert build.build().path == path
    monkeypatch.setenv("CXX", "nonsense")
    assert build.build().path == path


def test_any_umask_makes_a_library_that_is_trusted(copies: Path) -> None:
    before = os.umask(0o002)
    try:
        assert build.build().path == build.ready()
    finally:
        os.umask(before)


def test_the_manifest_says_what_it_was_made_with(copies: Path) -> None:
    build.build()
    assert build.about()["compiler"] == os.environ["CXX"]
    assert build.about()["flags"] == list(toolchain.FLAGS[1][0])


def test_a_compiler_with_arguments(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"env {os.environ['CXX']}")
    assert build.build().path == build.ready()


FAULTS = {
    "no compiler": (None, "there is no C++ compiler; install g++"),
    "nonsense": ("nonsense", "there is no program 'nonsense', which CXX names"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_compiler_is_one_clear_line(fresh: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    name, message = FAULTS[fault]
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CXX", name or "")
    with pytest.raises(ModelError, match=re.escape(message)):
        build.build()
    assert_nothing_left(fresh)


SCRIPTS = {
    "fails": ("#!/bin/sh\necho 'x.h: warning: odd'; echo 'x.h:1: error: no such thing' >&2; exit 1", "no such thing"),
    "fails silently": ("#!/bin/sh\nexit 3", "exit code 3"),
    "is killed": ("#!/bin/sh\nkill -9 $$", "exit code -9"),
    "is no program": ("not a program", "cannot run the C++ compiler"),
    "makes nothing": ("#!/bin/sh\nexit 0", "cannot keep the compiled decoder step"),
    "finds the disk full": ("#!/bin/sh\necho 'fatal error: error writing to x.o: No space left on device'; exit 1",
                            "No space left on device"),
    "hangs": ("#!/bin/sh\nsleep 1000 & wait", "did not end within"),
}  # fmt: skip


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_compiler_that_is_no_use(fresh: Path, compiler: Fake, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    script, message = SCRIPTS[what]
    compiler(script)
    monkeypatch.setattr(toolchain, "_SECONDS", 0.3 if what == "hangs" else 60.0)
    with pytest.raises(ModelError, match=re.escape(message)):
        build.build()
    assert_nothing_left(fresh)


def test_a_compiler_that_knows_few_flags(
    copies: Path, compiler: Fake, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = Path(os.environ["CXX"]).rename(tmp_path / "good")
    compiler(f'#!/bin/sh\ncase " $* " in *" -fopenmp "*) echo error: -fopenmp >&2; exit 1;; esac\nexec {good} "$@"')
    build.build()
    assert build.about()["flags"] == ["-march=native"]
    assert "one thread" in caplog.text


def test_a_full_disk_is_one_line(fresh: Path, copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_json", full)
    with pytest.raises(ModelError, match="No space left on device"):
        build.build()
    assert_nothing_left(fresh)


@pytest.mark.skipif(os.getuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written(fresh: Path, copies: Path) -> None:
    fresh.mkdir(mode=0o500)
    with pytest.raises(SettingsError, match="DEPTHSCHED_CACHE"):
        build.build()


def test_a_cache_folder_that_is_a_file(fresh: Path, copies: Path) -> None:
    fresh.write_text("")
    assert build.ready() is None
    with pytest.raises(DepthschedError, match="DEPTHSCHED_CACHE"):
        build.build()


@pytest.mark.parametrize("processes", [2, 5])
def test_processes_at_once_make_one_library(fresh: Path, slow_copies: Path, processes: int) -> None:
    running = [start() for _ in range(processes)]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * processes, said
    assert {out.strip() for out, _ in said} == {str(build.ready())}
    assert links(slow_copies) == 1
    assert_one_folder(fresh)


def test_processes_that_cannot_lock_make_one_library(copies: Path, fresh: Path) -> None:
    script = f"import sys; sys.modules['fcntl'] = None; {BUILD}"
    running = [start(script) for _ in range(4)]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0] * 4, said
    assert build.ready()
    assert_one_folder(fresh)


def test_a_killed_build_leaves_nothing_that_is_trusted(fresh: Path, slow_copies: Path) -> None:
    process = start()
    until = time.monotonic() + 60
    while not list(fresh.glob("native/.building-*/*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert build.ready() is None
    (left,) = fresh.glob("native/.building-*")
    os.utime(left, (0, 0))
    assert build.build().path == build.ready()  # the lock is free
    assert_one_folder(fresh)


def test_what_another_process_is_making_is_left_alone(fresh: Path, copies: Path) -> None:
    young = fresh / "native" / ".building-young"
    young.mkdir(parents=True)
    build.build()
    assert young.is_dir()


def start(script: str = BUILD) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_one_folder(cache: Path) -> None:
    assert [path.name for path in (cache / "native").iterdir() if path.name != ".lock"] == [build.folder().name]


def assert_nothing_left(cache: Path) -> None:
    assert {path.name for path in (cache / "native").iterdir()} <= {".lock"}
