"""How fast the service answers: open-loop load on a built Bento, beside a trivial endpoint of the same server.

    python -m benchmarks.serving MODEL_DIR [--items 4000] [--candidates 500] [--workers 1] [--seconds 10]
    python -m benchmarks.serving MODEL_DIR --history FILE     # and the first pages of a run's returning customers
    python -m benchmarks.serving MODEL_DIR --soak 10          # minutes at half of capacity: is memory flat?

Choices. Requests leave on a fixed schedule whatever the answers do, and a latency counts from the scheduled time, so
that a stall is not hidden by a client that waits (no coordinated omission). Capacity is found first, closed-loop; the
open-loop runs are at half of it and at 1, 2, 5 and 10 times it. A shared machine's speed moves by a third within a
minute, so these last are cut into slices of two seconds, each behind a slice that finds the capacity of that moment:
goodput is what was answered within the slices, over what could have been, with an interval over the pairs. The client
shares the machine's cores with the service, and at many times the capacity it needs one for itself; so it runs on
uvloop, as the service does. Half of the sessions have a history of five events, which are posted first, in batches of
100. `--items` fills the catalogue up with made items; so many popular items are added to the model's own sources that
it ranks at least `--candidates`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import uvloop

from benchmarks.command import finish
from features.history import History
from flows.online import bring_online
from flows.paths import Home
from models.homepage import HomepageModel
from models.items import ItemRow
from models.metrics import estimate
from serving.package import build_bento, served

CONNECTIONS = 256
SESSIONS = 1000
SLICE_S = 2.0


@dataclass
class Result:
    """Latencies in milliseconds by status."""

    seconds: float = 0.0
    within: int = 0  # pages that were there by the end of it
    latency_ms: dict[int, list[float]] = field(default_factory=dict)

    def add(self, status: int, milliseconds: float) -> None:
        """One answer."""
        self.latency_ms.setdefault(status, []).append(milliseconds)

    def join(self, other: Result) -> None:
        """Another slice of the same load."""
        self.seconds += other.seconds
        self.within += other.within
        for status, found in other.latency_ms.items():
            self.latency_ms.setdefault(status, []).extend(found)

    def line(self, name: str) -> str:
        """One row of the table."""
        good = np.array(self.latency_ms.get(200, [np.nan]))
        refused = [ms for status, found in self.latency_ms.items() if status in (429, 503) for ms in found]
        p50, p95, p99 = np.percentile(good, [50, 95, 99])
        told = f"{name:<28} {good.size / self.seconds:8.0f}/s  p50 {p50:7.2f}  p95 {p95:7.2f}  p99 {p99:7.2f} ms"
        lost = sum(len(found) for status, found in self.latency_ms.items() if status not in (200, 429, 503))
        return (
            told
            + (
                f"  refused {len(refused)} (p50 {np.median(refused):.1f} p99 {np.percentile(refused, 99):.1f} ms)"
                if refused
                else ""
            )
            + (f"  lost {lost}" if lost else "")
        )


class Connection:
    """A keep-alive HTTP/1.1 connection; just enough of it to be cheap."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def open(self) -> None:
        """Connect."""
        self._streams = await asyncio.open_connection(self._host, self._port)

    async def ask(self, request: bytes) -> int:
        """Send a whole request, read a whole answer, return its status; 0 where the connection broke.

        One that the service closed while it lay idle is opened again, as every client does.
        """
        idle = self._streams is not None
        status = await self._once(request)
        return await self._once(request) if idle and status == 0 else status

    async def _once(self, request: bytes) -> int:
        try:
            if self._streams is None:
                await self.open()
            assert self._streams is not None  # noqa: S101 - just opened
            reader, writer = self._streams
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            return int(head.split(b" ", 2)[1])
        except (OSError, asyncio.IncompleteReadError, StopIteration):
            self._streams = None
            return 0


def post(path: str, document: object) -> bytes:
    """A whole POST request."""
    body = json.dumps(document).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def homepage() -> bytes:
    """A page for one of 1,000 sessions."""
    return post("/v1/homepage", {"session_id": f"bench-{uuid.uuid4().int % SESSIONS}", "page_size": 24})


class Returning:
    """First pages of customers whose history is in the online store, each once, in a visit of their own."""

    def __init__(self, history: Path) -> None:
        self._users = iter(pq.read_table(history, columns=[History.USER_ID])[History.USER_ID].unique().to_pylist())

    def __call__(self) -> bytes:
        asked = {"session_id": uuid.uuid4().hex, "user_id": next(self._users), "page_size": 24}
        return post("/v1/homepage", asked)


def batches(item_ids: Sequence[str]) -> Iterator[bytes]:
    """Five events each for every second session, in batches of 100."""
    rng, now = np.random.default_rng(0), datetime.now(UTC).isoformat()
    known = {"event_time": now, "event_type": "click"}
    rows = [
        {**known, "event_id": uuid.uuid4().hex, "item_id": str(item), "session_id": f"bench-{session}"}
        for session in range(0, SESSIONS, 2)
        for item in rng.choice(item_ids, 5)
    ]
    return (post("/v1/events", {"events": rows[at : at + 100]}) for at in range(0, len(rows), 100))


def trivial() -> bytes:
    """The cheapest call that goes the same way through server, edge and router."""
    return b"GET /v1/erasures/none HTTP/1.1\r\nhost: x\r\n\r\n"


async def closed_loop(host: str, port: int, seconds: float, make: object, clients: int = 8) -> float:
    """Answers a second that the service can give."""
    end, done = time.perf_counter() + seconds, 0

    async def one() -> None:
        nonlocal done
        connection = Connection(host, port)
        while time.perf_counter() < end:
            status = await connection.ask(make())  # type: ignore[operator]
            done += status > 0 and time.perf_counter() < end

    await asyncio.gather(*(one() for _ in range(clients)))
    return done / seconds


