"""Self-check: a fast backend gives the logits of the eager one, or it is not used.

Before a fast backend runs a model for the first time on a device, a prompt of a few tokens and a few steps go through
both. What passed is kept in the cache folder, so that the next process does not check again.
"""

from __future__ import annotations

import inspect
import json
import math
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from ..adapters import Adapter
from ..environment import machine, versions
from ..errors import AttachError, DepthschedWarning, SettingsError
from ..files import cache_dir, cache_folder, digest, json_digest, write_json
from ..fingerprint import config_digest
from ..parallel.ranks import Ranks, ranks_of
from ..plans import DepthPlan
from ..text import one_line
from .eager import EagerBackend

if TYPE_CHECKING:
    from .backends import Backend

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest distance of two rows of logits, as a share of their length, by dtype.

Two correct ways of computing a step round differently. In half precision every sub-layer adds a rounding of relative
size u (2**-11 in float16, 2**-8 in bfloat16) to the state, in no common direction, so that L layers come to about u *
sqrt(4 * L), a hundredth in float16 and seven hundredths in bfloat16 for 80 layers (SmolLM2's 30 in bfloat16, compiled
for a CPU: 0.031). In float32 that would be 1e-6; there the bound leaves room for products that a library sums in
another order or in TF32. A wrong mask, position, weight or layer is a distance of a tenth to one.
"""

_PROMPT = 6

_passed: set[str] = set()
_failed: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes
    ----------
    backend : str
    reason : str
        Why the backend is not to be used; empty where it passed.
    error, tolerance : float
        Largest distance between the logits of a row in the two backends, as a share of their length, and what is
        allowed. Not a number where the backend did not get as far.
    depths : tuple of int
        Depths of the steps that were compared.
    seconds, compile_seconds : float
        What the check took, and compiling in it.
    """

    backend: str
    reason: str
    error: float
    tolerance: float
    depths: tuple[int, ...]
    seconds: float
    compile_seconds: float

    @property
    def ok(self) -> bool:
        """Whether the backend may be used."""
        return not self.reason


def checked(
    make: Callable[[], Backend],
    adapter: Adapter,
    plan: DepthPlan,
    reason: str,
    *,
    batch: int = 1,
    write_kv: bool = False,
    several: bool = False,
) -> tuple[Backend, str]:
    """The backend that ``make`` makes if it passed its check, now or before, and else the eager one.

    Parameters
    ----------
    make : callable
        Makes the backend for one run, not yet entered; called once for the run and, on first use, once for the check.
        Its class may have ``check_key``, a text that names what it was built with, ``release()``, which gives back
        what it keeps of a model, and ``check_batch``, the rows to check where its code is the same for any number.
    adapter : Adapter
    plan : DepthPlan
    reason : str
        Why this backend was chosen.
    batch, write_kv, several
        As of :func:`~depthsched.runtime.backends.make_backend`.

    Returns
    -------
    tuple
        The backend, and the reason for the trace: the given one, or what the check found. A backend that failed is
        warned of once for each model, and not tried again for it in this process.
    """
    backend = make()
    batch = getattr(backend, "check_batch", batch)
    what = describe(backend, adapter, plan, batch=batch, write_kv=write_kv, several=several)
    ranks = ranks_of(adapter.model)
    key, failed = json_digest(what), _failed.setdefault(adapter.model, {})
    unknown = key not in failed and key not in _passed and not _recorded(key, what)
    if _any(ranks, unknown):  # what one rank does not know yet, all check together
        check = examine(make, adapter, plan, batch=batch, write_kv=write_kv, several=several)
        if not _any(ranks, not check.ok):
            _record(key, what, check)
            backend.compile_seconds = check.compile_seconds
        else:
            found = check.reason or "another rank found a fault"
            failed[key] = f"backend {check.backend!r} failed its self-check: {found}"
            warnings.warn(f"{failed[key]}; this model runs in eager", DepthschedWarning, stacklevel=2)
    if key in failed:
        return EagerBackend(adapter, plan, write_kv=write_kv), failed[key]
    return backend, reason


def _any(ranks: Ranks | None, here: bool) -> bool:
    return here if ranks is None else any(ranks.each(here))


def describe(
    backend: Backend, adapter: Adapter, plan: DepthPlan, *, batch: int, write_kv: bool, several: bool = False
) -> dict[str, Any]:
    """What a check holds for: a JSON object, equal wherever the same code computes the same shapes."""
    return {
        "backend": backend.name,
        "code": code_digest(type(backend)),
        "built": getattr(backend, "check_key", ""),
        "model": config_digest(adapter.model),
        "dtype": str(adapter.dtype),
        "device": machine(adapter.device),
        "versions": {**versions(), "cuda": torch.version.cuda},
        "batch": batch,
        "write_kv": write_kv,
        "several": several,
        "bridged": any(plan.bridges.values()),
        **({"ranks": ranks.size, "rank": ranks.rank} if (ranks := ranks_of(adapter.model)) else {}),
    }


def code_digest(kind: type) -> str:
    """Hash of the folders that a class and its bases in this package are written in."""
    folders = {Path(inspect.getfile(k)).parent for k in kind.__mro__ if k.__module__.startswith("depthsched.")}
    files = sorted(file for folder in folders for file in folder.iterdir() if file.is_file())
    return digest(b"\0".join(file.name.encode() + file.read_bytes() for file in files))


