"""The three sentences that a page of results on quality starts with: what was found, from the data of its tables."""

from __future__ import annotations

from pathlib import Path

from .found import files, nothing_yet, span
from .markdown import Row, read
from .premise import SETS
from .renewal import constant_at


def quality(folder: Path) -> str:
    """Of the scores on GSM8K and BBH."""
    rows = {(round(row["mean_depth"]), _who(row)): row for row in read(folder / "gsm8k.json")["rows"]}
    depths = sorted({depth for depth, _ in rows}, reverse=True)
    at = " and ".join(str(depth) for depth in depths)
    kept = " and ".join(f"{rows[depth, 'profile']['agreement']:.0%}" for depth in depths)
    plain = " and ".join(f"{rows[depth, 'middle-out']['agreement']:.0%}" for depth in depths)
    elsewhere = {round(row["mean_depth"]): row for row in read(folder / "bbh.json")["rows"] if row["profile"]}
    away = " and ".join(f"{elsewhere[depth]['agreement']:.0%}" for depth in depths)
    return (
        f"With a calibrated profile, {at} of 30 layers agree with full depth on {kept} of the tokens of GSM8K answers. "
        f"Without one, skipping from the middle agrees on {plain}. "
        f"On prompts unlike those of the calibration (BBH) the same profile agrees on {away}: calibrate on prompts "
        "like yours."
    )


def _who(row: Row) -> str:
    return "profile" if row["profile"] else str(row["order"]).partition(":")[0]


def position(folder: Path) -> str:
    """Of the falling schedules at equal bytes."""
    rows = [row for row in read(folder / "position.json")["rows"] if row["family"] != "constant"]
    bridged = [_sign(row["kl_less_constant"]) for row in rows if row["bridges"]]
    plain = [_sign(row["kl_less_constant"]) for row in rows if not row["bridges"]]
    return (
        f"At equal bytes and with bridges, {bridged.count(1)} of {len(bridged)} falling schedules have more KL than "
        f"constant depth, and {bridged.count(-1)} less. Without bridges {plain.count(1)} of {len(plain)} have more, "
        f"and {plain.count(-1)} less. The others are not distinguishable from it at 95%."
    )


def _sign(found: Row) -> int:
    """1 or -1 where an interval excludes 0."""
    return 0 if found["low"] is None else int(found["low"] > 0) - int(found["high"] < 0)


def tasks(folder: Path) -> str:
    """Of the verdicts against full depth."""
    rows = [row for one in files(folder) for row in one["rows"] if "verdict" in row]
    words = [row["verdict"] for row in rows if row["plan"] != "full"]
    small = sum(word.startswith("too small") for word in words)
    drops = sum(word.startswith("a drop") for word in words)
    full = [row for row in rows if row["plan"] == "full"]
    bbh = [row for row in full if row["task"].startswith("bbh")]
    math = [row["full"] for row in full if not row["task"].startswith("bbh")]
    pooled = sum(row["full"] * row["n"] for row in bbh) / sum(row["n"] for row in bbh)
    solved = span((100 * share for share in math), ".1f")
    return (
        f"Of {len(words)} comparisons of a plan with full depth on one task, {drops} show a drop and {small} are too "
        f"small to say anything. Full depth itself solves {pooled:.1%} of these BBH items and {solved}% of GSM8K, so "
        "there is little to lose. The page bounds the damage on a model of 135M parameters, and can neither "
        "confirm nor refute what the paper reports for 7B and more."
    )


def signal(folder: Path) -> str:
    """Of the tasks at full depth, and of runs that look after every item."""
    rows, runs = read(folder / "plain.json")["rows"], read(folder / "peeking.json")
    cannot = sum(not row["items_apart"] for row in rows)
    needed = [row["items_apart"] for row in rows if row["items_apart"]]
    wrong = [row["no"] for row in runs["rows"] if 100 * row["drop"] <= runs["margin"]]
    wrong += [row["yes"] for row in runs["rows"] if 100 * row["drop"] >= runs["margin"]]
    return (
        f"On this model {cannot} of {len(rows)} tasks score nothing at full depth, so no plan can lose anything "
        f"there. On the others it takes {span(needed, '.0f')} items to tell one point between unlike answers. "
        f"Looking after every item stays within the allowed 5%: with `--until decided` the wrong answer came "
        f"in {max(wrong):.1%} of the simulated runs at most."
    )


