"""What the demo measures: ways to decode, and on which models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..blocks.modules import weights_form
from ..errors import ProfileError
from ..models import EMBEDDED, load_model, source_of
from ..plans import DepthPlan
from ..planspec import PlanSpec
from ..profile import Profile
from ..profiles import find_profile

FULL, D3_PLAIN = "full depth", "D³, plain"
D3 = "d3:alpha=0.995"


@dataclass(frozen=True)
class Way:
    """One way to decode: what it is called, and its plan."""

    name: str
    plan: DepthPlan
    lossless: bool = False
    baseline: bool = False


def profile_for(profile: str | None, model: Any) -> tuple[Profile | None, str]:
    """The profile of the calibrated rows, and where there is none the reason.

    Parameters
    ----------
    profile : str, optional
        As the user named it. Left out, it is the embedded model's, if that is there and fits.
    model : transformers.PreTrainedModel

    Raises
    ------
    ProfileError
        The profile that the user named is not there, is damaged or is another model's.
    """
    try:
        found = find_profile(profile or EMBEDDED)
        found.check_model(model)
    except ProfileError as error:
        if profile is not None:
            raise
        return None, str(error)
    return found, ""


def for_transformers(name: str, model: Any, device: str) -> Any:
    """The model as a user of transformers has it: dense, in the dtype of the published weights.

    Parameters
    ----------
    name : str
        As for :func:`depthsched.load_model`. A ``.gguf`` file names no dtype: it is bfloat16, in which the weights of
        the embedded model, as of most, are published.
    model : transformers.PreTrainedModel
        The one that depthsched runs. It serves both where it is already what would be loaded.
    device : str

    Raises
    ------
    ModelError
    """
    dtype = torch.bfloat16
    if name != EMBEDDED and not name.endswith(".gguf"):
        from transformers import AutoConfig

        dtype = AutoConfig.from_pretrained(source_of(name)).dtype or torch.float32
    if model.dtype == dtype and weights_form(model) == "dense":
        return model
    return load_model(name, dtype=dtype, device=device, weights="dense")[0]


def ways(num_layers: int, tokens: int, profile: Profile | None) -> list[Way]:
    """The rows of the table; those of a profile only where there is one.

    The constant depth is the mean depth of D³, so that both skip as much.

    Raises
    ------
    PlanError, ScheduleError
    """

    def plan(text: str, calibrated: Profile | None = None) -> DepthPlan:
        return PlanSpec.parse(text, profile=calibrated).resolve(num_layers, tokens)

    full, plain = plan("full"), plan(D3)
    depth = round(plain.mean_depth)
    constant = plan(f"constant:depth={depth}", profile)
    found = [Way("transformers' generate", full, baseline=True), Way(FULL, full), Way(D3_PLAIN, plain)]
    if profile is not None:
        found += [Way("D³, calibrated", plan(D3, profile)), Way(f"constant {depth}, calibrated", constant)]
    return [*found, Way(f"lossless, drafts at {depth}", constant, lossless=True)]
