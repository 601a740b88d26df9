"""Whether a plug-in was written for this depthsched."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from .errors import PluginError
from .hookspecs import API, PROJECT

SOURCE = "0+source"
"""The version of a source tree that is not installed: no requirement is held against it."""


def refuse_other_version(dist: importlib.metadata.Distribution | None, have: str) -> None:
    """Hold the requirement of an installed package against this depthsched, before any of its code runs.

    pip does so when it installs; this is for packages that came without their dependencies, or before this depthsched.

    Parameters
    ----------
    dist : Distribution or None
        The package of an entry point; None where its metadata is not known.
    have : str
        The version of this depthsched.

    Raises
    ------
    PluginError
        It asks for another version. The message names both.
    """
    wanted = [line for line in (dist.requires if dist else None) or () if line.lower().startswith(PROJECT)]
    if not wanted or have == SOURCE:
        return
    from packaging.requirements import Requirement  # not at the top: most plug-ins ask for no version
    from packaging.utils import canonicalize_name

    for need in map(Requirement, wanted):
        asked = canonicalize_name(need.name) == PROJECT and (need.marker is None or need.marker.evaluate({"extra": ""}))
        if asked and not need.specifier.contains(have, prereleases=True):
            raise PluginError(
                f"needs depthsched {need.specifier}, and this is depthsched {have}; install a version that goes with it"
            )


def refuse_other_api(plugin: Any, have: str, name: str = "") -> None:
    """A plug-in, or a file with a class, may say ``API = 1``: the version of the hooks that it was written for.

    Parameters
    ----------
    plugin : object
        A module, or whatever an entry point names.
    have : str
        The version of this depthsched.
    name : str
        What the message begins with.

    Raises
    ------
    PluginError
        It says another version. The message names both.
    """
    said = getattr(plugin, "API", API)
    if type(said) is not int:
        raise PluginError(f"{name}has the API {said!r}, which is no whole number; write API = {API}")
    if said != API:
        what = "a newer depthsched" if said > API else "a newer version of it"
        raise PluginError(
            f"{name}was written for plug-in API {said}, and depthsched {have} has API {API}; install {what}"
        )