def examine(
    make: Callable[[], Backend], adapter: Adapter, plan: DepthPlan, *, batch: int = 1, write_kv: bool = False,
    several: bool = False,
) -> Check:  # fmt: skip
    """Compare a few steps of a backend with the eager one; whatever the backend raises is a finding.

    ``several`` compares a draft and the pass that checks it instead.

    Raises
    ------
    AttachError
        The model is in the middle of another run.
    """
    began, backend = time.perf_counter(), make()
    depths = check_depths(plan, rising=write_kv)
    logits = _drafted if several else _logits
    wanted = list(logits(EagerBackend(adapter, plan, write_kv=write_kv), adapter, depths, batch))
    tolerance, error, reason = TOLERANCE.get(adapter.dtype, TOLERANCE[torch.bfloat16]), math.nan, ""
    try:
        got = list(logits(backend, adapter, depths, batch))
        error = max(distance(a, b) for a, b in zip(got, wanted, strict=True))
        if not error <= tolerance:
            reason = f"its logits differ from eager's by {error:.2g} of their length, and {tolerance:.2g} is allowed"
    except AttachError:
        raise
    except Exception as fault:  # from a compiler, a driver or the backend: nothing of it may end the run
        reason = f"{type(fault).__name__}: {one_line(fault)}"
    if reason and hasattr(backend, "release"):
        backend.release()
    seconds = time.perf_counter() - began
    return Check(backend.name, reason, error, tolerance, tuple(depths), seconds, backend.compile_seconds)


def check_depths(plan: DepthPlan, *, rising: bool) -> list[int]:
    """Depths of the steps that a check compares, deepest first unless a depth may rise.

    Full depth twice (a graph is captured and then replayed), the shallowest, and one between them, with bridges if any
    depth has some.
    """
    depths = sorted(plan.keep_sets, reverse=True)
    between = [d for d in depths[1:] if plan.bridges.get(d)] or depths[1:]
    found = [depths[0], depths[0], *between[len(between) // 2 :][:1], depths[-1], depths[-1]]
    return [*found, depths[0]] if rising else found


def distance(got: Tensor, wanted: Tensor) -> float:
    """Largest distance between two rows ``[batch, vocabulary]``, as a share of the wanted one's length.

    What is not finite in both counts as equal, and what is not finite in one as infinitely far.
    """
    finite = wanted.isfinite()
    if got.shape != wanted.shape or not torch.equal(got.isfinite(), finite):
        return math.inf
    a, b = (torch.where(finite, t, 0.0) for t in (got.double(), wanted.double()))
    length = b.norm(dim=-1).clamp_min(torch.finfo(torch.float32).tiny)
    return float(((a - b).norm(dim=-1) / length).max())


@torch.no_grad()
def _logits(backend: Backend, adapter: Adapter, depths: list[int], batch: int) -> Iterator[Tensor]:
    """Logits of a short prompt, rows padded to different lengths, and of a step at each depth."""
    ids, mask = _prompt(adapter, batch, len(depths))
    with backend:
        logits, decoder = backend.prefill(ids[:, :_PROMPT], mask, DynamicCache(config=adapter.config))
        yield _kept(logits)
        for step, depth in enumerate(depths):
            yield _kept(decoder.step(ids[:, _PROMPT + step], depth))


@torch.no_grad()
def _drafted(backend: Any, adapter: Adapter, depths: list[int], batch: int) -> Iterator[Tensor]:
    """Logits of the prompt, of a draft of a token at each depth, and of two passes that check it.

    The second begins earlier in every other row, as where fewer of its tokens were right.
    """
    ids, mask = _prompt(adapter, batch, len(depths))
    start = torch.full((batch,), _PROMPT, device=ids.device)
    with backend:
        logits, decoder = backend.prefill(ids[:, :_PROMPT], mask, DynamicCache(config=adapter.config))
        yield _kept(logits)
        for step, depth in enumerate(depths[-2:]):
            yield _kept(decoder.several(ids[:, _PROMPT + step, None], start + step, depth)).flatten(0, 1)
        for back in (0, 1):
            at = start + 2 * back - torch.arange(batch, device=ids.device) % 2 * back
            yield _kept(decoder.several(ids[:, _PROMPT : _PROMPT + 3], at, adapter.num_layers)).flatten(0, 1)


def _prompt(adapter: Adapter, batch: int, steps: int) -> tuple[Tensor, Tensor]:
    """Tokens of a prompt and the steps after it, any but the same in both backends; rows have padding in front."""
    ids = torch.arange(batch * (_PROMPT + steps), device=adapter.device).view(batch, -1)
    ids = (ids * 7919 + 13) % adapter.config.vocab_size
    mask = torch.ones_like(ids[:, :_PROMPT])
    for row in range(batch):
        mask[row, : row % (_PROMPT - 1)] = 0
    return ids, mask


def _kept(logits: Tensor) -> Tensor:
    return logits.to("cpu", torch.float32, copy=True)  # a backend's may be one buffer, written at every step


def _file(key: str) -> Path:
    return cache_dir() / "checks" / f"{key}.json"


def _recorded(key: str, what: dict[str, Any]) -> bool:
    try:
        found = json.loads(_file(key).read_text())
        passed = found["what"] == json.loads(json.dumps(what)) and found["error"] <= found["tolerance"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if passed:
        _passed.add(key)
    return bool(passed)


def _record(key: str, what: dict[str, Any], check: Check) -> None:
    _passed.add(key)
    with suppress(SettingsError, OSError):  # a cache folder that cannot be written costs a check in each process
        cache_folder("checks")
        write_json(_file(key), {"what": what, **asdict(check)})
