"""What an adaptive schedule can see before it decides a depth. Knows no torch and no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ScheduleError
from .settings import suggest
from .text import one_line

WINDOW = 16
"""Tokens, or checks, that a mean over the last of them looks back."""

TEXT_CLASSES = ("newline", "space", "digit", "punctuation", "word", "continuation", "special")
"""Every value of ``token_class``; :class:`depthsched.runtime.textclass.TextClasses` says which token has which."""


class Signal(NamedTuple):
    """What one signal is.

    Attributes
    ----------
    meaning, unit, values : str
    cost : str
        What asking for it adds to every step.
    where : str
        Ways of running that give it; every other one refuses it by name.
    low, high : float
        Ends of its numbers; 0 and 0 where it has none.
    """

    meaning: str
    unit: str
    values: str
    cost: str
    where: str = "everywhere"
    low: float = 0.0
    high: float = 0.0


_LAST = f"mean of {{}} over the last {WINDOW} tokens of the answer, or as many as there are"
_SOFTMAX, _TOP = "one pass over the logits", "one pass over the logits and their two largest"

SIGNALS: dict[str, Signal] = {
    "entropy": Signal("entropy of the last token's distribution", "nats", "0 to log(vocabulary)", _SOFTMAX, high=20),
    "top1": Signal("probability of its most likely token", "share", "0 to 1", _SOFTMAX, high=1),
    "margin": Signal("that probability minus the next token's", "share", "0 to 1", _TOP, high=1),
    "mean_entropy": Signal(_LAST.format("`entropy`"), "nats", "0 to log(vocabulary)", _SOFTMAX, high=20),
    "mean_top1": Signal(_LAST.format("`top1`"), "share", "0 to 1", _SOFTMAX, high=1),
    "mean_margin": Signal(_LAST.format("`margin`"), "share", "0 to 1", _TOP, high=1),
    "token": Signal("id of the last token, which this step runs", "id", "0 to vocabulary - 1", "nothing", high=10**6),
    "token_class": Signal(
        "what the last token's text is", "word", ", ".join(f"`{name}`" for name in TEXT_CLASSES),
        "two decodings of a token on the host, once for each token that a run meets",
        "everywhere; Python calls give the `tokenizer`",
    ),
    "prompt_tokens": Signal("tokens before the answer, padding not counted", "tokens", "from 1", "nothing",
                            "everywhere", 1, 10**6),
    "answer_tokens": Signal("tokens of the answer so far; unlike `step` it does not begin at `start`", "tokens",
                            "from 1", "nothing", "everywhere", 1, 10**6),
    "cosine": Signal(
        "mean over the layers of the last pass of the cosine between the state before and after the layer", "cosine",
        "-1 to 1", "a product of two states for each layer",
        "`eager`, `ds.attach`, `score`; not compiled, not on captured graphs, not lossless", -1, 1,
    ),
    "agreement": Signal(
        f"share of the last {WINDOW} tokens checked at full depth for which full depth has the same most likely token; "
        "lossless, of the last drafted tokens judged, those kept. `None` while nothing was checked", "share",
        "0 to 1, or `None`", "the LM head on every position of a pass that renews",
        'runs that check: `skipped_kv="recompute"`, lossless', 0, 1,
    ),
}  # fmt: skip
"""Every signal by its name."""


class Signals:
    """What an adaptive schedule sees before one step: the signals that it names in ``needs``, and no others.

    They are those of one row. In a batch the schedule decides for every running row, and the deepest answer runs.

    Attributes
    ----------
    entropy, top1, margin : float
        Of the last token's distribution, before any sampling setting: entropy in nats, the probability of the most
        likely token, and its lead over the next one's.
    mean_entropy, mean_top1, mean_margin : float
        Their means over the last :data:`WINDOW` tokens of the answer.
    token : int
        The last token, which the step runs.
    token_class : str
        One of :data:`TEXT_CLASSES`.
    prompt_tokens, answer_tokens : int
        Tokens before the answer, padding not counted, and in it so far.
    cosine : float
        Mean over the layers of the last pass of the cosine between the states before and after.
    agreement : float or None
        Share of the last :data:`WINDOW` checked tokens that full depth would have chosen too; None before any check.

    Raises
    ------
    ScheduleError
        One is read that ``needs`` does not name.
    """

    entropy: float
    top1: float
    margin: float
    mean_entropy: float
    mean_top1: float
    mean_margin: float
    token: int
    token_class: str
    prompt_tokens: int
    answer_tokens: int
    cosine: float
    agreement: float | None

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - SIGNALS.keys()
        if unknown:
            raise TypeError(f"no signal is called {min(unknown)!r}; there are {', '.join(SIGNALS)}")
        self.__dict__.update(values)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name not in SIGNALS:
                raise AttributeError(f"no signal is called {name!r}; there are {', '.join(SIGNALS)}")
            needs = ", ".join(map(repr, [*self.__dict__, name])) + ("" if self.__dict__ else ",")
            raise ScheduleError(
                f"signals.{name} is read, but needs does not name it; write needs = ({needs}) in the schedule's class"
            )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("signals cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("signals cannot be changed")

    def asdict(self) -> dict[str, Any]:
        """The values by name, ready for JSON."""
        return dict(self.__dict__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signals) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.__dict__.items(), key=lambda item: item[0])))

    def __repr__(self) -> str:
        return f"Signals({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


def check_needs(name: str, needs: Any) -> None:
    """Raise unless the ``needs`` of a schedule of this name are signals that there are.

    Raises
    ------
    ScheduleError
    """
    known = ", ".join(SIGNALS)
    if not isinstance(needs, tuple):
        raise ScheduleError(
            f"schedule {name!r}: needs is {one_line(repr(needs), 60)} and must be a tuple of names of signals, "
            f'such as needs = ("margin",); there are {known}'
        )
    for word in needs:
        if word not in SIGNALS:
            meant = suggest(str(word), SIGNALS)
            meant = "" if meant.startswith("known") else f" {meant}"
            raise ScheduleError(
                f"schedule {name!r} needs a signal {word!r}, and there is none;{meant} there are {known}"
            )
