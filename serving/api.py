"""The calls of the contract as an ASGI application: reads bodies strictly, runs answers beside the event loop. EDGE.

Choices. Starlette, which Bento already carries, with our own parsing: FastAPI's would accept NaN, and its schema is
made from models that we hold anyway (openapi.py). Work runs in a small pool of threads, so that the loop can refuse,
answer probes and read slow clients while pages are made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.applications import Starlette
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
    now_us,
    parse_time,
    validated,
)
from serving.runtime import Runtime
from serving.storefront import pages
from serving.wire import MAX_BODY, Problem, dump, parse

CLOCK = "homeranker-now"
THREADS = 2  # a worker is one core; more threads only take the interpreter from the event loop
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


class Api:
    """The handlers over one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._makers = ThreadPoolExecutor(THREADS, "maker")
        self._waiters = ThreadPoolExecutor(WRITERS, "waiter")

    def clock(self, request: Request) -> int:
        """Now, or what `Homeranker-Now` says in replay mode; 400 otherwise."""
        given = request.headers.get(CLOCK)
        if given is None:
            return now_us()
        if not self.runtime.environment.replay:
            raise Problem(400, "Homeranker-Now is refused, because HOMERANKER_REPLAY is not 1")
        try:
            return parse_time(given)
        except ValueError as error:
            raise Problem(400, f"Homeranker-Now {error}") from None

    async def run(self, work: Callable[..., Any], *values: Any, waits: bool = False) -> Any:
        """Run an answer in a thread; a store that fails is a 503."""
        pool = self._waiters if waits else self._makers
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, partial(work, self.runtime, *values))
        except (StoreError, TimeoutError):
            raise Problem(503, "the store cannot be used now; try again") from None

    def posted(
        self, model: type[Body], work: Callable[[Runtime, Body, int], Any], status: int = 200, waits: bool = False
    ) -> Handler:
        """A handler that checks a body of this model and answers with the work's result."""

        async def handle(request: Request) -> Response:
            at = self.clock(request)
            body = validated(model, await read_body(request))
            answer = await self.run(work, body, at, waits=waits)
            if "request_id" in answer:
                request.scope["homeranker_request_id"] = answer["request_id"]
            return as_json(answer, status)

        return handle

    async def explanation(self, request: Request) -> Response:
        """GET /v1/explanations/{request_id}."""
        at = self.clock(request)
        given = request.query_params.get("item_id")
        if given is None:
            raise Problem(422, "the query has invalid fields", [("/item_id", "Field required")])
        item_id = check_id(given, "item_id")
        return as_json(await self.run(answers.explain, request.path_params["request_id"], item_id, at, waits=True))

    async def erase(self, request: Request) -> Response:
        """DELETE /v1/users/{user_id}."""
        at = self.clock(request)
        user_id = check_id(request.path_params["user_id"], "user_id")
        return as_json(await self.run(answers.erase, user_id, at, waits=True), 202)

    async def receipt(self, request: Request) -> Response:
        """GET /v1/erasures/{erasure_id}."""
        self.clock(request)
        return as_json(await self.run(answers.erasure_receipt, request.path_params["erasure_id"], waits=True))

    async def model(self, request: Request) -> Response:
        """GET /v1/model."""
        self.clock(request)
        return as_json(await self.run(answers.model_info))

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        self.clock(request)
        return as_json(openapi.document("1"))

    async def storefront(self, request: Request) -> Response:
        """GET /: the demo shop."""
        self.clock(request)
        text, headers = await self.run(pages.storefront, dict(request.query_params), dict(request.cookies))
        return Response(text, 200, headers, media_type="text/html")

    async def cards(self, request: Request) -> Response:
        """GET /v1/cards: what the demo shop shows of items (not part of the contract)."""
        self.clock(request)
        return as_json(await self.run(pages.cards, request.query_params.getlist("id")[:200]))

    def routes(self) -> list[Route]:
        """Every route; one method each, so that a 405 names the right one."""
        posted = self.posted
        slow = partial(posted, waits=True)
        return [
            Route("/v1/homepage", posted(HomepageRequest, answers.homepage), methods=["POST"]),
            Route("/v1/events", slow(EventsRequest, answers.events, 202), methods=["POST"]),
            Route("/v1/search", posted(SearchRequest, answers.find), methods=["POST"]),
            Route("/v1/ads", posted(AdsRequest, answers.place_ads), methods=["POST"]),
            Route("/v1/items", slow(ItemsRequest, answers.put_items, 202), methods=["PUT"]),
            Route("/v1/explanations/{request_id:path}", self.explanation, methods=["GET"]),
            Route("/v1/users/{user_id:path}", self.erase, methods=["DELETE"]),
            Route("/v1/erasures/{erasure_id:path}", self.receipt, methods=["GET"]),
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
