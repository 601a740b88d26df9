"""What the notebooks of the tutorials have in common: how they run, and what they keep of it.

A notebook under ``docs/tutorials`` begins with a title; its first code cell is tagged ``parameters`` and sets its
sizes, such as ``PROMPTS = 8``. Its metadata has, under ``depthsched``, the rough ``minutes`` of a run, smaller sizes
for tests as ``short``, and the ``digest`` of the sources that its outputs are of.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
TIMEOUT = 1800
"""Most seconds of one cell."""


def notebooks() -> list[Path]:
    """Every notebook of the tutorials."""
    return sorted(TUTORIALS.glob("*.ipynb"))


def read(path: Path) -> Any:
    """A notebook, checked against its format."""
    import nbformat

    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    return book


def source_digest(book: Any) -> str:
    """A hash of the code cells: what the outputs depend on."""
    sources = [cell.source for cell in book.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()[:16]


def about(book: Any) -> dict[str, Any]:
    """The part of a notebook's metadata that is ours."""
    return dict(book.metadata.get("depthsched", {}))


def shortened(book: Any) -> Any:
    """The notebook with the sizes of its metadata in place of those in its ``parameters`` cell.

    Raises
    ------
    ValueError
        A size that the cell does not set as a plain number, or no such cell.
    """
    import copy

    book, sizes = copy.deepcopy(book), about(book).get("short", {})
    cells = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{len(cells)} cells are tagged parameters; one should be")
    for name, value in sizes.items():
        line = rf"^{re.escape(name)} = [-+\d._e]+"
        cells[0].source, count = re.subn(line, f"{name} = {value!r}", cells[0].source, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"the parameters cell does not set {name} to a number once")
    return book


def execute(book: Any, folder: Path, environment: Mapping[str, str] | None = None) -> Any:
    """Run every cell in a fresh kernel of this Python, in a folder, with a cache of its own there.

    Returns
    -------
    nbformat.NotebookNode
        The notebook with its outputs.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell failed.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / ".kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [
        sys.executable,
        "-Xfrozen_modules=off",
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
        "--log-level=ERROR",
    ]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    work = folder / "work"
    work.mkdir()
    finder = KernelSpecManager(kernel_dirs=[str(spec.parent)], ensure_native_kernel=False)
    given = {**os.environ, **quiet(folder), **(environment or {})}
    client = NotebookClient(
        book,
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=finder),
        timeout=TIMEOUT,
        resources={"metadata": {"path": str(work)}},
        record_timing=False,
    )
    return client.execute(env=given)


def quiet(folder: Path) -> dict[str, str]:
    """Variables of a run that asks nothing of the network and draws no progress bars."""
    sources = [str(ROOT / "src"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sources),
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "PYTHONWARNINGS": "ignore:IProgress not found",  # widgets, which nothing here uses
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "IPYTHONDIR": str(folder / ".ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def cleaned(book: Any, folder: Path) -> Any:
    """The notebook without what is only of this machine and moment: times, counts of runs, absolute paths."""
    here = str(folder / "work")
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [_plain(output, here) for output in joined(cell.outputs)]
    book.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book.metadata.language_info = {"name": "python"}
    book.metadata["depthsched"] = {**about(book), "digest": source_digest(book)}
    return book


def joined(outputs: list[Any]) -> list[Any]:
    """Outputs with pieces of one stream put together, as far as nothing stands between them."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream" and output.name == found[-1].name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _plain(output: Any, here: str) -> Any:
    import nbformat

    text = json.dumps(output)
    for path, name in ((here + "/", ""), (here, "."), (str(Path.home()) + "/", "~/")):
        text = text.replace(json.dumps(path)[1:-1], name)
    return nbformat.from_dict(json.loads(text))


def paths_in(book: Any) -> list[str]:
    """Absolute paths that the outputs still show."""
    text = json.dumps([cell.get("outputs", []) for cell in book.cells])
    return re.findall(r"(?<![\w.<:/])/(?:home|root|tmp|usr|opt|work|var|Users|private|mnt)/[\w./-]+", text)


def run(path: Path, *, short: bool = False) -> Any:
    """Run a notebook in a temporary folder and clean what comes out."""
    book = read(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = execute(shortened(book) if short else book, folder)
        cleaned(made, folder)
        shutil.rmtree(folder / "work")
    return made
