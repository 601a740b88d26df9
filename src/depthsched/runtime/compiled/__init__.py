"""A lean one-token step for plain Llama-like layers: fused weights, static KV, compiled once per shape of layer.

One decoded token is :mod:`.step`; :mod:`.kernels` compiles its functions, :mod:`.weights` and :mod:`.kv` hold its
tensors, :mod:`.engine` keeps them from one run to the next, :mod:`.backend` begins a run and :mod:`.graphs` replays
its steps from CUDA graphs.
"""

from .backend import CompiledBackend
from .engine import release
from .graphs import CudaGraphBackend
from .weights import fuse

__all__ = ["CompiledBackend", "CudaGraphBackend", "fuse", "release"]
