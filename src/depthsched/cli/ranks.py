"""A command that ``torchrun`` started several times over: rank 0 speaks for all."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from ..errors import RankError, SettingsError
from ..parallel import launch
from ..parallel.watch import ERRORS, say

COMMANDS = ("generate", "bench", "score", "eval")
"""What runs a model that ranks share."""


def prepare() -> None:
    """Silence every rank but the first, and end in one line where the launcher ends the run."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # the lines that its connections write to stderr
    signal.signal(signal.SIGTERM, _ended)
    if launch.rank() == 0:
        return
    if ERRORS.descriptor == 2:
        ERRORS.descriptor = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(nowhere, descriptor)


def refuse_others(args: Sequence[str]) -> None:
    """Refuse a command that every rank would run for itself.

    Raises
    ------
    SettingsError
    """
    command = next((word for word in args if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        raise SettingsError(
            f"{command} runs in one process, and {launch.world()} were started; "
            f"ranks share the model of {', '.join(COMMANDS[:-1])} and {COMMANDS[-1]}"
        )


def fail(message: str) -> None:
    """One line for all ranks."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the end is near, and shall be told
    watch = getattr(_joined(), "watch", None)
    if watch is not None:
        watch.fail(message)
    elif launch.rank() == 0:
        say(message)


def lost_rank(error: Exception) -> bool:
    """Whether an error is what a process group raises when another rank ended."""
    found = sys.modules.get("depthsched.parallel.ranks")  # else there was no group yet
    return isinstance(error, RuntimeError) and found is not None and bool(found.of_the_group(error))


def lost(error: Exception) -> str:
    """The line for such an error."""
    return str(sys.modules["depthsched.parallel.ranks"].lost(error))


def _joined() -> object:
    found = sys.modules.get("depthsched.parallel.ranks")
    return None if found is None else found.joined()


def _ended(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what it interrupts is on its way out
    raise RankError("the launcher ended this run, since another rank ended")
