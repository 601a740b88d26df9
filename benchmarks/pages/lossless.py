"""The tables of the page on lossless runs. The folder holds what ``python -m benchmarks lossless`` printed."""

from __future__ import annotations

from pathlib import Path

from .markdown import Cell, Row, measured, not_measured, read, section, table, versions

_ALL: dict[str, Cell] = {
    "decoding": "{arm}",
    "side": "{side}",
    ">kept": lambda row: _share(row["acceptance"]),
    ">tokens a draft": lambda row: _number(row["mean_drafted"], ".1f"),
    ">tokens a pass": "{tokens_per_pass:.2f}",
    ">draft step": lambda row: _number(row["draft_cost"], ".2f"),
    ">check": lambda row: _number(row["verify_cost"], ".2f"),
    ">predicted": lambda row: _number(row["predicted"], ".3f"),
    ">decoding": lambda row: _number(row["decode_speedup"], ".3f"),
    ">own steps": lambda row: _number(row["by_own_steps"], ".3f") if row["arm"].endswith(", auto") else "",
    ">whole answer": lambda row: measured(row["speedup"]),
    ">same text": lambda row: _share(row["equal"]),
}


def tables(folder: Path) -> str:
    """Everything that was measured; or that nothing was."""
    files = sorted(folder.glob("*.json"))
    if not files:
        return not_measured("make evidence-lossless DATA=...")
    return "".join(_one(found) if found["kind"] == "lossless" else _memory(found) for found in map(read, files))


def _memory(found: Row) -> str:
    columns: dict[str, Cell] = {
        "backend": "{backend}",
        ">peak MB": lambda row: f"{row['peak_memory_bytes'] / 1e6:.0f}",
        ">vs the first": "{ratio:.3f}",
    }
    about = f"`{found['plan']}`, {found['tokens']} tokens; peak of a process of its own above its imports."
    return section(f"Memory, {found['dtype']}, {found['weights']} weights", about, table(columns, found["rows"]))


def _one(found: Row) -> str:
    packages = versions(found)
    if (
        found.get("unit") != "mean"
    ):  # before, it was the median, which is lower, and an answer's own steps said too little
        found = {**found, "rows": [{**row, "by_own_steps": None} for row in found["rows"]]}
    whole = [row for row in found["rows"] if row["category"] == "all"]
    return section(
        f"{found['model']}, {found['dtype']}, {found['weights']} weights",
        f"{found['machine']}, {found['threads']} threads; {packages}. {found['questions']} questions, at most "
        f"{found['max_new_tokens']} tokens, alternating rounds: {found['repeats']}. Each side against its own plain "
        "full depth; costs in its plain steps.",
        table(_ALL, whole),
        "Share of drafted tokens kept, and speed-up (while decoding; transformers': of whole answers), by category:",
        table({"decoding": "{arm}", **_categories(found)}, _by_arm(found)),
        *_predicted(found),
    )


def _categories(found: Row) -> dict[str, Cell]:
    names = dict.fromkeys(row["category"] for row in found["rows"] if row["category"] != "all")
    return {f">{name}": f"{{{name}}}" for name in names}


def _by_arm(found: Row) -> list[Row]:
    arms: dict[tuple[str, str], dict[str, str]] = {}
    for row in found["rows"]:
        if row["arm"] != "full":
            line = arms.setdefault((row["side"], row["arm"]), {"arm": row["arm"]})
            kept = f"{_share(row['acceptance'])}, " if row["acceptance"] is not None else ""
            line[row["category"]] = f"{kept}{row['decode_speedup'] or row['speedup']['median']:.2f}x"
            if row["arm"].endswith(", auto") and row["by_own_steps"]:
                own = arms.setdefault((row["side"], f"{row['arm']}, own"), {"arm": f"{row['arm']}, by its own steps"})
                own[row["category"]] = f"{row['by_own_steps']:.3f}x"
    return list(arms.values())


def _predicted(found: Row) -> list[str]:
    if not found["predictions"]:
        return []
    columns: dict[str, Cell] = {
        "decoding": "{arm}", "shape": "{shape}", ">depth": "{depth}", ">kept": "{acceptance:.0%}",
        ">drafted": "{drafted}", ">draft step": "{draft_cost:.2f}", ">predicted speed-up": "{speedup:.2f}x",
    }  # fmt: skip
    return [
        "Predicted by bytes for larger shapes, not measured: the acceptance is that of this model at the same share of "
        "its layers, a check costs one step, and the length is the best one.",
        table(columns, found["predictions"]),
    ]


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
