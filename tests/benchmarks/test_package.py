"""The package knows nothing of its evidence."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy: what earlier builds left in the checkout must not get in, nor this one stay there."""
    copy: Path = tmp_path_factory.mktemp("checkout")
    rubbish = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "benchmarks", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=rubbish)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next((copy / "dist").glob("*.whl")))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:
        assert {f"src/{name}" for name in names} <= set(tracked.stdout.split())
    assert {name.partition("/")[0] for name in names} == {"depthsched"}
    assert {f"src/{name}" for name in names} >= {str(path.relative_to(ROOT)) for path in SOURCES}


def test_the_wheel_holds_no_experiment_and_no_page_printer(wheel: zipfile.ZipFile) -> None:
    """An experiment has a command line of its own; a page printer knows Markdown's rule or a page of results."""
    for name in (name for name in wheel.namelist() if name.endswith(".py")):
        text = wheel.read(name).decode()
        if not name.endswith("__main__.py"):
            assert "__main__" not in re.sub(r"\w\.__main__", "", text), name
        assert not re.search(r"argparse|\|\s?-{3}|docs/results|python -m benchmarks", text), name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_no_module_imports_benchmarks(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        assert "benchmarks" not in {name.partition(".")[0] for name in names}