def adaptive(file: Path) -> str:
    """Of the rules against constant depth."""
    if not file.is_file():
        return nothing_yet("adaptive rules were", "python -m benchmarks adaptive")
    found = read(file)
    led = [row for row in found["rows"] if row["lead"]]
    signs = [_sign(row["lead"]["kl"]) for row in led]
    best = max(led, key=lambda row: float(row["lead"]["agreement"]["mean"]))
    points = 100 * best["lead"]["agreement"]["mean"]
    bounds = [one["bytes_speedup"] for some in found["headroom"].values() for one in some if one["level"] == 0.99]
    return (
        f"At equal bytes {signs.count(-1)} of {len(led)} rules have less KL than constant depth, and {signs.count(1)} "
        f"have more; the others are not distinguishable from it. The best by agreement is `{best['schedule']}`, "
        f"{points:+.1f} points from constant. The best choice of depths in hindsight would save {span(bounds)}x at "
        "99% agreement."
    )


def renewal(file: Path) -> str:
    """Of the runs that renew against constant depth."""
    if not file.is_file():
        return nothing_yet("renewal was", "make evidence-quality DATA=...")
    rows = read(file)["rows"]
    beside = [row for row in rows if row["beside"]["constant"]]
    less = sum(row["kl"]["high"] < row["beside"]["constant"]["kl"] for row in beside)
    more = sum(row["kl"]["low"] > row["beside"]["constant"]["kl"] for row in beside)
    best = max(beside, key=lambda row: float(row["beside"]["constant"]["kl"] - row["kl"]["mean"]), default=None)
    lead = "No run saves as much as a constant depth that was measured."
    if best:
        there = best["beside"]["constant"]["kl"]
        lead = f"*{best['arm']}* has the largest lead: KL {best['kl']['mean']:.3f}, where constant has {there:.3f}."
    timed = [(row, constant_at(read(file)["frontier"], row)) for row in rows]
    clocked = [(row, there) for row, there in timed if there]
    ahead = sum(row["kl"]["high"] < there[0] for row, there in clocked)
    return (
        f"At equal bytes {less} of {len(beside)} runs that renew have less KL than constant depth, {more} have more, "
        f"and the others are not distinguishable from it. {lead} "
        f"At equal speed on this machine's clock {ahead} of {len(clocked)} have less KL than constant depth."
    )


def premise(folder: Path) -> str:
    """Of the trends by position."""
    found = [read(folder / f"{name}.json")["rows"][0] for name in SETS if (folder / f"{name}.json").is_file()]
    if not found:
        return nothing_yet("the premise was", "make evidence-premise DATA=...")
    kinds = [next(kind for kind in row["kinds"] if kind["kind"] == "one-step") for row in found]
    loss = [row["trend_per_100_steps"]["nll"] for row in found]
    least = [kind["trend_per_100_steps"]["least"] for kind in kinds]
    saved = [best["bytes_speedup"] for kind in kinds for best in kind["headroom"] if best["level"] == 0.99]
    losses, depths = (span((one["mean"] for one in some), "+.2f") for some in (loss, least))
    return (
        f"Over 100 steps of an answer the loss at full depth changes by {losses} nats; {_told(loss)} of {len(found)} "
        f"sets of prompts exclude no change. The least depth that gives full depth's token changes by {depths} layers; "
        f"{_told(least)} of {len(found)} exclude no change. The best choice of depths in hindsight would save "
        f"{span(saved)}x at 99% agreement."
    )


def _told(found: list[Row]) -> int:
    return sum(_sign(one) != 0 for one in found)
