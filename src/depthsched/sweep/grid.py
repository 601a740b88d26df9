"""Read a grid: YAML that names plans and measures. Every wrong key or value is one line that names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..planspec import PlanText
from ..settings import suggest

MEASURES = ("score", "bench", "eval")
DTYPES = ("auto", "float32", "bfloat16", "float16")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Grid:
    """What a grid file says. Every key that is a tuple here takes one value or a list.

    Attributes
    ----------
    schedules : tuple of str
        Plans. In the file also ``{d3: {alpha: [0.995, 0.997], start: 16}}``,
        which stands for every combination of the settings.
    orders, profiles : tuple of str or None
        For the schedules that name none of their own; ``null`` is the default order, and no profile.
    measure : tuple of str
        ``score``, ``bench`` and ``eval``.
    model, dtype : tuple of str
    device : str
    prompts : tuple of str
        For ``score``: prompt files, as for ``depthsched score``.
    tasks, data : tuple of str, str or None
        For ``eval``: names of tasks, and the folder of local data.
    limit, max_new_tokens : int or None
        For ``score`` and ``eval``: only so many prompts or items; length of the answers.
    raw : bool
        For ``score``: without the chat template.
    maps : int
        For ``score``: prompts that the plan answers itself, token by token, for the depth map of the report.
    backends : tuple of str
        For ``bench`` and ``eval``.
    tokens, repeats : int
        For ``bench``: new tokens of each run, and measured rounds.
    batch : int
        For ``bench`` and ``eval``: rows that run at once.
    """

    schedules: tuple[str, ...]
    orders: tuple[str | None, ...] = (None,)
    profiles: tuple[str | None, ...] = (None,)
    measure: tuple[str, ...] = ("score",)
    model: tuple[str, ...] = ("smollm2",)
    dtype: tuple[str, ...] = ("auto",)
    device: str = "auto"
    prompts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    data: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    raw: bool = False
    maps: int = 2
    backends: tuple[str, ...] = ("auto",)
    tokens: int = 64
    repeats: int = 5
    batch: int = 1

    def __post_init__(self) -> None:
        for measure, key in (("score", "prompts"), ("eval", "tasks")):
            if measure in self.measure and not getattr(self, key):
                raise SettingsError(f"measure {measure!r} needs the key {key!r}")
        if self.tokens < 2:
            raise SettingsError(f"key 'tokens': {self.tokens} must be at least 2: the first comes out of the prefill")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)


def read_grid(path: str | Path) -> Grid:
    """Read a grid file.

    Parameters
    ----------
    path : str or Path
        A YAML file; the paths in it are taken from its own folder. It runs no code: no Python tags, and no
        schedules from ``.py`` files.

    Raises
    ------
    SettingsError
        No such file, not YAML, or a key or value that is wrong; the message names it.
    """
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise SettingsError(f"{path} is larger than a grid can be ({_MOST_BYTES >> 20} MB)")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"cannot read the grid {path}: {reason}") from error
    try:
        return parse_grid(_parse(text), file.resolve().parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def parse_grid(data: Any, folder: Path) -> Grid:
    """A grid from the mapping that its file holds; its paths are taken from ``folder``.

    Raises
    ------
    SettingsError
    """
    if not isinstance(data, Mapping):
        raise SettingsError("a grid is a mapping of keys to values; give at least schedules, measure and prompts")
    known = {field.name for field in dataclasses.fields(Grid)}
    for key in data:
        if key not in known:
            raise SettingsError(f"unknown key {key!r}; {suggest(str(key), known)}")
    if not data.get("schedules"):
        raise SettingsError("the key 'schedules' is missing; list plans such as d3:alpha=0.997 under it")
    values = {key: _READERS[key](key, value) for key, value in data.items() if value is not None}
    for key in ("profiles", "prompts"):
        if key in values:
            values[key] = tuple(v if v is None else _place(v, folder) for v in values[key])
    values["schedules"] = tuple(_with_place(spec, folder) for spec in values["schedules"])
    if "model" in values:
        values["model"] = tuple(_place(m, folder) if m.startswith((".", "/", "~")) else m for m in values["model"])
    if "data" in values:
        values["data"] = _place(values["data"], folder)
    return Grid(**values)


def _place(path: str, folder: Path) -> str:
    return str(folder / Path(path).expanduser())


def _with_place(spec: str, folder: Path) -> str:
    plan = PlanText.of(spec)
    return str(plan._replace(profile=_place(plan.profile, folder))) if plan.profile else spec


def _parse(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Safe: plain values only. A key that appears twice is refused, where YAML would drop the first."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = [key for i, key in enumerate(keys) if key in keys[:i]]
            if twice:
                raise SettingsError(f"the key {twice[0]!r} appears twice")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise SettingsError(f"not YAML: {where}{getattr(error, 'problem', None) or error}") from error
    except (ValueError, RecursionError, TypeError) as error:  # impossible dates, deep nesting, unhashable keys
        raise SettingsError(f"not YAML that a grid can hold: {error}") from error


def _texts(key: str, value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str) or not item.strip():
            raise SettingsError(f"key {key!r}: {item!r} is not text")
    if not items:
        raise SettingsError(f"key {key!r}: the list is empty; leave the key out for its default")
    return tuple(dict.fromkeys(item.strip() for item in items))


def _texts_or_none(key: str, value: Any) -> tuple[str | None, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(None if item in (None, "none") else _texts(key, item)[0] for item in items)) or (None,)


def _text(key: str, value: Any) -> str:
    if isinstance(value, list):
        raise SettingsError(f"key {key!r} takes one value, not a list")
    return _texts(key, value)[0]


def _one_of(*words: str) -> Any:
    def read(key: str, value: Any) -> tuple[str, ...]:
        found = _texts(key, value)
        for word in found:
            if word not in words:
                raise SettingsError(f"key {key!r}: unknown {word!r}; {suggest(word, words)}")
        return found

    return read


def _count(low: int) -> Any:
    def read(key: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise SettingsError(f"key {key!r}: {value!r} is not a whole number of at least {low}")
        return value

    return read


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"key {key!r}: {value!r} is neither true nor false")
    return value


def _schedules(key: str, value: Any) -> tuple[str, ...]:
    found: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        found += _combinations(key, item) if isinstance(item, Mapping) else _texts(key, item)
    for spec in found:
        if ".py" in PlanText.of(spec).schedule:
            raise SettingsError(
                f"key {key!r}: {spec!r} names a Python file, and a grid runs no code; make it a plug-in: depthsched new"
            )
    return tuple(dict.fromkeys(found))


def _combinations(key: str, item: Mapping[Any, Any]) -> list[str]:
    """``{d3: {alpha: [0.99, 0.995], start: 16}}`` as specs."""
    specs = []
    for name, settings in item.items():
        if not isinstance(name, str) or not isinstance(settings, Mapping | None):
            raise SettingsError(f"key {key!r}: write {{d3: {{alpha: [0.995, 0.997]}}}}, not {{{name}: {settings}}}")
        choices = {k: v if isinstance(v, list) else [v] for k, v in (settings or {}).items()}
        for picks in product(*choices.values()):
            if not all(isinstance(pick, str | int | float) for pick in picks):
                raise SettingsError(f"key {key!r}: a setting of {name} is neither a number nor text: {list(picks)}")
            text = ",".join(
                f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in zip(choices, picks, strict=True)
            )
            schedule, at, order = name.partition("@")
            specs.append(f"{schedule}{':' if text else ''}{text}{at}{order}")
    return specs


_READERS: dict[str, Any] = {
    "schedules": _schedules,
    "orders": _texts_or_none,
    "profiles": _texts_or_none,
    "measure": _one_of(*MEASURES),
    "model": _texts,
    "dtype": _one_of(*DTYPES),
    "device": _text,
    "prompts": _texts,
    "tasks": _texts,
    "data": _text,
    "limit": _count(1),
    "max_new_tokens": _count(2),
    "raw": _flag,
    "maps": _count(0),
    "backends": _one_of("auto", "eager", "compiled", "cuda-graph"),
    "tokens": _count(2),
    "repeats": _count(1),
    "batch": _count(1),
}
