"""The loaded library, one for the process."""

from __future__ import annotations

import _ctypes
import ctypes
import logging
import warnings
from ctypes import POINTER, c_float, c_int32, c_void_p
from dataclasses import dataclass
from typing import Any

from ..errors import DepthschedError, DepthschedWarning, ModelError
from ..text import one_line
from . import build
from .probe import wrong_product
from .structs import MatrixStruct, ModelStruct, PassStruct
from .toolchain import compiler

ABI = 3
_LOG = logging.getLogger("depthsched")


class Library:
    """The functions of ``engine.cpp``."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        try:
            self._bind(library)
        except BaseException:
            _ctypes.dlclose(library._handle)  # or loading a new file of this name would give the old one
            raise

    def _bind(self, library: ctypes.CDLL) -> None:
        self.run = _function(library, "depthsched_run", [POINTER(ModelStruct), POINTER(PassStruct), c_void_p], c_int32)
        matrix = POINTER(MatrixStruct)
        self.product = _function(library, "depthsched_product", [matrix, c_void_p, c_void_p, c_int32, c_int32])
        self.dense = _function(library, "depthsched_dense", [matrix, c_int32, c_int32, c_void_p, c_int32])
        self.new_scratch = _function(library, "depthsched_scratch", [], c_void_p)
        self.free = _function(library, "depthsched_free", [c_void_p])
        self.probe = _function(library, "depthsched_probe", [c_float], c_float)
        abi = _function(library, "depthsched_abi", [], c_int32)()
        if abi != ABI or self.probe(3.0) != 9.0:
            raise OSError(f"the library answers as version {abi}, not {ABI}")
        wrong = wrong_product(self)
        if wrong is not None:
            raise OSError(f"the library multiplies with {wrong} weights wrongly on this machine")


class Scratch:
    """Memory that passes reuse; freed with this object."""

    def __init__(self, library: Library) -> None:
        self._free, self.pointer = library.free, library.new_scratch()

    def __del__(self) -> None:
        self._free(self.pointer)


@dataclass
class _Process:
    """Compiled code is the same for every run of a process."""

    library: Library | None = None
    seconds: float = 0.0  # not told yet
    failure: str | None = None


_PROCESS = _Process()


def load() -> tuple[Library, float]:
    """The library, and the seconds that making it took, told once. Made where the cache folder has none that is good.

    Raises
    ------
    ModelError
        It cannot be compiled or loaded.
    SettingsError
        The cache folder cannot be written.
    """
    if _PROCESS.library is None:
        _PROCESS.library, _PROCESS.seconds = _load()
    seconds, _PROCESS.seconds = _PROCESS.seconds, 0.0
    return _PROCESS.library, seconds


def obstacle() -> str | None:
    """Why there is no library for this process, or None; makes it if need be, and warns once where it cannot."""
    if _PROCESS.library is None and _PROCESS.failure is None:
        try:
            _PROCESS.library, _PROCESS.seconds = _load()
        except DepthschedError as error:
            _PROCESS.failure = str(error)
            warnings.warn(f"decoding runs several times slower than it could: {error}", DepthschedWarning, stacklevel=2)
    return None if _PROCESS.library else _PROCESS.failure


def _load() -> tuple[Library, float]:
    if build.ready() is None and compiler() is not None:
        _LOG.warning(
            "compiling the decoder step, once on this machine: about %d s now, and every run is several times as fast",
            build.ABOUT_SECONDS,
        )
    built = build.build()
    try:
        return Library(str(built.path)), built.seconds
    except (OSError, AttributeError):  # whole, and still not what this machine loads: make it here
        again = build.build(again=True)
    try:
        return Library(str(again.path)), built.seconds + again.seconds
    except (OSError, AttributeError) as error:
        raise ModelError(f"cannot load the compiled decoder step: {one_line(error)}; use backend='eager'") from error


def _function(library: ctypes.CDLL, name: str, arguments: list[Any], result: Any = None) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = arguments, result
    return function
