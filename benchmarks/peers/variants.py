"""What is compared. To add one, add a line."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from depthsched.errors import SettingsError

PROFILE = "+profile="
"""What a plan ends with that needs the profile of the run."""


@dataclass(frozen=True)
class Variant:
    """One engine with its options.

    Attributes
    ----------
    name : str
    engine : str
        A module of ``benchmarks.peers.engines``.
    options : mapping
        What the engine is loaded with, beside the model and the threads.
    """

    name: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> bool:
        """Whether it is depthsched, and so runs in this environment."""
        return self.engine == "ours"


def _ours(name: str, dtype: str, weights: str = "dense", plan: str = "full") -> Variant:
    return Variant(name, "ours", {"dtype": dtype, "weights": weights, "plan": plan, "backend": "compiled"})


REFERENCE = "fp32"
"""Whose tokens all others are compared with: the weights of the file, exactly, in the widest arithmetic."""

VARIANTS = (
    _ours("4-bit", "bfloat16", "native"),
    _ours("4-bit, depth 20", "bfloat16", "native", "constant:depth=20" + PROFILE),
    _ours("bf16", "bfloat16"),
    _ours(REFERENCE, "float32"),
    Variant("OpenVINO GenAI", "openvino"),
    Variant("llama.cpp", "llama", {"text": False}),
    Variant("llama.cpp, completion", "llama", {"text": True}),
)


def chosen(names: str, profile: str | None) -> tuple[list[Variant], list[dict[str, str]]]:
    """The variants of a run, and what cannot take part: ``{name, reason}``.

    Parameters
    ----------
    names : str
        Separated by semicolons; all of them if empty.
    profile : str or None
        The folder that plans with a profile get.

    Raises
    ------
    SettingsError
        No variant has that name, or none is left.
    """
    known = {variant.name: variant for variant in VARIANTS}
    wanted = [name.strip() for name in names.split(";")] if names else list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise SettingsError(f"no engine named {unknown[0]!r}; use {'; '.join(known)}")
    missing = {name: _missing(known[name], profile) for name in wanted}
    left_out = [{"name": name, "reason": reason} for name, reason in missing.items() if reason]
    taken = [_with_profile(known[name], profile) for name, reason in missing.items() if not reason]
    if not taken:
        raise SettingsError("; ".join(f"{one['name']}: {one['reason']}" for one in left_out))
    return taken, left_out


def _missing(variant: Variant, profile: str | None) -> str:
    """Why a variant cannot take part."""
    from depthsched.models import load_model

    if variant.options.get("weights", "dense") != "dense" and "weights" not in inspect.signature(load_model).parameters:
        return "this depthsched cannot load weights as the file holds them"
    if variant.options.get("plan", "").endswith(PROFILE) and profile is None:
        return "it needs --profile, a folder that `depthsched calibrate` made"
    return ""


def _with_profile(variant: Variant, profile: str | None) -> Variant:
    plan = variant.options.get("plan", "")
    if not plan.endswith(PROFILE):
        return variant
    return dataclasses.replace(variant, options={**variant.options, "plan": f"{plan}{profile}"})


def peers(variants: Iterable[Variant]) -> list[Variant]:
    """Those that are not depthsched."""
    return [variant for variant in variants if not variant.ours]
