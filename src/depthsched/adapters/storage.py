"""Bytes of weights as they lie in memory, whatever holds them: plain, quantised, shared or offloaded.

Knows the forms that quantised weights take, and none of the packages that make them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from torch import Tensor, nn

from ..parallel.shards import local

# Where bitsandbytes and HQQ keep scales and code books: on the weight, or on the module that owns it.
_BESIDE_WEIGHT = ("quant_state", "CB", "SCB")
_BESIDE_MODULE = ("quant_state", "state", "meta")
_Found = TypeVar("_Found")
_REMEMBERED: WeakKeyDictionary[nn.Module, tuple[Any, Any]] = WeakKeyDictionary()
_IN = ("in_features", "infeatures", "embedding_dim")
_OUT = ("out_features", "outfeatures", "num_embeddings")


def remembered(model: nn.Module, parts: Sequence[nn.Module], key: Any, make: Callable[[], _Found]) -> _Found:
    """What ``make`` found for a model, as long as the tensors of these parts stay what they are, and the key.

    What is stored is the same from one run to the next, and reading it out takes longer than some runs. ``key`` is what
    else it depends on.
    """
    known = [key]
    for part in parts:
        for module in part.modules():
            known += [id(vars(module).get(name)) for name in _BESIDE_MODULE]
            for t in (*module._parameters.values(), *module._buffers.values()):
                if t is not None:
                    known.append((id(t), type(t), t.dtype, t.shape, *(id(vars(t).get(n)) for n in _BESIDE_WEIGHT)))
    if model not in _REMEMBERED or _REMEMBERED[model][0] != known:
        _REMEMBERED[model] = known, make()
    found: _Found = _REMEMBERED[model][1]
    return found


def stored_bytes(*parts: nn.Module | Tensor) -> int:
    """Bytes that the weights of some modules and tensors take in memory.

    Parameters
    ----------
    *parts : nn.Module or torch.Tensor
        Of a module its parameters and persistent buffers count, with scales and code books kept beside them. A
        quantised tensor counts as the tensors it is made of, and one on the meta device by shape and dtype.

    Returns
    -------
    int
        Memory that several of them share counts once, a view as what it covers, an expanded tensor as what is stored.
    """
    seen: dict[int, Any] = {}
    covered: dict[int, list[np.ndarray]] = {}
    for part in parts:
        for tensor in _tensors(part, seen):
            covered.setdefault(_memory(tensor), []).append(_extents(tensor))
    return sum(_union(np.concatenate(extents)) for extents in covered.values())


def logical_weights(module: nn.Module) -> int:
    """Weights that a module stands for: a packed matrix counts ``in_features * out_features``, a shard what is here."""
    total, seen = 0, set[int]()
    for part in module.modules():
        own = {id(t): (name, t) for name, t in _own(part).items() if id(t) not in seen}
        seen.update(own)
        rows, columns = _first(part, _OUT), _first(part, _IN)
        if any(_packed(t) for _, t in own.values()) and rows and columns:
            total += rows * columns + sum(t.numel() for name, t in own.values() if name == "bias")
        else:
            total += sum(local(t).numel() for _, t in own.values())
    return total


def _own(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds of a module without its children."""
    buffers = {name: b for name, b in module._buffers.items() if name not in module._non_persistent_buffers_set}
    return {name: t for name, t in {**module._parameters, **buffers}.items() if t is not None}


def _packed(tensor: Tensor) -> bool:
    """Whether values are packed into integers; torchao's tensors say the dtype that they stand for."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def _first(module: nn.Module, names: tuple[str, ...]) -> int:
    return next((int(size) for name in names if isinstance(size := vars(module).get(name), int)), 0)


def _tensors(part: Any, seen: dict[int, Any]) -> Iterator[Tensor]:
    """The plain tensors inside a module, a tensor, or the object or mapping that describes a quantised one."""
    if id(part) in seen or isinstance(part, type):
        return
    seen[id(part)] = part  # kept, so that no other object gets its id
    if isinstance(part, nn.Module):
        for module in part.modules():
            own = list(_own(module).values())
            beside = [vars(module).get(name) for name in _BESIDE_MODULE] if any(map(_packed, own)) else []
            for value in (*own, *beside):
                yield from _tensors(value, seen)
    elif isinstance(part, Tensor):
        if hasattr(part, "__tensor_flatten__"):
            inner = [getattr(part, name) for name in part.__tensor_flatten__()[0]]
        else:
            inner = [vars(part).get(name) for name in _BESIDE_WEIGHT]
            yield part
        for value in inner:
            yield from _tensors(value, seen)
    elif isinstance(part, Mapping) or hasattr(part, "__dict__"):
        for value in list((part if isinstance(part, Mapping) else vars(part)).values()):
            yield from _tensors(value, seen)


def _memory(tensor: Tensor) -> int:
    """A key that tensors in the same memory share. The pointer to the data would be 0 for all on the meta device."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except RuntimeError:  # no storage of its own (sparse, opaque)
        return -id(tensor)


def _extents(tensor: Tensor) -> np.ndarray:
    """First and last byte + 1 of every run that a tensor covers in its memory, ``[runs, 2]``, int64."""
    try:
        start, strides = tensor.storage_offset(), tensor.stride()
    except RuntimeError:
        return np.array([[0, tensor.numel() * tensor.element_size()]])
    if tensor.numel() == 0:
        return np.zeros((0, 2), dtype=np.int64)
    run, starts = 1, np.array([start])
    for stride, size in sorted(zip(strides, tensor.shape, strict=True)):
        if stride <= run and len(starts) == 1:  # no gap between one run and the next
            run += stride * (size - 1)
        else:
            starts = np.add.outer(starts, stride * np.arange(size)).ravel()
    return np.stack([starts, starts + run], axis=-1) * tensor.element_size()


def _union(extents: np.ndarray) -> int:
    """Bytes that at least one of the extents covers."""
    if len(extents) == 0:
        return 0
    starts, ends = extents[extents[:, 0].argsort()].T
    reach = np.maximum.accumulate(ends)
    before = np.concatenate([starts[:1], reach[:-1]])
    return int((reach - np.maximum(starts, before)).sum())
