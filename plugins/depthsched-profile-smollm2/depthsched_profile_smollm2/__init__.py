"""The profile ``smollm2`` for depthsched."""

from collections.abc import Callable
from pathlib import Path

import depthsched as ds

API = 1


@ds.hookimpl
def register_profiles(register: Callable[[str, Path], None]) -> None:
    """Offer the profile: ``--profile smollm2``."""
    register("smollm2", Path(__file__).parent / "data")
