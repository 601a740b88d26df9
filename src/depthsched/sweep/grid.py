"""Read a grid: YAML that names plans and measures. Every wrong key or value is one line that names it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import SettingsError
from ..planspec import PlanText
from ..profiles import from_folder
from ..settings import Settings, setting

_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Grid(Settings):
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
    device, weights : str
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

    name: ClassVar[str] = ""
    kind: ClassVar[str] = "grid"

    schedules: tuple[str, ...] = setting()
    orders: tuple[str | None, ...] = (None,)
    profiles: tuple[str | None, ...] = (None,)
    measure: tuple[Literal["score", "bench", "eval"], ...] = ("score",)
    model: tuple[str, ...] = ("smollm2",)
    dtype: tuple[Literal["auto", "float32", "bfloat16", "float16"], ...] = ("auto",)
    device: str = "auto"
    weights: Literal["auto", "native", "dense"] = "auto"
    prompts: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    data: str | None = None
    limit: int | None = setting(None, low=1)
    max_new_tokens: int | None = setting(None, low=2)
    raw: bool = False
    maps: int = setting(2, low=0)
    backends: tuple[Literal["auto", "eager", "compiled", "cuda-graph"], ...] = ("auto",)
    tokens: int = setting(64, low=2, help="the first comes out of the prefill")
    repeats: int = setting(5, low=1)
    batch: int = setting(1, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                words = [item.strip() if isinstance(item, str) else item for item in value]
                object.__setattr__(self, field.name, tuple(dict.fromkeys(words)))
        for measure, key in (("score", "prompts"), ("eval", "tasks")):
            if measure in self.measure and not getattr(self, key):
                raise SettingsError(f"measure {measure!r} needs the key {key!r}")

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
    text = read_text(path, "grid")
    try:
        return parse_grid(parse_yaml(text), Path(path).expanduser().resolve().parent)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def read_text(path: str | Path, what: str) -> str:
    """The text of a file that is no larger than a grid can be."""
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise SettingsError(f"{path} is larger than a {what} can be ({_MOST_BYTES >> 20} MB)")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SettingsError(f"cannot read the {what} {path}: {reason}") from error


def parse_grid(data: Any, folder: Path) -> Grid:
    """A grid from the mapping that its file holds; its paths are taken from ``folder``.

    Raises
    ------
    SettingsError
    """
    if not isinstance(data, Mapping):
        raise SettingsError("a grid is a mapping of keys to values; give at least schedules, measure and prompts")
    if not data.get("schedules"):
        raise SettingsError("the key 'schedules' is missing; list plans such as d3:alpha=0.997 under it")
    values = {**data, "schedules": _schedules(data["schedules"])}
    for key in ("orders", "profiles"):
        if key in data:
            values[key] = [None if item == "none" else item for item in _listed(data[key])]
    grid = Grid.from_mapping(values)
    return dataclasses.replace(
        grid,
        schedules=tuple(_with_place(spec, folder) for spec in grid.schedules),
        profiles=tuple(p if p is None else from_folder(p, folder) for p in grid.profiles),
        prompts=tuple(_place(p, folder) for p in grid.prompts),
        model=tuple(_place(m, folder) if m.startswith((".", "/", "~")) else m for m in grid.model),
        data=None if grid.data is None else _place(grid.data, folder),
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _place(path: str, folder: Path) -> str:
    return str(folder / Path(path).expanduser())


def _with_place(spec: str, folder: Path) -> str:
    plan = PlanText.of(spec)
    return str(plan._replace(profile=from_folder(plan.profile, folder))) if plan.profile else spec


def parse_yaml(text: str) -> Any:
    """Plain values from YAML; no tags run code, and no key appears twice."""
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


def _schedules(value: Any) -> list[Any]:
    found: list[Any] = []
    for item in _listed(value):
        found += _combinations(item) if isinstance(item, Mapping) else [item]
    for spec in found:
        if isinstance(spec, str) and ".py" in PlanText.of(spec).schedule:
            raise SettingsError(
                f"key 'schedules': {spec!r} names a Python file, and a grid runs no code; "
                "make it a plug-in: depthsched new"
            )
    return found


def _combinations(item: Mapping[Any, Any]) -> list[str]:
    """``{d3: {alpha: [0.99, 0.995], start: 16}}`` as specs."""
    specs = []
    for name, settings in item.items():
        if not isinstance(name, str) or not isinstance(settings, Mapping | None):
            raise SettingsError(f"key 'schedules': write {{d3: {{alpha: [0.995, 0.997]}}}}, not {{{name}: {settings}}}")
        choices = {k: v if isinstance(v, list) else [v] for k, v in (settings or {}).items()}
        for picks in product(*choices.values()):
            if not all(isinstance(pick, str | int | float) for pick in picks):
                raise SettingsError(f"key 'schedules': a setting of {name} is neither a number nor text: {list(picks)}")
            text = ",".join(
                f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in zip(choices, picks, strict=True)
            )
            schedule, at, order = name.partition("@")
            specs.append(f"{schedule}{':' if text else ''}{text}{at}{order}")
    return specs
