"""``depthsched new``: what it writes can be installed, checked and tested as it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ..plugins.distributions import command, environment


@pytest.mark.slow
def test_a_new_plugin_installs_and_passes(cli, tmp_path):
    made = cli("new", "tail-off", "--out", tmp_path, "--json").json()
    assert {path.rpartition("depthsched-tail-off/")[2] for path in made["files"]} == {
        "pyproject.toml",
        "depthsched_tail_off.py",
        "README.md",
        "tests/test_tail_off.py",
    }
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, made["folder"]], check=True, timeout=300)
    checked = command("check", "tail-off", "--examples", "10", folders=(site,))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert '"plugin": "depthsched-tail-off"' in command("list", "--json", folders=(site,)).stdout
    assert "tail-off:half_life=64" in command("show", "tail-off:half_life=64", folders=(site,)).stdout
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", made["folder"]]
    done = subprocess.run(tests, env=environment(site), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_new_ranker_passes_its_own_tests(cli, tmp_path):
    made = cli("new", "least-turned", "--kind", "ranker", "--out", tmp_path, "--json").json()
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", made["folder"]]
    folder = tmp_path / "depthsched-least-turned"
    done = subprocess.run(tests, env=environment(folder), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "layer ranker least-turned" in (folder / "pyproject.toml").read_text()
    assert "there is a ranker 'block' already" in cli("new", "block", "--kind", "ranker", "--out", tmp_path).err


@pytest.mark.parametrize("kind", ["schedule", "adaptive", "ranker"])
def test_what_it_writes_keeps_the_house_style(cli, tmp_path, kind):
    folder = cli("new", "one-word", "--kind", kind, "--out", tmp_path, "--json").json()["folder"]
    for check in (["format", "--check"], ["check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *check, "--isolated", "--line-length=120", folder])
        assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Half", "cannot be the name"),
        ("half_life", "cannot be the name"),
        ("../up", "cannot be the name"),
        ("", "cannot be the name"),
        ("a--b", "cannot be the name"),
        ("d3", "there is a schedule 'd3' already, from depthsched"),
        ("taken", "is there already"),
    ],
)
def test_a_wrong_name_is_one_line_and_writes_nothing(cli, tmp_path, name, words):
    (tmp_path / "depthsched-taken").mkdir()
    result = cli("new", name, "--out", tmp_path)
    assert (result.code, result.out) == (2, "")
    assert words in result.err
    assert list(tmp_path.iterdir()) == [tmp_path / "depthsched-taken"]
    assert not list((tmp_path / "depthsched-taken").iterdir())
