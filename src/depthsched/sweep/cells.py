"""One cell of a sweep: a plan, a measure and everything that decides the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..files import json_digest
from ..planspec import PlanText

FORMAT = 1


@dataclass(frozen=True)
class Cell:
    """One measurement of one plan.

    Attributes
    ----------
    measure : str
        ``score``, ``bench`` or ``eval``.
    model, dtype, device, weights : str
        As :func:`depthsched.load_model` takes them.
    plan : str
        The whole plan as text, with its settings written out.
    label : str
        The plan as its author wrote it, for people to read.
    options : mapping
        What else decides the result, such as ``limit`` or ``backend``.
    paths : mapping
        Files and folders it reads, such as ``prompts``.
    digests : mapping
        Hashes of what these files hold, and of the profile. The names of files do not matter, their content does.
    """

    measure: str
    model: str
    dtype: str
    device: str
    weights: str
    plan: str
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def plan_key(self) -> str:
        """The plan without the place of its profile: equal for equal plans, wherever their files lie."""
        plan = PlanText.of(self.plan)._replace(profile="")
        return f"{plan}+{self.digests.get('profile', '')}".rstrip("+")

    @property
    def id(self) -> str:
        """Hash of everything that decides the result: the name of the cell's file."""
        inputs = {name: digest for name, digest in self.digests.items() if name != "profile"}
        content = [FORMAT, self.measure, self.model, self.dtype, self.device, self.plan_key, self.options, inputs]
        # Without the word the weights are dense, as they all were in 0.1.0, whose results stay what they are.
        return json_digest(content if self.weights == "dense" else [*content, self.weights])

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        """Read a cell back, of 0.1.0 too."""
        return cls(**{"weights": "dense", **data})
