"""A Python file that somebody named: run once, and what goes wrong in it as one line with its place."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any

from .errors import DepthschedError, SettingsError
from .files import digest
from .text import one_line


def said(error: BaseException) -> str:
    """An error of a plug-in or a file on one line; ours names what to do, others need their type."""
    return str(error) if isinstance(error, DepthschedError) else f"{type(error).__name__}: {one_line(error)}"


def run_file(path: Path) -> Any:
    """The module of a file.

    Raises
    ------
    SettingsError
        No such file, or what it raised.
    """
    if not path.is_file():
        raise SettingsError(f"no such file: {path}; give path/to/file.py:Class:key=value,...")
    name = "depthsched_user_" + digest(str(path.resolve()), 12)
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise SettingsError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their module up while the file runs
    try:
        module_spec.loader.exec_module(module)
    except DepthschedError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else path
        raise SettingsError(f"{where} cannot be run: {said(error)}") from error
    return module
