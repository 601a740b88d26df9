"""Tasks of lm-eval, from the hub or over local files; prompts, answer extraction and metrics stay lm-eval's own."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, SettingsError
from ..text import one_line
from .answers import score_needle, score_xquad, steady
from .extra import need_lm_eval
from .layouts import (
    LAYOUTS,
    NEEDLE_TOKENS,
    check_packages,
    check_rows,
    find_nltk_data,
    known_layout,
    layout_of,
    local_file,
)
from .needles import niah_single_1


def load_tasks(
    names: Sequence[str],
    data: str | Path | None = None,
    max_new_tokens: int | None = None,
    *,
    tokenizer: Callable[[], Any] | None = None,
    needle_tokens: int = NEEDLE_TOKENS,
    unsafe_code: bool = False,
) -> dict[str, Any]:
    """lm-eval's task objects by name, in the order asked for.

    Parameters
    ----------
    names : sequence of str
        Tasks, groups or patterns with ``*``, as lm-eval knows them.
    data : path, optional
        A folder with local files to read instead of the hub; :data:`~depthsched.evaluate.layouts.LAYOUTS` says which.
    max_new_tokens : int, optional
        In place of the tasks' own maximum.
    tokenizer : callable, optional
        Gives the tokenizer that measures synthetic texts; called only where there are any.
    needle_tokens : int
        Their length.
    unsafe_code : bool
        Allow tasks that execute what the model wrote.

    Raises
    ------
    MissingExtraError
        lm-eval, or a package that its code for a task imports, is not installed.
    SettingsError
        No such task, no local file for it, a task that does not generate, or one that runs code unasked.
    """
    need_lm_eval()
    folder = Path(data) if data is not None else None
    manager = _manager(local=folder is not None)
    found = _expand(names, manager, folder)
    for name in found:
        _allowed(name, folder, unsafe_code)
    loaded: dict[str, Any] = {}
    for name in found:
        own = _needle(name, tokenizer, needle_tokens) if (layout := layout_of(name)) and layout.synthetic else {}
        try:
            loaded |= _load(name, folder, manager, own)
        except (SettingsError, MissingExtraError):
            raise
        except Exception as error:  # datasets, the hub client and lm-eval each have their own
            advice = "" if data else "; without a hub, give local files with --data"
            raise SettingsError(f"cannot load {name}: {type(error).__name__}: {one_line(error)}{advice}") from error
    for name, task in loaded.items():
        _check(name, task)
        task.process_results = steady(task.process_results)
        if max_new_tokens is not None:
            task.set_config("generation_kwargs", {"max_gen_toks": max_new_tokens}, update=True)
    return loaded


def _manager(*, local: bool) -> Any:
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    if not local:
        return TaskManager()
    # The folders of the table only: indexing all of lm-eval's tasks takes many seconds.
    root = Path(lm_eval.tasks.__file__).parent
    folders = dict.fromkeys(str(root / layout.folder) for layout in LAYOUTS)
    return TaskManager(include_path=list(folders), include_defaults=False)


def _expand(names: Sequence[str], manager: Any, data: Path | None) -> list[str]:
    known, found = manager.all_tasks, []
    for name in names:
        group = data is not None and name in {*manager.all_groups, *manager.all_tags}
        if "*" in name or group:
            pattern = f"{name}_*" if group else name
            hits = [task for task in fnmatch.filter(manager.all_subtasks, pattern) if not data or _has_file(task, data)]
        else:
            hits = [name] if name in known else []
        if not hits and group:
            raise SettingsError(f"no files for the tasks of {name!r} in {data}")
        if not hits:
            near = [task for task in known if name.strip("*")[:8] in task][:4]
            where = " among those with local files" if data is not None else ""
            raise SettingsError(f"lm-eval has no task {name!r}{where}; near: {', '.join(near) or 'none'}")
        found += [hit for hit in hits if hit not in found]
    if not found:
        raise SettingsError("no task given; give names such as gsm8k_cot, separated by commas")
    return found


def _has_file(name: str, data: Path) -> bool:
    try:
        path = local_file(name, data)
    except SettingsError:
        return False
    return path is not None and path.is_file()


def _allowed(name: str, data: Path | None, unsafe_code: bool) -> None:
    layout = layout_of(name) if data is None else known_layout(name)
    if layout is None:
        return
    if layout.runs_code and not unsafe_code:
        raise SettingsError(
            f"task {name!r} executes code that the model wrote: "
            "add --confirm-run-unsafe-code, and set HF_ALLOW_CODE_EVAL=1, to run it"
        )
    check_packages(name)
    if data is not None:
        if (path := local_file(name, data)) is not None:
            check_rows(name, path)
        find_nltk_data(name, data)  # without local data lm-eval downloads it
    if name == "ifeval":
        import langdetect

        langdetect.DetectorFactory.seed = 0  # else the same answer is one language now and another then


def _load(name: str, data: Path | None, manager: Any, own: dict[str, Any]) -> dict[str, Any]:
    """A task, or those of a group, with what local files and this package have in place of lm-eval's."""
    path = local_file(name, data) if data is not None else None
    over = {**(_over_file(name, path) if path is not None else {}), **own}
    if name == "squad_completion" and path is not None:
        return {name: _over_class(manager.task_index[name], over)}
    if name == "xquad_en" or own:
        return {name: _without_functions(manager.task_index[name], over)}
    spec = {"task": name, **over} if over else name
    loaded: dict[str, Any] = manager.load([{"group": "depthsched", "task": [spec]}])["tasks"]
    return loaded


def _over_file(name: str, path: Path) -> dict[str, Any]:
    layout = known_layout(name)
    kwargs: dict[str, Any] = {"data_files": {layout.split: str(path)}}
    if layout.suffix == "json":
        kwargs["field"] = "examples"
    return {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs}


def _needle(name: str, tokenizer: Callable[[], Any] | None, tokens: int) -> dict[str, Any]:
    if tokenizer is None:
        raise SettingsError(f"task {name!r} is measured in tokens and needs the tokenizer of a model")
    mean = {"metric": "string_match", "aggregation": "mean", "higher_is_better": True}
    rows = partial(niah_single_1, tokenizer(), tokens)
    return {
        "custom_dataset": lambda **_: rows(),
        "metric_list": [mean],
        "process_results": score_needle,
        "dataset_path": "json",
    }


def _without_functions(entry: Any, over: dict[str, Any]) -> Any:
    """A task whose own functions are replaced, and cannot or should not be imported."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config = {**load_yaml(entry.yaml_path, resolve_func=False), "process_results": score_xquad, **over}
    return ConfigurableTask(config={key: value for key, value in config.items() if key not in ("tag", "group")})


def _over_class(entry: Any, over: dict[str, Any]) -> Any:
    """A task that is a class with its dataset written into it."""
    from lm_eval.tasks._yaml_loader import load_yaml

    base = load_yaml(entry.yaml_path, resolve_func=True)["class"]

    class Local(base):  # type: ignore[misc, valid-type]
        DATASET_PATH, DATASET_NAME = over["dataset_path"], over["dataset_name"]

        def download(self, *args: Any, **kwargs: Any) -> None:
            super().download(over["dataset_kwargs"])

    task = Local()
    task.config.task = entry.name
    return task


def _check(name: str, task: Any) -> None:
    if task.OUTPUT_TYPE != "generate_until":
        from .lm import NO_LIKELIHOOD

        raise SettingsError(f"task {name!r} ({task.OUTPUT_TYPE}) is refused: {NO_LIKELIHOOD}")
