"""What a device does in a second, by its datasheet and by what was measured: the figures that predictions stand on."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import UnknownNameError
from ..settings import suggest

COPY_SHARE = 0.87
"""Of the bandwidth on the datasheet, what a large copy moves: 4 180 of 4 800 GB/s on an H200, as measured."""

LAYER_SECONDS, ROW_SECONDS = 41e-6, 1.3e-6
"""What a layer takes beside its bytes, with its graph launch, at one row, and more for each further row: H200."""

ALL_REDUCE_SECONDS = 13e-6
"""Of one all-reduce of a few KB within a node: what is left of gpt-fast's published 7B figures on 4 and 8 A100."""

FLOPS_SHARE = 0.5
"""Of the datasheet's operations a second, what products of few rows reach; decides nothing below some 100 rows."""


@dataclass(frozen=True)
class Costs:
    """What steps of some rows take on a device beside moving bytes.

    Attributes
    ----------
    layer_seconds, step_seconds : float
        Of each layer that runs, and once a step: beside the time in which their bytes could be copied.
    """

    layer_seconds: float
    step_seconds: float = 0.0


@dataclass(frozen=True)
class Device:
    """A device as predictions know it.

    Attributes
    ----------
    name : str
    memory_bytes : float
    copy_bytes_per_s : float
        What a large copy moves, reads and writes counted.
    flops_per_s : float or None
        Dense operations a second in half precision; None where ``costs`` were measured with the rows of a batch.
    link_bytes_per_s : float or None
        To the other devices of a node, one way; None for a device that is alone.
    costs : mapping of int to Costs
        Measured, by the rows of the batch; other batches follow the figures of the H200.
    assumptions : tuple of str
        Where the figures come from, one line each.
    """

    name: str
    memory_bytes: float
    copy_bytes_per_s: float
    flops_per_s: float | None
    link_bytes_per_s: float | None
    costs: dict[int, Costs] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def beside(self, batch: int) -> Costs:
        """What a step of ``batch`` rows costs beside its bytes."""
        return self.costs.get(batch) or Costs(LAYER_SECONDS + ROW_SECONDS * (batch - 1))


def _gpu(name: str, memory: float, bandwidth: float, tflops: float, link: float) -> Device:
    says = (
        f"{name}: {memory / 1e9:.0f} GB, {bandwidth / 1e9:.0f} GB/s, {tflops:.0f} TFLOP/s in half precision and "
        f"{link / 1e9:.0f} GB/s to its neighbours, one way (datasheet)",
        f"a copy moves {COPY_SHARE:.0%} of that bandwidth, as measured on an H200",
        f"a layer takes {LAYER_SECONDS * 1e6:.0f} us beside its bytes, graph launch included, and "
        f"{ROW_SECONDS * 1e6:.1f} us more for each further row, as measured on an H200",
        f"products reach {FLOPS_SHARE:.0%} of the operations a second (assumed; decides only large batches)",
    )
    return Device(name, memory, bandwidth * COPY_SHARE, tflops * 1e12 * FLOPS_SHARE, link, assumptions=says)


DEVICES = {
    "a100": _gpu("NVIDIA A100 80GB SXM", 80e9, 2039e9, 312, 300e9),
    "h100": _gpu("NVIDIA H100 SXM", 80e9, 3350e9, 989, 450e9),
    "h200": _gpu("NVIDIA H200", 141e9, 4800e9, 989, 450e9),
}


def known_device(name: str) -> Device:
    """A device by its name.

    Raises
    ------
    UnknownNameError
    """
    if name.lower() not in DEVICES:
        raise UnknownNameError(f"unknown device {name!r}; use 'this' or a known one; {suggest(name, DEVICES)}")
    return DEVICES[name.lower()]
