"""Settings of any kind: one check for Python, spec strings and mappings."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depthsched.errors import SettingsError
from depthsched.settings import Settings, setting

Measure = Literal["score", "bench", "eval"]


@dataclass(frozen=True)
class Options(Settings):
    """What a grid, a calibration and an evaluation say, in one class."""

    name: ClassVar[str] = ""
    kind: ClassVar[str] = "grid"

    plans: tuple[str, ...]
    orders: tuple[str | None, ...] = (None,)
    measure: tuple[Measure, ...] = ("score",)
    dtype: Literal["auto", "float32"] = "auto"
    device: str = "auto"
    data: str | None = None
    limit: int | None = setting(None, low=1)
    tokens: int = setting(64, low=2)
    held_out: float = setting(0.2, low=0, high=1, low_open=True, high_open=True)
    raw: bool = False
    sizes: tuple[int, ...] = setting((), low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if "eval" in self.measure and self.data is None:
            raise SettingsError("grid: measure 'eval' needs data")


WORDS = st.text(min_size=1).filter(str.strip)
GOOD = st.fixed_dictionaries(
    {"plans": st.lists(WORDS, min_size=1)},
    optional={
        "orders": st.lists(st.none() | WORDS, min_size=1),
        "measure": st.lists(st.sampled_from(["score", "bench"]), min_size=1),
        "dtype": st.sampled_from(["auto", "float32"]),
        "data": st.none() | WORDS,
        "limit": st.none() | st.integers(1),
        "tokens": st.integers(2),
        "held_out": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "raw": st.booleans(),
        "sizes": st.lists(st.integers(1), min_size=1),
    },
)


@given(GOOD)
def test_a_mapping_says_what_its_keys_say(data: dict[str, Any]) -> None:
    made = Options.from_mapping(data)
    expected = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if v is not None}
    assert asdict(made) == asdict(Options(("x",))) | expected
    assert Options.from_mapping(asdict(made) | {"sizes": made.sizes or None}) == made
    assert Options(**expected) == made


def test_one_value_stands_for_a_list_of_one() -> None:
    made = Options.from_mapping({"plans": "d3", "sizes": 3, "orders": "early-exit", "measure": "bench"})
    assert (made.plans, made.sizes, made.orders, made.measure) == (("d3",), (3,), ("early-exit",), ("bench",))


# A key, a value that it does not take, words of the message
WRONG: list[tuple[str, Any, str]] = [
    ("plans", [], "plans is empty; leave the key out for its default"),
    ("plans", 3, "plans=3 is not text"),
    ("plans", ["d3", None], "plans=None is not text"),
    ("plans", "  ", "plans='  ' is not text"),
    ("plans", {"d3": 1}, "is not text"),
    ("orders", [3], "orders=3 is not text"),
    ("measure", "scroe", "measure='scroe' is not one of score, bench, eval"),
    ("measure", ["score", True], "measure=true is not one of"),
    ("measure", "eval", "measure 'eval' needs data"),
    ("dtype", ["auto", "float32"], "dtype=auto+float32 is not one of auto, float32"),
    ("dtype", 32, "dtype=32 is not one of"),
    ("device", ["cpu"], "device=cpu is not text"),
    ("device", True, "device=true is not text"),
    ("device", "", "device='' is not text"),
    ("data", 3, "data=3 is not text"),
    ("limit", 0, "limit=0 must be at least 1"),
    ("limit", True, "limit=true is not a whole number"),
    ("limit", "3", "limit='3' is not a whole number"),
    ("limit", [3], "limit=3 is not a whole number"),
    ("tokens", 1, "tokens=1 must be at least 2"),
    ("tokens", 2.5, "tokens=2.5 must be a whole number"),
    ("held_out", 1, "held_out=1 must be in (0, 1)"),
    ("held_out", float("nan"), "held_out=nan must be a finite number"),
    ("held_out", "half", "held_out='half' is not a number"),
    ("raw", 1, "raw=1 is not true or false"),
    ("raw", "yes", "raw='yes' is not true or false"),
    ("sizes", [3, 0], "sizes=3+0 must be at least 1"),
    ("tokns", 3, "unknown key 'tokns'; did you mean 'tokens'?"),
    ("zzz", 3, "unknown key 'zzz'; known: data, device"),
    (3, 3, "unknown key 3; known:"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG, ids=[f"{k}-{v}" for k, v, _ in WRONG])
def test_a_wrong_value_is_one_line_that_names_the_key(key: str, value: Any, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Options.from_mapping({"plans": "d3"} | {key: value})
    message = str(caught.value)
    assert message.startswith("grid: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("data", [None, 3, "plans", ["plans"]])
def test_what_is_no_mapping_is_refused(data: Any) -> None:
    with pytest.raises(SettingsError, match="grid: give a mapping of options to values"):
        Options.from_mapping(data, what="option")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^grid needs plans$"):
        Options.from_mapping({"tokens": 3})
    with pytest.raises(SettingsError, match=r"^grid needs plans$"):
        Options.from_mapping({"plans": None})


@dataclass(frozen=True)
class Target(Settings):
    """Read from a spec, with words."""

    kind: ClassVar[str] = "target"

    mode: Literal["depth", "bytes"] | None = None
    level: Literal[1, 2] = 1
    words: tuple[str, ...] = ()
    share: int | float = setting(1, low=0)
    either: bool | int = False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Target()),
        ("mode=bytes,level=2", Target("bytes", 2)),
        ("mode=none,words=none", Target()),
        ("words=a+b", Target(words=("a", "b"))),
        ("share=0.5,either=true", Target(share=0.5, either=True)),
        ("share=3,either=4", Target(share=3, either=4)),
    ],
)
def test_words_of_a_spec_become_values(text: str, expected: Target) -> None:
    made = Target.from_settings(text)
    assert made == expected
    assert [type(v) for v in asdict(made).values()] == [type(v) for v in asdict(expected).values()]
    assert Target.from_settings(made.spec().removeprefix("target").removeprefix(":")) == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mode=time", "target 'target': mode='time' is not one of depth, bytes"),
        ("level=3", "level='3' is not one of 1, 2"),
        ("share=x", "share='x' is not a number"),
        ("either=maybe", "either='maybe' is not"),
    ],
)
def test_words_that_stand_for_nothing_are_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Target.from_settings(text)
    assert words in str(caught.value)


def test_numpy_scalars_become_plain_numbers() -> None:
    made = Options(("d3",), tokens=np.int64(3), sizes=(np.int32(4),), held_out=np.float32(0.5), raw=np.bool_(True))  # type: ignore[arg-type]
    assert [type(v) for v in (made.tokens, made.sizes[0], made.held_out, made.raw)] == [int, int, float, bool]
