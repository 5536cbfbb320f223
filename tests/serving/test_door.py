"""A client that comes while the service is full is told so at once; one that speaks no HTTP gets a problem, too."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

from serving import load as load_module
from serving.door import Door
from serving.edge import Send
from serving.load import Load
from serving.wire import Problem

POST = b"POST /v1/homepage HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


async def app(scope: object, receive: object, send: Send) -> None:
    """What lies behind the door."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.fixture
def full() -> Iterator[Load]:
    before, Door.load = Door.load, Load(burst=0, standing=0)
    yield Door.load  # type: ignore[misc]
    Door.load = before


def say(data: bytes) -> Wire:
    async def talk() -> Wire:
        config = uvicorn.Config(app, log_config=None)
        config.load()
        door, wire = Door(config, ServerState(), {}), Wire()
        door.connection_made(wire)
        door.data_received(data)
        await asyncio.sleep(0.01)
        return wire

    return asyncio.run(talk())


def problem_of(answer: bytes) -> tuple[int, dict[str, str]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers["content-type"] == "application/problem+json" and int(headers["content-length"]) == len(body)
    assert headers["x-content-type-options"] == "nosniff" and json.loads(body)["detail"]
    return int(lines[0].split()[1]), headers


def test_a_full_service_refuses_after_the_request_is_read_and_keeps_the_connection(full: Load) -> None:
    assert say(POST + b"\r\n").sent == b""
    wire = say((POST + b"\r\n{}") * 2)
    half = len(wire.sent) // 2
    status, headers = problem_of(wire.sent[:half])
    assert wire.sent[:half] == wire.sent[half:] and not wire.closed
    assert status == 503 and headers["retry-after"] == "1"


def test_a_client_that_wants_no_more_is_let_go(full: Load) -> None:
    wire = say(POST + b"connection: close\r\n\r\n{}")
    assert problem_of(wire.sent)[1]["connection"] == "close" and wire.closed


@pytest.mark.parametrize(
    "start",
    [b"GET /livez HTTP/1.1\r\n\r\n", b"HEAD /v1/model HTTP/1.1\r\n\r\n", POST + b"expect: 100-continue\r\n\r\n"],
)
def test_probes_and_who_cannot_read_a_refusal_here_go_on(full: Load, start: bytes) -> None:
    assert say(start).sent.startswith(b"HTTP/1.1 204")


def test_what_was_read_but_is_not_at_work_yet_counts() -> None:
    """Of many requests that are read in one turn, only those that may wait go on; the others cost nothing more."""
    before, Door.load = Door.load, Load(burst=3, standing=3)
    entered = 0

    async def works(scope: object, receive: object, send: Send) -> None:
        nonlocal entered
        await asyncio.sleep(0)  # a middleware that makes a task of its own
        assert Door.load is not None
        with Door.load:
            entered += 1
            await asyncio.sleep(0.01)
        await app(scope, receive, send)

    async def talk() -> tuple[list[Wire], int]:
        config = uvicorn.Config(works, log_config=None)
        config.load()
        wires = [Wire() for _ in range(10)]
        for wire in wires:
            door = Door(config, ServerState(), {})
            door.connection_made(wire)
            door.data_received(POST + b"\r\n{}")
        assert Door.load is not None
        waiting = Door.load.coming
        await asyncio.sleep(0.1)
        gone = Door(config, ServerState(), {})
        gone.connection_made(Wire())
        gone.data_received(POST + b"\r\n{}")
        gone.connection_lost(None)
        return wires, waiting

    try:
        wires, waiting = asyncio.run(talk())
        told = [wire.sent.split(b"\r\n")[0].split()[1] for wire in wires]
        assert told == [b"204"] * 3 + [b"503"] * 7 and waiting == 3 and entered == 3
        assert Door.load.coming == Door.load.busy == 0
    finally:
        Door.load = before


@pytest.mark.parametrize("data", [b"hello\r\n\r\n", b"FOO / HTTP/1.1\r\n\r\n", POST + b"content-length: x\r\n\r\n"])
def test_what_is_no_http_gets_a_problem(data: bytes) -> None:
    wire = say(data)
    assert problem_of(wire.sent)[0] == 400 and wire.closed


def test_a_burst_may_wait_in_a_long_line_and_a_standing_line_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(load_module.time, "monotonic", lambda: now)
    load = Load(burst=4, standing=2)
    for _ in range(4):
        load.__enter__()
    with pytest.raises(Problem, match="overloaded"), load:
        pass
    load.__exit__()
    assert not load.full
    now += 1.0
    assert load.full
    load.__exit__()
    assert load.full
    load.__exit__()
    assert not load.full
    load.__exit__()
    for _ in range(4):
        load.__enter__()
    assert load.full


def test_broken_http_and_a_wrong_clock_are_problems_of_the_served_bento(service: str, client: httpx.Client) -> None:
    with socket.create_connection(("127.0.0.1", int(service.rsplit(":", 1)[1]))) as raw:
        raw.sendall(b"FOO /v1/homepage HTTP/1.1\r\nhost: x\r\n\r\n")
        assert problem_of(raw.recv(4096))[0] == 400
    for path in ("/", "/docs", "/static/shop.js", "/livez", "/v1/model", "/nothing"):
        assert client.get(path, headers={"Homeranker-Now": "yesterday"}).status_code == 400, path


@pytest.mark.parametrize("path", ["users/%ED%A0%80", "users/%FF", "users/", "users/%00"])
def test_an_id_in_a_path_that_is_no_text_is_a_422(client: httpx.Client, path: str) -> None:
    refused = client.delete(f"/v1/{path}")
    assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/user_id"
