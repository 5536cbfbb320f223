"""A broken part degrades the page and recovers alone; the service ends without losing a request."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models import checkpoint
from models.homepage import HomepageModel
from serving.contract import format_time, now_us
from serving.package import free_port, served

EVENT = {"event_time": "2026-01-01T00:00:00Z", "event_type": "view", "item_id": "i001", "session_id": "s"}


def until(true: Callable[[], bool], seconds: float = 10.0) -> float:
    """Wait until it is true; how long it took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, f"not so within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - started


def page(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/v1/homepage", json={"session_id": "s", **fields})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def post_event(client: httpx.Client) -> int:
    return client.post("/v1/events", json={"events": [{**EVENT, "event_id": uuid.uuid4().hex}]}).status_code


def items_of(told: dict[str, Any]) -> list[str]:
    return [slot["item_id"] for module in told["modules"] for slot in module["slots"]]


def promote(home: Path, model_dir: Path, version: str) -> None:
    """As the registry does it: one small file, replaced whole."""
    (home / "registry").mkdir(parents=True, exist_ok=True)
    draft = home / "registry" / "draft"
    draft.write_text(json.dumps({"run": version, "version": version, "model_dir": str(model_dir)}))
    draft.rename(home / "registry" / "champion")


def test_a_log_that_cannot_be_opened_costs_events_but_no_page_and_recovers(bento: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("in the way")
    with served(bento, tmp_path) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        assert page(client)["fallback"] == "stale" and len(items_of(page(client))) == 24
        refused = client.post("/v1/events", json={"events": [{**EVENT, "event_id": "e"}]})
        assert refused.status_code == 503 and refused.headers["retry-after"].isdigit()
        (tmp_path / "log").unlink()
        until(lambda: post_event(client) == 202)
        assert page(client)["fallback"] is None


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A second version of the model: one item more."""
    from models.items import ItemRow

    folder = tmp_path_factory.mktemp("other") / "model"
    HomepageModel.load(model_dir).extend([ItemRow("extra", "Extra thing")]).save(folder)
    shutil.copy(model_dir / "manifest.json", folder / "manifest.json")
    return folder


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory, bento: Path) -> Iterator[tuple[httpx.Client, Path]]:
    home = tmp_path_factory.mktemp("swapped")
    with served(bento, home) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        yield client, home


def test_a_promoted_model_serves_without_restart_or_failure_and_a_corrupt_one_never(
    swapped: tuple[httpx.Client, Path], model_dir: Path, other_model: Path, tmp_path: Path
) -> None:
    client, home = swapped
    first = client.get("/v1/model").json()["model_version"]
    second = HomepageModel.load(other_model).version
    seen: Counter[tuple[int, str]] = Counter()
    end = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=client.base_url, timeout=20) as own:
            while not end.is_set():
                answer = own.post("/v1/homepage", json={"session_id": "load"})
                seen[answer.status_code, answer.json()["model_version"]] += 1

    thread = threading.Thread(target=load)
    thread.start()
    assert client.put("/v1/items", json={"items": [{"item_id": "i900", "title": "Zebra mobile"}]}).status_code == 202
    promote(home, other_model, second)
    assert until(lambda: client.get("/v1/model").json()["model_version"] == second, 30) < 30
    broken = tmp_path / "broken"
    shutil.copytree(other_model, broken)
    (broken / "arrays.safetensors").write_bytes(b"\0" * 100)
    shutil.copytree(other_model, tmp_path / "nan")
    arrays = load_file(tmp_path / "nan" / "arrays.safetensors")
    name = next(name for name, array in arrays.items() if array.dtype.kind == "f" and array.size)
    arrays[name] = np.full_like(arrays[name], np.nan)
    save_file(arrays, tmp_path / "nan" / "arrays.safetensors")
    checkpoint.seal(tmp_path / "nan")
    for folder in (broken, tmp_path / "nan"):
        promote(home, folder, folder.name)
        time.sleep(4)
        assert client.get("/v1/model").json()["model_version"] == second
    found = client.post("/v1/search", json={"session_id": "s", "query": "zebra mobile"}).json()["results"]
    assert [one["item_id"] for one in found] == ["i900"]  # the catalogue is the shop's, whatever model serves
    promote(home, model_dir, first)
    took = until(lambda: client.get("/v1/model").json()["model_version"] == first, 10)
    end.set()
    thread.join()
    assert took <= 5
    assert {status for status, _ in seen} == {200} and {version for _, version in seen} == {first, second}


def test_rules_are_reloaded_and_a_wrong_file_changes_nothing(swapped: tuple[httpx.Client, Path]) -> None:
    client, home = swapped
    rules = home / "rules.yaml"
    rules.write_text("pin: [{item: i055, position: 1}]\nexclude: [{category: gift}]\n")
    until(lambda: items_of(page(client))[0] == "i055")
    shown = items_of(page(client, page_size=100))
    assert not [item for item in shown[1:] if int(item[1:]) % 5 in (3, 4)]
    rules.write_text("exclude: [{colour: red}]\n")
    time.sleep(3)
    assert items_of(page(client))[0] == "i055"
    rules.unlink()
    until(lambda: page(client)["modules"][0]["slots"][0]["propensity"] < 1)


@pytest.mark.slow
def test_without_a_model_it_is_unready_or_serves_popular_items_where_allowed(
    bento: Path, model_dir: Path, tmp_path: Path
) -> None:
    empty = Path(shutil.copytree(bento, tmp_path / "bento"))
    shutil.rmtree(empty / "src" / "model")
    with served(empty, tmp_path / "a", ready=False) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        until(lambda: client.get("/readyz").status_code == 503)
        refused = client.post("/v1/homepage", json={"session_id": "s"})
        assert refused.status_code == 503 and refused.json()["status"] == 503 and "retry-after" in refused.headers
        assert post_event(client) == 202
        promote(tmp_path / "a", model_dir, "v1")
        until(lambda: client.get("/readyz").status_code == 200, 30)
    with served(empty, tmp_path / "b", fallback=True) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        rows = [{"item_id": f"p{n}", "title": f"Thing {n}"} for n in range(5)]
        assert client.put("/v1/items", json={"items": rows}).status_code == 202
        until(lambda: len(items_of(page(client))) == 5)
        assert page(client)["fallback"] == "popular"
    # Nobody promoted the model of the whole Bento.
    with served(bento, tmp_path / "c", fallback=True) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        assert page(client)["fallback"] == "popular" and len(items_of(page(client))) == 24
        assert page(client)["model_version"] == "none"
        promote(tmp_path / "c", model_dir, "v1")
        until(lambda: page(client)["fallback"] is None, 30)


def test_sigterm_says_unready_first_and_loses_no_request(bento: Path, tmp_path: Path) -> None:
    with served(bento, tmp_path, HOMERANKER_DRAIN_SECONDS="1.5") as (base, process):
        statuses: list[int] = []
        closed: list[bool] = []
        end = threading.Event()

        def load() -> None:
            with httpx.Client(base_url=base, timeout=20) as own:
                while not end.is_set():
                    answer = own.post("/v1/homepage", json={"session_id": "s"})
                    statuses.append(answer.status_code)
                    closed.append(answer.headers.get("connection") == "close")

        with httpx.Client(base_url=base) as client:
            thread = threading.Thread(target=load)
            thread.start()
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            until(lambda: client.get("/readyz").status_code == 503, 1.4)
            end.set()
            thread.join()
        assert process.wait(30) == 0
    assert set(statuses) == {200} and len(statuses) > 10
    assert closed[-1] and not closed[0]  # who keeps a connection is told in time, and asks on another one


@pytest.mark.slow
def test_redis_killed_paused_and_restarted_empty_costs_no_page(bento: Path, tmp_path: Path) -> None:
    import subprocess

    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on this machine")
    port = free_port()

    def start() -> subprocess.Popen[bytes]:
        command = [server, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(tmp_path)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    redis = start()
    more = {"HOMERANKER_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    try:
        with served(bento, tmp_path / "h", workers=2, **more) as (base, _), httpx.Client(base_url=base) as client:
            row = {**EVENT, "event_id": uuid.uuid4().hex, "event_time": format_time(now_us())}
            assert client.post("/v1/events", json={"events": [row]}).status_code == 202
            until(lambda: page(client)["fallback"] is None)
            for number in (signal.SIGSTOP, signal.SIGKILL):
                redis.send_signal(number)
                assert {page(client)["fallback"] for _ in range(10)} <= {"stale", None}
                until(lambda: page(client)["fallback"] == "stale")
                assert post_event(client) == 202
                if number == signal.SIGSTOP:
                    redis.send_signal(signal.SIGCONT)
                else:
                    redis.wait()
                    redis = start()
                until(lambda: all(page(client)["fallback"] is None for _ in range(6)))
                assert "because_you_viewed" in {module["module"] for module in page(client)["modules"]}
    finally:
        redis.kill()
        redis.wait()
