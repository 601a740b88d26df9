"""Tasks of lm-eval, from the hub or over local files; prompts, answer extraction and metrics stay lm-eval's own."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from .extra import need_lm_eval

_LOCAL = ("gsm8k", "bbh")  # the folders of lm-eval, and of the data, that hold the tasks below


def load_tasks(
    names: Sequence[str], data: str | Path | None = None, max_new_tokens: int | None = None
) -> dict[str, Any]:
    """lm-eval's task objects by name, in the order asked for.

    Parameters
    ----------
    names : sequence of str
        Tasks, groups or patterns with ``*``, as lm-eval knows them.
    data : path, optional
        A folder with ``gsm8k/test*.jsonl`` (question, answer) and ``bbh/<task>.json`` (examples: input, target)
        to read instead of the hub.
    max_new_tokens : int, optional
        In place of the tasks' own maximum.

    Raises
    ------
    MissingExtraError
        lm-eval is not installed.
    SettingsError
        No such task, no local file for it, or a task that does not generate.
    """
    need_lm_eval()
    manager = _manager(local=data is not None)
    found = _expand(names, manager, data)
    specs = found if data is None else [_over_file(name, local_file(name, Path(data))) for name in found]
    try:
        loaded = manager.load([{"group": "depthsched", "task": specs}])["tasks"]
    except Exception as error:  # datasets, the hub client and lm-eval each have their own
        text = " ".join(f"{type(error).__name__}: {error}".split())
        advice = "" if data else "; without a hub, give local files with --data"
        raise SettingsError(f"cannot load {', '.join(found)}: {text[:300]}{advice}") from error
    for name, task in loaded.items():
        _check(name, task)
        if max_new_tokens is not None:
            task.set_config("generation_kwargs", {"max_gen_toks": max_new_tokens}, update=True)
    return {name: loaded[name] for name in sorted(loaded, key=lambda n: found.index(n) if n in found else len(found))}


def local_file(name: str, data: Path) -> Path:
    """The file of a task in a data folder.

    Raises
    ------
    SettingsError
        It is not there, or the task is none that the layout knows.
    """
    if name.startswith("gsm8k"):
        files = sorted((data / "gsm8k").glob("test*.jsonl"))
        wanted = "gsm8k/test.jsonl"
    elif name.startswith("bbh_"):
        files = sorted((f for f in (data / "bbh").glob("*.json") if name.endswith("_" + f.stem)), key=_length)[-1:]
        wanted = f"bbh/{name.removeprefix('bbh_').removeprefix('cot_').removeprefix('fewshot_')}.json"
    else:
        raise SettingsError(
            f"--data has gsm8k and bbh tasks only, and {name!r} is neither; leave --data out for the hub"
        )
    if not files:
        raise SettingsError(f"no file for task {name!r} in {data}: expected {wanted}")
    return files[0].resolve()


def _length(path: Path) -> int:
    return len(path.stem)


def _manager(*, local: bool) -> Any:
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    if not local:
        return TaskManager()
    # The two folders only: indexing all of lm-eval's tasks takes many seconds.
    root = Path(lm_eval.tasks.__file__).parent
    return TaskManager(include_path=[str(root / folder) for folder in _LOCAL], include_defaults=False)


def _expand(names: Sequence[str], manager: Any, data: str | Path | None) -> list[str]:
    known, found = manager.all_tasks, []
    for name in names:
        if "*" in name:
            hits = [
                task for task in fnmatch.filter(manager.all_subtasks, name) if data is None or _has_file(task, data)
            ]
        else:
            hits = [name] if name in known else []
        if not hits:
            near = [task for task in known if name.strip("*")[:8] in task][:4]
            where = " among gsm8k and bbh" if data is not None else ""
            raise SettingsError(f"lm-eval has no task {name!r}{where}; near: {', '.join(near) or 'none'}")
        found += [hit for hit in hits if hit not in found]
    if not found:
        raise SettingsError("no task given; give names such as gsm8k_cot, separated by commas")
    return found


def _has_file(name: str, data: str | Path) -> bool:
    try:
        return local_file(name, Path(data)).is_file()
    except SettingsError:
        return False


def _over_file(name: str, path: Path) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"data_files": {"test": str(path)}}
    if path.suffix == ".json":
        kwargs["field"] = "examples"
    _check_rows(name, path)
    return {"task": name, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs}


def _check_rows(name: str, path: Path) -> None:
    """One clear line here, rather than a stack of three libraries' errors."""
    keys = {"question", "answer"} if path.suffix == ".jsonl" else {"input", "target"}
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            json.loads(text)["examples"] if path.suffix == ".json" else [json.loads(x) for x in text.splitlines() if x]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} is not in the layout of task {name!r}: {type(error).__name__}: {error}") from error
    bad = next((i for i, row in enumerate(rows) if not isinstance(row, dict) or not keys <= set(row)), None)
    if bad is not None or not rows:
        what = "has no rows" if not rows else f"row {bad} lacks one of {', '.join(sorted(keys))}"
        raise SettingsError(f"{path} is not in the layout of task {name!r}: {what}")


def _check(name: str, task: Any) -> None:
    if task.OUTPUT_TYPE != "generate_until":
        from .lm import NO_LIKELIHOOD

        raise SettingsError(f"task {name!r} ({task.OUTPUT_TYPE}) is refused: {NO_LIKELIHOOD}")
