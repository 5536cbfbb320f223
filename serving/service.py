"""The Bento service: one ASGI application under Bento's server, wrapped by our edge. EDGE: BentoML.

Choices. One service, JSON only, no inner services. Bento starts and supervises the workers, shares the socket and
gathers metrics; its access log and request metrics are off, because they hold raw paths and so user ids. What answers
is imported by a worker when it starts: the process that starts the workers imports this file too, and would hold
PyTorch for nothing. SIGTERM is taken before uvicorn sees it: /readyz says 503 for `drain_s`, then the server ends as
usual, so that no balancer sends a request to a closed socket.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker is one core; more threads only wait for each other

import bentoml

from serving import door, lifeline
from serving.edge import PATH, Edge, Receive, Scope, Send
from serving.params import from_environment

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from serving.api import Api
    from serving.runtime import Runtime

ENVIRONMENT = from_environment()
BUNDLED = Path(__file__).resolve().parent.parent / "model"


class _Front:
    """The application of this worker; it exists once the service has started."""

    api: Api | None = None
    app: Starlette | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is not None:
            scope["path"] = scope.get(PATH, scope["path"])
            await self.app(scope, receive, send)


front = _Front()


def gate() -> Runtime | None:
    """What the edge asks."""
    return front.api.runtime if front.api else None


def _logging() -> None:
    """One JSON line a request on stderr where HOMERANKER_ACCESS_LOG=1; faults always."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter('{"time": "%(asctime)s", "logger": "%(name)s", "message": %(message)r}'))
    logger = logging.getLogger("homeranker")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO if os.environ.get("HOMERANKER_ACCESS_LOG") == "1" else logging.WARNING)


@bentoml.service(
    name="homeranker",
    workers=ENVIRONMENT.workers,
    # Our own limits answer sooner, and as problems. Bento keeps a timer of this length for every request.
    traffic={"timeout": 30},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},  # nobody collects the spans, and they cost as much as a refusal
    http={"host": "0.0.0.0" if ENVIRONMENT.keys else "127.0.0.1"},  # noqa: S104 - only with keys
)
@bentoml.asgi_app(front, path="/")
class Homeranker:
    """Personal homepages for a shop."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator]
    @staticmethod
    def supervise() -> None:
        """In the process that starts the workers, before it does."""
        lifeline.follow()
        lifeline.leave(os.environ)

    @bentoml.on_startup  # type: ignore[untyped-decorator]
    async def begin(self) -> None:
        """Load and warm everything before the first request."""
        lifeline.follow()
        from serving.api import Api, application
        from serving.runtime import Runtime

        _logging()
        sys.setswitchinterval(0.0005)  # the event loop must not wait 5 ms for a page under way
        bundled = Path(os.environ.get("HOMERANKER_MODEL") or BUNDLED)
        runtime = Runtime(ENVIRONMENT, bundled if bundled.is_dir() else None)
        runtime.start()
        api = Api(runtime)
        front.app, front.api = application(api), api
        door.hang(runtime.load)
        gc.collect()
        gc.freeze()  # to look through the libraries again takes a tenth of a second, in which nobody gets a page
        _drain_first(runtime)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def end(self) -> None:
        """Write what waits."""
        if front.api is not None:
            front.api.close()
            front.api.runtime.stop()


def _drain_first(runtime: Runtime) -> None:
    """Answer SIGTERM with an unready /readyz first, and pass it on to the server `drain_s` later."""
    passed_on = signal.getsignal(signal.SIGTERM)
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        if not runtime.draining and callable(passed_on):
            runtime.draining = True
            door.leave()
            loop.call_soon_threadsafe(loop.call_later, runtime.params.drain_s, passed_on, number, None)

    signal.signal(signal.SIGTERM, drain)


Homeranker.add_asgi_middleware(Edge, gate=gate)  # type: ignore[attr-defined]
