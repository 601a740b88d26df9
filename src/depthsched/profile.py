"""What calibration found for one model: order, bridges, schedule, evidence. No torch until tensors are asked for."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .damage import DamageTable
from .errors import ProfileError
from .files import digest, json_digest, write_atomic
from .fingerprint import ModelIdentity
from .text import one_line, visible

if TYPE_CHECKING:
    from .bridge import Bridges

FORMAT = 1
JSON_NAME, TENSORS_NAME = "profile.json", "bridges.safetensors"
DTYPES = {"float32": "float", "bfloat16": "bfloat16", "float16": "half"}
"""Types that bridges are stored in, and the method of a tensor that makes each."""
_PLACE = ("folder", "source", "revision")  # where it was found, which is no part of what it says


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, *version: int) -> str:
    """Checksum of a file; read once for each version of it, since every run with a profile asks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Profile:
    """A calibrated profile: ``profile.json`` and ``bridges.safetensors`` in one folder.

    Attributes
    ----------
    model : ModelIdentity
        The model that it is for.
    drop_order : tuple of int
        Droppable layers, first dropped first.
    schedule : str or None
        The schedule that met the target of the calibration.
    data : mapping
        ``sha256`` of the samples, the number of ``prompts``, and of decode steps that bridges were fitted on.
    seed, options, versions
        Of the calibration, and of the packages that made it.
    evidence : mapping
        What the calibration measured.
    drafting : mapping
        What a calibration for drafts found: ``depth``, ``draft_tokens``, ``acceptance``, predicted ``speedup`` and the
        costs that these assume. Empty after any other calibration.
    damage : DamageTable or None
        What each depth costs at each place of an answer; None in profiles for drafting, and in older ones.
    bridged : mapping
        Depth -> the layers whose input is bridged there.
    tensors_bytes, tensors_sha256
        Size and checksum of ``bridges.safetensors``; :meth:`save` sets them.
    folder : Path
        Where it lies; :meth:`load` and :meth:`save` set it.
    source, revision : str
        How it was found, where that was no folder: a registered name and its plug-in, or a hub id and its commit.
    """

    model: ModelIdentity
    drop_order: tuple[int, ...]
    schedule: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    drafting: Mapping[str, Any] = field(default_factory=dict)
    damage: DamageTable | None = None
    bridged: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    tensors_bytes: int = 0
    tensors_sha256: str = ""
    folder: Path = Path()
    source: str = ""
    revision: str = ""

    @classmethod
    def load(cls, folder: str | Path) -> Profile:
        """Read a profile and check that it is whole and unedited.

        Raises
        ------
        ProfileError
            No profile there, another format, or a truncated or edited file.
        """
        path = Path(folder).expanduser()
        file = path / JSON_NAME
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            written = content.pop("checksum")
        except FileNotFoundError:
            raise ProfileError(
                f"no profile in {folder}: it has no {JSON_NAME}; write one: depthsched calibrate"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProfileError(f"{file} is truncated or not a profile; calibrate again ({error})") from error
        if content.get("format") != FORMAT:
            raise ProfileError(
                f"{path} has profile format {visible(content.get('format'))}, this version reads {FORMAT}"
            )
        if checksum(content) != written:
            raise ProfileError(f"{file} was edited: its checksum differs; calibrate again")
        try:
            profile = cls._from_json(content, path)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProfileError(f"{file} is not a whole profile; calibrate again ({error!r})") from error
        profile._check_tensors()
        return profile

    @classmethod
    def _from_json(cls, content: Mapping[str, Any], folder: Path) -> Profile:
        model = content["model"]
        index = sorted((int(depth), tuple(layers)) for depth, layers in content["bridges"].items())
        names = {f.name for f in dataclasses.fields(cls)} - {"model", "drop_order", "damage", "bridged", *_PLACE}
        return cls(
            model=ModelIdentity(**{**model, "weights": tuple(model["weights"])}),
            drop_order=tuple(content["drop_order"]),
            damage=DamageTable.from_json(content["damage"]) if "damage" in content else None,
            bridged=dict(index),
            folder=folder,
            **{name: content[name] for name in names & set(content)},
        )

    def _check_tensors(self) -> None:
        path = self.folder / TENSORS_NAME
        try:
            stat = path.stat()
            if stat.st_size != self.tensors_bytes:
                raise ProfileError(f"{path} is truncated: {stat.st_size} of {self.tensors_bytes} bytes")
            if _sha256(path.absolute(), stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) != self.tensors_sha256:
                raise ProfileError(f"{path} was edited: its checksum differs; calibrate again")
        except OSError:
            raise ProfileError(f"{path} is missing; copy the whole folder, or calibrate again") from None

    def to_json(self) -> dict[str, Any]:
        """What ``profile.json`` holds, without its checksum."""
        values = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("damage", "bridged", *_PLACE)
        }
        bridges = {str(depth): list(layers) for depth, layers in self.bridged.items()}
        if not self.drafting:  # as in 0.1.0
            del values["drafting"]
        if self.damage:
            values["damage"] = self.damage.to_json()
        tensors = {name: values.pop(name) for name in ("tensors_bytes", "tensors_sha256")}
        whole = {"format": FORMAT, **values, "model": dataclasses.asdict(self.model), "bridges": bridges, **tensors}
        return dict(json.loads(json.dumps(whole)))  # what a reader will see: lists for tuples, words for keys

    @property
    def content(self) -> dict[str, Any]:
        """:meth:`to_json`, under its name in 0.1.0."""
        return self.to_json()

    def replace(self, **changes: Any) -> Profile:
        """A copy with other values in some fields."""
        return dataclasses.replace(self, **changes)

    def save(self, folder: str | Path, bridges: Bridges | None = None, dtype: str = "float32") -> Profile:
        """Write this profile and read it back. ``profile.json`` comes last: an interruption leaves no valid profile.

        Parameters
        ----------
        folder : str or Path
        bridges : mapping, optional
            Depth -> layer -> bridge. Left out, the profile keeps the bridges it has, and the tensors are written only
            where ``folder`` is another one.
        dtype : str
            What tensors are stored in when they are written: float32, bfloat16 or float16.
        """
        from safetensors.torch import save

        path = Path(folder).expanduser()
        made = self
        if bridges is None and (path.resolve() != self.folder.resolve() or not self.tensors_sha256):
            bridges = self.bridges(self.depths)
        if bridges is not None:
            tensors = {
                f"{depth}.{layer}.{name}": getattr(getattr(bridge, name).cpu().contiguous(), DTYPES[dtype])()
                for depth, row in bridges.items()
                for layer, bridge in row.items()
                for name in ("weight", "bias")
            }
            data = save(tensors)
            write_atomic(path / TENSORS_NAME, data)
            made = self.replace(
                bridged={depth: tuple(sorted(row)) for depth, row in bridges.items()},
                tensors_bytes=len(data),
                tensors_sha256=digest(data, 64),
            )
        content = made.to_json()
        write_atomic(path / JSON_NAME, json.dumps({**content, "checksum": checksum(content)}, indent=1).encode())
        return Profile.load(path)

    def _repr_html_(self) -> str:
        from .display.views import profile_html

        return profile_html(self)

    @property
    def place(self) -> str:
        """A text that leads to this profile again: its name, its hub id with the commit, or its folder."""
        return self.source or str(self.folder)

    @property
    def label(self) -> str:
        """For people: its name or hub id, or the name of its folder."""
        return self.source or self.folder.name

    @property
    def num_layers(self) -> int:
        """Decoder layers of the model."""
        return self.model.num_layers

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths that have bridges."""
        return tuple(sorted(self.bridged))

    @property
    def digest(self) -> str:
        """A stable hash of what plans take from it: order, bridges, and the damage table where there is one."""
        damage = [self.damage.to_json()] if self.damage else []
        return digest(json.dumps([self.drop_order, self.tensors_sha256, *damage]))

    def bridge_params(self, depth: int) -> int:
        """Weights that the bridges of a depth add to one step."""
        hidden = self.model.hidden_size
        return len(self.bridged.get(depth, ())) * hidden * (hidden + 1)

    def bridges(self, depths: Iterable[int]) -> Bridges:
        """Depth -> layer -> bridge, float32 on the CPU, of those of the depths that have any. Reads no others."""
        wanted = sorted(set(depths) & set(self.bridged))
        if not wanted:
            return {}
        from safetensors import SafetensorError, safe_open

        from .bridge import Bridge

        hidden = self.model.hidden_size
        shapes = {"weight": (hidden, hidden), "bias": (hidden,)}
        path = self.folder / TENSORS_NAME
        try:
            with safe_open(path, framework="pt") as file:
                names = set(file.keys())

                def read(depth: int, layer: int, part: str) -> Any:
                    name = f"{depth}.{layer}.{part}"
                    found = file.get_tensor(name).float() if name in names else None
                    if found is None or tuple(found.shape) != shapes[part]:
                        raise ProfileError(f"{path} has no tensor {name} of shape {shapes[part]}")
                    return found

                return {
                    depth: {at: Bridge(*(read(depth, at, part) for part in shapes)) for at in self.bridged[depth]}
                    for depth in wanted
                }
        except SafetensorError as error:
            raise ProfileError(f"{path} is not a safetensors file: {one_line(error)}") from error

    def check_model(self, model: Any) -> None:
        """Raise unless this profile was calibrated for this model.

        Raises
        ------
        ProfileError
            Another configuration, or other weights.
        """
        if differs := self.model.difference(model):
            raise ProfileError(f"the profile in {self.place} is for model {self.model.name!r}, whose {differs}")


def checksum(content: Mapping[str, Any]) -> str:
    """Hash of a profile's JSON."""
    return json_digest(content, 64)
