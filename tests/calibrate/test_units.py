"""Units of work: done once, kept by what they depend on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from depthsched.bridge import Bridge
from depthsched.calibrate.units import Units

KEY = {"options": {"seed": 0}, "data": "a"}


def test_a_unit_is_computed_once_for_its_key(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> Any:
        calls.append(1)
        return (1, 2)

    assert [Units(tmp_path, KEY).value("x", compute) for _ in range(2)] == [[1, 2]] * 2
    assert len(calls) == 1
    Units(tmp_path, {**KEY, "data": "b"}).value("x", compute)
    assert len(calls) == 2


def test_bridges_come_back_as_they_were_the_lowest_first(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    made = {i: Bridge(torch.randn(4, 4, generator=g).T, torch.randn(4, generator=g)) for i in (10, 2, 7)}
    about = [{"layer": i, "ridge": 0.1 + i / 3} for i in made]
    calls: list[int] = []

    def compute() -> Any:
        calls.append(1)
        return made, about

    for _ in range(2):
        found, said = Units(tmp_path, KEY).bridges("fit", compute)
        assert (list(found), said) == ([2, 7, 10], about)
        for i, bridge in found.items():
            assert torch.equal(bridge.weight, made[i].weight)
            assert torch.equal(bridge.bias, made[i].bias)
    assert len(calls) == 1


def test_units_of_0_1_0_are_thrown_away(tmp_path: Path) -> None:
    """Their files have the names of today's and another content."""
    (tmp_path / "key").write_text(hashlib.sha256(json.dumps(KEY, sort_keys=True).encode()).hexdigest())
    (tmp_path / "kl-7.json").write_text("[1.0, 2.0]")
    (tmp_path / "held" / "0").mkdir(parents=True)
    (tmp_path / "held" / "0" / "done").touch()
    units = Units(tmp_path, KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert units.value("kl-7", lambda: [3.0, 4.0]) == [3.0, 4.0]
