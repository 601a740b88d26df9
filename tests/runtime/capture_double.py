"""A stand-in for CUDA graphs: records what a function does to its tensors, replays it, and fails where a GPU would.

A CUDA graph is a list of kernels and the addresses they were launched with. Replaying it runs no Python, reads nothing
on the host and looks at no shape; memory that it allocated belongs to it and is written again by the next replay. The
double holds code to the same: it records torch's operations while the function runs, and repeats them on the same
tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

_HOST_CALLS = {
    *("cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__", "__array__"),
    *("nonzero", "argwhere", "masked_select", "unique", "tensor", "as_tensor", "from_numpy", "equal", "allclose"),
}
_HOST_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_INDEXED = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default}


class CaptureError(AssertionError):
    """What a CUDA graph cannot hold, or a replay of one with other tensors."""


@dataclass(frozen=True)
class _Made:
    """A tensor that the capture itself made, by the call that made it and its place in the result."""

    call: int
    place: int


@dataclass(frozen=True)
class _Input:
    number: int


@dataclass(frozen=True)
class _Outside:
    """A tensor that is no input: its memory must live, whatever became of the Python object."""

    storage: StorageWeakRef
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self) -> Tensor:
        storage = torch.UntypedStorage._new_with_weak_ptr(self.storage.cdata)
        if storage is None:
            raise CaptureError("a moved address: a tensor that the graph reads was freed since its capture")
        return torch.empty(0, dtype=self.dtype).set_(storage, self.offset, self.shape, self.stride)


@dataclass
class _Call:
    function: Callable[..., Any]
    leaves: list[Any]
    form: TreeSpec


def _places(result: Any) -> list[Tensor]:
    flat = result if isinstance(result, (tuple, list)) else [result]
    return [t for t in flat if isinstance(t, Tensor)]


class _HostReads(TorchFunctionMode):
    """Refuses calls that wait for the device, by name: on a CPU some of them reach no operation."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _HOST_CALLS:
            raise CaptureError(f"a host read inside a capture: {name}")
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Runs operations and writes them down; holds what they make only until the capture ends."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.inputs = inputs
        self.alive: list[Any] = []
        self.known: dict[int, _Made | _Input] = {id(t): _Input(i) for i, t in enumerate(inputs)}
        self.outside = {t.untyped_storage().data_ptr() for t in inputs}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.refuse(func, args)
        return self.call(func, args, kwargs or {})

    @staticmethod
    def refuse(func: Any, args: Any) -> None:
        if func in _INDEXED:
            if any(isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8) for t in args[1]):
                raise CaptureError(f"a host read inside a capture: {func} with a mask, whose length depends on data")
        elif _HOST_TAGS & set(func.tags):
            raise CaptureError(f"a host read inside a capture: {func}")

    def call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        leaves, form = tree_flatten((args, kwargs))
        kept = [self._reference(leaf) for leaf in leaves]
        result = function(*args, **kwargs)
        for place, tensor in enumerate(_places(result)):
            self.known.setdefault(id(tensor), _Made(len(self.calls), place))
            self.alive.append(tensor)
        self.calls.append(_Call(function, kept, form))
        return result

    def _reference(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in self.known:
            return self.known[id(value)]
        self.alive.append(value)  # or its id could be another's within this capture
        self.outside.add(value.untyped_storage().data_ptr())
        return _Outside(StorageWeakRef(value.untyped_storage()), value.storage_offset(), *_look(value))

    def allocations(self) -> dict[int, StorageWeakRef]:
        """Storages that the capture allocated, by the number of the call; forgets the tensors."""
        found: dict[int, StorageWeakRef] = {}
        for tensor in self.alive:
            where = self.known.get(id(tensor))
            if isinstance(where, _Made) and tensor.untyped_storage().data_ptr() not in self.outside:
                found[where.call] = StorageWeakRef(tensor.untyped_storage())
        self.alive, self.known = [], {}
        return found


def _look(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


@dataclass
class CaptureDouble:
    """Captures by recording. One for each device, as :class:`CudaCapture`; ``captures`` and ``replays`` are counted."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    captures: int = 0
    replays: int = 0

    def __call__(self, function: Callable[..., Any], *inputs: Tensor) -> Callable[..., None]:
        recorder = _Recorder(inputs)
        with _HostReads(), recorder:
            result = function(*inputs)
        del function
        made = recorder.allocations()
        for call, storage in made.items():
            if not storage.expired():
                raise CaptureError(
                    f"memory of the graph outlives the capture: what {recorder.calls[call].function} made is still held"
                )
        del result
        self.captures += 1
        return _Replay(self, recorder.calls, inputs)


class _Replay:
    def __init__(self, owner: CaptureDouble, calls: list[_Call], inputs: Sequence[Tensor]) -> None:
        self.owner, self.calls = owner, calls
        self.addresses = [t.data_ptr() for t in inputs]
        self.looks = [_look(t) for t in inputs]

    def __call__(self, *inputs: Tensor) -> None:
        assert len(inputs) == len(self.looks), "a graph is replayed with the tensors that it was captured with"
        for number, tensor in enumerate(inputs):
            if _look(tensor) != self.looks[number]:
                raise CaptureError(
                    f"a changed shape: input {number} was captured as {self.looks[number]} and is {_look(tensor)}"
                )
            if tensor.data_ptr() != self.addresses[number]:
                raise CaptureError(f"a moved address: input {number} lies elsewhere than when it was captured")
        made: dict[_Made, Tensor] = {}

        def value(reference: Any) -> Any:
            if isinstance(reference, _Input):
                return inputs[reference.number]
            if isinstance(reference, _Made):
                return made[reference]
            return reference.tensor() if isinstance(reference, _Outside) else reference

        for number, call in enumerate(self.calls):
            flat = iter([value(leaf) for leaf in call.leaves])
            args, kwargs = tree_unflatten(flat, call.form)
            for place, tensor in enumerate(_places(call.function(*args, **kwargs))):
                made[_Made(number, place)] = tensor
        self.owner.replays += 1


def opaque(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled kernel as one operation of the double: what it launches does not pass through torch's dispatcher."""

    def run(*inputs: Tensor) -> Any:
        with _disable_current_modes():
            return kernel(*inputs)

    def call(*inputs: Tensor) -> Any:
        recorder = next((m for m in _active() if isinstance(m, _Recorder)), None)
        return run(*inputs) if recorder is None else recorder.call(run, inputs, {})

    return call


def _active() -> list[Any]:
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    return list(_get_current_dispatch_mode_stack())
