"""The HTTP edge: keys, limits, problems, health and drain around everything that the service answers. EDGE: ASGI.

Choices. One middleware inside Bento's own server, because Bento answers unknown paths in plain text, has no key, no
body limit and no Retry-After. The order is: health, key, clock, rate, then the application; so a bad key learns nothing
of paths or bodies. What comes while the worker is full is refused before it gets here (door.py).
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from serving import metrics
from serving.contract import now_us, parse_time
from serving.wire import MAX_BODY, PROBLEM, Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBES = ("/livez", "/readyz", "/metrics")
FREE = ("/", *PROBES, "/docs", "/openapi.json")
FREE_BELOW = ("/static/",)
CLOCK, CLOCK_HEADER = "homeranker_now_us", b"homeranker-now"
PATH = "homeranker_path"  # as it was asked for
ROUTES = ("/v1/explanations/", "/v1/users/", "/v1/erasures/", "/static/")
KNOWN = frozenset({*FREE, "/v1/homepage", "/v1/events", "/v1/search", "/v1/ads", "/v1/items", "/v1/model", "/v1/cards"})
REPLACED = (b"content-type", b"content-length", b"content-encoding")
HIDDEN = (b"server", b"x-bentoml-request-id", b"x-bentoml-trace-id")

logger = logging.getLogger("homeranker.access")


class Gate(Protocol):
    """What the edge asks the service."""

    keys: frozenset[str]
    rate_per_key: float
    replay: bool

    def unready(self) -> str | None:
        """Why no traffic should come now; None if it may."""


def route_of(path: str) -> str:
    """The route template of a path, so that metrics and logs never hold an id."""
    below = next((prefix for prefix in ROUTES if path.startswith(prefix)), None)
    return below + "{}" if below else path if path in KNOWN else "other"


class Buckets:
    """A token bucket for each key."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str, rate: float) -> bool:
        """Whether one more request of this key may pass now; a burst of one second is allowed."""
        now = time.monotonic()
        left, seen = self._left.get(key, (rate, now))
        left = min(rate, left + (now - seen) * rate)
        self._left[key] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class Edge:
    """ASGI middleware; `gate` is found at the first request, when the service has started."""

    def __init__(self, app: App, gate: Callable[[], Gate | None]) -> None:
        self.app, self._gate, self._buckets = app, gate, Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        answer = _Answer(send)
        try:
            await self._answer(scope, receive, answer)
        except Problem as problem:
            await answer.problem(problem)
        except Exception as error:
            logger.exception("unexpected %s on %s", type(error).__name__, route_of(scope["path"]), exc_info=error)
            await answer.problem(Problem(503, "the service met a fault of its own; try again"))
        finally:
            took = time.perf_counter() - started
            route = route_of(scope["path"])
            metrics.REQUESTS.labels(route, scope["method"] if route != "other" else "other", str(answer.status)).inc()
            metrics.DURATION.labels(route).observe(took)
            if logger.isEnabledFor(logging.INFO):
                fields = {
                    "route": route,
                    "method": scope["method"],
                    "status": answer.status,
                    "ms": round(took * 1e3, 2),
                }
                logger.info(json.dumps({**fields, "request_id": scope.get("homeranker_request_id")}))

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        path, gate = scope["path"], self._gate()
        free = path in FREE or path.startswith(FREE_BELOW)
        key = self._key(scope, gate.keys) if gate is not None and not free else ""
        scope[CLOCK] = self._now(scope, gate is not None and gate.replay)
        if path in PROBES and scope["method"] not in ("GET", "HEAD"):
            raise Problem(405, DETAILS[405], headers={"allow": "GET, HEAD"})
        if path in PROBES and path != "/livez":
            await self._health(path, gate, answer)
            return
        if gate is None:
            raise Problem(503, "the service is starting")
        if free:
            await self.app(scope, receive, answer.send)
            return
        if not self._buckets.take(key, gate.rate_per_key):
            raise Problem(429, f"more than {gate.rate_per_key:g} requests a second with this key")
        if route_of(path) == "other":
            raise Problem(404, DETAILS[404])  # Bento has paths of its own, such as /schema.json
        scope[PATH], scope["path"] = path, route_of(path)  # Bento's router ends at a line break, and needs no ids
        await self.app(scope, receive, answer.send)

    @staticmethod
    def _now(scope: Scope, replay: bool) -> int:
        """The clock in microseconds, or what `Homeranker-Now` says in replay mode; 400 otherwise."""
        given = next((value for name, value in scope["headers"] if name == CLOCK_HEADER), None)
        if given is None:
            return now_us()
        if not replay:
            raise Problem(400, "Homeranker-Now is refused, because HOMERANKER_REPLAY is not 1")
        try:
            return parse_time(given.decode("latin-1"))
        except ValueError as error:
            raise Problem(400, f"Homeranker-Now {error}") from None

    async def _health(self, path: str, gate: Gate | None, answer: _Answer) -> None:
        if path == "/metrics":
            await answer.plain(200, metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8")
            return
        reason = "the service is starting" if gate is None else gate.unready()
        if reason:
            raise Problem(503, reason)
        await answer.plain(200, b'{"status": "ready"}', "application/json")

    @staticmethod
    def _key(scope: Scope, keys: frozenset[str]) -> str:
        """The key of a request, or a 401; without configured keys everybody shares one."""
        if not keys:
            return ""
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        if scheme.lower() == b"bearer":
            for known in keys:
                if hmac.compare_digest(known.encode(), key.strip()):
                    return known
        raise Problem(401, "this call needs a valid key: Authorization: Bearer KEY")


class _Answer:
    """Passes an answer on; turns every error that is no problem+json into one."""

    def __init__(self, send: Send) -> None:
        self._send, self.status, self._started, self._swallow = send, 0, False, False

    async def send(self, message: Message) -> None:
        """One ASGI message of the application."""
        if message["type"] == "http.response.start":
            await self._start(message)
        elif not self._swallow:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        headers = [(name.lower(), value) for name, value in message.get("headers", ()) if name.lower() not in HIDDEN]
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        if message["status"] >= 400 and not kind.startswith(PROBLEM.encode()):
            self._swallow = True
            status = message["status"] if message["status"] < 500 else 503
            kept = {n.decode("latin-1"): v.decode("latin-1") for n, v in headers if n not in REPLACED}
            await self.problem(Problem(status, DETAILS.get(status, "the request cannot be answered"), headers=kept))
            return
        self._started, self.status = True, message["status"]
        await self._send({**message, "headers": [*headers, (b"x-content-type-options", b"nosniff")]})

    async def problem(self, problem: Problem) -> None:
        """Send a problem, unless an answer is already under way."""
        if not self._started:
            self._swallow = True
            await self.plain(problem.status, problem.body(), PROBLEM, problem.all_headers())

    async def plain(self, status: int, body: bytes, kind: str, extra: dict[str, str] | None = None) -> None:
        """Send a whole answer."""
        headers = {**(extra or {}), "content-type": kind, "content-length": str(len(body))}
        headers["x-content-type-options"] = "nosniff"
        pairs = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        self._started, self.status = True, status
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})
        await self._send({"type": "http.response.body", "body": body})


DETAILS = {
    404: "there is nothing at this path; see /openapi.json",
    405: "this path does not know this method; see the Allow header",
    413: f"the body is over {MAX_BODY} bytes",
    503: "the service met a fault of its own; try again",
}
