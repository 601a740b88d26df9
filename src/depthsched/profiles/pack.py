"""A smaller copy of a profile: bridges in fewer bits, of lower rank, at fewer depths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bridge import Bridges
from ..damage import DamageTable
from ..errors import ProfileError
from ..plugins import parse_schedule
from ..profile import DTYPES, Profile
from ..schedule import ask_depths

_HORIZON = 1024  # tokens over which a schedule must stay where the copy has bridges


def pack(profile: Profile, out: str | Path, *, dtype: str = "bfloat16", min_depth: int | None = None) -> Profile:
    """Write a smaller copy of a profile. What was measured stays, under ``evidence["packed"]`` how it was packed.

    Parameters
    ----------
    profile : Profile
    out : str or Path
        Folder of the copy.
    dtype : str
        What bridges are stored in: float32, bfloat16 or float16. They are read back as float32, whose values are
        those of the file.
    min_depth : int, optional
        Leave out bridges and measurements of depths below.

    Raises
    ------
    ProfileError
        No such dtype; nothing would be left; the profile's own schedule runs a depth that is left out; or the
        profile would be written over itself.
    """
    if dtype not in DTYPES:
        raise ProfileError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    folder = Path(out).expanduser()
    if folder.resolve() == profile.folder.resolve():
        raise ProfileError(f"{folder} is the profile itself; give another folder for the copy")
    low = 0 if min_depth is None else min_depth
    kept = [depth for depth in profile.depths if depth >= low]
    if profile.depths and not kept:
        raise ProfileError(f"no bridges would be left: the profile has depths {profile.depths[0]}-{profile.depths[-1]}")
    if (lowest := _lowest(profile)) is not None and lowest < low:
        raise ProfileError(
            f"the profile's own schedule runs depth {lowest}, so that min_depth={low} would leave it without bridges; "
            f"give at most {lowest}"
        )
    bridges: Bridges = profile.bridges(kept)
    note = {"dtype": dtype, "min_depth": min_depth, "from_sha256": profile.tensors_sha256}
    return profile.replace(
        evidence={**_evidence(profile.evidence, low), "packed": note}, damage=_damage(profile.damage, low)
    ).save(folder, bridges, dtype)


def _lowest(profile: Profile) -> int | None:
    """The least depth of the profile's own schedule, or of its drafts."""
    if profile.drafting:
        return int(profile.drafting["depth"])
    if profile.schedule is None:
        return None
    schedule = parse_schedule(profile.schedule).for_horizon(_HORIZON)
    solved = schedule.for_profile(profile, profile.num_layers, _HORIZON)
    return int(min(ask_depths(solved, profile.num_layers, _HORIZON)[0]))


def _evidence(evidence: Mapping[str, Any], low: int) -> dict[str, Any]:
    """The evidence without rows of depths that the copy has no bridges for."""
    kept = dict(evidence)
    for name in ("constant", "drafts"):
        if name in kept:
            kept[name] = [row for row in kept[name] if row["depth"] >= low]
    return kept


def _damage(table: DamageTable | None, low: int) -> DamageTable | None:
    """The table without those depths; none where it would be empty."""
    rows = {depth: row for depth, row in table.kl.items() if depth >= low} if table else {}
    return dataclasses.replace(table, kl=rows) if table and rows else None
