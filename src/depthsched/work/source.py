"""A model by its name: what a worker loads, and what tells whether it is the same one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..environment import versions
from ..errors import ModelError

_NAME = "_depthsched_source"


class Source(NamedTuple):
    """What :func:`depthsched.load_model` was asked for."""

    model: str
    dtype: str
    device: str
    weights: str

    @classmethod
    def of(cls, model: Any) -> Source:
        """Where a model comes from.

        Raises
        ------
        ModelError
            It was not loaded whole by :func:`depthsched.load_model`, so that no worker can load it.
        """
        found = getattr(model, _NAME, None)
        if found is None:
            raise ModelError(
                "workers of a cluster load a model by its name, and this one has none: load it with "
                "ds.load_model(name), without ranks, device map and offloading"
            )
        return cls(*found)


def remember(model: Any, name: str, dtype: Any, device: Any, weights: str) -> None:
    """Keep with a model what it was loaded from; a path is made absolute, since workers stand elsewhere."""
    path = Path(name).expanduser()
    absolute = str(path.resolve()) if path.exists() else name
    setattr(model, _NAME, (absolute, str(dtype).removeprefix("torch."), str(device), weights))


def identity(model: Any) -> dict[str, str]:
    """What must be the same here and on a worker: weights, by a sample of them, their form, and packages."""
    from ..blocks.modules import weights_form
    from ..fingerprint import weights_digest

    packages = {name: version for name, version in versions().items() if name in ("depthsched", "torch")}
    return {"weights": f"{weights_digest(model)} {weights_form(model)}", **packages}
