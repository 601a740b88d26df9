"""The table of the how-to on offloading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .markdown import commands, not_measured, read, spread, table, versions


def table_of(path: Path) -> str:
    """What ``python -m benchmarks offload`` printed, or that it did not yet."""
    if not path.is_file():
        return not_measured("python -m benchmarks offload")
    found = read(path)
    packages = versions(found)
    columns: dict[str, Any] = {
        "plan": "`{plan}`",
        ">moved MB a step": "{moved_mb:.0f}",
        ">tokens/s": spread("tokens_per_second"),
        ">moved saved": "{moved_saved:.2f}",
        ">speed-up": spread("speedup"),
        ">speed-up / moved saved": "{realised:.2f}",
        "tokens of the resident model": lambda row: "equal" if row["equal_tokens"] else "others",
        ">peak MB": lambda row: f"{row['peak_memory_bytes'] / 1e6:.0f}",
    }
    about = (
        f"{found['model']}, {found['dtype']}, on {found['machine']}, {found['threads']} threads; {packages}. "
        f"{found['tokens']} tokens, {found['repeats']} rounds; the resident model peaks at "
        f"{found['resident_peak_bytes'] / 1e6:.0f} MB."
    )
    return "\n\n".join([about, commands(found["command"]), table(columns, found["rows"])])
