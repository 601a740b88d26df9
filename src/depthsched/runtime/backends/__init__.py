"""Backends: how a step is executed."""

from .base import Backend
from .choose import BACKENDS, make_backend
from .compiled import CompiledBackend
from .cuda_graph import CudaGraphBackend
from .eager import EagerBackend

__all__ = ["BACKENDS", "Backend", "CompiledBackend", "CudaGraphBackend", "EagerBackend", "make_backend"]
