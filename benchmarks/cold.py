"""How long a user waits for the compiled speed.

Two processes one after the other share a cache folder that has the model and, for the first, no compiled code. Each
loads the model and then generates; what counts is the time from that call to the first steps at 90% of the steady
speed.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import depthsched as ds
from depthsched.files import CACHE, cache_folder

from .common import Tokens, Watch, load
from .process import in_a_process


def cold(
    model: str = "smollm2",
    dtype: str = "bfloat16",
    device: str = "auto",
    weights: str = "dense",
    plan: str = "d3:alpha=0.9945",
    backend: str = "compiled",
    tokens: Tokens = 128,
) -> dict[str, Any]:
    """The wait for the steady speed, with an empty cache of compiled code and with a filled one."""
    options = {
        "model": model, "dtype": dtype, "device": device, "weights": weights, "plan": plan, "backend": backend,
        "tokens": tokens,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="depthsched-") as folder:
        (Path(folder) / "models").symlink_to(cache_folder("models"))  # converting is not what is measured
        folders = {CACHE: folder, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor"}  # the second on a GPU
        rows = [{"cache": name, **in_a_process(steady_after, options, **folders)} for name in ("cold", "warm")]
    return {"kind": "cold", **options, "rows": rows}


def steady_after(
    model: str, dtype: str, device: str, weights: str, plan: str, backend: str, tokens: int
) -> dict[str, Any]:
    """Seconds from the call to the first steps that are as fast as, but for 10%, the same steps of a second run."""
    loaded, inputs = load(model, dtype, device, 1, weights)
    options: dict[str, Any] = {"max_new_tokens": tokens, "backend": backend, "do_sample": False}
    began, first, second = time.perf_counter(), Watch(time.perf_counter), Watch(time.perf_counter)
    run = ds.generate(loaded, inputs, plan, streamer=first, **options)
    ds.generate(loaded, inputs, plan, streamer=second, **options)
    once, again = _typical(first.seen), _typical(second.seen)
    at = next((i for i, pair in enumerate(zip(once, again, strict=True)) if 0.9 * pair[0] <= pair[1]), len(once) - 1)
    return {
        "seconds_to_steady": first.seen[at + 1] - began,
        "compile_seconds": run.trace.compile_seconds,
        "backend": run.trace.backend,
    }


def _typical(times: list[float], window: int = 5) -> list[float]:
    """Duration of the steps from each on; the first two times are the prompt's and the prefill's."""
    steps = [b - a for a, b in itertools.pairwise(times[1:])]
    return [statistics.median(steps[i : i + window]) for i in range(len(steps))]
