"""The page on the peers: every ``.json`` file of a folder, as ``python -m benchmarks peers run`` wrote it."""

from __future__ import annotations

from pathlib import Path

from .markdown import Cell, Row, commands, not_measured, read, section, spread, table, versions

_SPEED: dict[str, Cell] = {
    "engine": "{name}",
    ">tokens/s": spread("tokens_per_second", ".1f"),
    ">vs depthsched": lambda row: _optional(row, "vs_ours"),
    ">vs the faster peer": lambda row: _optional(row, "vs_peer"),
    ">tokens/s with the prompt": spread("end_to_end", ".1f"),
    ">first difference": lambda row: _difference(row),
}
_START: dict[str, Cell] = {
    "engine": "{name}",
    ">imports, s": spread("import_seconds"),
    ">loading, s": spread("load_seconds"),
    ">process to loaded, s": spread("ready_seconds"),
    ">first token, first call, s": spread("first_token_cold"),
    ">first token, later, s": spread("first_token", ".3f"),
    ">peak MB": lambda row: f"{row['peak_bytes'] / 1e6:.0f}",
    ">above imports, MB": lambda row: f"{row['model_bytes'] / 1e6:.0f}",
}


def tables(folder: Path) -> str:
    """All files, or that there is none."""
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    return "".join(map(section_of, found)) or not_measured("make evidence-peers")


def section_of(found: Row) -> str:
    """One file: what ran, how fast, and what it took to start."""
    packages = versions(found)
    notes = [f"- Left out: {one['name']}: {one['reason']}." for one in found["left_out"]]
    notes += [
        f"- {row['name']} makes other tokens of the prompt's text; it was measured on those of the others."
        for row in found["rows"]
        if not row["tokenised_alike"]
    ]
    notes += [
        f"- {row['name']} used {row['idle_seconds']:.1f} s of processor time while the others ran."
        for row in found["rows"]
        if row["idle_seconds"] > 0.1
    ]
    return section(
        f"{found['file']['name']}, {found['threads']} threads",
        f"{found['processor']}, {found['machine']}; {packages}. {found['tokens']} new tokens after "
        f"{found['prompt_tokens']}, {found['rounds']} rounds, {found['starts']} starts; the file has "
        f"{found['file']['bytes'] / 1e6:.0f} MB.",
        commands(found["command"]),
        table(_SPEED, found["rows"]),
        table(_START, found["rows"]),
        "\n".join(notes),
    )


def _optional(row: Row, key: str) -> str:
    return spread(key).format_map(row) if row[key] else ""


def _difference(row: Row) -> str:
    if row["equal_tokens"] is None:
        return ""
    return "none" if row["first_difference"] is None else f"token {row['first_difference']}"
