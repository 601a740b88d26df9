"""``--ray``: work on the workers of a Ray cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import SettingsError

if TYPE_CHECKING:
    from ..work.cluster import Cluster

RayOption = Annotated[
    str | None,
    typer.Option("--ray", help="Spread the work over a Ray cluster: HOST:PORT of its head, auto, or local."),
]
RayCpusOption = Annotated[
    float | None, typer.Option("--ray-cpus", help="CPUs of the cluster for one piece of work, and its threads; 1.")
]


def cluster_of(address: str | None, cpus: float | None) -> Cluster | None:
    """The cluster that is asked for.

    Raises
    ------
    SettingsError
    """
    if address is None:
        if cpus is not None:
            raise SettingsError("--ray-cpus goes with --ray; alone it changes nothing")
        return None
    from ..work.cluster import Cluster, refuse_ranks

    refuse_ranks()  # before the model
    return Cluster(address, 1.0 if cpus is None else cpus)


@contextmanager
def connected(cluster: Cluster | None) -> Iterator[None]:
    """One connection for all that a command does, so that workers stay and keep their model."""
    if cluster is None:
        yield
        return
    with redirect_stdout(sys.stderr), cluster.connected():  # Ray prints there when a worker dies
        yield
