"""The tables of the quality pages, from what ``make evidence-quality`` keeps in ``docs/results/quality``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .markdown import Cell, Row, read, spread, table

ORDERS = {"list": "ranked one by one", "middle-out": "middle-out", "early-exit": "early exit"}
Tables = dict[str, Callable[[], str]]


def tables(folder: Path) -> Tables:
    """Of the page on quality."""
    return {
        "gsm8k": partial(_scores, folder, {"gsm8k": ""}),
        "bbh": partial(_scores, folder, {"bbh": "profile of GSM8K", "bbh-mixed": "profile of both"}),
        "gsm8k-mixed": partial(_scores, folder, {"gsm8k-mixed": "profile of both"}),
        "curve": partial(_curve, folder),
        "orders": partial(_orders, folder),
        "paired": partial(_paired, folder),
        "bench": partial(_bench, folder),
    }


def position_tables(folder: Path) -> Tables:
    """Of the page on position."""
    return {"bridged": partial(_position, folder, True), "plain": partial(_position, folder, False)}


def _scores(folder: Path, files: dict[str, str]) -> str:
    rows = [
        {**row, "who": note if note and row["profile"] else _label(row)}
        for name, note in files.items()
        for row in read(folder / f"{name}.json")["rows"]
    ]
    columns: dict[str, Cell] = {
        ">depth": "{mean_depth:.0f}",
        "plan": "{who}",
        ">KL": spread("intervals[kl]", ".3f", middle="mean"),
        ">agreement": spread("intervals[agreement]", ".3f", middle="mean"),
        ">perplexity": "{perplexity:.2f}",
        ">bytes saved": "{bytes_speedup:.2f}x",
    }
    return table(columns, sorted(rows, key=lambda row: -row["mean_depth"]))


def _label(row: Row) -> str:
    if row["profile"]:
        return "profile: block, bridge and corrections"
    return ORDERS.get(row["order"].partition(":")[0], "the profile's block") + ", plain skipping"


def _curve(folder: Path) -> str:
    columns: dict[str, Cell] = {
        ">depth": "{depth}",
        ">KL": "{kl:.3f}",
        ">agreement": "{agreement:.3f}",
        "maps in front of layers": lambda row: "+".join(str(fit["layer"]) for fit in row["fits"]),
    }
    return table(columns, read(folder / "calibrate.json")["evidence"]["constant"])


def _orders(folder: Path) -> str:
    orders = read(folder / "calibrate.json")["evidence"]["orders"]
    columns: dict[str, Cell] = {
        "order": "{order}",
        ">plain KL": "{plain[kl]:.3f}",
        ">plain agreement": "{plain[agreement]:.3f}",
        ">bridged KL": "{bridged[kl]:.3f}",
        ">bridged agreement": "{bridged[agreement]:.3f}",
    }
    return table(columns, [{"order": name, **found} for name, found in orders.items()])


def _paired(folder: Path) -> str:
    found = read(folder / "paired.json")
    columns: dict[str, Cell] = {
        ">prompts": "{prompts}",
        ">decode steps": "{tokens}",
        ">one pass, s": "{seconds[staircase]:.1f}",
        ">step by step, s": "{seconds[step-by-step]:.0f}",
        ">ratio": "{ratio[median]:.1f}",
        ">difference in KL": "{kl_difference:.1e}",
    }
    means = {name: sum(values) / len(values) for name, values in found["seconds"].items()}
    return table(columns, [{**found, "seconds": means}])


def _bench(folder: Path) -> str:
    columns: dict[str, Cell] = {
        "plan": "{plan}",
        "dtype": "{dtype}",
        ">bytes saved": "{theoretical_bytes:.3f}",
        ">measured": spread("speedup_vs_full"),
        ">realised": "{realised:.2f}",
    }
    results = [read(folder / f"bench-{dtype}.json") for dtype in ("float32", "bfloat16")]
    rows = [{**row, "dtype": found["dtype"]} for found in results for row in found["rows"] if row["plan"] != "full"]
    return table(columns, rows)


def _position(folder: Path, bridges: bool) -> str:
    def less(name: str) -> Cell:
        form = spread(f"{name}_less_constant", "+.3f", middle="mean")
        return lambda row: "" if row["family"] == "constant" else form.format_map(row)

    columns: dict[str, Cell] = {
        "schedule": "`{schedule}`",
        ">mean depth": "{mean_depth:.1f}",
        ">bytes saved": "{bytes_speedup:.3f}",
        ">KL": "{kl[mean]:.3f}",
        ">KL less constant": less("kl"),
        ">agreement": "{agreement[mean]:.3f}",
        ">agreement less constant": less("agreement"),
        ">KL, first and last quarter": "{kl_first_quarter:.3f}, {kl_last_quarter:.3f}",
    }
    return table(columns, [row for row in read(folder / "position.json")["rows"] if row["bridges"] is bridges])
