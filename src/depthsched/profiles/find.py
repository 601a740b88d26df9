"""From what somebody wrote for a profile to the profile: a folder, a registered name or a hub id."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from ..errors import DepthschedWarning, ProfileError
from ..plugins import Entry, registry
from ..profile import JSON_NAME, Profile
from ..settings import suggest

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w][\w./-]*)?", re.ASCII)
_PATH = re.compile(r"[./~\\]|[A-Za-z]:[\\/]")


def find_profile(place: str | Path) -> Profile:
    """A profile by its folder, its registered name or its hub id ``user/name[@revision]``, in this order.

    A text that looks like a path (it begins with ``.``, ``/`` or ``~``) is only ever a folder. Of the hub two files
    are read, of one commit, which :attr:`Profile.revision` keeps.

    Raises
    ------
    ProfileError
        There is none, or it is truncated, edited or of another format.
    """
    if isinstance(place, Path) or _is_path(place):
        return Profile.load(place)
    found = registry().profiles.get(place)
    if Path(place).is_dir():
        if found is not None:
            warnings.warn(_shadowed(place, found), DepthschedWarning, stacklevel=2)
        return Profile.load(place)
    if found is not None:
        return Profile.load(found.value).replace(source=place, revision=str(found.origin))
    if HUB_ID.fullmatch(place):
        from .hub import download

        return download(place)
    raise ProfileError(
        f"no profile in {place}: there is no such folder and no profile of this name{_known(place)}; "
        "give a folder that depthsched calibrate wrote, a name that depthsched list shows, or a hub id user/name"
    )


def from_folder(place: str, folder: Path) -> str:
    """A profile's text in a file of ``folder``: what is a path is taken from there, names and hub ids stay."""
    path = folder / Path(place).expanduser()
    elsewhere = place in registry().profiles or HUB_ID.fullmatch(place) is not None
    return place if elsewhere and not _is_path(place) and not path.is_dir() else str(path)


def _is_path(text: str) -> bool:
    return _PATH.match(text) is not None or text.endswith((os.sep, "/")) or (text.count("/") > 1 and "@" not in text)


def _shadowed(name: str, entry: Entry) -> str:
    return f"profile {name!r} is the folder of this name here, and not the one of {entry.origin}; rename the folder"


def _known(name: str) -> str:
    known = registry().profiles
    return f" ({suggest(name, known)})" if known else f" (no plug-in registers any; a profile has a {JSON_NAME})"
