"""Clocks: seconds, bytes a second, bytes held."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch

_COPY_BYTES = 1 << 28


def now(device: torch.device) -> float:
    """Seconds, after the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def copy_bandwidth(device: torch.device, repeats: int = 5) -> float:
    """Bytes a second that a large copy moves, reads and writes counted; the best of several."""
    size = _COPY_BYTES if device.type == "cpu" else 4 * _COPY_BYTES
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    seconds = []
    for _ in range(repeats):
        began = now(device)
        target.copy_(source)
        seconds.append(now(device) - began)
    return 2 * size / min(seconds)


def reset_peak(device: torch.device) -> None:
    """Start measuring the peak anew. On a system that cannot, the peak is that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not permitted in some containers
            return


def peak_bytes(device: torch.device) -> int:
    """Most bytes held since :func:`reset_peak`: allocated on a GPU, resident in the process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    line: Any = next((row for row in status.splitlines() if row.startswith("VmHWM")), None)
    return int(line.split()[1]) * 1024 if line else 0


class StepClock:
    """A logits processor that changes nothing and notes when it was called: decoding time of transformers' own loop."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(now(scores.device))
        return scores

    @property
    def decode_seconds(self) -> float:
        """From the logits of the prefill to those of the last step."""
        return self.times[-1] - self.times[0]
