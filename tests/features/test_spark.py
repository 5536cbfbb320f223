"""The same Ibis expressions give the same tables on Spark as on DuckDB, byte for byte."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.cleaning import CleaningParams, clean
from features.engine import EngineConfig
from features.schema import TABLES, arrow_schema

pytestmark = [pytest.mark.slow, pytest.mark.spark]


def dirty_tables(folder: Path) -> Path:
    """Retries, open sessions, guests, returns, a bot, a refusal, unknown items, slates, sub-second times."""
    chance = random.Random(5)
    start = datetime(2011, 3, 1, tzinfo=UTC)
    kinds = ["view", "click", "search", "add_to_cart", "purchase", "purchase", "return"]
    events, slates = [], []
    for number in range(3_000):
        user = chance.choice(["bot", "no", None, *(f"u{n}" for n in range(40))])
        time = start + timedelta(seconds=chance.randrange(4 * 86_400), microseconds=chance.randrange(1_000_000))
        item = f"i{chance.randrange(60)}"
        row = {"event_id": f"e{chance.randrange(2_800)}", "event_time": time, "event_type": chance.choice(kinds)}
        row |= {"user_id": user, "session_id": chance.choice(["s", None, None]), "item_id": item, "query": "ä\"'\n"}
        events.append({**row, "price": chance.randrange(1, 999) / 100, "quantity": chance.choice([None, 1, 5])})
        slot = {"request_id": f"r{number // 4}", "served_at": time, "user_id": user, "position": number % 4 + 1}
        slates.append({**slot, "item_id": item, "propensity": chance.random() / 2 + 0.1})
    events += [{**events[0], "event_id": f"b{n}", "user_id": "bot", "event_type": "view"} for n in range(50)]
    tables = {
        "events": events,
        "slates": slates,
        "items": [{"item_id": f"i{n}", "price": n / 7} for n in range(55)] + [{"item_id": "i1", "title": "twice"}],
        "users": [{"user_id": "no", "personalization_consent": False}, {"user_id": "u1", "country": "France"}],
        "item_vectors": [{"item_id": "i1", "modality": "text", "vector": [0.5, -1.25]}],
    }
    folder.mkdir()
    for name, rows in tables.items():
        table = pa.Table.from_pylist(rows, schema=arrow_schema(TABLES[name].COLUMNS))
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.mark.timeout(900)
def test_spark_and_duckdb_give_the_same_tables(tmp_path: Path) -> None:
    source = dirty_tables(tmp_path / "in")
    params = CleaningParams(max_browsing_per_hour=40)
    reports = {}
    for engine in ("duckdb", "spark"):
        reports[engine] = clean(source, tmp_path / engine, params, engine=EngineConfig(engine))
    assert reports["duckdb"] == reports["spark"]
    assert sum(reports["spark"].tables["events"].quarantined.values()) > 200
    assert reports["spark"].tables["events"].merged > 200
    names = sorted(path.name for path in (tmp_path / "duckdb").iterdir())
    assert len(names) == 7 and names == sorted(path.name for path in (tmp_path / "spark").iterdir())
    for name in names:
        one, other = (pq.read_table(tmp_path / engine / name) for engine in ("duckdb", "spark"))
        assert one.equals(other), name
        assert (tmp_path / "duckdb" / name).read_bytes() == (tmp_path / "spark" / name).read_bytes(), name
