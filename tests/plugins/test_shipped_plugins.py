"""The plug-ins in plugins/: their own tests, and a wheel of one in an environment of its own."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from .distributions import ROOT

FOLDERS = sorted((ROOT / "plugins").glob("depthsched-*"))
Run = Callable[..., subprocess.CompletedProcess[str]]


def _environment(**variables: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DEPTHSCHED_", "PYTHON", "PIP_"))}
    return clean | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | variables


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_tests_of_the_plug_in_pass(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests"],
        cwd=folder,
        env=_environment(
            PYTHONPATH=os.pathsep.join([str(folder), str(ROOT / "src")]), PYTHONPYCACHEPREFIX=str(tmp_path)
        ),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_plug_in_is_complete(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == folder.name
    assert project["license"] == "Apache-2.0"
    assert project["dependencies"] == ["depthsched"]
    assert project["entry-points"]["depthsched"]
    stated = [path for path in folder.rglob("*.py") if re.search(r"^API = \d+$", path.read_text(), re.MULTILINE)]
    assert stated, f"{folder.name} does not say for which API it was written: API = 1 in the module of its entry point"
    assert (folder / "README.md").read_text().startswith(f"# {folder.name}\n")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of a new virtual environment that holds the skipdecode wheel.

    torch and the rest come from the environment of the tests, read only: its folder follows the new one's own
    on the module path.
    """
    folder = tmp_path_factory.mktemp("fresh")
    _call([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")])
    python = folder / "venv" / "bin" / "python"
    site = Path(_call([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
    outer = sysconfig.get_path("purelib")
    # addsitedir, so that an editable install in the outer environment is seen as well.
    (site / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
    # From a copy: building in place leaves folders behind.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "depthsched_skipdecode.py"):
        (source / name).write_text((ROOT / "plugins" / "depthsched-skipdecode" / name).read_text())
    install = "install --no-deps --no-build-isolation --no-index --no-cache-dir --quiet --disable-pip-version-check"
    _call([str(python), "-m", "pip", *install.split(), str(source)])
    assert (site / "depthsched_skipdecode.py").is_file()

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        # From an empty folder: nothing of the source tree is importable by chance.
        return subprocess.run(
            [str(python), "-m", "depthsched", *args],
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def _call(arguments: list[str]) -> str:
    done = subprocess.run(arguments, env=_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_is_listed_in_a_fresh_environment(fresh: Run) -> None:
    listed = fresh("list", "--json")
    assert listed.returncode == 0, listed.stderr
    found = {(r["kind"], r["name"]): (r["plugin"], r["version"]) for r in json.loads(listed.stdout)["rows"]}
    assert found["schedule", "skipdecode"] == ("depthsched-skipdecode", "0.1.0")
    assert found["order", "skipdecode"] == ("depthsched-skipdecode", "0.1.0")
    assert found["schedule", "d3"][0] == "depthsched"


@pytest.mark.slow
def test_the_wheel_passes_check_in_a_fresh_environment(fresh: Run) -> None:
    checked = fresh("check", "skipdecode", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["passed"] is True


@pytest.mark.slow
def test_the_wheel_generates_in_a_fresh_environment(fresh: Run, smollm2: object) -> None:
    made = fresh(
        *("generate", "Why is the sky blue?", "--schedule", "skipdecode:n_min=20,n_max=28"),
        *("--order", "skipdecode:warmup=2", "--max-new-tokens", "8", "--json"),
    )
    assert made.returncode == 0, made.stderr
    run = json.loads(made.stdout)
    # The model may stop early; what it ran until then is the line.
    assert 3 <= len(run["tokens"]) == len(run["depths"])
    assert run["depths"] == [30, 27, 26, 25, 23, 22, 21, 20][: len(run["depths"])]
    assert run["order"] == "skipdecode:warmup=2"


@pytest.mark.slow
def test_the_outer_environment_is_untouched(fresh: Run) -> None:
    assert not (Path(sysconfig.get_path("purelib")) / "depthsched_skipdecode.py").exists()
