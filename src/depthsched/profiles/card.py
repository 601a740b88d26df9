"""A profile as a model card: Markdown with a YAML header. No text of a profile is markup in it."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..profile import Profile
from ..text import one_line, ranges
from .find import HUB_ID

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$:@])")
_SPEC = re.compile(r"[\w.:=,+@/-]+", re.ASCII)


def markdown(value: object) -> str:
    """A text as Markdown that shows it and does nothing else: one line, no tag, no link, no emphasis."""
    return _MARKUP.sub(r"\\\1", html.escape(one_line(value), quote=False))


def evidence_rows(profile: Profile) -> list[dict[str, Any]]:
    """What was measured at constant depths, or for drafts: numbers, and pairs where an interval was recorded."""
    rows = profile.evidence.get("drafts" if profile.drafting else "constant", ())
    return [
        {k: v for k, v in row.items() if k == "depth" or _is_measure(v)} for row in rows if isinstance(row, Mapping)
    ]


def shown(value: object) -> str:
    """A measurement: a number, or its mean with the interval."""
    if isinstance(value, Mapping):
        low, high = value.get("low"), value.get("high")
        head = value.get("mean", value.get("value"))
        return f"{shown(head)} ({shown(low)} to {shown(high)})" if low is not None else shown(head)
    return f"{value:.4g}" if isinstance(value, float) else one_line(value)


def _is_measure(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(isinstance(value.get(key), int | float) for key in ("mean", "value"))
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def card(profile: Profile, name: str | None = None) -> str:
    """The card of a profile.

    Parameters
    ----------
    profile : Profile
    name : str, optional
        How somebody else will name it, such as its hub id; default :attr:`Profile.label`.
    """
    name = name or profile.label
    parts = [
        _header(profile),
        f"# {markdown(name)}\n\nA profile for depthsched: which decoder layers a plan "
        "may leave out, and maps that stand in for them. Safetensors and JSON only; nothing in it is run.\n",
        "## Model\n\n" + _list(_model(profile)),
        "## Evidence\n\n" + _evidence(profile),
        "## How it was made\n\n" + _list(_made(profile)),
        "## How to use it\n\n" + _use(profile, name),
    ]
    return "\n".join(parts)


def _header(profile: Profile) -> str:
    fields: dict[str, Any] = {"library_name": "depthsched", "tags": ["depthsched", "layer-skipping", "profile"]}
    if HUB_ID.fullmatch(profile.model.name):
        fields["base_model"] = profile.model.name
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _model(profile: Profile) -> dict[str, object]:
    return {
        "model": profile.model.name,
        "decoder layers": profile.num_layers,
        "hidden size": profile.model.hidden_size,
        "configuration (hash)": profile.model.config,
        "layers that may be left out, first to go first": " ".join(map(str, profile.drop_order)),
        "depths with bridges": ranges(profile.depths) or "none",
        "schedule": profile.schedule or "none; give one",
        "size": f"{profile.tensors_bytes / 1e6:.1f} MB of tensors, sha256 {profile.tensors_sha256}",
    }


def _made(profile: Profile) -> dict[str, object]:
    found: dict[str, object] = {
        "prompts": profile.data.get("prompts", "not recorded"),
        "decode steps that bridges were fitted on": profile.data.get("fit_tokens", "not recorded"),
        "samples (sha256)": profile.data.get("sha256", "not recorded"),
        "seed": profile.seed,
    }
    found |= {f"option {key}": value for key, value in profile.options.items() if value is not None}
    found |= {f"version of {key}": value for key, value in profile.versions.items()}
    if (judged := profile.evidence.get("corrections")) and not judged["kept"]:
        found["corrections"] = "left out: they did not lower KL on held-out prompts"
    if packed := profile.evidence.get("packed"):
        found["packed"] = packed
    return found


def _list(fields: Mapping[str, object]) -> str:
    return "".join(f"- {markdown(key)}: {markdown(value)}\n" for key, value in fields.items())


def _evidence(profile: Profile) -> str:
    rows = evidence_rows(profile)
    if not rows:
        return "No measurements are recorded.\n"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [_row(columns), _row(["---:"] * len(columns), raw=True)]
    lines += [_row([shown(row.get(column, "")) for column in columns]) for row in rows]
    said = "Measured on held-out prompts of the same data, teacher-forced, against full depth; KL in nats per token. "
    said += "Each row ran its depth at every decode step."
    if not any(isinstance(value, Mapping) for row in rows for value in row.values()):
        said += " No intervals were recorded."
    if packed := profile.evidence.get("packed"):
        said += f" Measured before packing: {markdown(packed)}"
    return "\n".join([said, "", *lines, ""])


def _row(cells: Sequence[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else map(markdown, cells))} |"


def _use(profile: Profile, name: str) -> str:
    """Commands in a code block, of words that need no quotes; anything else is left out of them."""
    schedule, model = profile.schedule or "d3", profile.model.name
    words = ["depthsched", "generate", shlex.quote("Why is the sky blue?")]
    words += [word for option, value in (("--model", model), ("--profile", name), ("--schedule", schedule))
              if _SPEC.fullmatch(value) for word in (option, value)]  # fmt: skip
    return f"```\n{' '.join(words)}\n```\n\nAnother model is refused, with the reason.\n"
