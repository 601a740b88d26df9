"""Files that are there whole or not at all, digests of what they hold, and the folder of cached files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from pathlib import Path
from typing import Any

from .errors import SettingsError

CACHE = "DEPTHSCHED_CACHE"


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also when the power fails. Makes its folder."""
    if path.exists() and not path.is_file():  # a pipe or a device, which nothing can be moved onto
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".writing-{path.stem}-{secrets.token_hex(6)}")
    try:
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or the name could reach the disk before the content
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any, *, indent: int | None = None) -> None:
    """:func:`write_atomic` of a JSON value."""
    write_atomic(path, json.dumps(data, indent=indent).encode())


def write_figure(path: Path, figure: Any, dpi: int = 120) -> None:
    """Write a Matplotlib figure as a PNG file.

    Raises
    ------
    SettingsError
        The file cannot be written.
    """
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    try:
        path.parent.stat()  # a folder that is not there is a slip of the pen, and not to be made
        write_atomic(path, content.getvalue())
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from error


def digest(content: str | bytes, chars: int = 16) -> str:
    """The first ``chars`` hexadecimal digits, 64 at most, of the SHA-256 of a text or of bytes."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:chars]


def json_digest(value: Any, chars: int = 16) -> str:
    """:func:`digest` of a JSON value, whatever the order of its keys."""
    return digest(json.dumps(value, sort_keys=True), chars)


def writable_folder(folder: Path, advice: str) -> Path:
    """The folder, made if it is not there.

    Raises
    ------
    SettingsError
        It cannot be made or written; the message ends in the advice.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "no permission to write there"
    except OSError as error:
        reason = error.strerror
    if reason:
        raise SettingsError(f"cannot write to the folder {folder}: {reason}; {advice}")
    return folder


def cache_dir() -> Path:
    """Where converted models and cached answers are kept: ``$DEPTHSCHED_CACHE``, or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get(CACHE) or platformdirs.user_cache_dir("depthsched", appauthor=False))


def cache_folder(*names: str) -> Path:
    """A folder inside :func:`cache_dir`, made if it is not there.

    Raises
    ------
    SettingsError
        It cannot be made or written.
    """
    return writable_folder(cache_dir().joinpath(*names), f"set {CACHE} to a folder that can be written")
