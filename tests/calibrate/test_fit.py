"""The fit from moments against ridge regression on the rows themselves."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthsched.calibrate.fit import Fit, Moments, best_fit, moments

HIDDEN = 3


def states(rows: int, seed: int, mean: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """States before and after a run that is nearly affine."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, HIDDEN, generator=g) + mean
    weight = torch.randn(HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(0))
    return x, x + x @ weight + 2 + 0.1 * torch.randn(rows, HIDDEN, generator=g)


def fitted(prompts: list[tuple[int, torch.Tensor, torch.Tensor]], ridges: Sequence[float]) -> Fit:
    """Counted from the means of the first prompt."""
    _, before, after = prompts[0]
    return best_fit(*moments(prompts, before.mean(0), (after - before).mean(0)), ridges=ridges)


def by_hand(x: torch.Tensor, y: torch.Tensor, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of the change, from centred rows in numpy."""
    a, b = x.double().numpy(), (y - x).double().numpy()
    centred, target = a - a.mean(0), b - b.mean(0)
    gram = centred.T @ centred
    weight = np.linalg.solve(gram + ridge * np.trace(gram) / HIDDEN * np.eye(HIDDEN), centred.T @ target)
    return weight, b.mean(0) - a.mean(0) @ weight


@given(counts=st.lists(st.integers(1, 9), min_size=5, max_size=12), ridge=st.sampled_from([1e-3, 0.1, 3.0]))
def test_the_fit_is_ridge_regression_on_all_rows(counts: list[int], ridge: float) -> None:
    prompts = [(i, *states(n, i, mean=20.0)) for i, n in enumerate(counts)]
    found = fitted(prompts, [ridge])
    weight, bias = by_hand(torch.cat([x for _, x, _ in prompts]), torch.cat([y for *_, y in prompts]), ridge)
    assert found.bridge.weight.numpy() == pytest.approx(weight, abs=2e-3)
    assert found.bridge.bias.numpy() == pytest.approx(bias, abs=4e-2)  # the means are 20: 2e-3 of weight, times them


def test_the_ridge_is_the_one_that_predicts_held_out_prompts_best() -> None:
    prompts = [(i, *states(4, i)) for i in range(8)]
    held = [row for row in prompts if row[0] % 4 == 3]
    seen = [row for row in prompts if row[0] % 4 != 3]
    x, y = torch.cat([x for _, x, _ in held]).double().numpy(), torch.cat([y for *_, y in held]).double().numpy()
    errors = {}
    for ridge in (1e-4, 1e-2, 1.0):
        weight, bias = by_hand(torch.cat([x for _, x, _ in seen]), torch.cat([y for *_, y in seen]), ridge)
        change = y - x
        errors[ridge] = ((x @ weight + bias - change) ** 2).sum() / ((change - change.mean(0)) ** 2).sum()
    found = fitted(prompts, list(errors))
    assert found.ridge == min(errors, key=lambda ridge: errors[ridge])
    assert found.unexplained == pytest.approx(errors[found.ridge], rel=1e-3)


@given(cuts=st.lists(st.integers(0, 40), max_size=4))
def test_moments_of_parts_add_up_to_those_of_the_whole(cuts: list[int]) -> None:
    x, y = states(40, 1)
    shift = x[:5].mean(0), y[:5].mean(0)
    whole, total = Moments(*shift), Moments(*shift)
    whole.add(x, y)
    for first, end in pairwise([0, *sorted(cuts), 40]):
        part = Moments(*shift)
        part.add(x[first:end], y[first:end])
        total = total + part
    assert total.count == whole.count == 40
    for name in ("x", "y", "xx", "xy", "yy"):
        assert torch.allclose(getattr(total, name), getattr(whole, name), atol=1e-4), name


def test_moments_from_different_means_do_not_add_up() -> None:
    zero = torch.zeros(HIDDEN)
    with pytest.raises(ValueError, match="same shift"):
        Moments(zero, zero) + Moments(zero, zero + 1)
