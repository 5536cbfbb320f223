"""A canary over HTTP: chosen people get the other model, always; it goes home by itself; a shadow shows nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from models.homepage import HomepageModel
from serving.export import export_log
from serving.package import served
from serving.rollout import ROLLOUT


@pytest.fixture(scope="module")
def other(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same model, trained a microsecond longer: another version that ranks alike."""
    model = HomepageModel.load(model_dir)
    place = tmp_path_factory.mktemp("other") / "model"
    replace(model, trained_until_us=model.trained_until_us + 1).save(place)
    shutil.copy(model_dir / "manifest.json", place / "manifest.json")
    return place, HomepageModel.load(place).version


def start(home: Path, model: Path, version: str, mode: str, share: float) -> None:
    told = {"mode": mode, "share": share, "run": "r2", "version": version, "model_dir": str(model)}
    path = home / ROLLOUT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told | {"since_us": int(time.time() * 1e6)}))


def until(check: Callable[[], Any], seconds: float = 30) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s")


def page(client: httpx.Client, user: str) -> dict[str, Any]:
    answer = client.post("/v1/homepage", json={"session_id": f"s-{user}", "user_id": user, "page_size": 6})
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def test_a_canary_meets_its_share_and_a_broken_one_goes_home(
    bento: Path, other: tuple[Path, str], tmp_path: Path
) -> None:
    place, version = other
    people = [f"person-{n}" for n in range(120)]
    with served(bento, tmp_path) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        champion = page(client, "x")["model_version"]
        start(tmp_path, place, version, "canary", 30)
        until(lambda: any(page(client, one)["model_version"] == version for one in people[:20]))
        first = {one: page(client, one)["model_version"] for one in people}
        again = {one: page(client, one)["model_version"] for one in people}
        assert first == again
        assert set(first.values()) == {champion, version}
        assert 0.15 < sum(model == version for model in first.values()) / len(people) < 0.45
        shown = page(client, next(one for one, model in first.items() if model == version))
        item = shown["modules"][0]["slots"][0]["item_id"]
        told = client.get(f"/v1/explanations/{shown['request_id']}", params={"item_id": item})
        assert told.status_code == 200
        gone = {"items": [{"item_id": item, "available": False}]}
        assert client.put("/v1/items", json=gone).status_code == 202
        time.sleep(1)
        items = [s["item_id"] for one in people[:40] for m in page(client, one)["modules"] for s in m["slots"]]
        assert item not in items

        broken = Path(shutil.copytree(place, tmp_path / "broken"))
        (broken / "model.json").write_text("{}")
        start(tmp_path, broken, "v-broken", "canary", 100)
        ended = until(lambda: json.loads((tmp_path / ROLLOUT).read_text()).get("why"))
        assert "refused" in ended
        until(lambda: {page(client, one)["model_version"] for one in people[:20]} == {champion})
        assert b"homeranker_rollouts_total" in client.get("/metrics").content


def test_a_shadow_is_logged_and_never_shown_nor_exported(bento: Path, other: tuple[Path, str], tmp_path: Path) -> None:
    place, version = other
    with served(bento, tmp_path) as (base, _), httpx.Client(base_url=base, timeout=20) as client:
        champion = page(client, "x")["model_version"]
        start(tmp_path, place, version, "shadow", 100)

        def logged() -> int:
            assert page(client, "y")["model_version"] == champion
            with sqlite3.connect(f"file:{tmp_path / 'log' / 'slates.db'}?mode=ro", uri=True) as log:
                sql = "SELECT COUNT(*) FROM slates WHERE json_extract(slate, '$.model_version') = ?"
                return int(log.execute(sql, (version,)).fetchone()[0])

        until(logged)
    export_log(tmp_path, tmp_path / "tables", date(2100, 1, 1))
    files = sorted((tmp_path / "tables" / "slates").rglob("*.parquet"))
    versions = {one for path in files for one in pq.read_table(path)["model_version"].to_pylist()}
    assert versions == {champion}
    assert HomepageModel.load(place).version == version
