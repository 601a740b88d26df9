"""What a result was made with: versions, the machine, and which programs are there."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import shutil
from typing import Any

from . import plugins

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
"""For pictures, tests and measurements of pages."""


@functools.cache
def installed(package: str) -> str | None:
    """The version of an installed distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Versions that a result should carry; ``missing`` for a package that is not installed."""
    packages = {name: installed(name) or "missing" for name in ("torch", "transformers", "numpy")}
    return {"depthsched": plugins.version(), "python": platform.python_version(), **packages}


def machine(device: Any = None) -> str:
    """The GPU of a CUDA ``torch.device``, and else the processor."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count() or 1}-core {platform.machine()} CPU"


def program(*names: str) -> str | None:
    """Where the first of some programs is that is installed."""
    return next(filter(None, map(shutil.which, names)), None)
