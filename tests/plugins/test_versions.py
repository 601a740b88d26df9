"""A plug-in for another depthsched is left out, in one line that names both versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import depthsched as ds
from depthsched.hookspecs import API

from .distributions import command, distribution, schedule_code

HAVE = ds.plugins.version()


def _listed(folder: Path) -> tuple[dict[str, str], set[str]]:
    found = json.loads(command("list", "--json", folders=(folder,)).stdout)
    return {row["plugin"]: row["error"] for row in found["failures"]}, {row["name"] for row in found["rows"]}


NEWER = "was written for plug-in API {said}, and depthsched {have} has API {api}; install a newer depthsched"
OLDER = "was written for plug-in API {said}, and depthsched {have} has API {api}; install a newer version of it"
NO_NUMBER = "has the API {said!r}, which is no whole number; write API = {api}"


@pytest.mark.parametrize(
    ("said", "message"),
    [(API + 1, NEWER), (API - 1, OLDER), ("one", NO_NUMBER), (True, NO_NUMBER), (None, NO_NUMBER)],
)
def test_another_api_is_refused(tmp_path: Path, said: object, message: str) -> None:
    distribution(tmp_path, "a-other-plugin", f"API = {said!r}" + schedule_code("Other", "other"))
    distribution(tmp_path, "b-good-plugin", f"API = {API}" + schedule_code("Good", "good"))
    failures, names = _listed(tmp_path)
    assert failures == {"a-other-plugin": message.format(said=said, have=HAVE, api=API)}
    assert "good" in names
    assert "other" not in names


@pytest.mark.parametrize(
    ("needs", "fits"),
    [
        ("depthsched", True),
        (f"depthsched=={HAVE}", True),
        (f"depthsched[eval]>={HAVE}", True),
        ("DepthSched<0.0.1; python_version < '3'", True),
        ("depthsched<0.0.1; extra == 'old'", True),
        ("depthsched-other<0.0.1", True),
        ("depthsched<0.0.1", False),
        ("depthsched>=7,<8", False),
        ("DepthSched (>=7)", False),
    ],
)
def test_the_requirement_of_a_package_is_held_before_its_code_runs(tmp_path: Path, needs: str, fits: bool) -> None:
    code = schedule_code("Asking", "asking") if fits else "raise SystemExit('ran')"
    distribution(tmp_path, "asking-plugin", code, needs=needs)
    failures, names = _listed(tmp_path)
    if fits:
        assert (failures, "asking" in names) == ({}, True)
    else:
        asked = needs.lower().removeprefix("depthsched").strip(" ()")
        assert f"and this is depthsched {HAVE}; install a version that goes with it" in failures["asking-plugin"]
        assert all(part in failures["asking-plugin"] for part in asked.split(","))


def test_a_file_for_another_api_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "later.py"
    file.write_text("API = 7\n" + schedule_code("Later", "later"))
    done = command("show", f"{file}:Later", "--layers", "8")
    assert done.returncode == 2
    assert f"later.py was written for plug-in API 7, and depthsched {HAVE} has API {API}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_name_says_which_plug_in_is_out(tmp_path: Path) -> None:
    distribution(tmp_path, "old-plugin", "API = 0\n")
    done = command("show", "other", "--layers", "8", folders=(tmp_path,))
    assert (done.returncode, "old-plugin" in done.stderr) == (2, True)
    assert "was written for plug-in API 0" in command("doctor", folders=(tmp_path,)).stdout
