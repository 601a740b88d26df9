"""What decides the answers of an evaluation, but for the plan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..files import digest
from ..planspec import PlanSpec
from .layouts import NEEDLE_TOKENS, layout_of, local_file


@dataclass(frozen=True)
class EvalOptions:
    """What decides the answers of an evaluation, but for the plan; the key of what is kept.

    Attributes
    ----------
    model, dtype, device, weights : str
        As for :func:`depthsched.load_model`.
    tasks : tuple of str
        Names of lm-eval, or patterns with ``*``.
    data : str or None
        Folder with local files in place of the hub.
    limit : int or None
        Items of each task, the first ones.
    max_new_tokens : int or None
        In place of each task's own maximum; also the horizon of the plans.
    backend : str
    batch : int
        Rows decoded together.
    chat : bool
        Put prompts into the model's chat template; lm-eval's default is not to.
    skipped_kv, verify_below, renew
        As for :func:`depthsched.generate`; full depth runs without them. Where tokens decide when the cache is renewed,
        rows are decoded one at a time.
    needle_tokens : int
        Length of the texts of synthetic tasks.
    unsafe_code : bool
        Allow tasks that execute what the model wrote.

    Raises
    ------
    SettingsError
    """

    model: str = "smollm2"
    tasks: tuple[str, ...] = ()
    data: str | None = None
    limit: int | None = None
    max_new_tokens: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    weights: str = "auto"
    backend: str = "auto"
    batch: int = 32
    chat: bool = False
    skipped_kv: str = "auto"
    verify_below: float | None = None
    renew: int | str | None = None
    needle_tokens: int = NEEDLE_TOKENS
    unsafe_code: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SettingsError(f"limit {self.limit} must be at least 1")
        if self.max_new_tokens is not None and self.max_new_tokens < 2:
            raise SettingsError(f"max_new_tokens {self.max_new_tokens} must be at least 2: the first is the prefill's")
        if self.batch < 1:
            raise SettingsError(f"batch {self.batch} must be at least 1")
        if self.needle_tokens < 256:
            raise SettingsError(
                f"needle_tokens {self.needle_tokens} must be at least 256: the answer takes 128 of them"
            )

    @property
    def rules(self) -> dict[str, Any]:
        """What becomes of K and V of skipped layers."""
        return {"skipped_kv": self.skipped_kv, "verify_below": self.verify_below, "renew": self.renew}

    def key(self, task: str, plan: PlanSpec) -> dict[str, Any]:
        """What decides the answers to one task under one plan: files by what they hold, not by where they lie."""
        plain = {"skipped_kv": "auto", "verify_below": None, "renew": None}
        rules = {} if plan.is_full else self.rules
        left_out = ("tasks", "device", "needle_tokens", "unsafe_code", *plain)
        kept = {k: v for k, v in asdict(self).items() if k not in left_out}
        kept |= {k: v for k, v in rules.items() if v != plain[k]}  # what was kept without rules keeps its key
        layout = layout_of(task)
        if layout is not None and layout.synthetic:
            kept["needle_tokens"] = self.needle_tokens
        file = None if self.data is None else local_file(task, Path(self.data))
        return {**kept, "task": task, "plan": plan.key, "data": file and digest(file.read_bytes())}
