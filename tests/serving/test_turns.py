"""A page waits for what is known of its person, but not for long; its draws are as likely as it says."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from scipy.stats import chisquare

from serving import answers
from serving.api import Api, application
from serving.contract import now_us
from serving.edge import CLOCK
from serving.package import served
from serving.params import from_environment
from serving.runtime import Runtime


def test_a_store_that_does_not_answer_in_time_costs_the_page_its_memory(
    tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(from_environment({"HOMERANKER_HOME": str(tmp_path)}), model_dir)
    runtime.start()
    known = answers.look_up

    def slow(*asked: Any) -> answers.Visitor:
        time.sleep(1.5)
        return known(*asked)

    async def ask() -> tuple[float, dict[str, Any]]:
        api = Api(runtime)
        app = application(api)

        async def clocked(scope: Any, receive: Any, send: Any) -> None:
            scope[CLOCK] = now_us()
            await app(scope, receive, send)

        started = time.monotonic()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(clocked), base_url="http://x") as client:
            answer = await client.post("/v1/homepage", json={"session_id": "s"})
        took = time.monotonic() - started
        api.close()
        return took, answer.json()

    try:
        assert asyncio.run(ask())[1]["fallback"] is None
        monkeypatch.setattr(answers, "look_up", slow)
        took, page = asyncio.run(ask())
        assert page["fallback"] == "stale" and sum(len(one["slots"]) for one in page["modules"]) == 24
        assert took < 1.4
    finally:
        runtime.stop()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_20000_draws_over_http_are_as_frequent_as_their_propensities_say(bento: Path, tmp_path: Path) -> None:
    def draw(port: int, count: int) -> list[tuple[str, float]]:
        connection, found = http.client.HTTPConnection("127.0.0.1", port), []

        def ask(number: int) -> tuple[int, dict[str, Any]]:
            body = json.dumps({"session_id": f"{count}-{number}", "page_size": 1})
            connection.request("POST", "/v1/homepage", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        for number in range(count):
            status, told = ask(number)
            while status == 429:  # a quick machine asks more than a client may
                time.sleep(0.05)
                status, told = ask(number)
            assert status == 200, told
            slot = told["modules"][0]["slots"][0]
            found.append((slot["item_id"], slot["propensity"]))
        return found

    with served(bento, tmp_path) as (base, _):
        port = int(base.rsplit(":", 1)[1])
        with ThreadPoolExecutor(2) as pool:
            draws = [one for part in pool.map(draw, (port, port), (10_001, 9_999)) for one in part]
    seen, said = Counter(item for item, _ in draws), dict(draws)
    assert all(said[item] == pytest.approx(propensity, abs=1e-6) for item, propensity in draws)
    often = [item for item in seen if said[item] * len(draws) >= 5]
    rest = 1 - sum(said[item] for item in often)
    expected = np.array([*(said[item] for item in often), rest]) * len(draws)
    observed = np.array([*(seen[item] for item in often), len(draws) - sum(seen[item] for item in often)])
    assert len(often) > 5 and rest > -1e-9
    assert chisquare(observed, np.maximum(expected, 1e-9) * observed.sum() / expected.sum()).pvalue > 1e-3
