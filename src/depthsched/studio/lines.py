"""What a person may ask for, and the lines that do the same without the page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from ..errors import SettingsError
from ..planspec import PlanSpec, PlanText

MOST_TOKENS = 1024


@dataclass(frozen=True)
class Ask:
    """One press of the button.

    Attributes
    ----------
    plan, prompt : str
        The plan is a text as ``--schedule`` takes it.
    tokens : int
        Most tokens of either answer.
    lossless : bool
        The plan drafts, full depth checks.
    gated : bool
        Tokens whose margin is below ``verify_below`` are checked at full depth, and the cache is renewed.
    verify_below : float
    """

    plan: str
    prompt: str
    tokens: int = 96
    lossless: bool = False
    gated: bool = False
    verify_below: float = 0.2

    def check(self) -> None:
        """Refuse what cannot be run before anything runs.

        Raises
        ------
        SettingsError
        """
        if not self.prompt.strip():
            raise SettingsError("the prompt is empty; write one")
        if not 1 <= self.tokens <= MOST_TOKENS:
            raise SettingsError(f"tokens={self.tokens} must be between 1 and {MOST_TOKENS}")

    def options(self) -> dict[str, Any]:
        """The part of it that ``ds.generate`` takes besides the plan."""
        found: dict[str, Any] = {"max_new_tokens": self.tokens}
        if self.lossless:
            found["lossless"] = True
        if self.gated:
            found |= {"skipped_kv": "recompute", "verify_below": self.verify_below}
        return found


def one_text(spec: str, order: str = "", profile: str = "") -> str:
    """The text of a plan from its parts; parts that are empty are left out."""
    return str(PlanText(spec.strip(), order.strip(), profile.strip()))


def complete(spec: PlanSpec) -> str:
    """The text that gives a plan back, its order and the folder of its profile written out."""
    return str(spec)


def shell_line(ask: Ask, model: str) -> str:
    """The command that writes the same two texts."""
    words = ["depthsched", "generate", "--model", model, "--schedule", ask.plan, "--max-new-tokens", str(ask.tokens)]
    words += ["--compare"] + (["--lossless"] if ask.lossless else [])
    if ask.gated:
        words += ["--skipped-kv", "recompute", "--verify-below", f"{ask.verify_below:g}"]
    line = shlex.join(words)
    if ask.prompt == "-":  # to the command, a hyphen is its standard input
        return f"printf %s - | {line}"
    return f"{line} -- {shlex.quote(ask.prompt)}"


def python_lines(ask: Ask, model: str, *, chat: bool) -> str:
    """The lines of Python that write the plan's text.

    Parameters
    ----------
    ask : Ask
    model : str
        As :func:`depthsched.load_model` takes it.
    chat : bool
        Whether its tokenizer has a chat template.
    """
    options = ", ".join(f"{name}={value!r}" for name, value in ask.options().items())
    if chat:
        encoded = (
            f'chat = [{{"role": "user", "content": {ask.prompt!r}}}]\n'
            "text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)\n"
            'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")\n'
        )
    else:
        encoded = f'inputs = tokenizer({ask.prompt!r}, return_tensors="pt")\n'
    return (
        "import depthsched as ds\n\n"
        f"model, tokenizer = ds.load_model({model!r})\n"
        f"{encoded}"
        f"run = ds.generate(model, inputs, {ask.plan!r}, do_sample=False, tokenizer=tokenizer, {options})\n"
        "print(tokenizer.decode(run.tokens[0], skip_special_tokens=True))\n"
        "print(run.report())\n"
    )
