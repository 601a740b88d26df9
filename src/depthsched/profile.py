"""What calibration found for one model: order, bridges, schedule, evidence. No torch until tensors are asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ProfileError
from .files import digest, json_digest, write_atomic

if TYPE_CHECKING:
    from .bridge import Bridges

FORMAT = 1
JSON_NAME, TENSORS_NAME = "profile.json", "bridges.safetensors"
_SAMPLES = 512
_VOLATILE = ("transformers_version", "dtype", "torch_dtype", "_name_or_path", "_attn_implementation", "architectures")


@dataclass(frozen=True, eq=False)
class Profile:
    """A calibrated profile in a folder: ``profile.json`` and ``bridges.safetensors``.

    Attributes
    ----------
    folder : Path
    content : mapping
        What ``profile.json`` says: model, order, bridges, data, seed, versions, evidence, checksums.
    """

    folder: Path
    content: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Profile:
        """Read a profile and check that it is whole and unedited.

        Raises
        ------
        ProfileError
            No profile there, another format, or a truncated or edited file.
        """
        path = Path(folder).expanduser()
        try:
            content = json.loads((path / JSON_NAME).read_text(encoding="utf-8"))
            written = content.pop("checksum")
        except FileNotFoundError:
            raise ProfileError(
                f"no profile in {folder}: it has no {JSON_NAME}; write one: depthsched calibrate"
            ) from None
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise ProfileError(
                f"{path / JSON_NAME} is truncated or not a profile; calibrate again ({error})"
            ) from error
        if content.get("format") != FORMAT:
            raise ProfileError(f"{path} has profile format {content.get('format')}, this version reads {FORMAT}")
        if checksum(content) != written:
            raise ProfileError(f"{path / JSON_NAME} was edited: its checksum differs; calibrate again")
        profile = cls(path, content)
        profile._check_tensors()
        return profile

    def _check_tensors(self) -> None:
        file = self.folder / TENSORS_NAME
        try:
            data = file.read_bytes()
        except OSError:
            raise ProfileError(f"{file} is missing; copy the whole folder, or calibrate again") from None
        if len(data) != self.content["tensors_bytes"]:
            raise ProfileError(f"{file} is truncated: {len(data)} of {self.content['tensors_bytes']} bytes")
        if digest(data, 64) != self.content["tensors_sha256"]:
            raise ProfileError(f"{file} was edited: its checksum differs; calibrate again")

    @property
    def drop_order(self) -> tuple[int, ...]:
        """Droppable layers, first dropped first."""
        return tuple(self.content["drop_order"])

    @property
    def num_layers(self) -> int:
        """Decoder layers of the model."""
        return int(self.content["model"]["num_layers"])

    @property
    def schedule(self) -> str | None:
        """The schedule that met the target of the calibration."""
        spec = self.content.get("schedule")
        return None if spec is None else str(spec)

    @property
    def digest(self) -> str:
        """A stable hash of order and bridges."""
        return digest(json.dumps([self.content["drop_order"], self.content["tensors_sha256"]]))

    def bridge_params(self, depth: int) -> int:
        """Weights that the bridges of a depth add to one step."""
        hidden = int(self.content["model"]["hidden_size"])
        return len(self.content["bridges"].get(str(depth), ())) * hidden * (hidden + 1)

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths that have bridges."""
        return tuple(sorted(map(int, self.content["bridges"])))

    def bridges(self, depths: Iterable[int]) -> Bridges:
        """Depth -> layer -> bridge, float32 on the CPU, of those of the depths that have any. Reads no others."""
        from safetensors import safe_open

        from .bridge import Bridge

        with safe_open(self.folder / TENSORS_NAME, framework="pt") as file:
            return {
                depth: {
                    layer: Bridge(*(file.get_tensor(f"{depth}.{layer}.{part}") for part in ("weight", "bias")))
                    for layer in self.content["bridges"][str(depth)]
                }
                for depth in sorted(set(depths) & set(self.depths))
            }

    def check_model(self, model: Any) -> None:
        """Raise unless this profile was calibrated for this model.

        Raises
        ------
        ProfileError
            Another configuration, or other weights.
        """
        name = self.content["model"]["name"]
        if config_digest(model) != self.content["model"]["config"]:
            raise ProfileError(f"the profile in {self.folder} is for model {name!r}, whose configuration differs")
        ours, theirs = weights_sample(model), self.content["model"]["weights"]
        # A weight rounds by at most 2**-8 of itself when a model is loaded in bfloat16.
        if len(ours) != len(theirs) or not all(
            math.isclose(a, b, rel_tol=2**-7, abs_tol=1e-6) for a, b in zip(ours, theirs, strict=True)
        ):
            raise ProfileError(f"the profile in {self.folder} is for model {name!r}, whose weights differ")


