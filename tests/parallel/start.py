"""Start the ranks of some jobs, one job after another: ``python -m tests.parallel.start FOLDER``.

The libraries are imported once and every rank is a fork of this process, which takes a fraction of what ``torchrun``
takes. What a rank prints and finds lies in the folder afterwards, and how each of them ended.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

LONGEST = 300.0


def main(folder: Path) -> None:
    from . import work

    jobs = json.loads((folder / "jobs.json").read_text())
    work.imports()
    for job in jobs:
        ended = run(work, folder, job["name"], job["ranks"], job["job"], job["given"])
        (folder / f"{job['name']}.json").write_text(json.dumps(ended))


def run(work: Any, folder: Path, name: str, ranks: int, job: str, given: Any) -> list[dict[str, Any]]:
    """Exit code of each rank (negative for a signal), and how long after the first one it ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = [fork(work, folder, name, rank, ranks, port, job, given) for rank in range(ranks)]
    until, ended = time.monotonic() + LONGEST, dict[int, tuple[int, float]]()
    while len(ended) < ranks:
        for rank, pid in enumerate(pids):
            if rank in ended:
                continue
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                ended[rank] = os.waitstatus_to_exitcode(status), time.monotonic()
            elif time.monotonic() > until:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    first = min(at for _, at in ended.values())
    return [{"code": ended[rank][0], "after": ended[rank][1] - first} for rank in range(ranks)]


def fork(work: Any, folder: Path, name: str, rank: int, ranks: int, port: int, job: str, given: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        for kind, descriptor in (("out", 1), ("err", 2)):
            to = os.open(folder / f"{name}-{rank}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(to, descriptor)
        if ranks > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        found = getattr(work, job)(folder, rank, given)
        (folder / f"{name}-{rank}.json").write_text(json.dumps(found))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        work.leave()
        os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
