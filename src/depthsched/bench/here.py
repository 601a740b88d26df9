"""This machine as a device: copy bandwidth, and on a CPU what a layer and the rest of a step of the model take.

On a CPU decoding is not bound by bandwidth alone: with several rows the products are bound by the cores, and weights of
4 bits take them too. So layers, and the head with all that follows it, run through the compiled library, apart from
each other, with the caches cold; no plan runs, and nothing is fitted to what a run takes.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..adapters import adapter_for
from ..environment import machine
from ..errors import PlanError
from ..runtime.native import native_obstacle
from ..runtime.plain import why_not
from .clock import copy_bandwidth
from .devices import LAYER_SECONDS, Costs, Device
from .predict import Subject

COLD_BYTES = 256e6
"""Layers are timed as many at a time as take this much, so that a cache holds no more of them than in a run: with 96 MB
and 32 MB of cache predictions were 2% higher."""

BLOCKS, STEPS = 5, 12
"""A piece is timed this often; the mean of each block counts, as in a run, and of the blocks the median."""


def this_device(device: torch.device) -> Device:
    """Memory and copy bandwidth of a device of this machine, measured now."""
    copy = copy_bandwidth(device)
    if device.type == "cuda":
        memory = float(torch.cuda.get_device_properties(device).total_memory)
        says = (
            f"a large copy moves {copy / 1e9:.1f} GB/s on {machine(device)}, measured now",
            f"a layer takes {LAYER_SECONDS * 1e6:.0f} us beside its bytes, graph launch included, as measured on an "
            "H200; operations a second do not limit",
        )
        return Device(machine(device), memory, copy, None, None, assumptions=says)
    memory = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    about = f"a large copy moves {copy / 1e9:.1f} GB/s on this {machine(device)}, measured now"
    return Device(machine(device), memory, copy, None, None, assumptions=(about,))


def cpu_costs(
    subject: Subject,
    model: Any,
    device: Device,
    batches: Sequence[int],
    context: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Device:
    """The device with what a layer and a step of a model cost on this CPU beside their bytes.

    Parameters
    ----------
    subject : Subject
    model : transformers.PreTrainedModel
        Of the subject's sizes; some of its layers are timed.
    device : Device
    batches : sequence of int
    context : int
        Tokens that attention reads: the mean of the runs that are predicted.

    Raises
    ------
    PlanError
        The model does not run through the compiled library here.
    """
    adapter = adapter_for(model)
    obstacle = why_not(adapter, context + 1, stored=True) or native_obstacle(adapter, compile_it=False, holes=False)
    if obstacle is not None:
        raise PlanError(f"--device this times the compiled step, which cannot run {subject.name} here: {obstacle}")
    shape, found, says = subject.share(1), {}, list(device.assumptions)
    for batch in batches:
        progress(f"timing a layer and the head, batch {batch}")
        layers, layer, step = _pieces(adapter, shape.step_bytes(1, 0) - shape.step_bytes(0, 0), batch, context)
        fixed = shape.step_bytes(0, context, batch)
        each = (shape.step_bytes(layers, context, batch) - fixed) / layers
        copy = device.copy_bytes_per_s
        found[batch] = Costs(layer - each / copy, step - fixed / copy)
        says.append(
            f"batch {batch}: a layer of these sizes takes {layer * 1e3:.2f} ms through the compiled library, "
            f"{each / layer / 1e9:.1f} GB/s, and the rest of a step {step * 1e3:.2f} ms: {layers} layers and the head, "
            f"timed apart at a context of {context} on {torch.get_num_threads()} threads"
        )
    return Device(device.name, device.memory_bytes, device.copy_bytes_per_s, None, None, found, tuple(says))


@torch.no_grad()
def _pieces(adapter: Any, layer_bytes: float, batch: int, context: int) -> tuple[int, float, float]:
    """How many layers ran at a time, seconds of one of them, and of all of a step but the layers."""
    from ..native.library import load
    from ..runtime.native.kv import NativeKV
    from ..runtime.native.model import NativeModel
    from ..runtime.native.step import NativeDecoder

    library, _ = load()
    model = NativeModel(adapter, {})
    count = min(model.num_layers, max(2, round(COLD_BYTES / layer_bytes)))
    kv = NativeKV(
        None, layers=model.num_layers, batch=batch, heads=model.kv_heads, width=model.width, dtype=model.dtype,
        room=context + 1,
    )  # fmt: skip
    for held in (*kv.keys, *kv.values):
        held.fill_(0.1)  # memory that was never written is one page for all
    starts = torch.zeros(batch, dtype=torch.int32)
    keep = {count: tuple(range(count)), 0: ()}
    decoder = NativeDecoder(library, model, kv, starts, keep, write_kv=False)
    ids, every = torch.ones(batch, dtype=torch.int64), torch.arange(batch, dtype=torch.int32)
    slots, none = torch.full_like(starts, context), every[:0]

    def layers() -> None:
        decoder.forward(ids, decoder.rows, slots, none, count)

    text, choose = torch.ones(batch, context, dtype=torch.int64), _choosing()

    def head() -> None:
        choose(text, decoder.forward(ids, decoder.rows, slots, every, 0))

    def call() -> None:
        decoder.forward(ids, decoder.rows, slots, none, 0)

    seconds = _by_turns([layers, head, call])
    return count, max(seconds[0] - seconds[2], 0.0) / count, seconds[1]


def _choosing() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """What a run does between two steps: from logits to a token, and to the trace."""
    from transformers import GenerationConfig, LogitsProcessorList
    from transformers.generation.stopping_criteria import MaxLengthCriteria, StoppingCriteriaList

    from ..plans import plan
    from ..runtime.renewal import Ran
    from ..runtime.sampler import Sampler
    from ..runtime.trace import Ledger, Trace

    sampler = Sampler(LogitsProcessorList(), StoppingCriteriaList([MaxLengthCriteria(1 << 30)]), GenerationConfig())
    ledger = Ledger(Trace(plan("full", num_layers=1, horizon=1)), time.perf_counter())

    def choose(text: torch.Tensor, logits: torch.Tensor) -> None:
        tokens = sampler(text, logits)
        text = torch.cat([text, tokens[:, None]], dim=-1)
        ledger.add(Ran(1), tokens, sampler.running(text), None)
        ledger.settle()

    return choose


def _by_turns(pieces: Sequence[Callable[[], None]]) -> list[float]:
    """Seconds of each of some functions that run one after the other, again and again."""
    blocks: list[list[float]] = [[] for _ in pieces]
    for block in range(-1, BLOCKS):  # the first warms up
        sums = [0.0 for _ in pieces]
        for _ in range(STEPS):
            for i, piece in enumerate(pieces):
                began = time.perf_counter()
                piece()
                sums[i] += time.perf_counter() - began
        if block >= 0:
            for found, total in zip(blocks, sums, strict=True):
                found.append(total / STEPS)
    return [statistics.median(found) for found in blocks]