def save_profile(folder: str | Path, content: Mapping[str, Any], bridges: Bridges) -> Profile:
    """Write a profile; ``profile.json`` comes last, so that an interruption leaves no valid one."""
    from safetensors.torch import save

    tensors = {
        f"{depth}.{layer}.{name}": getattr(bridge, name).float().cpu().contiguous()
        for depth, row in bridges.items()
        for layer, bridge in row.items()
        for name in ("weight", "bias")
    }
    data = save(tensors)
    whole = {
        "format": FORMAT,
        **content,
        "bridges": {str(depth): sorted(row) for depth, row in bridges.items()},
        "tensors_bytes": len(data),
        "tensors_sha256": digest(data, 64),
    }
    whole = json.loads(json.dumps(whole))  # what a reader will see, so that its checksum is the same
    path = Path(folder).expanduser()
    write_atomic(path / TENSORS_NAME, data)
    text = json.dumps({**whole, "checksum": checksum(whole)}, indent=1)
    write_atomic(path / JSON_NAME, text.encode())
    return Profile.load(path)


def model_identity(model: Any, name: str) -> dict[str, Any]:
    """What a profile records to know its model again."""
    config = model.config.get_text_config(decoder=True)
    return {
        "name": name,
        "num_layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "config": config_digest(model),
        "weights": weights_sample(model),
    }


def config_digest(model: Any) -> str:
    """Hash of a model's configuration, without what a save or a load changes."""
    config = {k: v for k, v in model.config.get_text_config(decoder=True).to_dict().items() if k not in _VOLATILE}
    return digest(json.dumps(config, sort_keys=True, default=str))


def weights_sample(model: Any) -> list[float]:
    """A few weights of every matrix of the model, spread evenly, in the order of their names."""
    tied = getattr(model, "all_tied_weights_keys", {})  # offloaded ones are no longer the same parameter
    matrices = [(n, p) for n, p in sorted(model.named_parameters()) if p.dim() == 2 and not (p.is_meta and n in tied)]
    each = max(_SAMPLES // max(len(matrices), 1), 2)
    sample: list[float] = []
    for name, weight in matrices:
        flat = _values(model, name, weight).detach().reshape(-1)
        stride = max(flat.numel() // each, 1)
        # An odd offset, so that the sample is not all from one column.
        sample += flat[stride // 3 :: stride][:each].float().tolist()
    return sample


def _values(model: Any, name: str, weight: Any) -> Any:
    """A weight as a plain tensor: read from where accelerate offloaded it, and dequantised where that is needed."""
    if weight.is_meta:
        owner, _, key = name.rpartition(".")
        hook = getattr(model.get_submodule(owner), "_hf_hook", None)
        maps = [getattr(one, "weights_map", None) for one in getattr(hook, "hooks", [hook])]
        if not any(maps):
            raise ProfileError(f"weight {name} is on the meta device and was never loaded; load the model's weights")
        weight = next(held for held in maps if held)[key]
    return weight.dequantize() if hasattr(weight, "__tensor_flatten__") else weight


def weights_digest(model: Any) -> str:
    """Hash of :func:`weights_sample` and the configuration; differs between dtypes."""
    return digest(config_digest(model) + json.dumps(weights_sample(model)))


def checksum(content: Mapping[str, Any]) -> str:
    """Hash of a profile's JSON."""
    return json_digest(content, 64)
