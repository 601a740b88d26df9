"""How long a user waits for the compiled speed: ``python -m depthsched.bench.cold [options]``.

Two processes one after the other share a cache of compiled code that is empty for the first. Each loads the model
and then generates; what counts is the time from that call to the first steps at 90% of the steady speed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from typing import Any

from .inputs import bench_inputs
from .process import in_a_process

_NAME = "depthsched.bench.cold"
_WINDOW = 5


class _Clock:
    """A streamer that notes when each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, tokens: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""


def cold_and_warm(**options: Any) -> dict[str, Any]:
    """Both processes.

    Returns
    -------
    dict
        The options and ``rows``, for ``cold`` and ``warm``: ``seconds_to_steady``, ``compile_seconds``, ``backend``.

    Raises
    ------
    ModelError
        A run failed.
    """
    with tempfile.TemporaryDirectory(prefix="depthsched-") as cache:
        environment = {"TORCHINDUCTOR_CACHE_DIR": cache}
        rows = [{"cache": name, **in_a_process(_NAME, options, environment)} for name in ("cold", "warm")]
    return {"kind": "cold", **options, "rows": rows}


def steady_after(model: Any, inputs: Any, plan: str, backend: str, tokens: int) -> dict[str, Any]:
    """Seconds from the call to the first steps that are as fast as, but for 10%, the same steps of a second run."""
    from ..runtime.generate import generate

    model.generation_config.eos_token_id = None
    began, first, second = time.perf_counter(), _Clock(), _Clock()
    run = generate(model, inputs, plan, max_new_tokens=tokens, backend=backend, streamer=first, do_sample=False)
    generate(model, inputs, plan, max_new_tokens=tokens, backend=backend, streamer=second, do_sample=False)
    once, again = _smooth(first.times), _smooth(second.times)
    at = next((i for i, pair in enumerate(zip(once, again, strict=True)) if 0.9 * pair[0] <= pair[1]), len(once) - 1)
    return {
        "seconds_to_steady": first.times[at + 1] - began,
        "compile_seconds": run.trace.compile_seconds,
        "backend": run.trace.backend,
    }


def _smooth(times: list[float]) -> list[float]:
    """Typical duration of the steps from each on; the first two times are the prompt's and the prefill's."""
    steps = [b - a for a, b in itertools.pairwise(times[1:])]
    return [statistics.median(steps[i : i + _WINDOW]) for i in range(len(steps))]


def main() -> None:
    """Print both as JSON."""
    from ..models import load_model

    parser = argparse.ArgumentParser(prog=f"python -m {_NAME}")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plan", default="d3:alpha=0.9945")
    parser.add_argument("--backend", default="compiled")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    if not given.pop("one"):
        print(json.dumps(cold_and_warm(**given)))
        return
    model, tokenizer = load_model(given.pop("model"), dtype=given.pop("dtype"), device=given.pop("device"))
    print(json.dumps(steady_after(model, bench_inputs(tokenizer, 1, model.device), **given)))


if __name__ == "__main__":
    main()
