"""The page of a sweep: one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from ..display.escape import visible_in
from ..errors import SettingsError
from ..files import write_atomic
from .charts import DARK, LIGHT, draw_curves, draw_frontier, draw_tasks, to_png, to_svg
from .tables import tables

_MAP_BYTES = 1_500_000


def save_report(data: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write ``report.html`` and a PNG file for each picture in it.

    Parameters
    ----------
    data : mapping
        As from :func:`depthsched.report.data.read_report`.
    folder : str or Path

    Raises
    ------
    SettingsError
        The folder cannot be written.
    """
    target = Path(folder).expanduser()
    data = visible_in(data)
    pictures = _pictures(data)
    files = [(target / "report.html", page(data, pictures).encode())]
    files += [(target / f"{p['name']}.png", to_png(p["draw"], *p["arguments"], LIGHT)) for p in pictures]
    try:
        for path, content in files:
            write_atomic(path, content)
    except OSError as error:
        raise SettingsError(f"cannot write the report to {folder}: {error.strerror}") from error
    return [path for path, _ in files]


def page(
    data: Mapping[str, Any],
    pictures: Sequence[Mapping[str, Any]] | None = None,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """The page as text; pictures and tables are those of a sweep where others are not given."""
    import jinja2

    data, shown = visible_in(data), visible_in(shown)
    maps = fitting_maps(data["maps"])
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_file("page.html")).render(
        data=data,
        style=_file("page.css"),
        script=_file("page.js"),
        pictures=[_embedded(picture) for picture in (_pictures(data) if pictures is None else pictures)],
        tables=[table for table in shown if table["rows"]] if shown is not None else tables(data),
        # Inside <script>: no text of a model can end it.
        maps=json.dumps(maps, allow_nan=False).replace("<", "\\u003c"),
        map_plans=list(dict.fromkeys(answer["plan"] for answer in maps)),
        maps_left_out=len(data["maps"]) - len(maps),
    )


def fitting_maps(maps: Sequence[Mapping[str, Any]], most: int = _MAP_BYTES) -> list[Mapping[str, Any]]:
    """As many answers as the page has room for: the first of every plan, then the second, and so on."""
    seen: dict[str, int] = {}
    turns: list[tuple[int, int, Mapping[str, Any]]] = []
    for answer in maps:
        seen[answer["plan"]] = seen.get(answer["plan"], 0) + 1
        turns.append((seen[answer["plan"]], len(turns), answer))
    kept, size = [], 0
    for _, place, answer in sorted(turns, key=lambda turn: turn[:2]):
        size += len(json.dumps(answer))
        if size <= most:
            kept.append((place, answer))
    return [answer for _, answer in sorted(kept, key=lambda pair: pair[0])]


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _pictures(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name, words and drawing of every picture."""
    found = []
    for frontier in data["frontiers"]:
        best = [point["plan"] for point in frontier["points"] if not point["dominated"]]
        found.append(
            {
                "name": f"frontier-{_slug(frontier['name'])}",
                "title": f"Frontier: {frontier['quality']}",
                "note": f"{len(best)} of {len(frontier['points'])} plans are on the frontier: no other is at least as "
                "fast and as good. The others are faint. Bars are 95% intervals. On narrow screens numbers stand for "
                "the plans of the table.",
                "alt": f"{frontier['quality']} against speed-up of {len(frontier['points'])} plans; on the frontier: "
                f"{', '.join(best)}. The table Plans holds the numbers.",
                "draw": draw_frontier,
                "arguments": (frontier,),
            }
        )
    if any(plan["depths"] for plan in data["plans"]):
        bold = [p["plan"] for f in data["frontiers"] for p in f["points"] if not p["dominated"]]
        found.append(
            {
                "name": "depth-curves",
                "title": "Depth curves",
                "note": "Layers that run at each step. The first is the prefill, always at full depth.",
                "alt": "Depth of every step for every plan; the table Plans has them as small curves.",
                "draw": draw_curves,
                "arguments": (data["plans"], bold),
            }
        )
    # Full depth against itself is no news.
    compared = [row for row in data["tasks"] if row["plan"].partition(" ")[0] != "full"]
    if compared:
        found.append(
            {
                "name": "tasks",
                "title": "Tasks: difference to full depth",
                "note": "Items are paired. An interval that crosses zero shows no difference; it does not show that "
                "there is none.",
                "alt": "Difference of the score to full depth with its 95% interval for each task and plan; the table "
                "Tasks holds the numbers.",
                "draw": draw_tasks,
                "arguments": (compared,),
            }
        )
    return found


def _embedded(picture: Mapping[str, Any]) -> dict[str, Any]:
    """A picture with its four variants as data addresses."""
    sources = {}
    for name, look in (("light", LIGHT), ("dark", DARK)):
        for narrow in (False, True):
            svg = to_svg(picture["draw"], *picture["arguments"], replace(look, narrow=narrow))
            address = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
            sources[f"{name}_{'narrow' if narrow else 'wide'}"] = address
    return {**picture, **sources}


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")
