"""Whether the extra ``eval`` is there."""

from __future__ import annotations

import importlib.util

from ..errors import MissingExtraError


def need_lm_eval() -> None:
    """Raise one clear line unless lm-eval is installed.

    Raises
    ------
    MissingExtraError
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingExtraError("task evaluation needs lm-eval: pip install 'depthsched[eval]'")
