"""Start a plug-in: a folder that can be installed, with one schedule or ranker, its entry point and its test."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template

from ..errors import SettingsError
from ..plugins import registry

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Template -> where it goes in the new folder.
_FILES = {
    "pyproject.toml.tmpl": "pyproject.toml",
    "${kind}.module.py.tmpl": "${module}.py",
    "${registered}.README.md.tmpl": "README.md",
    "${registered}.test.py.tmpl": "tests/test_${stem}.py",
}
# What a plug-in can begin with -> its noun in texts.
KINDS = {"schedule": "depth schedule", "adaptive": "depth schedule", "ranker": "layer ranker"}


def new_plugin(name: str, folder: str | Path = ".", kind: str = "schedule") -> list[Path]:
    """Write a plug-in that depthsched finds once it is installed.

    Parameters
    ----------
    name : str
        Of the schedule or ranker, such as ``half-life``; the distribution is ``depthsched-half-life``.
    folder : str or Path
        Where its folder is made.
    kind : str
        ``schedule``, ``adaptive`` (a schedule that sees signals) or ``ranker``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    SettingsError
        The name is taken or cannot be one, there is such a folder already, or the kind is another.
    """
    if kind not in KINDS:
        raise SettingsError(f"cannot begin a plug-in with a {kind!r}; use one of {', '.join(KINDS)}")
    registered = "ranker" if kind == "ranker" else "schedule"
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{name!r} cannot be the name of a {registered}; use words like half-life: a-z, 0-9 and '-'"
        )
    taken = registry().rankers if kind == "ranker" else registry().schedules
    if name in taken:
        raise SettingsError(f"there is a {registered} {name!r} already, from {taken[name].origin}")
    target = Path(folder).expanduser() / f"depthsched-{name}"
    stem = name.replace("-", "_")
    words = {
        "name": name,
        "kind": kind,
        "registered": registered,
        "noun": KINDS[kind],
        "stem": stem,
        "module": f"depthsched_{stem}",
        "cls": "".join(word.capitalize() for word in name.split("-")),
    }
    try:
        target.mkdir(parents=True)
        return [_write(target / _fill(place, words), _fill(source, words), words) for source, place in _FILES.items()]
    except FileExistsError as error:
        raise SettingsError(f"{target} is there already; choose another name or --out") from error
    except OSError as error:
        raise SettingsError(f"cannot write {target}: {error.strerror}") from error


def _fill(text: str, words: Mapping[str, str]) -> str:
    return Template(text).substitute(words)


def _write(path: Path, source: str, words: Mapping[str, str]) -> Path:
    template = resources.files(__package__).joinpath(source).read_text(encoding="utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_fill(template, words), encoding="utf-8")
    return path
