"""A lean one-token step for plain Llama-like layers: fused weights, static KV, compiled once per shape."""

from .compiled import LeanKernels, is_compiled, kernels_for
from .kv import BUCKET, StaticKV
from .weights import LeanModel, NotLean, lean_model

__all__ = ["BUCKET", "LeanKernels", "LeanModel", "NotLean", "StaticKV", "is_compiled", "kernels_for", "lean_model"]
