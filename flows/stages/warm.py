"""Stages as forks of one process that has imported everything: a stage starts in milliseconds instead of three seconds.

Choices. dvc.yaml's commands stay what a person can type. Within a run such a command finds a socket, hands its name and
its output over, and waits; without one, or where nobody answers, it does the work itself. A stage is still a process of
its own, so that what it does to memory, threads and seeds ends with it; whoever ends the command ends the stage.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOCKET = "HOMERANKER_STAGES"  # where a run's warm process listens
POLL_S = 0.02
DIED = 1  # a stage that ended without a status


@contextlib.contextmanager
def warmed(worktree: Path, variables: dict[str, str]) -> Iterator[dict[str, str]]:
    """A warm process for the stages of one worktree; yields the variables with which they find it."""
    with tempfile.TemporaryDirectory(prefix="homeranker-") as place:  # a socket's path may have 107 characters
        found = {**variables, SOCKET: str(Path(place) / "stages")}
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(found[SOCKET])
            listening.listen()  # from here on; a stage that comes before the imports are done waits
            number = listening.fileno()
            command = [sys.executable, "-m", "flows.stages.warm", str(number)]
            process = subprocess.Popen(command, cwd=worktree, env=found, stdin=subprocess.DEVNULL, pass_fds=[number])
        try:
            yield found
        finally:
            process.terminate()
            process.wait()


def hand_over(name: str) -> int | None:
    """The status of a stage that the warm process ran; None where there is none."""
    if SOCKET not in os.environ:
        return None
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(os.environ[SOCKET])
            socket.send_fds(asked, [name.encode()], [1, 2])
        except OSError:
            return None
        with contextlib.suppress(OSError):
            return int(asked.recv(16) or DIED)
        return DIED


def serve(listening: socket.socket) -> None:
    """Run one stage after the other for whoever connects, until the run has ended."""
    import torch

    from flows.stages.stage import PARENT, run_and_exit

    torch.use_deterministic_algorithms(True)  # imports torch's compiler, which takes longer than many a stage
    gc.freeze()  # what is imported stays; a fork's collector need not touch, and so copy, its pages
    run = Path(f"/proc/{os.environ[PARENT]}")
    while run.exists():
        if not select.select([listening], [], [], 1.0)[0]:
            continue
        asked, _ = listening.accept()
        with asked:
            name, streams, _, _ = socket.recv_fds(asked, 256, 2)
            if not streams:  # it was ended before it said what it wants
                continue
            child = os.fork()
            if child == 0:
                _become_stage(streams)
                listening.close()
                asked.close()
                run_and_exit(name.decode())
            _lead(child)
            for stream in streams:
                os.close(stream)
            status = _wait(child, asked)
            with contextlib.suppress(OSError):
                asked.sendall(str(status).encode())


def _become_stage(streams: list[int]) -> None:
    """In the fork: a process group of its own, so that it can be ended with all that it started, and the output."""
    _lead(0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)


def _lead(child: int) -> None:
    """Said on both sides of a fork: whichever comes first, nobody signals a group that is not there yet."""
    with contextlib.suppress(ProcessLookupError):  # it has ended already
        os.setpgid(child, child)


def _wait(child: int, asked: socket.socket) -> int:
    """The child's status; it is ended where whoever asked has gone, and where this process has to end."""
    ended = status = 0
    try:
        while not ended and not select.select([asked], [], [], POLL_S)[0]:  # readable: closed, there is nothing to say
            ended, status = os.waitpid(child, os.WNOHANG)
    finally:
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else DIED


def main(number: int) -> None:
    """Serve the listening socket of this number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's ^C ends the run, and that ends this
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with socket.socket(fileno=number) as listening:
        serve(listening)


if __name__ == "__main__":
    with contextlib.suppress(SystemExit):
        main(int(sys.argv[1]))
    os._exit(0)  # as a stage ends (stage.py): without DuckDB's pages about what it "leaked"
