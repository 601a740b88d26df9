"""Ranks that share a model write what one process writes, and end together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import RANKS, TINY, Jobs

pytestmark = [pytest.mark.slow]

CASES = [(f"tiny{ranks}", ranks, name) for ranks in RANKS for name in TINY] + [("smollm2", 3, "smollm2")]
GROUPS = {(group, ranks) for group, ranks, _ in CASES}


@pytest.mark.parametrize(("group", "ranks"), sorted(GROUPS))
def test_every_rank_ended_well_and_found_the_same(jobs: Jobs, group: str, ranks: int) -> None:
    for name in (f"{group}of1", f"{group}of{ranks}"):
        assert [one["code"] for one in jobs.ended(name)] == [0] * len(jobs.ended(name)), jobs.printed(name, 0, "err")
    first = jobs.found(f"{group}of{ranks}")
    for rank in range(1, ranks):
        assert jobs.found(f"{group}of{ranks}", rank) == first


@pytest.mark.parametrize(("group", "ranks", "model"), CASES)
def test_the_tokens_of_one_process_in_every_way(jobs: Jobs, group: str, ranks: int, model: str) -> None:
    alone, together = (jobs.found(f"{group}of{count}")[model]["plans"] for count in (1, ranks))
    assert alone.keys() == together.keys()
    for plan, found in together.items():
        for way in {"eager", "compiled", "attach"} & found.keys():
            assert found[way] == alone[plan]["eager"], (plan, way)
        assert found.keys() == alone[plan].keys() >= {"eager", "compiled"}
    assert len({tuple(found["eager"]["depths"]) for found in [*alone.values()][:3]}) == 3


@pytest.mark.parametrize("group", ["tiny2", "tiny4", "smollm2"])
def test_the_adaptive_plan_decides(jobs: Jobs, group: str) -> None:
    found = [model["plans"] for name, model in jobs.found(f"{group}of1").items() if name != "eval"]
    depths = [one["eager"]["depths"][1:] for plans in found for name, one in plans.items() if "confidence" in name]
    assert any(len(set(one)) == 2 for one in depths)


@pytest.mark.parametrize(("group", "ranks", "model"), CASES)
def test_ranks_with_other_seeds_draw_the_tokens_of_rank_0(jobs: Jobs, group: str, ranks: int, model: str) -> None:
    alone, together = (jobs.found(f"{group}of{count}")[model]["drawn"] for count in (1, ranks))
    assert together == alone


@pytest.mark.parametrize(("group", "ranks", "model"), CASES)
def test_the_scores_of_one_process(jobs: Jobs, group: str, ranks: int, model: str) -> None:
    alone, together = (jobs.found(f"{group}of{count}")[model]["score"] for count in (1, ranks))
    if ranks == 4 and model != "llama":  # scored on 2
        assert alone == together == []
        return
    assert len(alone) == len(together) == 4
    for one, other in zip(alone, together, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    assert any(row["kl"] > 0.01 for row in alone)


def test_a_lossless_run_that_goes_by_its_clock(jobs: Jobs) -> None:
    for model in TINY:
        found = jobs.found("tiny2of2")[model]
        assert found["lossless"] == found["plans"]["full"]["eager"]["tokens"]
        sums, account = found["lossless_sums"]
        assert account["all_reduces"] == sums - (2 * len(found["shape"]["layer_bytes"]) + 1)  # the prompt's


def test_twenty_items_of_an_evaluation(jobs: Jobs) -> None:
    alone, together = (jobs.found(f"tiny2of{count}")["eval"] for count in (1, 2))
    assert together == alone
    assert sum(len(task["items"]) for task in alone) == 20


@pytest.mark.parametrize(("group", "ranks", "model"), CASES)
def test_what_a_rank_holds_and_sends(jobs: Jobs, group: str, ranks: int, model: str) -> None:
    alone, together = (jobs.found(f"{group}of{count}")[model] for count in (1, ranks))
    assert together["shape"]["kv_values"] * ranks == alone["shape"]["kv_values"]
    # All but the norms, and the bias of a sum, is shared out.
    for mine, whole in zip(together["shape"]["layer_bytes"], alone["shape"]["layer_bytes"], strict=True):
        assert whole / ranks <= mine < 1.05 * whole / ranks + 1024
    layers = len(alone["shape"]["layer_bytes"])
    for plan, found in together["plans"].items():
        assert alone["plans"][plan]["ranks"] == {}
        steps = found["eager"]["depths"][1:]
        profile = plan.startswith("constant")
        bridges = 2 * len(steps) if profile else 0
        assert found["ranks"]["size"] == ranks
        assert found["ranks"]["all_reduces"] == sum(2 * depth + 1 for depth in steps) + bridges
        # Counted as they ran, less those of the prompt and the one by which a profile and a model are compared.
        assert found["ranks"]["all_reduces"] == found["sums"] - (2 * layers + 1) - profile
        assert 0 < found["ranks"]["bytes_sent"] < found["ranks"]["bytes_moved"]
    assert max(together["plans"]["full"]["eager"]["depths"]) == layers


def lines(jobs: Jobs, name: str, ranks: int = 2) -> list[str]:
    """What all ranks together wrote to stderr."""
    return [line for rank in range(ranks) for line in jobs.printed(name, rank, "err").splitlines()]


def rows(found: dict[str, Any], keys: tuple[str, ...]) -> list[list[Any]]:
    return [[row[key] for key in keys] for row in found["rows"]]


def test_the_commands_print_once_and_the_same(jobs: Jobs) -> None:
    assert jobs.found("commands-of1")["codes"] == [0] * 5, jobs.printed("commands-of1", 0, "err")
    assert jobs.found("commands-of2")["codes"] == [0] * 5, jobs.printed("commands-of2", 0, "err")
    assert jobs.printed("commands-of2", 1) == jobs.printed("commands-of2", 1, "err") == ""
    alone, together = (
        [json.loads(line) for line in jobs.printed(f"commands-of{count}", 0).splitlines()] for count in (1, 2)
    )
    assert len(alone) == len(together) == 5
    for one, other in zip(alone[:2], together[:2], strict=True):
        assert other["tokens"] == one["tokens"]
        assert other["ranks"]["size"] == 2
    assert alone[0]["tokens"] != alone[1]["tokens"]
    assert together[2]["ranks"] == 2
    assert {row["equal_tokens"] for row in together[2]["rows"]} <= {1.0, None}
    assert rows(together[2], ("plan", "mean_depth")) == rows(alone[2], ("plan", "mean_depth"))
    assert together[3]["kl"] == pytest.approx(alone[3]["kl"], rel=1e-3)
    keys = ("task", "plan", "n", "score", "mean_depth")
    assert rows(together[4], keys) == rows(alone[4], keys)


def test_a_number_of_ranks_that_does_not_divide_the_heads(jobs: Jobs) -> None:
    assert [one["code"] for one in jobs.ended("refused")] == [2, 2]
    assert lines(jobs, "refused") == [
        "depthsched: 2 ranks cannot share 9 heads and 3 KV heads evenly; numbers of ranks that work: 1, 3"
    ]


def test_a_command_that_no_rank_shares(jobs: Jobs) -> None:
    assert [one["code"] for one in jobs.ended("listed")] == [2, 2]
    (line,) = lines(jobs, "listed")
    assert line.startswith("depthsched: list runs in one process, and 2 were started")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all(jobs: Jobs, rank: int) -> None:
    ended = jobs.ended(f"killed{rank}")
    assert ended[rank]["code"] == -9
    assert ended[1 - rank]["code"] == 1
    assert ended[1 - rank]["after"] < 30
    (line,) = lines(jobs, f"killed{rank}")
    assert "rank" in line
    assert jobs.printed(f"killed{rank}", 1 - rank) == ""


def test_ranks_that_do_not_do_the_same_are_told_so(jobs: Jobs) -> None:
    assert [one["code"] for one in jobs.ended("differ")] == [0, 0], jobs.printed("differ", 0, "err")
    for rank in range(2):
        said = jobs.found("differ", rank)["said"]
        assert [line.partition("rank 1 has another ")[2] for line in said] == [
            "plan than rank 0",
            "prompt than rank 0",
            "plan than rank 0",
        ]
        assert len(jobs.found("differ", rank)["tokens"][0]) == 3
