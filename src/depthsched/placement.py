"""Models whose layers lie in several places: where accelerate puts them, and what a step moves to where it runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError
from .text import one_line

if TYPE_CHECKING:
    from .adapters import Adapter
    from .cost import ModelShape

DeviceMap = str | Mapping[str, str | int]


def read_device_map(text: str | None) -> DeviceMap | None:
    """What ``--device-map`` says: ``auto``, or a JSON file of modules and places.

    Raises
    ------
    ModelError
        No such file, or it holds something else.
    """
    if text is None or text == "auto":
        return text
    path = Path(text).expanduser()
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"--device-map {text} is neither auto nor a JSON file: {one_line(error)}") from error
    return checked_map(found)


def checked_map(device_map: Any) -> DeviceMap:
    """A device map that accelerate can follow.

    Raises
    ------
    ModelError
    """
    if device_map == "auto":
        return "auto"
    right = (
        isinstance(device_map, Mapping)
        and device_map
        and all(
            isinstance(name, str) and isinstance(place, str | int) and not isinstance(place, bool)
            for name, place in device_map.items()
        )
    )
    if not right:
        raise ModelError(
            "a device map is auto, or modules with their places, such as "
            '{"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}'
        )
    return dict(device_map)


def placing(
    device_map: DeviceMap | None, offload_folder: str | Path | None, *, device: str = "auto", weights: str = "auto"
) -> dict[str, Any]:
    """Arguments of transformers' ``from_pretrained`` for a placement; none where none is asked for.

    Raises
    ------
    ModelError
        An argument that nothing would follow, or places without what they need.
    """
    if device_map is None:
        if offload_folder is not None:
            raise ModelError("an offload folder is for layers on disk; give a device map too (--device-map auto)")
        return {}
    if device != "auto":
        raise ModelError(f"a device map says where each layer is; leave device {device!r} out")
    if weights == "native":
        raise ModelError("native weights lie mapped from their file already; a device map is for weights='dense'")
    found = checked_map(device_map)
    if isinstance(found, Mapping) and "disk" in found.values() and offload_folder is None:
        raise ModelError("the device map puts layers on disk; give an offload folder (--offload DIR)")
    if offload_folder is not None:
        folder = Path(offload_folder).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"the offload folder {folder} cannot be made: {one_line(error)}") from error
        return {"device_map": found, "offload_folder": str(folder)}
    return {"device_map": found}


def moved_shape(adapter: Adapter) -> ModelShape | None:
    """What a step moves from other memory or from disk, as a shape for the account of cost; None where nothing is.

    What a step moves of the embedding counts with the head. K and V are never moved and count nothing:
    ``plan.cost(moved_shape(adapter))`` is in bytes of moved weights.
    """
    layers = [_moved(layer) for layer in _layers(adapter)]
    norm: Any = getattr(adapter.decoder, "norm", None)
    ends = (adapter.model.get_input_embeddings(), norm, adapter.model.get_output_embeddings())
    head = sum(_moved(end) for end in ends if end is not None)
    if not any(layers) and not head:
        return None
    shape = adapter.shape()
    written = [[getattr(layer.self_attn, name, None) for name in ("k_proj", "v_proj")] for layer in _layers(adapter)]
    moved = [float(sum(_moved(part) for part in parts if part is not None)) for parts in written]
    return dataclasses.replace(
        shape, layer_bytes=tuple(map(float, layers)), head_bytes=float(head), kv_bytes=0, kv_weight_bytes=tuple(moved),
        weight_bytes=0,
    )  # fmt: skip


def offloads(module: Any) -> bool:
    """Whether an accelerate hook moves the module's weights to where it runs, each time that it runs."""
    hook = getattr(module, "_hf_hook", None)
    return any(getattr(one, "offload", False) for one in getattr(hook, "hooks", [hook]))


def _layers(adapter: Adapter) -> list[Any]:
    return list(adapter.layers._modules.values())


def _moved(module: Any) -> int:
    """Bytes that calling a module moves: those of its parts whose accelerate hook offloads."""
    weights: dict[int, int] = {}
    for part in filter(offloads, module.modules()):
        hook = part._hf_hook
        whole = any(getattr(one, "place_submodules", False) for one in getattr(hook, "hooks", [hook]))
        for inner in part.modules() if whole else [part]:
            weights |= {id(t): t.numel() * t.element_size() for t in inner._parameters.values() if t is not None}
    return sum(weights.values())
