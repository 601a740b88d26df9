"""The page on predictions: this machine's against its bench, and known shapes on known devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import depthsched as ds
from depthsched.bench.devices import DEVICES
from depthsched.bench.predict import PredictedRow, predict
from depthsched.bench.subjects import shape_subject

from .markdown import Row, commands, not_measured, read, spread, table, versions

SHAPES = ("llama-2-7b", "llama-2-13b", "llama-2-70b")
PLANS = {"llama-2-7b": (24, 16), "llama-2-13b": (30, 20), "llama-2-70b": (60, 40)}
# tokens/s of Llama 2 on A100 80GB (330 W), README of pytorch-labs/gpt-fast: model, devices, batch 1
PUBLISHED = (
    ("llama-2-7b", 1, 104.9), ("llama-2-7b", 2, 168.84), ("llama-2-7b", 4, 254.02), ("llama-2-7b", 8, 328.43),
    ("llama-2-70b", 2, 21.32), ("llama-2-70b", 4, 38.01), ("llama-2-70b", 8, 62.50),
)  # fmt: skip


def tables(folder: Path, gpu: Path) -> dict[str, Callable[[], str]]:
    """Of this machine, of the devices, and of what others measured."""
    return {
        "this": lambda: _this(folder / "this.json"),
        "gpus": _gpus,
        "h200": lambda: _h200(gpu),
        "published": _published,
    }


def _this(path: Path) -> str:
    if not path.is_file():
        return not_measured("python -m benchmarks predict")
    found = read(path)
    packages = versions(found)
    columns: dict[str, Any] = {
        "weights": "{kind}",
        ">batch": "{batch}",
        "plan": "`{plan}`",
        ">predicted tokens/s": spread("predicted", ".1f"),
        ">measured tokens/s": spread("measured", ".1f"),
        ">predicted / measured": spread("ratio"),
        ">by bandwidth alone": "{by_copy_alone:.0f}",
        "within 15%": lambda row: "yes" if row["within"] else "no",
    }
    about = (
        f"{found['machine']}, {found['threads']} threads; {packages}. {found['tokens']} new tokens, {found['rounds']} "
        f"rounds of a prediction and a comparison of {found['repeats']} runs each; intervals over rounds."
    )
    return "\n\n".join([about, commands(found["command"]), table(columns, found["rows"])])


@functools.cache
def _row(shape: str, device: str, ranks: int, batch: int, depth: int | None, tokens: int = 128) -> PredictedRow:
    subject = shape_subject(shape, torch.bfloat16)
    spec = "full" if depth is None else f"constant:depth={depth}"
    plans = {name: ds.plan(name, num_layers=subject.shape.num_layers, horizon=tokens) for name in {"full", spec}}
    rows = predict(subject, DEVICES[device], plans, batches=[batch], ranks=ranks, tokens=tokens)
    return next(row for row in rows if row.plan == spec)


def _gpus() -> str:
    cells = []
    for shape in SHAPES:
        for device in DEVICES:
            for ranks in (1, 2, 4, 8):
                if ranks > 1 and shape != "llama-2-70b":
                    continue
                rows = [_row(shape, device, ranks, batch, d) for batch in (1, 8) for d in (None, *PLANS[shape])]
                cells.append({"shape": shape, "device": device.upper(), "ranks": ranks, "rows": rows})

    def speed(place: int) -> Callable[[Row], str]:
        def cell(row: Row) -> str:
            found = row["rows"][place]
            return f"{found.tokens_per_second:.0f}" if found.fits else "does not fit"

        return cell

    columns: dict[str, Any] = {
        "shape": "{shape}", "device": "{device}", ">devices": "{ranks}",
        ">GB a device": lambda row: f"{row['rows'][3].memory_bytes / 1e9:.1f}",
    }  # fmt: skip
    names = ("full", "3/4 depth", "half depth")
    for place, name in enumerate([f"{name}, batch {batch}" for batch in (1, 8) for name in names]):
        columns[f">{name}"] = speed(place)
    return table(columns, cells)


def _h200(folder: Path) -> str:
    rows = []
    for path in sorted(folder.glob("*.json")):
        found = read(path)
        for row in found["rows"]:
            depth = row["plan"].removeprefix("constant:depth=")
            if row["backend"] != "cuda-graph" or not (row["plan"] == "full" or depth.isdecimal()):
                continue
            one = _row(found["model"], "h200", 1, row["batch"], None if row["plan"] == "full" else int(depth))
            rows.append({"shape": found["model"], "one": one, "row": row})
    columns: dict[str, Any] = {
        "shape": "{shape}",
        ">batch": lambda r: str(r["row"]["batch"]),
        "plan": lambda r: f"`{r['row']['plan']}`",
        ">predicted tokens/s": lambda r: f"{r['one'].tokens_per_second:.0f}",
        ">measured tokens/s": lambda r: f"{r['row']['tokens_per_second']['median']:.0f}",
        ">predicted / measured": lambda r: (
            f"{r['one'].tokens_per_second / r['row']['tokens_per_second']['median']:.2f}"
        ),
        ">predicted GB": lambda r: f"{r['one'].memory_bytes / 1e9:.1f}",
        ">measured GB": lambda r: f"{r['row']['peak_memory_bytes'] / 1e9:.1f}",
    }
    return table(columns, rows)


def _published() -> str:
    rows = [
        {"shape": shape, "ranks": ranks, "said": said, "one": _row(shape, "a100", ranks, 1, None)}
        for shape, ranks, said in PUBLISHED
    ]
    columns: dict[str, Any] = {
        "shape": "{shape}",
        ">devices": "{ranks}",
        ">predicted tokens/s": lambda r: f"{r['one'].tokens_per_second:.0f}",
        ">published tokens/s": "{said:.0f}",
        ">predicted / published": lambda r: f"{r['one'].tokens_per_second / r['said']:.2f}",
    }
    return table(columns, rows)
