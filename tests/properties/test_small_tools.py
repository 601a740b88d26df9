"""Digests, whole files, one line of text, sparklines and seeded intervals."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from depthsched import files, text
from depthsched.errors import SettingsError
from depthsched.stats import Interval, bootstrap


@given(st.text() | st.binary(), st.integers(1, 64))
def test_a_digest_is_the_start_of_sha256(content: str | bytes, chars: int) -> None:
    data = content.encode() if isinstance(content, str) else content
    assert files.digest(content, chars) == hashlib.sha256(data).hexdigest()[:chars]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "x.json"
    files.write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask  # as any file that this user writes

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [found.name for found in path.parent.iterdir()] == ["x.json"]


def test_a_pipe_is_written_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_atomic(pipe, b"abc")
        assert os.read(reader, 10) == b"abc"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@given(st.text(), st.integers(10, 300))
def test_one_line_is_one_line(value: str, most: int) -> None:
    line = text.one_line(value, most)
    assert len(line) <= most
    assert len(line.splitlines()) <= 1
    assert line.isprintable()
    if value.isprintable() and len(" ".join(value.split())) <= most:
        assert line.split() == value.split()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=200), st.integers(1, 80))
def test_a_sparkline_shows_the_mean_of_every_part(values: list[int], width: int) -> None:
    line = text.sparkline(values, 30, width)
    parts = np.array_split(values, min(width, len(values)))
    assert len(line) == len(parts)
    for block, part in zip(line, parts, strict=True):
        assert "▁▂▃▄▅▆▇█".index(block) == min(int(sum(part.tolist()) / len(part) / 30 * 8), 7)


@given(st.sets(st.integers(0, 50)))
def test_ranges_name_every_number_once(numbers: set[int]) -> None:
    parts = [part.split("-") for part in text.ranges(sorted(numbers)).split()]
    found = [n for first, *last in parts for n in range(int(first), int((last or [first])[0]) + 1)]
    assert found == sorted(numbers)
    assert all(int(b[0]) > int(a[-1]) + 1 for a, b in itertools.pairwise(parts))


SAMPLES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40)


@pytest.mark.parametrize(("statistic", "resamples"), [(np.mean, 10_000), (np.median, 2000)])
@given(SAMPLES, st.integers(0, 3))
def test_the_bootstrap_draws_what_scipy_draws(
    statistic: Callable[..., Any], resamples: int, values: list[float], seed: int
) -> None:
    sample = np.asarray(values)
    if np.ptp(sample) == 0:
        return  # scipy warns of a degenerate sample
    want = scipy.stats.bootstrap(
        (sample,), statistic, n_resamples=resamples, method="percentile", rng=np.random.default_rng(seed)
    ).confidence_interval
    found = bootstrap(lambda x: statistic(x, axis=-1), sample, resamples=resamples, seed=seed)
    assert found == pytest.approx((want.low, want.high), rel=1e-12, abs=1e-12)


def test_rows_of_several_samples_are_drawn_together() -> None:
    numbers = np.arange(1.0, 9.0)
    assert bootstrap(lambda a, b: (a / b).mean(axis=-1), numbers, numbers) == (1.0, 1.0)


@pytest.mark.parametrize("kind", ["mean", "median"])
@pytest.mark.parametrize("bounds", [(1.0, 3.0), (None, None)])
def test_an_interval_reads_back_and_has_one_name(kind: Any, bounds: tuple[Any, Any]) -> None:
    interval = Interval(2.0, *bounds, kind)
    assert interval.to_json() == {kind: 2.0, "low": bounds[0], "high": bounds[1]}
    assert Interval.from_json(interval.to_json()) == interval
    assert getattr(interval, kind) == 2.0
    assert interval.bounds == (bounds if bounds[0] else (2.0, 2.0))
    with pytest.raises(AttributeError, match=kind):
        getattr(interval, {"mean": "median", "median": "mean"}[kind])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/depthsched")):
        with pytest.raises(SettingsError, match="better") as stop:
            files.writable_folder(folder, "choose a better one")
        assert str(folder) in str(stop.value)
