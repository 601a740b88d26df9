"""Makes the model known to lm-eval under the name ``depthsched``."""

from __future__ import annotations

from .extra import need_lm_eval

NAME = "depthsched"


def register() -> None:
    """Add ``depthsched`` to lm-eval's models, for ``lm_eval.simple_evaluate(model="depthsched", ...)``.

    Raises
    ------
    MissingExtraError
    """
    need_lm_eval()
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target="depthsched.evaluate.lm:DepthLM")
