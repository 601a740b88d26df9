"""What a gallery measures: a YAML file, and the data that the command line names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import SettingsError
from ..planspec import PlanText
from ..settings import Settings, setting
from ..sweep.grid import parse_yaml, read_text


@dataclass(frozen=True)
class Gallery(Settings):
    """What a gallery file says. Every key that is a tuple here takes one value or a list.

    Attributes
    ----------
    schedules : tuple of str
        A family, such as ``d3:start=32``, is solved for each budget; a schedule with all its settings is measured as it
        is, and so is one with an order or a profile of its own only there.
    budgets : tuple of float
        Savings in bytes over the scored answers.
    orders : tuple of str
        Orders without a profile. Profiles are named on the command line and bring their own.
    bridges : tuple of bool
        Whether the orders of profiles are measured with their bridges, without, or both.
    model, dtype : str
    limit, max_new_tokens : int
        Prompts, and length of the answers.
    tasks, task_limit : tuple of str, int
        What ``--tasks`` measures too.
    """

    name: ClassVar[str] = ""
    kind: ClassVar[str] = "gallery"

    schedules: tuple[str, ...] = setting()
    budgets: tuple[float, ...] = setting((1.1, 1.25, 1.5), low=1, low_open=True, high=100)
    orders: tuple[str, ...] = ("middle-out",)
    bridges: tuple[bool, ...] = (True, False)
    model: str = "smollm2"
    dtype: str = "float32"
    limit: int = setting(24, low=2)
    max_new_tokens: int = setting(128, low=2)
    tasks: tuple[str, ...] = ()
    task_limit: int = setting(100, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for spec in self.schedules:
            if ".py" in PlanText.of(spec).schedule:
                raise SettingsError(
                    f"key 'schedules': {spec!r} names a Python file, and a gallery file runs no code; "
                    "add it by hand: depthsched gallery add"
                )

    def to_json(self) -> dict[str, Any]:
        """A JSON object; what is empty is left out, as in a file."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value != ()}


@dataclass(frozen=True)
class Inputs:
    """The data of a gallery, which the command line names.

    Attributes
    ----------
    prompts : str
    profiles : tuple of str
        Folders of profiles; each is a group of rows with its own order.
    data : str or None
        Of tasks; None measures none.
    """

    prompts: str
    profiles: tuple[str, ...] = ()
    data: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Inputs:
        """Read inputs back."""
        return cls(**{**data, "profiles": tuple(data["profiles"])})


def read_gallery(path: str | Path, limit: int | None = None) -> Gallery:
    """Read a gallery file: YAML that runs no code.

    Raises
    ------
    SettingsError
        No such file, not YAML, or a key or value that is wrong; the message names it.
    """
    try:
        found = Gallery.from_mapping(parse_yaml(read_text(path, "gallery file")))
    except SettingsError as error:
        raise SettingsError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    return found if limit is None else dataclasses.replace(found, limit=limit)
