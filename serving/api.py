"""The calls of the contract as an ASGI application: reads bodies strictly, runs answers beside the event loop. EDGE.

Choices. Starlette, which Bento already carries, with our own parsing: FastAPI's would accept NaN, and its schema is
made from models that we hold anyway (openapi.py). What waits for a store runs in threads. A page is then computed in
the event loop itself, one a turn: two threads that compute share one interpreter, and each byte read or written in
between would wait for it; so a turn is a page, and what came in meanwhile is read or refused before the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from features.errors import StoreError
from serving import answers, openapi
from serving.contract import (
    AdsRequest,
    EventsRequest,
    HomepageRequest,
    ItemsRequest,
    SearchRequest,
    check_id,
    validated,
)
from serving.edge import CLOCK
from serving.runtime import Runtime
from serving.storefront import pages
from serving.wire import MAX_BODY, Problem, dump, parse

THREADS = 2  # a worker is one core; more threads only take the interpreter from the event loop
QUIET_TURNS = 50  # turns of the loop that the next page waits for at most
WRITERS = 32  # threads that only wait for the disk
Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[Request], Awaitable[Response]]


def as_json(document: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(dump(document), status, media_type="application/json")


async def read_body(request: Request) -> Any:
    """The JSON value of a body: 415, 413 or 400 where it is none."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "the body must be sent as application/json")
    encodings = ",".join(request.headers.getlist("content-encoding")).lower().split(",")
    if {one.strip() for one in encodings} - {"", "identity"}:
        plain = {"accept-encoding": "identity"}  # RFC 9110: a 415 for an encoding names those that are read
        raise Problem(415, "the body must not be encoded: leave Content-Encoding out", headers=plain)
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MAX_BODY:
        raise Problem(413, f"the body is over {MAX_BODY} bytes")
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise Problem(413, f"the body is over {MAX_BODY} bytes")
        chunks.append(chunk)
    return parse(b"".join(chunks))


