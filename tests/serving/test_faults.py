"""What breaks around the service costs freshness or events for a while, never a page; and it recovers alone in 10 s."""

from __future__ import annotations

import shutil
import signal
import socket
import socketserver
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis

from features.history import user_history, write_history
from features.store import write_online
from features.views import store_for
from serving.contract import format_time, now_us
from serving.package import free_port, served

pytestmark = pytest.mark.slow


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)


def page(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/homepage", json={"session_id": "s", **fields})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert sum(len(module["slots"]) for module in told["modules"]) == 24
    return told


def event(**fields: Any) -> dict[str, Any]:
    known = {"event_id": uuid.uuid4().hex, "event_time": format_time(now_us()), "event_type": "view"}
    return {**known, "item_id": "i001", "session_id": "s", **fields}


def post(client: httpx.Client, rows: list[dict[str, Any]]) -> int:
    return client.post("/v1/events", json={"events": rows}).status_code


class Relay(socketserver.ThreadingTCPServer):
    """A network in front of Redis that can be slow or silent."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, target: int) -> None:
        self.target, self.delay_s = target, 0.0
        super().__init__(("127.0.0.1", 0), _Pipe)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Pipe(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        relay = self.server
        assert isinstance(relay, Relay)
        with socket.create_connection(("127.0.0.1", relay.target)) as up:
            threading.Thread(target=self._copy, args=(up, self.request, 0.0), daemon=True).start()
            self._copy(self.request, up, None)

    def _copy(self, source: socket.socket, sink: socket.socket, delay_s: float | None) -> None:
        try:
            while data := source.recv(65536):
                time.sleep(self.server.delay_s if delay_s is None else delay_s)  # type: ignore[attr-defined]
                sink.sendall(data)
        except OSError:
            pass


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Relay]]:
    """A real Redis behind a relay."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on this machine")
    port = free_port()
    command = [server, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    relay = Relay(port)
    try:
        yield process, relay
    finally:
        relay.shutdown()
        process.kill()
        process.wait()


@pytest.fixture
def shop(
    bento: Path, tmp_path: Path, shop_data: ModuleType, redis: tuple[subprocess.Popen[bytes], Relay]
) -> Iterator[tuple[httpx.Client, subprocess.Popen[bytes], Relay]]:
    """Two workers whose sessions and histories both lie in Redis."""
    process, relay = redis
    url = f"redis://127.0.0.1:{relay.port}/0"
    frame = user_history(shop_data.events_table(40).to_pandas())
    (tmp_path / "h" / "online").mkdir(parents=True)
    history = write_history(frame, tmp_path / "h" / "online" / "history.parquet")
    write_online(store_for(tmp_path / "h" / "online", offline_path=history, redis_url=url), frame)
    with (
        served(bento, tmp_path / "h", workers=2, HOMERANKER_REDIS_URL=url) as (base, _),
        httpx.Client(base_url=base, timeout=20) as client,
    ):
        yield client, process, relay


def fallbacks(client: httpx.Client, pages: int = 12) -> tuple[set[str | None], float]:
    """Fallbacks of pages for known users and strangers, and the slowest in seconds."""
    found, slowest = set(), 0.0
    for number in range(pages):
        started = time.monotonic()
        found.add(page(client, user_id=f"u{number}" if number % 2 else None, session_id=f"s{number}")["fallback"])
        slowest = max(slowest, time.monotonic() - started)
    return found, slowest


def test_a_slow_redis_costs_freshness_and_not_time(
    shop: tuple[httpx.Client, subprocess.Popen[bytes], Relay],
) -> None:
    client, _, relay = shop
    until(lambda: fallbacks(client)[0] == {None})
    relay.delay_s = 0.2
    until(lambda: "stale" in fallbacks(client)[0])
    found, slowest = fallbacks(client, 40)
    assert found <= {"stale", None} and slowest < 1.0
    assert post(client, [event()]) == 202
    relay.delay_s = 0.0
    until(lambda: fallbacks(client)[0] == {None})


def test_a_paused_redis_blocks_nobody_and_histories_come_back(
    shop: tuple[httpx.Client, subprocess.Popen[bytes], Relay],
) -> None:
    client, process, _ = shop
    until(lambda: fallbacks(client)[0] == {None})
    process.send_signal(signal.SIGSTOP)
    try:
        found, slowest = fallbacks(client, 40)
        assert found <= {"stale", None} and slowest < 1.0
        assert post(client, [event()]) == 202
    finally:
        process.send_signal(signal.SIGCONT)
    until(lambda: fallbacks(client)[0] == {None})


def test_a_history_that_cannot_be_read_costs_its_page_the_history_and_nothing_else(
    shop: tuple[httpx.Client, subprocess.Popen[bytes], Relay],
) -> None:
    client, _, relay = shop
    until(lambda: fallbacks(client)[0] == {None})
    store = Redis(port=relay.port)
    for key in store.scan_iter():
        if store.type(key) == b"hash":
            store.hset(key, mapping=dict.fromkeys(store.hkeys(key), b"no feature value"))
    assert page(client, user_id="u30")["fallback"] == "stale"  # not read before
    store.flushall()
    time.sleep(2.5)
    assert page(client, user_id="u31")["fallback"] is None  # a missing history is a new customer


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB for the log; needs the right to mount."""
    place = tmp_path / "home" / "log"
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_refuses_events_and_never_lies_about_one(bento: Path, small_disk: Path) -> None:
    home = small_disk.parent
    with served(bento, home) as (base, _), httpx.Client(base_url=base, timeout=30) as client:
        assert post(client, [event()]) == 202
        filler = small_disk / "filler"
        with filler.open("wb") as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        told: dict[str, int] = {}
        while 503 not in told.values():  # what is left of the file's last page is used up first
            rows = [event(note="x" * 2000) for _ in range(20)]
            status = post(client, rows)
            told.update({row["event_id"]: status for row in rows})
            assert len(told) < 4000
        for _ in range(5):
            assert page(client)["fallback"] in (None, "stale")
        refused = client.post("/v1/events", json={"events": [event()]})
        assert refused.status_code == 503 and refused.headers["retry-after"].isdigit()
        filler.unlink()
        until(lambda: post(client, [event()]) == 202)
        until(lambda: page(client)["fallback"] is None)
        again = [event(event_id=name) for name in told]
        batches = [{"events": again[at : at + 500]} for at in range(0, len(again), 500)]
        doubles = sum(client.post("/v1/events", json=batch).json()["duplicates"] for batch in batches)
        assert doubles == sum(status == 202 for status in told.values())


def test_a_read_only_disk_costs_events_and_no_page(bento: Path, small_disk: Path) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    remount("ro")
    with served(bento, small_disk.parent) as (base, _), httpx.Client(base_url=base, timeout=30) as client:
        assert post(client, [event()]) == 503
        assert {page(client)["fallback"] for _ in range(5)} == {"stale"}
        remount("rw")
        until(lambda: post(client, [event()]) == 202 and page(client)["fallback"] is None)


def test_a_disk_that_takes_no_more_writes_while_serving_costs_events_and_no_page(bento: Path, tmp_path: Path) -> None:
    """A file system with open files cannot be remounted read-only by hand; a limit of 0 fails every write as well."""
    with served(bento, tmp_path) as (base, service), httpx.Client(base_url=base, timeout=30) as client:
        processes = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]

        def allow(size: int) -> None:
            for one in processes:
                one.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))

        kept = [event() for _ in range(3)]
        assert post(client, kept) == 202 and page(client)["fallback"] is None
        allow(0)
        refused = [event() for _ in range(3)]
        answer = client.post("/v1/events", json={"events": refused})
        assert answer.status_code == 503 and answer.headers["retry-after"].isdigit()
        assert {page(client, session_id=f"s{number}")["fallback"] for number in range(10)} <= {"stale", None}
        allow(psutil.RLIM_INFINITY)
        until(lambda: post(client, [event()]) == 202 and page(client)["fallback"] is None)
        told = client.post("/v1/events", json={"events": kept + refused}).json()
        assert (told["duplicates"], told["accepted"]) == (3, 3)


def test_idle_and_dripping_clients_do_not_hurt_the_others(bento: Path, tmp_path: Path) -> None:
    head = b"POST /v1/homepage HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n"
    with served(bento, tmp_path) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        port = int(base.rsplit(":", 1)[1])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        dripping = [socket.create_connection(("127.0.0.1", port)) for _ in range(300)]
        for number, one in enumerate(dripping):
            one.sendall(head if number % 2 else head[:30])
        took = []
        started = time.monotonic()
        while time.monotonic() - started < 8:
            for one in dripping:
                one.sendall(b"a")
            before = time.monotonic()
            page(client)
            took.append(time.monotonic() - before)
        assert sorted(took)[len(took) // 2] < 0.2

        def ended(one: socket.socket) -> bool:
            one.settimeout(0.01)
            try:
                return one.recv(100) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        until(lambda: all(ended(one) for one in (*silent, *dripping)), 40)
        page(client)
