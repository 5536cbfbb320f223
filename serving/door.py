"""The door in front of the ASGI application: refuses while full, ends connections that stall, answers what is no HTTP.

Choices. A refusal has to cost far less than a page, or refusing is what the service spends its time on; so it is
written by the protocol as soon as the request has been read, before any task, middleware or parsing of a body. Health,
pages of files and requests that wait for `100 Continue` go the usual way. uvicorn answers broken HTTP in plain text and
lets a client take for ever over a request; both end here. EDGE: uvicorn has no setting for its protocol under Bento,
so the class takes the place of the one that it would choose.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from http import HTTPStatus

from prometheus_client import Counter
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import metrics
from serving.edge import route_of
from serving.load import COMING, OVERLOADED, Coming, Load
from serving.wire import Problem

PATIENCE_S = 20.0  # for a whole request, and for the first byte of a connection; below Bento's own limit of an answer
GUARDED = b"/v1/"


def _whole(problem: Problem, close: bool) -> bytes:
    """A problem as the bytes of a whole HTTP/1.1 response."""
    body = problem.body()
    headers = {**problem.all_headers(), "content-length": str(len(body)), "x-content-type-options": "nosniff"}
    if close:
        headers["connection"] = "close"
    lines = [f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


REFUSAL = {stays: _whole(Problem(503, OVERLOADED), close=not stays) for stays in (True, False)}
BROKEN = _whole(Problem(400, "this is no HTTP request that can be read"), close=True)


@lru_cache(maxsize=512)  # looking a counter up costs a quarter of a refusal
def _refused(url: bytes, method: bytes) -> Counter:
    route = route_of(url.partition(b"?")[0].decode("latin-1"))
    return metrics.REQUESTS.labels(route, method.decode() if route != "other" else "other", "503")


class Door(HttpToolsProtocol):
    """uvicorn's protocol, with a guard."""

    load: Load | None = None  # None until the service has started
    leaving = False  # the service is about to end: every answer is the last of its connection
    _refusing = False
    _coming: Coming | None = None  # what is being read, where it may be refused
    _since: float | None = None  # when what is being read began; None while a request is answered

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client came; it has `PATIENCE_S` for each request."""
        super().connection_made(transport)
        if self.load is not None:
            self.load.heard += 1
        self._since = self.loop.time()
        self.loop.call_later(PATIENCE_S / 2, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if self._since is not None and self.loop.time() - self._since > PATIENCE_S:
            self.transport.abort()
        else:
            self.loop.call_later(PATIENCE_S / 2, self._look)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        if self.load is not None:
            self.load.heard += 1
        self._since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Decide: refuse, or hand the request on."""
        load = self.load
        if load is not None and load.full and self.url.startswith(GUARDED) and self._may_refuse():
            self._refusing = True
            return
        self._end_coming()
        self._coming = Coming(load) if load is not None and self.url.startswith(GUARDED) else None
        before = COMING.set(self._coming)  # the task that answers takes it along
        super().on_headers_complete()
        COMING.reset(before)
        if self.leaving and self.cycle is not None:
            self.cycle.keep_alive = False  # uvicorn says so in the answer

    def _end_coming(self) -> None:
        if self._coming is not None:
            self._coming.end()
            self._coming = None

    def _may_refuse(self) -> bool:
        """Not in the middle of an answer, and only where an answer with a body is understood."""
        free = self.cycle is None or self.cycle.response_complete
        return free and not self.expect_100_continue and self.parser.get_method() != b"HEAD"

    def on_body(self, body: bytes) -> None:
        """What comes with a refused request is read and dropped."""
        if not self._refusing:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The whole request was read; a refused one is answered now."""
        if not self._refusing:
            self._since = None
            if self._coming is not None:
                self._coming.read()
            super().on_message_complete()
            return
        self._refusing, self._since = False, self.loop.time()
        stays = bool(self.parser.should_keep_alive()) and not self.leaving
        self.transport.write(REFUSAL[stays])
        if not stays:
            self.transport.close()
        _refused(self.url, self.parser.get_method()).inc()

    def on_response_complete(self) -> None:
        """The answer is out."""
        self._end_coming()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client went."""
        self._end_coming()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Broken HTTP gets a problem like everything else."""
        self.transport.write(BROKEN)
        self.transport.close()


def hang(load: Load) -> None:
    """Give the door of this process its load."""
    Door.load = load


def leave() -> None:
    """Have clients of this process look for another: who is told that a connection ends loses no request on it."""
    Door.leaving = True


auto.AutoHTTPProtocol = Door  # uvicorn asks for it by this name when its server starts
