"""The rules that every layer order keeps."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ..errors import SettingsError
from ..order import LayerOrder
from ..text import one_line
from .report import Finding
from .settings_checks import check_frozen, check_same, say, show
from .strategies import MAX_LAYERS


@dataclass(frozen=True)
class OrderCase:
    """One thing to try: an order on a model of some depth, at one depth of it."""

    order: LayerOrder
    num_layers: int
    depth: int


@st.composite
def order_cases(draw: st.DrawFn, drawn: st.SearchStrategy[LayerOrder]) -> OrderCase:
    """An order, a model and a depth below full."""
    num_layers = draw(st.integers(1, MAX_LAYERS))
    return OrderCase(draw(drawn), num_layers, draw(st.integers(1, num_layers)))


def _rank(order: LayerOrder, num_layers: int) -> list[int] | None:
    """The ranking, checked; None where the order itself says that its settings do not fit the model."""
    where = f"{say(order)} on {num_layers} layers"
    try:
        ranked: list[Any] = list(order.rank(num_layers))
    except SettingsError:
        return None
    except Exception as error:
        raise Finding(
            "valid_layers",
            f"{where}: rank() fails with {type(error).__name__}: {one_line(error, 90)}; "
            "return the droppable layers, an empty list where there are none",
        ) from error
    for layer in ranked:
        if not isinstance(layer, int) or isinstance(layer, bool):
            raise Finding("valid_layers", f"{where}: rank() returned {show(layer)}; return plain ints, int(layer)")
        if not 0 <= layer < num_layers:
            raise Finding("valid_layers", f"{where}: rank() returned layer {layer}, expected 0 to {num_layers - 1}")
    twice = next((layer for at, layer in enumerate(ranked) if layer in ranked[:at]), None)
    if twice is not None:
        raise Finding("valid_layers", f"{where}: rank() returned layer {twice} twice; name every layer once")
    return [operator.index(layer) for layer in ranked]


def valid_layers(case: OrderCase) -> None:
    """Distinct layers of the model."""
    _rank(case.order, case.num_layers)


def every_depth(order: LayerOrder) -> None:
    """Distinct layers of the model, for every model of 1 to 128 layers; at least one of them fits."""
    if all(ranked is None for ranked in [_rank(order, layers) for layers in range(1, MAX_LAYERS + 1)]):
        raise Finding(
            "valid_layers", f"{say(order)}: rank() refuses every model of 1 to {MAX_LAYERS} layers; accept some"
        )


def deterministic(case: OrderCase) -> None:
    """The same model twice has the same ranking."""
    first, second = _rank(case.order, case.num_layers), _rank(case.order, case.num_layers)
    where = f"{say(case.order)} on {case.num_layers} layers"
    advice = "the same model must give the same ranking, so use no randomness, clock or counter"
    check_same("deterministic", where, "rank()", first, second, advice)


def nested(case: OrderCase) -> None:
    """The layers of a depth are among those of the next depth, and as many as asked for, core layers included."""
    ranked = _rank(case.order, case.num_layers)
    if ranked is None:
        return
    where = f"{say(case.order)} on {case.num_layers} layers, depth {case.depth}"
    kept = case.order.keep(case.depth, case.num_layers)
    expected = max(case.depth, case.num_layers - len(ranked))
    if len(kept) != expected:
        raise Finding("nested", f"{where}: keep() runs {len(kept)} layers, expected {expected}; leave keep() as it is")
    more = set(case.order.keep(min(case.depth + 1, case.num_layers), case.num_layers))
    extra = [layer for layer in kept if layer not in more]
    if extra:
        raise Finding(
            "nested", f"{where}: layer {extra[0]} runs here but not at depth {case.depth + 1}; leave keep() as it is"
        )


def frozen(case: OrderCase) -> None:
    """The class is a frozen dataclass."""
    check_frozen(case.order)


CASE_CHECKS = {rule.__name__: rule for rule in (frozen, valid_layers, deterministic, nested)}
