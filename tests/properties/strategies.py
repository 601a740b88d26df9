"""Whole objects for Hypothesis: every registered schedule and order, and plans made of them."""

from hypothesis import strategies as st

import depthsched as ds
from depthsched.order import LayerOrder
from depthsched.schedule import DepthSchedule
from depthsched.testing.strategies import instances

# The built-ins only: a plug-in that happens to be installed has tests of its own.
SCHEDULES = {
    name: entry.value
    for name, entry in ds.registry().schedules.items()
    if entry.origin.plugin == "depthsched" and not entry.value.from_profile
}
ORDERS = {name: entry.value for name, entry in ds.registry().orders.items() if entry.origin.plugin == "depthsched"}


def any_schedule() -> st.SearchStrategy[DepthSchedule]:
    """Any built-in schedule over its whole settings space."""
    return st.one_of([instances(cls) for cls in SCHEDULES.values()])


@st.composite
def any_order(draw: st.DrawFn, num_layers: int) -> LayerOrder:
    """Any built-in order that is valid for a model of ``num_layers`` layers."""
    name = draw(st.sampled_from(sorted(ORDERS)))
    if name in ("list", "ranked"):
        ranked = draw(st.permutations(range(num_layers)))
        return ORDERS[name](tuple(ranked[: draw(st.integers(1, num_layers))]))
    order: LayerOrder = draw(instances(ORDERS[name]))
    return order


@st.composite
def short_specs(draw: st.DrawFn, num_layers: int, steps: int) -> str:
    """Specs of every built-in schedule whose depth does change within a few steps."""
    depth = draw(st.integers(1, num_layers))
    first = draw(st.integers(1, steps))
    drop = draw(st.integers(0, num_layers))
    name = draw(st.sampled_from(sorted(SCHEDULES)))
    settings = {
        "full": [],
        "d3": [f"alpha={draw(st.floats(0.5, 0.99))}"],
        "constant": [f"depth={depth}"],
        "linear": [f"end={depth}", *draw(st.sampled_from([[], ["over=4"]]))],
        "step": [f"at={first}+{first + 2},drop={drop}+{min(drop + 2, num_layers)}"],
        "confidence": [f"depth={depth},margin={draw(st.floats(0, 0.1))}"],
    }[name]
    common = draw(
        st.sampled_from([[], [f"start={draw(st.integers(0, steps))}"], ["start=0.5"], [f"min_depth={depth}"]])
    )
    return f"{name}:{','.join(settings + common)}"


@st.composite
def plans(draw: st.DrawFn, max_layers: int = 40, max_horizon: int = 80) -> ds.DepthPlan:
    """Plans of any built-in schedule and order."""
    num_layers = draw(st.integers(1, max_layers))
    horizon = draw(st.integers(1, max_horizon))
    spec = draw(short_specs(num_layers, min(horizon, 20)))
    return ds.plan(spec, draw(any_order(num_layers)), num_layers=num_layers, horizon=horizon)
