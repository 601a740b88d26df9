"""A Ray cluster: how it is reached, and how tasks run on it."""

from __future__ import annotations

import functools
import importlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from .. import errors
from ..errors import DepthschedError, SettingsError, WorkError
from ..models import load_model
from ..parallel import launch
from ..text import one_line
from .message import pack, unpack
from .pieces import Function, Loaded, Local, Work
from .source import Source, identity

RETRIES = 3
_SECONDS = 5.0
Key = TypeVar("Key")


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster on which work is spread.

    Attributes
    ----------
    address : str
        ``HOST:PORT`` of its head, ``auto`` for the one at hand (``RAY_ADDRESS``, or on this machine), or ``local`` for
        one of our own on the CPUs of this machine.
    cpus : float
        CPUs that Ray sets aside for a piece, and the threads of the worker that does it; at least one thread.
    """

    address: str = "auto"
    cpus: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.cpus < float("inf"):
            raise SettingsError(f"{self.cpus:g} CPUs for a piece of work must be above 0")
        host, _, port = self.address.rpartition(":")
        if self.address not in ("auto", "local") and not (host and "/" not in host and port.isdigit()):
            raise SettingsError(f"Ray address {self.address!r} must be HOST:PORT of a cluster's head, auto or local")

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """The package ray, connected; a connection that is there already stays.

        Raises
        ------
        SettingsError
            Ray is not installed, no cluster can be reached, or none of its nodes has so many CPUs.
        """
        ray = ray_package()
        ours = not ray.is_initialized()
        try:
            if ours:
                connect(ray, self.address)
            most = max((n["Resources"].get("CPU", 0.0) for n in ray.nodes() if n["Alive"]), default=0.0)
            if most < self.cpus:
                raise SettingsError(f"no node of the Ray cluster has {self.cpus:g} CPUs; the largest has {most:g}")
            yield ray
        finally:
            if ours:
                ray.shutdown()


@contextmanager
def working(model: Any, tokenizer: Any, cluster: Cluster | None) -> Iterator[Work]:
    """What does the work of a call: the workers of a cluster, or without one this process.

    Raises
    ------
    ModelError, SettingsError
        The model has no name to load it by, ranks share it, or the cluster cannot be reached.
    """
    if cluster is None:
        yield Local(model, tokenizer)
        return
    refuse_ranks()
    source = Source.of(model)
    with cluster.connected() as ray:
        yield _Remote(ray, cluster, source, identity(model))


def refuse_ranks() -> None:
    """Refuse a cluster to processes that share one model.

    Raises
    ------
    SettingsError
    """
    if launch.world() > 1:
        raise SettingsError("ranks share one model, and a Ray cluster spreads whole ones; use one of the two")


class _Remote:
    """Work on the workers of a cluster. A piece whose worker dies is done again on another one."""

    def __init__(self, ray: Any, cluster: Cluster, source: Source, who: dict[str, str]) -> None:
        self.ray, self.cluster, self.source, self.who = ray, cluster, source, who
        gpus = 1 if source.device.startswith("cuda") else 0
        self.task = ray.remote(num_cpus=cluster.cpus, num_gpus=gpus, max_retries=RETRIES)(_piece)

    def map(self, function: Function, shared: Any, pieces: Sequence[Any]) -> Iterator[Any]:
        name = f"{function.__module__}:{function.__qualname__}"
        common = self.ray.put(pack(shared))
        given = tuple(self.source), max(int(self.cluster.cpus), 1), name, common
        starts = ((i, self.task.remote(*given, pack(piece))) for i, piece in enumerate(pieces))
        found: dict[int, Any] = {}
        at = 0
        for i, reference in in_flight(self.ray, starts, lambda: slots(self.ray, self.cluster.cpus)):
            found[i] = reference
            while at in found:
                yield self._value(found.pop(at))
                at += 1

    def _value(self, reference: Any) -> Any:
        try:
            reply = unpack(self.ray.get(reference))
        except self.ray.exceptions.RayError as problem:  # its worker died each time, or cannot import depthsched
            raise WorkError(f"a piece of work failed on the Ray cluster: {one_line(problem, 500)}") from problem
        if "error" in reply:
            kind = getattr(errors, reply["error"], None)
            known: type[Exception] = kind if isinstance(kind, type) and issubclass(kind, DepthschedError) else WorkError
            of = f"{reply['error']}: " if known is WorkError else ""
            raise known(f"on a worker: {of}{reply['said']}")
        for what, ours in self.who.items():
            if reply["who"][what] != ours:
                raise WorkError(f"a worker has other {what} under the name {self.source.model}: {reply['who'][what]}")
        return reply["value"]


def _piece(source: Sequence[str], threads: int, function: str, shared: bytes, piece: bytes) -> bytes:
    """On a worker."""
    import torch

    try:
        torch.set_num_threads(threads)
        found = loaded(Source(*source))
        module, _, name = function.partition(":")
        value = getattr(importlib.import_module(module), name)(found, unpack(shared), unpack(piece))
        return pack({"value": value, "who": identity(found.model)})
    except Exception as problem:  # Ray's own report of it is a page long
        return pack({"error": type(problem).__name__, "said": one_line(problem, 500)})


@functools.lru_cache(maxsize=1)
def loaded(source: Source) -> Loaded:
    """The model in this process; that of the last piece is most often that of this one."""
    return Loaded(*load_model(source.model, dtype=source.dtype, device=source.device, weights=source.weights))


def in_flight(ray: Any, starts: Iterator[tuple[Key, Any]], most: Callable[[], int]) -> Iterator[tuple[Key, Any]]:
    """Start tasks while the cluster has room, and yield those that are done, as soon as they are.

    Parameters
    ----------
    ray : module
    starts : iterator
        Starts a task when it is asked for the next one, and gives its key and reference.
    most : callable
        How many may run at once.
    """
    running: dict[Any, Key] = {}
    more = True
    try:
        while more or running:
            while more and len(running) < most():
                started = next(starts, None)
                more = started is not None
                if started is not None:
                    running[started[1]] = started[0]
            done, _ = ray.wait(list(running), num_returns=1, timeout=1.0) if running else ([], None)
            for reference in done:
                yield running.pop(reference), reference
    finally:
        for reference in running:
            ray.cancel(reference)


def slots(ray: Any, cpus: float) -> int:
    """Tasks that the cluster can run at once, and one more so that no worker waits for this process."""
    return int(ray.cluster_resources().get("CPU", 1) // cpus) + 1


def ray_package() -> Any:
    """The package ray.

    Raises
    ------
    SettingsError
        It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--ray needs Ray: pip install 'depthsched[ray]'") from error
    return ray


def connect(ray: Any, address: str | None = None) -> None:
    """Connect to a cluster, by default to the one that ``RAY_ADDRESS`` names, or to a local one.

    Raises
    ------
    SettingsError
        There is none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own reports to nobody
    host, _, port = (address or "").rpartition(":")
    try:
        if host:  # Ray itself waits for minutes
            socket.create_connection((host, int(port)), timeout=_SECONDS).close()
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, OverflowError) as error:
        where = f" at {address}" if address else ""
        raise SettingsError(f"no Ray cluster{where}: {one_line(error)}") from error
