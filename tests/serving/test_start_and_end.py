"""What an operator meets when a service starts and when it ends, whoever ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from features.errors import BusyError, UsageError
from features.tables import read_table
from serving.contract import format_time, now_us
from serving.export import export_log
from serving.package import check_port, free_port, served, wait_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for it")


def is_free(port: int) -> bool:
    try:
        check_port("127.0.0.1", port)
    except BusyError:
        return False
    return True


def within(seconds: float, port: int) -> bool:
    end = time.monotonic() + seconds
    while not is_free(port) and time.monotonic() < end:
        time.sleep(0.1)
    return is_free(port)


@contextmanager
def serve_process(bento: Path, home: Path, workers: int, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """What `homeranker serve` and an image run; nothing of it is left behind."""
    home.mkdir(exist_ok=True)
    told = {"HOMERANKER_HOME": str(home), "HOMERANKER_PORT": str(port), "HOMERANKER_WORKERS": str(workers)}
    with (home / "serve.log").open("ab") as log:
        words = [sys.executable, "-m", "serving", str(bento)]
        process = subprocess.Popen(words, env=os.environ | told, stdout=log, stderr=log)
    family: list[psutil.Process] = []
    try:
        wait_for(f"http://127.0.0.1:{port}", process, "/readyz")
        family = psutil.Process(process.pid).children(recursive=True)
        yield process
    finally:
        for one in (psutil.Process(process.pid), *family) if process.poll() is None else family:
            if one.is_running():
                one.kill()
        process.wait()


@linux
@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_of_a_killed_service_answers_ten_seconds_later_and_no_accepted_event_is_lost(
    bento: Path, tmp_path: Path, workers: int
) -> None:
    port, accepted = free_port(), []
    with serve_process(bento, tmp_path / "home", workers, port) as process, httpx.Client(timeout=20) as client:
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 1 + workers and not is_free(port)
        process.kill()
        process.wait()
        end = time.monotonic() + 10
        while time.monotonic() < end:  # until nobody answers any more
            row = {"event_id": uuid.uuid4().hex, "event_time": format_time(now_us()), "event_type": "view"}
            rows = {"events": [row | {"item_id": "i001", "session_id": "s"}]}
            try:
                answer = client.post(f"http://127.0.0.1:{port}/v1/events", json=rows)
            except httpx.TransportError:
                break
            accepted += [row["event_id"]] if answer.status_code == 202 else []
        assert within(end - time.monotonic(), port) and psutil.wait_procs(family, 10)[1] == []
    export_log(tmp_path / "home", tmp_path / "out")
    assert accepted and set(accepted) <= set(read_table(tmp_path / "out", "events")["event_id"].to_pylist())


@linux
def test_workers_end_with_a_server_that_was_killed(bento: Path, tmp_path: Path) -> None:
    with served(bento, tmp_path / "home") as (base, process):
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        left = psutil.wait_procs(workers, 10)[1]
        for worker in left:
            worker.kill()
        assert workers and left == []
        assert within(1, int(base.rsplit(":", 1)[1]))


def test_a_taken_port_is_one_sentence_that_says_what_to_do(bento: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        told = {"HOMERANKER_HOME": str(tmp_path), "HOMERANKER_PORT": str(port)}
        words = [sys.executable, "-m", "serving", str(bento)]
        done = subprocess.run(words, env=os.environ | told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"port {port} of 127.0.0.1 is taken" in done.stderr
    assert "--port" in done.stderr


def test_a_port_that_cannot_be_is_named() -> None:
    with pytest.raises(UsageError, match="70000"):
        check_port("127.0.0.1", 70000)


def test_connections_of_a_service_that_has_just_stopped_do_not_keep_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # who closes first keeps the connection for a minute
    check_port("127.0.0.1", port)


@pytest.mark.slow
def test_serve_says_where_it_is_in_one_document_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    words = [sys.executable, "-m", "flows.cli", "serve", "--fallback", "--json", "--port", str(port)]
    log = (tmp_path / "err").open("wb")
    with subprocess.Popen(
        words, env=os.environ | {"HOMERANKER_HOME": str(tmp_path)}, stdout=subprocess.PIPE, stderr=log
    ) as service:
        assert service.stdout is not None
        wait_for(f"http://127.0.0.1:{port}", service, "/readyz")
        service.send_signal(signal.SIGTERM)
        told = json.loads(service.stdout.read())
        assert service.wait(30) == 0
    assert told == {"url": f"http://127.0.0.1:{port}", "ready": f"http://127.0.0.1:{port}/readyz", "workers": 1}
