"""Names that go: they work for a while, and say once what to write instead."""

from __future__ import annotations

import warnings

from .errors import DeprecatedWarning

_said: set[str] = set()


def deprecated(old: str, new: str, *, since: str, until: str, stacklevel: int = 3) -> None:
    """Say that a public name is on its way out. Call it where the old name is used, and go on as before.

    Parameters
    ----------
    old, new : str
        What was written, and what to write in its place, as a user writes them: ``--orders``, ``ds.plan(order=)``.
    since, until : str
        The version that warned first, and the one that no longer has the old name.
    stacklevel : int
        Of the warning: 3 is the caller of the function that calls this one.

    Warns
    -----
    DeprecatedWarning
        The first time in a process that ``old`` is used, whatever the filters say about repeats.
    """
    if old in _said:
        return
    _said.add(old)
    message = f"{old} is deprecated since depthsched {since} and goes with {until}; use {new}"
    warnings.warn(message, DeprecatedWarning, stacklevel=stacklevel)
