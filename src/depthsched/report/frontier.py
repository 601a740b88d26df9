"""Quality against speed-up: which plans are worth having."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def frontiers(plans: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A frontier for each set of prompts, and one for the mean score of the tasks.

    Returns
    -------
    list of dict
        ``name``, ``quality`` (what is on that axis) and ``points``: plan, number, speed, quality with its interval,
        and whether another plan with the same kind of speed is at least as good in both and better in one.
    """
    found: list[dict[str, Any]] = []
    for on in dict.fromkeys(score["on"] for plan in plans for score in plan["scores"]):
        agreements = [_agreement(plan, on) for plan in plans]
        title = f"agreement with full depth, {on}"
        found.append({"name": f"agreement-{on}", "quality": title, "points": agreements})
    tasks = list(dict.fromkeys(task["task"] for plan in plans for task in plan["tasks"]))
    if tasks:
        title = f"score on {tasks[0]}" if len(tasks) == 1 else f"mean score of {len(tasks)} tasks"
        scores = [_task_score(plan, tasks) for plan in plans]
        found.append({"name": "tasks", "quality": title, "points": scores})
    for frontier in found:
        frontier["points"] = judged([point for point in frontier["points"] if point is not None])
    return [frontier for frontier in found if frontier["points"]]


def _point(plan: Mapping[str, Any], value: float, low: float | None, high: float | None) -> dict[str, Any] | None:
    if plan["speed"] is None:
        return None
    quality = {"value": value, "low": low, "high": high}
    return {"plan": plan["label"], "number": plan["number"], "speed": plan["speed"], "quality": quality}


def _agreement(plan: Mapping[str, Any], on: str) -> dict[str, Any] | None:
    for score in plan["scores"]:
        if score["on"] == on:
            interval = score["intervals"]["agreement"]
            return _point(plan, interval["mean"], interval["low"], interval["high"])
    return None


def _task_score(plan: Mapping[str, Any], tasks: Sequence[str]) -> dict[str, Any] | None:
    """The mean over the tasks, for a plan that did all of them. The first metric of a task counts."""
    scores = {task["task"]: task for task in reversed(plan["tasks"])}
    if set(scores) != set(tasks):
        return None
    one = scores[tasks[0]]
    # The interval of a difference, moved to the score; several tasks have none of their own here.
    low, high = (one["full"] + one["low"], one["full"] + one["high"]) if len(tasks) == 1 else (None, None)
    return _point(plan, sum(row["score"] for row in scores.values()) / len(tasks), low, high)


def judged(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The points, each with whether another one is at least as fast and as good, and better in one."""
    return [{**point, "dominated": any(_beats(other, point) for other in points)} for point in points]


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """At least as fast and as good, and better in one. A speed on paper beats none that was measured."""
    if one["speed"]["kind"] != other["speed"]["kind"]:
        return False
    ours = one["speed"]["value"], one["quality"]["value"]
    theirs = other["speed"]["value"], other["quality"]["value"]
    return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))
