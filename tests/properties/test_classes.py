"""A class that is not a frozen dataclass, or that hides a setting, is one line with its place and what to write."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import depthsched as ds
from depthsched.errors import SettingsError
from depthsched.plugins import parse_schedule
from depthsched.testing import check_order, check_schedule

HEAD = """from __future__ import annotations
import abc
import dataclasses
from dataclasses import dataclass
from typing import ClassVar
import typing
import depthsched as ds

"""
DECORATE = "write @dataclass(frozen=True) above it"

# The class body that is wrong ("BASE" stands for the base class), the line of what is wrong, words
WRONG = {
    "not frozen": ("@dataclass\nclass Mine(BASE):\n    x: int = 1\n", 1, "is not frozen; " + DECORATE),
    "frozen=False": ("@dataclass(frozen=False)\nclass Mine(BASE):\n    x: int\n", 1, "is not frozen; " + DECORATE),
    "not frozen, no field": ("@dataclasses.dataclass\nclass Mine(BASE):\n    pass\n", 1, "not frozen; " + DECORATE),
    "not frozen, slots": ("@dataclass(slots=True)\nclass Mine(BASE):\n    x: int = 1\n", 1, "frozen; " + DECORATE),
    "field with default": ("class Mine(BASE):\n    x: int = 1\n", 1, "has settings (x) and is not a dataclass; "),
    "field without default": ("\nclass Mine(BASE):\n    x: int\n    y: int\n", 2, "(x, y) and is not a dataclass; "),
    "declared setting": ("class Mine(BASE):\n    x = ds.setting(1, low=0)\n", 1, "has settings (x)"),
    "own init": ("class Mine(BASE):\n    def __init__(self, x, y=2.5): ...\n", 1, "such as x: float, y: float = 2.5"),
    "own init, typed": ("class Mine(BASE):\n    def __init__(self, x: int, *a, **k): ...\n", 1, "such as x: int"),
    "own init, nothing": ("class Mine(BASE):\n    def __init__(self): self.x = 1\n", 1, "has an __init__ of its own"),
    "below a dataclass": (
        "@dataclass(frozen=True)\nclass Good(BASE):\n    x: int = 1\nclass Mine(Good):\n    y: int = 1\n",
        4,
        "class Mine has settings (y)",
    ),
    "above a dataclass": (
        "class Bad(BASE):\n    y: int = 1\n@dataclass(frozen=True)\nclass Mine(Bad):\n    x: int = 1\n",
        1,
        "class Bad has settings (y)",
    ),
    "two below": (
        "class Bad(BASE):\n    y: int = 1\nclass Between(Bad):\n    pass\nclass Mine(Between):\n    pass\n",
        1,
        "class Bad has settings (y)",
    ),
    "hides a field": (
        "@dataclass(frozen=True)\nclass Good(BASE):\n    x: int = ds.setting(1, low=0)\n"
        "@dataclass(frozen=True)\nclass Mine(Good):\n    x = 5\n",
        4,
        "write x: int = ds.setting(5, low=0) under @dataclass(frozen=True)",
    ),
    "hides a field, no decorator": (
        "@dataclass(frozen=True)\nclass Good(BASE):\n    x: int = 1\nclass Mine(Good):\n    x = 5\n",
        4,
        "x has no type, so it does not change the setting x",
    ),
    "hides a field by a property": (
        "@dataclass(frozen=True)\nclass Good(BASE):\n    x: int = 1\n"
        "@dataclass(frozen=True)\nclass Mine(Good):\n    @property\n    def x(self): return 5\n",
        4,
        "write x: int = ds.setting(...)",
    ),
    "hides a field by a mixin": (
        "class Mixin:\n    x = 5\n@dataclass(frozen=True)\nclass Good(BASE):\n    x: int = 1\n"
        "@dataclass(frozen=True)\nclass Mine(Mixin, Good):\n    pass\n",
        1,
        "class Mixin: x has no type",
    ),
}
RIGHT = {
    "decorated": "@dataclass(frozen=True)\nclass Mine(BASE):\n    x: int = 1\n",
    "slots": "@dataclass(frozen=True, slots=True)\nclass Mine(BASE):\n    x: int = 1\n",
    "no field": "class Mine(BASE):\n    pass\n",
    "attribute without a type": "class Mine(BASE):\n    half_life = 64\n",
    "class variables": (
        "class Mine(BASE):\n    a: ClassVar[int] = 1\n    b: typing.ClassVar = 2\n    monotone = False\n"
    ),
    "only a check": "class Mine(BASE):\n    def __post_init__(self):\n        super().__post_init__()\n",
    "below a dataclass": (
        "@dataclass(frozen=True)\nclass Good(BASE):\n    x: int = 1\nclass Mine(Good):\n    name = 'mine'\n"
    ),
    "a new default": (
        "@dataclass(frozen=True)\nclass Good(BASE):\n    x: int = 1\n"
        "@dataclass(frozen=True)\nclass Mine(Good):\n    x: int = 5\n"
    ),
    "a mixin with types": (
        "class Mixin:\n    a: int = 1\n@dataclass(frozen=True)\nclass Mine(Mixin, BASE):\n    x: int = 1\n"
    ),
    "abstract": "@dataclass(frozen=True)\nclass Mine(BASE, abc.ABC):\n    x: int = 1\n",
}
METHODS = {
    "DepthSchedule": "    def depth(self, step, num_layers): return 3\n",
    "AdaptiveSchedule": "    def depth(self, step, num_layers): return 3\n",
    "LayerOrder": "    def rank(self, num_layers): return range(num_layers)\n",
}


def source(body: str, base: str) -> str:
    return HEAD + body.replace("BASE", f"ds.{base}") + METHODS[base]


def run(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The file as an import runs it."""
    monkeypatch.syspath_prepend(str(path.parent))
    importlib.invalidate_caches()
    return importlib.import_module(path.stem)


