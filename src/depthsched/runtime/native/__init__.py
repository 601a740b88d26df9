"""The compiled backend on a CPU: one call of the C++ library per pass, on the model's weights where they lie.

:mod:`.step` is a run, :mod:`.model` and :mod:`.kv` describe its tensors, :mod:`.backend` begins it.
"""

from .backend import NativeBackend, native_obstacle

__all__ = ["NativeBackend", "native_obstacle"]
