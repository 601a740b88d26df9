"""The profiles ``smollm2`` and ``smollm2-copying`` for depthsched."""

from collections.abc import Callable
from pathlib import Path

import depthsched as ds

API = 1
FOLDERS = {"smollm2": "data", "smollm2-copying": "copying"}


@ds.hookimpl
def register_profiles(register: Callable[[str, Path], None]) -> None:
    """Offer the profiles: ``--profile smollm2``."""
    for name, folder in FOLDERS.items():
        register(name, Path(__file__).parent / folder)
