"""The speed page: every ``.json`` file of a folder, as ``depthsched bench``, memory, cold and long printed it."""

from __future__ import annotations

from pathlib import Path

from .markdown import Cell, Row, commands, read, section, spread, table, versions

_COMPARISON: dict[str, Cell] = {
    "plan": "`{plan}`",
    "backend": "{backend}",
    ">mean depth": "{mean_depth:.1f}",
    ">tokens/s": spread("tokens_per_second", ".1f"),
    ">bytes saved": "{theoretical_bytes:.2f}",
    ">speed-up": spread("speedup_vs_full"),
    ">realised": "{realised:.2f}",
    ">vs transformers": lambda row: spread("vs_transformers").format_map(row) if row["vs_transformers"] else "",
    ">GB/s": "{gb_per_s:.1f}",
    ">peak MB": lambda row: f"{row['peak_memory_bytes'] / 1e6:.0f}",
    ">compile s": "{compile_seconds:.1f}",
    ">equal tokens": lambda row: "" if row["equal_tokens"] is None else f"{row['equal_tokens']:.0%}",
    ">scheduling": lambda row: "" if row["overhead"] is None else f"{row['overhead']:.3%}",
}
# What memory, cold and long print: title, text, command and columns.
_OTHERS: dict[str, tuple[str, str, str, dict[str, Cell]]] = {
    "memory": (
        "Memory, {dtype}, {weights} weights, batch {batch}",
        "Peak of a process that generates {tokens} tokens twice, weights and compiling included, loading not.",
        "python -m benchmarks memory --dtype {dtype} --weights {weights} --batch {batch}",
        {"backend": "{backend}", ">peak MB": _COMPARISON[">peak MB"], ">vs the first": "{ratio:.2f}"},
    ),
    "cold": (
        "Waiting for the compiler, {dtype}, {weights} weights",
        "`{plan}`, from the call with the model loaded to steps at 90% of their steady speed, without compiled code in "
        "the cache folder (cold) and with it (warm), each in a new process.",
        "python -m benchmarks cold --dtype {dtype} --weights {weights}",
        {
            "cache": "{cache}",
            ">seconds to steady speed": "{seconds_to_steady:.2f}",
            ">of them compiling": "{compile_seconds:.2f}",
        },
    ),
    "first": (
        "The first token, {dtype}, {weights} weights, batch {batch}",
        "A prompt of {prompt_tokens} tokens per row; {backend} on {threads} threads against transformers' own generate "
        "on the dense model, alternating.",
        "python -m benchmarks first --dtype {dtype} --weights {weights} --batch {batch}",
        {
            ">seconds": spread("seconds", ".3f"),
            ">transformers": spread("transformers", ".3f"),
            ">ratio": spread("ratio"),
        },
    ),
    "long": (
        "A long run of {tokens} tokens, {dtype}, {weights} weights",
        "`{plan}`, {backend}; {compile_seconds:.2f} s of compiling during the run. A block's cache at full depth is "
        "{cache_mb:.0f} MB, and attention reads all blocks so far: tokens/s falls as the bytes grow, GB/s should not.",
        "python -m benchmarks long --dtype {dtype} --weights {weights} --plan {plan} --tokens {tokens}",
        {
            ">tokens": "{tokens}",
            ">mean depth": "{mean_depth:.1f}",
            ">tokens/s": "{tokens_per_second:.1f}",
            ">GB/s": "{gb_per_s:.1f}",
            ">peak MB": _COMPARISON[">peak MB"],
        },
    ),
}


def tables(folder: Path) -> str:
    """All sections: comparisons first, then the rest."""
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    found.sort(key=lambda one: "kind" in one)
    return "".join(_other(one) if "kind" in one else _comparison(one) for one in found)


def _comparison(found: Row) -> str:
    packages = versions(found)
    return section(
        f"{found['model']}, {found['dtype']}, {found.get('weights', 'dense')} weights, batch {found['batch']}",
        f"{found['machine']}, {found['threads']} threads; {packages}. {found['tokens']} new tokens after "
        f"{found['prompt_tokens']}, {found['repeats']} rounds. A large copy moves {found['copy_gb_per_s']:.1f} GB/s.",
        found.get("note", ""),
        commands(found["command"]),
        table(_COMPARISON, found["rows"]),
    )


def _other(found: Row) -> str:
    title, text, command, columns = _OTHERS[found["kind"]]
    about = {"weights": "dense", **found, "cache_mb": found.get("cache_bytes", 0) / 1e6}
    rows = found["blocks" if "blocks" in found else "rows"]
    return section(
        title.format_map(about), text.format_map(about), commands(command.format_map(about)), table(columns, rows)
    )
