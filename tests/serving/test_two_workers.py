"""Two workers with keys are one service: keys, doubles, sessions, stock and explanations hold over both."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from serving.contract import format_time, now_us

KEY = {"authorization": "Bearer right"}


def ask(base: str, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
    """On a connection of its own, so that either worker may answer."""
    return httpx.request(method, base + path, json=body, headers={**KEY, **headers}, timeout=20)


def view(item: str, **fields: Any) -> dict[str, Any]:
    row = {"event_id": uuid.uuid4().hex, "event_time": format_time(now_us()), "event_type": "view", "item_id": item}
    return {**row, **fields}


def test_a_call_needs_the_right_key_before_anything_else(pair: str) -> None:
    for path in ("/v1/homepage", "/v1/nothing"):
        answer = ask(pair, "POST", path, authorization="Bearer wrong")
        assert answer.status_code == 401 and answer.headers["content-type"] == "application/problem+json"
    for path in ("/schema.json", "/healthz"):  # Bento's own
        assert ask(pair, "GET", path, authorization="").status_code == 401
        assert ask(pair, "GET", path).status_code == 404
    assert ask(pair, "GET", "/v1/homepage").headers["allow"] == "POST"
    assert ask(pair, "GET", "/", authorization="").status_code == 200


def test_ten_equal_batches_at_once_count_once(pair: str) -> None:
    for _ in range(4):
        batch = {"events": [view("i001", session_id="s") for _ in range(20)]}
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(lambda _: ask(pair, "POST", "/v1/events", batch).json(), range(10)))  # noqa: B023
        assert sum(one["accepted"] for one in answers) == 20
        assert sum(one["duplicates"] for one in answers) == 180


def test_the_next_page_follows_the_session_on_either_worker(pair: str) -> None:
    session = {"session_id": uuid.uuid4().hex}
    liked = {f"i{n:03d}" for n in range(2, 200, 5)}  # one category
    share = []
    for turn in range(2):
        slots = [
            slot["item_id"] in liked
            for _ in range(6)
            for module in ask(pair, "POST", "/v1/homepage", session).json()["modules"]
            for slot in module["slots"]
        ]
        share.append(sum(slots) / len(slots))
        if not turn:
            ask(pair, "POST", "/v1/events", {"events": [view(f"i{n:03d}", **session) for n in (2, 7, 12, 17)]})
    assert share[1] > share[0] + 0.1


def test_stock_and_explanations_hold_on_either_worker(pair: str) -> None:
    page = ask(pair, "POST", "/v1/homepage", {"session_id": "x"}).json()
    item = page["modules"][0]["slots"][0]["item_id"]
    for _ in range(4):
        told = ask(pair, "GET", f"/v1/explanations/{page['request_id']}?item_id={item}")
        assert told.json()["score"] == pytest.approx(page["modules"][0]["slots"][0]["score"])
    ask(pair, "PUT", "/v1/items", {"items": [{"item_id": item, "available": False}]})
    time.sleep(1)
    for _ in range(6):
        shown = ask(pair, "POST", "/v1/homepage", {"session_id": "x", "page_size": 100}).json()
        assert item not in {slot["item_id"] for module in shown["modules"] for slot in module["slots"]}
    ask(pair, "PUT", "/v1/items", {"items": [{"item_id": item, "available": True}]})
