"""The tables of the page on copying: what plans do to a task that full depth solves.

``layers.json`` has one layer left out at a time, ``orders.json`` the orders that need no profile, ``blocks.json`` a
block with its bridge at every place (``python -m benchmarks blocks``), ``smollm2.json`` and ``copying.json`` the plans
of the page on pooled differences with two profiles, 500 needles each.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .found import nothing_yet
from .markdown import Cell, Row, once_measured, read, table, versions
from .pooled import points

COMMAND = "make evidence-copying DATA=..."
PROFILES = {"smollm2": "smollm2.json", "smollm2-copying": "copying.json"}
SETS = {
    "GSM8K": "score-gsm8k.json",
    "BBH": "score-bbh.json",
    "IFEval": "score-ifeval.json",
    "XQuAD": "score-xquad.json",
}
FILES = ("layers.json", "orders.json", "blocks.json", *SETS.values(), *PROFILES.values())


def tables(folder: Path) -> dict[str, Callable[[], str]]:
    """Plans with both profiles, single layers, and blocks; one line while nothing was measured."""
    plans = {profile: folder / name for profile, name in PROFILES.items()}
    makers = {
        "setting": lambda: _setting(read(folder / "smollm2.json")),
        "plans": lambda: _plans({profile: read(path) for profile, path in plans.items()}),
        "others": lambda: _others({name: read(folder / file) for name, file in SETS.items()}),
        "orders": lambda: _orders(read(folder / "orders.json")),
        "layers": lambda: _layers(read(folder / "layers.json")),
        "blocks": lambda: _blocks(read(folder / "blocks.json")),
    }
    return once_measured(all((folder / name).is_file() for name in FILES), COMMAND, makers)


def sentences(folder: Path) -> str:
    """Of the two profiles."""
    if not all((folder / name).is_file() for name in FILES):
        return nothing_yet("needles were", COMMAND)
    said = []
    for profile, name in PROFILES.items():
        found = read(folder / name)
        decided = [row["decision"] for row in found["pooled"]]
        yes = [row for row in found["pooled"] if row["decision"] == "yes"]
        most = f", up to {max(saved(found, row['plan']) for row in yes):.2f}x of the bytes" if yes else ""
        said.append(
            f"With the profile `{profile}`, {decided.count('yes')} of {len(decided)} plans are shown to find as many "
            f"needles as full depth within one point{most}, and {decided.count('no')} are "
            "shown not to."
        )
    first = read(folder / "smollm2.json")["pooled"][0]
    return f"Full depth finds {100 * first['full']:.1f}% of {first['n']} needles. {' '.join(said)}"


def saved(found: Row, plan: str) -> float:
    """The speed-up in bytes of a plan."""
    return next(float(row["bytes_speedup"]) for row in found["rows"] if row["plan"] == plan)


def _setting(found: Row) -> str:
    return f"`{found['context']['command']}`; {versions(found)}."


def _plans(found: dict[str, Row]) -> str:
    rows = [
        {**row, "profile": profile, "saved": saved(one, row["plan"]), "plan": row["plan"].partition("+profile=")[0]}
        for profile, one in found.items()
        for row in one["pooled"]
    ]
    columns: dict[str, Cell] = {
        "plan": "`{plan}`",
        "profile": "`{profile}`",
        ">bytes saved": "{saved:.2f}x",
        ">needles found": lambda row: f"{100 * row['score']:.1f}",
        ">less full depth": lambda row: points(row, "diff", "low", "high"),
        "within 1 point": lambda row: row["decision"],
    }
    return table(columns, rows)


def _others(found: dict[str, Row]) -> str:
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, scores in found.items():
        for row in scores["rows"]:
            cells = rows.setdefault((row["schedule"], row["profile"]), {"saved": row["bytes_speedup"]})
            cells[name] = f"{row['kl']:.3f}, {row['agreement']:.3f}"
    columns: dict[str, Cell] = {"plan": "`{plan}`", "profile": "`{profile}`", ">bytes saved": "{saved:.2f}x"}
    columns |= {f">{name}: KL, agreement": f"{{{name}}}" for name in found}
    return table(columns, [{"plan": plan, "profile": profile, **cells} for (plan, profile), cells in rows.items()])


def _orders(found: Row) -> str:
    rows = [row for row in found["rows"] if row["plan"] != "full"]
    columns: dict[str, Cell] = {
        "plan": "`{plan}`",
        ">bytes saved": "{bytes_speedup:.2f}x",
        ">needles found": lambda row: f"{100 * row['score']:.0f}",
    }
    return f"{rows[0]['n']} needles.\n\n" + table(columns, rows)


def _layers(found: Row) -> str:
    rows = [
        {"layer": int(match[1]), "score": 100 * row["score"]}
        for row in found["rows"]
        if (match := re.search(r"layers=(\d+)$", row["plan"]))
    ]
    least = sorted((row for row in rows if row["score"] < 100), key=lambda row: row["score"])
    rest = [str(row["layer"]) for row in rows if row["score"] >= 100]
    head = table({">layer left out": "{layer}", ">needles found": "{score:.1f}"}, least)
    return f"{head}\n\nWithout any one of the layers {', '.join(rest)} all {found['rows'][0]['n']} are found."


def _blocks(found: Row) -> str:
    columns: dict[str, Cell] = {
        ">layers": lambda row: f"{row['start']}–{row['start'] + row['size'] - 1}",
        ">KL, mixed prompts": lambda row: f"{row['mixed']['kl']:.3f}",
        ">KL, copying": lambda row: f"{row['copying']['kl']:.3f}",
        ">needles found": lambda row: f"{100 * row['needles']:.0f}",
    }
    sizes = list(dict.fromkeys(row["size"] for row in found["rows"]))
    return "\n\n".join(
        f"{size} layers left out:\n\n" + table(columns, [row for row in found["rows"] if row["size"] == size])
        for size in sizes
    )