async def open_loop(host: str, port: int, rate: float, seconds: float, make: object) -> Result:
    """Requests on a fixed schedule, over connections that are open, without the client's own garbage collection."""
    result, free = Result(seconds), [Connection(host, port) for _ in range(CONNECTIONS)]
    await asyncio.gather(*(connection.open() for connection in free))
    gc.collect()
    gc.disable()  # it stops the client for a tenth of a second, which would be told as the service's
    start, tasks = time.perf_counter() + 0.1, []

    async def one(due: float) -> None:
        connection = free.pop() if free else Connection(host, port)
        status = await connection.ask(make())  # type: ignore[operator]
        now = time.perf_counter()
        result.add(status if status != 404 else 200, (now - due) * 1e3)
        result.within += status == 200 and now <= start + seconds
        free.append(connection)

    for number in range(int(rate * seconds)):
        due = start + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    gc.enable()
    return result


def enlarged(model_dir: Path, items: int, candidates: int, out: Path) -> Path:
    """The model with its catalogue filled up with made items, ranking at least so many candidates."""
    model = HomepageModel.load(model_dir)
    rng = np.random.default_rng(0)
    words = [title.split() for title in model.items.titles[:2000] if title]
    rows = [
        ItemRow(f"made-{n}", " ".join(rng.choice(words[n % len(words)], 3)), price=float(n % 40 + 1))
        for n in range(max(0, items - len(model.items)))
    ]
    model = replace(model, retrieval=replace(model.retrieval, popular=candidates))
    model = model.extend(rows) if rows else model
    model.save(out)
    (out / "manifest.json").write_text("{}")
    return out


async def post_events(host: str, port: int, item_ids: Sequence[str]) -> float:
    """Post the history of the sessions on four connections; events a second."""
    waiting, accepted = list(batches(item_ids)), 0
    started, count = time.perf_counter(), len(waiting)

    async def one() -> None:
        nonlocal accepted
        connection = Connection(host, port)
        while waiting:
            status = await connection.ask(waiting.pop())
            accepted += status == 202

    await asyncio.gather(*(one() for _ in range(4)))
    if accepted < count:
        raise SystemExit(f"{count - accepted} of {count} batches were refused")
    return 100 * accepted / (time.perf_counter() - started)


async def measure(host: str, port: int, seconds: float, returning: Returning | None) -> None:
    """Print the table."""
    await closed_loop(host, port, 3, homepage)
    capacity = await closed_loop(host, port, seconds / 2, homepage)
    print(f"capacity, closed loop, 8 clients: {capacity:.0f} pages/s", flush=True)
    half = await open_loop(host, port, capacity / 2, seconds, trivial)
    print(half.line("trivial call, same rate"), flush=True)
    half = await open_loop(host, port, capacity / 2, seconds, homepage)
    print(half.line("homepage, 0.5x capacity"), flush=True)
    for factor in (1.0, 2.0, 5.0, 10.0):
        whole, pairs = Result(), []
        for _ in range(max(3, round(seconds / SLICE_S))):
            could = await closed_loop(host, port, SLICE_S, homepage)
            slice_ = await open_loop(host, port, could * factor, SLICE_S, homepage)
            pairs.append(slice_.within / SLICE_S / could)
            whole.join(slice_)
        told = estimate(np.array(pairs))
        goodput = f"  goodput {told.mean:.0%} [{told.low:.0%}, {told.high:.0%}] of the capacity beside it"
        print(whole.line(f"homepage, {factor:g}x capacity") + goodput, flush=True)
    after = await open_loop(host, port, capacity / 2, seconds, homepage)
    print(after.line("homepage, 0.5x, afterwards"), flush=True)
    if returning is not None:
        first = await open_loop(host, port, capacity / 4, seconds, returning)
        print(first.line("first page of returning customers, 0.25x"), flush=True)


async def soak(host: str, port: int, minutes: float, process: psutil.Process) -> None:
    """Pages at half of capacity; resident memory of the service every minute."""
    capacity = await closed_loop(host, port, 5, homepage)
    first = 0.0
    for minute in range(int(minutes) + 1):
        result = await open_loop(host, port, capacity / 2, 60, homepage)
        used = sum(one.memory_info().rss for one in process.children(recursive=True)) / 2**20
        first = first or used
        told = f"minute {minute}" + (" (warm-up)" if not minute else f", memory {used / first - 1:+.2%}")
        print(f"{result.line(told)}  {used:.0f} MiB", flush=True)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--items", type=int, default=0)
    parser.add_argument("--candidates", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--history", type=Path, help="history.parquet of a run, brought online first")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = enlarged(args.model_dir, args.items, args.candidates, root / "model")
        settings = {"candidates": args.candidates, "rate_per_key": 1e6}
        bento = build_bento(model, root / "bento", settings=settings)
        if args.history:
            bring_online(Home(root / "home"), args.history)
        with served(bento, root / "home", workers=args.workers) as (base, process):
            ids = HomepageModel.load(model).items.item_ids
            print(f"{len(ids)} items, {args.candidates} candidates, {args.workers} worker(s)", flush=True)
            host, port = base.removeprefix("http://").split(":")
            rate = uvloop.run(post_events(host, int(port), ids))
            print(f"events in batches of 100: {rate:.0f} events/s", flush=True)
            if args.soak:
                uvloop.run(soak(host, int(port), args.soak, psutil.Process(process.pid)))
            else:
                returning = Returning(args.history) if args.history else None
                uvloop.run(measure(host, int(port), args.seconds, returning))
    return 0


if __name__ == "__main__":
    finish(main)
