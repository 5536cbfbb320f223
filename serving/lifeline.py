"""A service ends with the process that started it, even where that one was killed. EDGE: the kernel.

Choices. Whoever starts a service leaves its id in the environment; the server under it does the same for its workers.
Each asks Linux for a SIGTERM at its parent's death, and so ends as it always does: what was accepted is written, what
is being answered is answered. Without such a parent (`bentoml serve` from a shell) the server outlives it as before;
its workers never outlive it. Elsewhere than on Linux nothing is asked for.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import MutableMapping

STARTED_BY = "HOMERANKER_STARTED_BY"
PR_SET_PDEATHSIG = 1


def leave(environment: MutableMapping[str, str]) -> None:
    """Have what is started with this environment end with this process."""
    environment[STARTED_BY] = str(os.getpid())


def follow() -> None:
    """End with the process that started this one; at once where that has ended already: nothing was accepted yet."""
    parent = os.environ.get(STARTED_BY)
    if sys.platform != "linux" or parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        print(f"process {parent}, which started this one, has ended", file=sys.stderr, flush=True)
        os._exit(1)
