"""Where the rows of lm-eval's tasks lie in a folder of local data, and what else a task needs: one line a task."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, SettingsError
from ..text import one_line

NEEDLE_TOKENS = 1024
"""Length of the texts in which a needle is hidden, where nobody says otherwise. lm-eval's own is 4096."""


@dataclass(frozen=True)
class Layout:
    """How local data stand in for what a task has on the hub.

    Attributes
    ----------
    tasks : str
        A name, or a pattern with ``*``.
    folder : str
        Of the data, and of lm-eval's definitions of these tasks.
    metric : str
        What a pooled decision takes where none is named, and the filter after a comma.
    keys : tuple of str
        What every row holds.
    split : str
        The split that the task scores.
    suffix : str
        ``jsonl`` (one row a line, one file a folder) or ``json`` (rows under ``examples``, one file a task).
    needs : tuple of str
        Packages that lm-eval's code for the task imports, from lm-eval's own extras.
    nltk : bool
        Whether it splits sentences with nltk's ``punkt_tab``, from ``nltk_data/`` of the data.
    synthetic : bool
        Rows are made, not read.
    runs_code : bool
        Scoring executes what the model wrote.
    """

    tasks: str
    folder: str
    metric: str
    keys: tuple[str, ...] = ()
    split: str = "test"
    suffix: str = "jsonl"
    needs: tuple[str, ...] = ()
    nltk: bool = False
    synthetic: bool = False
    runs_code: bool = False


LAYOUTS = (
    Layout("gsm8k*", "gsm8k", "exact_match,flexible-extract", ("question", "answer")),
    Layout("bbh_cot_fewshot_*", "bbh", "exact_match,get-answer", ("input", "target"), suffix="json"),
    Layout("bbh_*zeroshot_*", "bbh", "exact_match,flexible-extract", ("input", "target"), suffix="json"),
    Layout("bbh_*", "bbh", "exact_match", ("input", "target"), suffix="json"),
    Layout(
        "ifeval", "ifeval", "inst_level_strict_acc", ("key", "prompt", "instruction_id_list", "kwargs"),
        split="train", needs=("langdetect", "immutabledict", "nltk"), nltk=True,
    ),
    Layout("xquad_en", "xquad", "f1", ("context", "question", "answers"), split="validation"),
    Layout("squad_completion", "squad_completion", "contains", ("text", "value"), split="validation"),
    Layout("niah_single_1", "ruler", "string_match", needs=("wonderwords", "nltk"), nltk=True, synthetic=True),
    Layout("mbpp", "mbpp", "pass_at_1", ("task_id", "text", "code", "test_list"), runs_code=True),
)  # fmt: skip


def layout_of(task: str) -> Layout | None:
    """The layout of a task; None where the table knows none."""
    return next((layout for layout in LAYOUTS if fnmatch.fnmatchcase(task, layout.tasks)), None)


def known_layout(task: str) -> Layout:
    """The layout of a task.

    Raises
    ------
    SettingsError
        The table has none.
    """
    found = layout_of(task)
    if found is None:
        known = ", ".join(dict.fromkeys(layout.tasks for layout in LAYOUTS))
        raise SettingsError(f"--data knows no files for task {task!r}, only for {known}; leave --data out for the hub")
    return found


def local_file(task: str, data: Path) -> Path | None:
    """The file of a task in a data folder; None for a task whose rows are made.

    Raises
    ------
    SettingsError
        It is not there, it cannot be told from others, or the table knows no files for the task.
    """
    layout = known_layout(task)
    if layout.synthetic:
        return None
    found = sorted((data / layout.folder).glob(f"*.{layout.suffix}"))
    if layout.suffix == "json":
        found = sorted((f for f in found if task.endswith("_" + f.stem)), key=lambda f: len(f.stem))[-1:]
        subtask = task.removeprefix("bbh_").removeprefix("cot_").removeprefix("fewshot_").removeprefix("zeroshot_")
        wanted = f"{layout.folder}/{subtask}.json"
    else:
        found = [f for f in found if f.stem.startswith("test")] or found
        wanted = f"{layout.folder}/test.jsonl"
    if not found:
        raise SettingsError(f"no file for task {task!r} in {data}: expected {wanted} with {', '.join(layout.keys)}")
    if len(found) > 1 and not found[0].stem.startswith("test"):
        names = ", ".join(f.name for f in found)
        raise SettingsError(f"several files for task {task!r} in {data / layout.folder}: {names}; name one test.jsonl")
    return found[0].resolve()


def check_rows(task: str, path: Path) -> None:
    """One clear line here, rather than a stack of three libraries' errors.

    Raises
    ------
    SettingsError
    """
    layout = known_layout(task)
    try:
        rows = _rows(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path} is not in the layout of task {task!r}: {type(error).__name__}: {one_line(error)}"
        ) from error
    keys = set(layout.keys)
    bad = next((i for i, row in enumerate(rows) if not isinstance(row, dict) or not keys <= set(row)), None)
    if bad is not None or not rows:
        what = "has no rows" if not rows else f"row {bad} lacks one of {', '.join(sorted(keys))}"
        raise SettingsError(f"{path} is not in the layout of task {task!r}: {what}")


def check_packages(task: str) -> None:
    """Raise unless what lm-eval's code for a task imports is there.

    Raises
    ------
    MissingExtraError
    """
    layout = layout_of(task)
    missing = [name for name in layout.needs if importlib.util.find_spec(name) is None] if layout else []
    if missing:
        raise MissingExtraError(f"task {task!r} needs {', '.join(missing)}: pip install 'depthsched[eval]'")


def find_nltk_data(task: str, data: Path) -> None:
    """Let nltk find ``nltk_data/`` of the data, by its own search path; lm-eval would try to download it.

    Raises
    ------
    SettingsError
        ``punkt_tab`` is neither there nor anywhere else that nltk looks.
    """
    layout = layout_of(task)
    if layout is None or not layout.nltk:
        return
    import nltk

    own = str((data / "nltk_data").resolve())
    if Path(own).is_dir() and own not in nltk.data.path:
        nltk.data.path.append(own)
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError as error:
        where = data / "nltk_data" / "tokenizers" / "punkt_tab"
        raise SettingsError(f"task {task!r} needs nltk's punkt_tab: expected {where}, or set NLTK_DATA") from error


def _rows(path: Path) -> Sequence[Any]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        rows: list[Any] = json.loads(text)["examples"]
        return rows
    return [json.loads(line) for line in text.split("\n") if line.strip()]