@pytest.mark.parametrize("base", METHODS)
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_class_is_one_line_wherever_it_comes_from(
    name: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    body, line, words = WRONG[name]
    path = tmp_path / f"wrong_{abs(hash(request.node.name))}.py"
    path.write_text(source(body, base))
    at = f"{path}, line {line + HEAD.count(chr(10))}: class "

    def refused(action: Any) -> None:
        with pytest.raises(SettingsError) as caught:
            action()
        message = str(caught.value)
        assert message.startswith(at), message
        assert words in message
        assert "@dataclass(frozen=True)" in message
        assert "\n" not in message

    if base != "LayerOrder":
        refused(lambda: parse_schedule(f"{path}:Mine"))
        refused(lambda: parse_schedule(f"{path}:Mine:x=1"))
        refused(lambda: check_schedule(f"{path}:Mine"))
    try:
        cls = run(path, monkeypatch).Mine
    except SettingsError:  # refused at the decorator, before there is a class
        refused(lambda: run(path, monkeypatch))
        return
    refused(lambda: cls())
    refused(lambda: cls(1))
    refused(lambda: cls(x=1))
    refused(lambda: cls.from_settings("x=1"))
    report = (check_order if base == "LayerOrder" else check_schedule)(cls, max_examples=3)
    assert at in report.failures[0].message
    assert words in report.failures[0].message


@pytest.mark.parametrize("base", METHODS)
@pytest.mark.parametrize("name", RIGHT)
def test_a_right_class_works(
    name: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    path = tmp_path / f"right_{abs(hash(request.node.name))}.py"
    path.write_text(source(RIGHT[name], base))
    made = run(path, monkeypatch).Mine()
    if base == "LayerOrder":
        assert ds.plan("full", made, num_layers=8, horizon=4).drop_order == tuple(range(8))
    else:
        assert ds.plan(made, "early-exit", num_layers=8, horizon=4).depths == (8, 3, 3, 3)


@pytest.mark.parametrize("setting", ["start", "min_depth"])
def test_a_setting_of_every_schedule_is_not_hidden_silently(setting: str) -> None:
    made = dataclass(frozen=True)(type("Hides", (ds.DepthSchedule,), {setting: 4, "depth": lambda self, s, n: 2}))
    with pytest.raises(SettingsError, match=rf"write {setting}: int.* = ds.setting\(4, low=[01], kw_only=True\)"):
        made()


def test_an_attribute_without_a_type_is_explained_when_it_is_set() -> None:
    class HalfLife(ds.DepthSchedule):
        half_life = 64

        def depth(self, step: Any, num_layers: int) -> Any:
            return num_layers * 0.5 ** (step / self.half_life)

    words = r"half_life has no type and so is not a setting; write half_life: int = 64 under @dataclass"
    for set_it in (lambda: HalfLife(half_life=3), lambda: HalfLife.from_settings("half_life=3")):  # type: ignore[call-arg]
        with pytest.raises(SettingsError, match=words):
            set_it()
    with pytest.raises(SettingsError, match="has no setting 'monotone'"):
        HalfLife.from_settings("monotone=false")
    with pytest.raises(TypeError, match="nosuch"):
        HalfLife(nosuch=3)  # type: ignore[call-arg]


def test_a_class_without_source_is_named_by_its_module() -> None:
    made: Any = type("Made", (ds.DepthSchedule,), {"__annotations__": {"x": int}, "__module__": "nowhere"})
    with pytest.raises(SettingsError, match=r"^module nowhere: class Made has settings"):
        made()


def test_what_a_file_raises_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "raises.py"
    path.write_text("import depthsched\n\n{}['nothing']\n")
    with pytest.raises(SettingsError, match=r"raises.py, line 3 cannot be run: KeyError: 'nothing'"):
        parse_schedule(f"{path}:Mine")


def test_what_a_class_raises_when_it_is_made_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "crashes.py"
    path.write_text(
        source("@dataclass(frozen=True)\nclass Mine(BASE):\n    x: int = 1\n", "DepthSchedule")
        + "    def __post_init__(self): {}[self.x]\n"
    )
    with pytest.raises(SettingsError, match=r"cannot be made from x=3: KeyError: 3"):
        parse_schedule(f"{path}:Mine:x=3")
