"""The loaded library, one for the process."""

from __future__ import annotations

import ctypes
import logging
from ctypes import POINTER, c_float, c_int32, c_void_p
from typing import Any

from ..errors import ModelError
from ..text import one_line
from . import build
from .structs import MatrixStruct, ModelStruct, PassStruct

ABI = 1
_LOG = logging.getLogger("depthsched")
_LOADED: list[Library] = []  # compiled code, the same for every run


class Library:
    """The functions of ``engine.cpp``."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        self.run = _function(library, "depthsched_run", [POINTER(ModelStruct), POINTER(PassStruct), c_void_p])
        self.product = _function(
            library, "depthsched_product", [POINTER(MatrixStruct), c_void_p, c_void_p, c_int32, c_int32, c_void_p]
        )
        self.new_scratch = _function(library, "depthsched_scratch", [], c_void_p)
        self.free = _function(library, "depthsched_free", [c_void_p])
        self.probe = _function(library, "depthsched_probe", [c_float], c_float)
        abi = _function(library, "depthsched_abi", [], c_int32)()
        if abi != ABI or self.probe(3.0) != 9.0:
            raise OSError(f"the library answers as version {abi}, not {ABI}")


class Scratch:
    """Memory that passes reuse; freed with this object."""

    def __init__(self, library: Library) -> None:
        self._free, self.pointer = library.free, library.new_scratch()

    def __del__(self) -> None:
        self._free(self.pointer)


def load() -> tuple[Library, float]:
    """The library and the seconds that compiling took now. Compiles it where the cache folder has none that is good.

    Raises
    ------
    ModelError
        It cannot be compiled or loaded.
    """
    if _LOADED:
        return _LOADED[0], 0.0
    if build.ready() is None:
        _LOG.warning("compiling the decoder step for this CPU, once: seconds now, and every run is fast from then on")
    built = build.build()
    try:
        library = Library(str(built.path))
    except (OSError, AttributeError):  # whole, and still not what this machine loads: make it here
        built = build.build(again=True)
        try:
            library = Library(str(built.path))
        except (OSError, AttributeError) as error:
            raise ModelError(
                f"cannot load the compiled decoder step: {one_line(error)}; use backend='eager'"
            ) from error
    _LOADED.append(library)
    return library, built.seconds


def at_hand() -> bool:
    """Whether the library is loaded, or lies in the cache folder for this machine."""
    return bool(_LOADED) or build.ready() is not None


def _function(library: ctypes.CDLL, name: str, arguments: list[Any], result: Any = None) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = arguments, result
    return function
