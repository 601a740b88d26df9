"""What a gallery keeps in its folder, and the cells of a sweep that measure its plans."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cost import ModelShape
from ..errors import SettingsError
from ..files import write_json
from ..planspec import PlanSpec, PlanText
from ..sweep import Cell
from ..sweep.expand import digest_file, digest_folder, digest_model
from .entries import Answers, Entry
from .file import Gallery, Inputs

STATE = "gallery.json"


@dataclass(frozen=True)
class State:
    """What ``gallery.json`` holds."""

    gallery: Gallery
    inputs: Inputs
    answers: Answers
    entries: tuple[Entry, ...]

    def save(self, folder: Path) -> None:
        content = {
            "gallery": self.gallery.to_json(),
            "inputs": self.inputs.to_json(),
            "answers": {"shape": vars(self.answers.shape), "lengths": self.answers.lengths,
                        "horizon": self.answers.horizon},
            "entries": [entry.to_json() for entry in self.entries],
        }  # fmt: skip
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / STATE, content, indent=1)
        except OSError as error:
            raise SettingsError(f"cannot write the gallery to {folder}: {error.strerror}") from error

    @classmethod
    def load(cls, folder: Path) -> State:
        try:
            data = json.loads((folder / STATE).read_text(encoding="utf-8"))
            lengths = tuple((prompt, steps) for prompt, steps in data["answers"]["lengths"])
            return cls(
                Gallery.from_mapping(data["gallery"]),
                Inputs.from_json(data["inputs"]),
                Answers(ModelShape.from_json(data["answers"]["shape"]), lengths, data["answers"]["horizon"]),
                tuple(map(Entry.from_json, data["entries"])),
            )
        except FileNotFoundError:
            raise SettingsError(
                f"no gallery in {folder}: it has no {STATE}; make one: depthsched gallery run FILE --out DIR"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(f"{folder / STATE} cannot be read ({error!r}); run the gallery again") from error


class Cells:
    """The cells of a gallery's plans. What their files hold is read once."""

    def __init__(self, state: State) -> None:
        self.gallery, self.inputs = state.gallery, state.inputs
        prompts, data = Path(state.inputs.prompts), state.inputs.data
        self.model = digest_model(Path(state.gallery.model))
        self.prompts = {"prompts": digest_file("prompts", prompts)}
        self.data = {"data": digest_folder(Path(data))} if data is not None and state.gallery.tasks else {}

    def of(self, plan: str) -> list[Cell]:
        """Everything that is measured of a plan."""
        return [self.score(plan), *self.tasks(plan)]

    def score(self, plan: str) -> Cell:
        """Teacher-forced quality."""
        gallery = self.gallery
        options = {"limit": gallery.limit, "max_new_tokens": gallery.max_new_tokens, "raw": False, "maps": 0}
        return self._cell("score", plan, options, {"prompts": self.inputs.prompts}, self.prompts)

    def tasks(self, plan: str) -> list[Cell]:
        """The tasks of the file, where data was named."""
        if self.inputs.data is None:
            return []
        common = {"limit": self.gallery.task_limit, "max_new_tokens": None, "backend": "auto", "batch": 8}
        place = {"data": self.inputs.data}
        return [self._cell("eval", plan, {"task": t, **common}, place, self.data) for t in self.gallery.tasks]

    def _cell(
        self, measure: str, plan: str, options: Mapping[str, Any], paths: Mapping[str, str], digests: Mapping[str, str]
    ) -> Cell:
        spec, gallery = PlanSpec.parse(plan), self.gallery
        profile = {"profile": spec.profile.digest} if spec.profile else {}
        whole = {**digests, **self.model, **profile}
        text = PlanText.of(plan)
        for name, part in (("schedule", text.schedule), ("order", text.order)):
            if ".py:" in part:  # what the code says may change while its name stays
                whole[name] = digest_file(name, Path(part.partition(".py:")[0] + ".py").expanduser())
        label = str(text._replace(profile=Path(text.profile).name))
        return Cell(measure, gallery.model, gallery.dtype, "auto", "auto", str(spec), label, options, paths, whole)
