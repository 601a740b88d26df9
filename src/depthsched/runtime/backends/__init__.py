"""Backends: how a step is executed."""

from .base import Backend
from .eager import EagerBackend

__all__ = ["Backend", "EagerBackend"]