class Anything(Convertor[str]):
    """The rest of a path, whatever an id may hold: slashes, and line breaks, where Starlette's own would end."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("anything", Anything())


def url_id(request: Request, value: str, name: str, part: str) -> str:
    """An id from a part of the scope: the raw path or the query string.

    Problem 422 where it is none, lone surrogates and broken UTF-8 included.
    """
    try:
        unquote_to_bytes(request.scope[part]).decode("utf-8")
    except UnicodeDecodeError:
        raise Problem(422, f"{name} is no valid id", [(f"/{name}", "is not UTF-8")]) from None
    return check_id(value, name)


class Api:
    """The handlers over one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._makers = ThreadPoolExecutor(THREADS, "maker")
        self._waiters = ThreadPoolExecutor(WRITERS, "waiter")
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[..., Any], *values: Any, waits: bool = False) -> Any:
        """Run an answer in a thread; a store that fails is a 503."""
        pool = self._waiters if waits else self._makers
        with self.runtime.load:
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, partial(work, self.runtime, *values))
            except (StoreError, TimeoutError):
                raise Problem(503, "the store cannot be used now; try again") from None

    async def homepage(self, request: Request) -> Response:
        """POST /v1/homepage: who it is from a thread, the page in a turn of the loop."""
        body = validated(HomepageRequest, await read_body(request))
        with self.runtime.load:
            loop, at = asyncio.get_running_loop(), request.scope[CLOCK]
            known = loop.run_in_executor(self._makers, answers.look_up, self.runtime, body, at)
            done, _ = await asyncio.wait({known}, timeout=self.runtime.params.deadline_s)
            who = known.result() if done else answers.stranger(self.runtime)
            await self._turn.acquire()
            try:
                answer = answers.homepage(self.runtime, body, at, who)
            finally:
                self._hand_on(loop, -1, QUIET_TURNS)
        request.scope["homeranker_request_id"] = answer["request_id"]
        return as_json(answer)

    def _hand_on(self, loop: asyncio.AbstractEventLoop, heard: int, left: int) -> None:
        """Let the next page begin once a turn of the loop brought nothing new: a turn accepts one connection only."""
        if left and self.runtime.load.heard != heard:
            loop.call_soon(self._hand_on, loop, self.runtime.load.heard, left - 1)
        else:
            self._turn.release()

    def posted(
        self, model: type[Body], work: Callable[[Runtime, Body, int], Any], status: int = 200, waits: bool = False
    ) -> Handler:
        """A handler that checks a body of this model and answers with the work's result."""

        async def handle(request: Request) -> Response:
            body = validated(model, await read_body(request))
            answer = await self.run(work, body, request.scope[CLOCK], waits=waits)
            if "request_id" in answer:
                request.scope["homeranker_request_id"] = answer["request_id"]
            return as_json(answer, status)

        return handle

    async def explanation(self, request: Request) -> Response:
        """GET /v1/explanations/{request_id}."""
        given = request.query_params.get("item_id")
        if given is None:
            raise Problem(422, "the query has invalid fields", [("/item_id", "Field required")])
        item_id = url_id(request, given, "item_id", "query_string")
        return as_json(
            await self.run(
                answers.explain, request.path_params["request_id"], item_id, request.scope[CLOCK], waits=True
            )
        )

    async def erase(self, request: Request) -> Response:
        """DELETE /v1/users/{user_id}."""
        user_id = url_id(request, request.path_params["user_id"], "user_id", "raw_path")
        return as_json(await self.run(answers.erase, user_id, request.scope[CLOCK], waits=True), 202)

    async def receipt(self, request: Request) -> Response:
        """GET /v1/erasures/{erasure_id}."""
        return as_json(await self.run(answers.erasure_receipt, request.path_params["erasure_id"], waits=True))

    async def model(self, request: Request) -> Response:
        """GET /v1/model."""
        return as_json(await self.run(answers.model_info))

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return as_json(openapi.document("1"))

    async def storefront(self, request: Request) -> Response:
        """GET /: the demo shop."""
        text, headers = await self.run(pages.storefront, dict(request.query_params), dict(request.cookies))
        return Response(text, 200, headers, media_type="text/html")

    async def cards(self, request: Request) -> Response:
        """GET /v1/cards: what the demo shop shows of items (not part of the contract)."""
        return as_json(await self.run(pages.cards, request.query_params.getlist("id")[:200]))

    def routes(self) -> list[Route]:
        """Every route; one method each, so that a 405 names the right one."""
        posted = self.posted
        slow = partial(posted, waits=True)
        return [
            Route("/v1/homepage", self.homepage, methods=["POST"]),
            Route("/v1/events", slow(EventsRequest, answers.events, 202), methods=["POST"]),
            Route("/v1/search", posted(SearchRequest, answers.find), methods=["POST"]),
            Route("/v1/ads", posted(AdsRequest, answers.place_ads), methods=["POST"]),
            Route("/v1/items", slow(ItemsRequest, answers.put_items, 202), methods=["PUT"]),
            Route("/v1/explanations/{request_id:anything}", self.explanation, methods=["GET"]),
            Route("/v1/users/{user_id:anything}", self.erase, methods=["DELETE"]),
            Route("/v1/erasures/{erasure_id:anything}", self.receipt, methods=["GET"]),
            Route("/v1/model", self.model, methods=["GET"]),
            Route("/v1/cards", self.cards, methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/", self.storefront, methods=["GET"]),
            Route("/docs", pages.docs, methods=["GET"]),
            Route("/static/{name:path}", pages.static, methods=["GET"]),
        ]

    def close(self) -> None:
        """End the threads after their work."""
        self._makers.shutdown()
        self._waiters.shutdown()


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101 - registered for this type only
    return Response(error.body(), error.status, error.all_headers())


def application(api: Api) -> Starlette:
    """The ASGI application; unknown paths and methods become problems at the edge."""
    app = Starlette(routes=api.routes(), exception_handlers={Problem: _problem})
    app.router.redirect_slashes = False
    return app
