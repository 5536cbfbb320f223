"""Rows in = rows out + quarantined + merged, for every importer, over generated files, dirty ones included."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.importers import ImportReport, import_data
from features.importers.ga4 import EVENT_TYPES, LISTS, SEARCH
from features.importers.segment import LIST, MANY_PRODUCTS
from features.tables import read_table

few = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])

DIRT = ["", "nan", "-1", "1e400", "0", "x" * 300, "a\0b", "\ud800", "99999999999999999999", "é", '"', "(not set)"]
TIMES = ["2020-01-01T00:00:00Z", "2020-13-01T00:00:00Z", "2020-01-01T00:00:00", "1577836800", "1577836800000000", "0"]
word = st.one_of(
    st.sampled_from(["a", "b", "view", "purchase", "search", "1", "2.5", "GBP", "web", *DIRT, *TIMES]), st.text()
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), word),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(word, inner, max_size=3)),
    max_leaves=4,
)


def check(format: str, write: Any, src_name: str) -> ImportReport:
    """Import what `write` puts into a directory; every table's counts add up, on disk too."""
    with tempfile.TemporaryDirectory() as folder:
        src, out = Path(folder) / "src", Path(folder) / "out"
        src.mkdir()
        write(src / src_name)
        report = import_data(format, src, out)
        for table, count in report.tables.items():
            assert count.rows_in == count.rows_out + count.merged + sum(count.quarantined.values()), table
            assert read_table(out, table).num_rows == count.rows_out
        aside = read_table(out, "quarantine")
        assert aside.num_rows == report.quarantined
        assert all(isinstance(json.loads(row), dict) for row in aside["row"].to_pylist())
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
        return report


def csv_bytes(header: list[str], rows: list[list[str]]) -> bytes:
    """A CSV file in which lone surrogates stand as their (invalid) bytes."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def csv_rows(header: list[str], always: dict[str, st.SearchStrategy[str]]) -> st.SearchStrategy[list[list[str]]]:
    row = st.tuples(*(st.one_of(always[name], word) if name in always else word for name in header)).map(list)
    ragged = st.lists(word, min_size=1, max_size=3).filter(lambda fields: fields != [""])
    return st.lists(st.one_of(row, row, row, ragged), max_size=12)


kinds = st.sampled_from(["view", "purchase", "search", "return"])
CANONICAL = [
    "event_id",
    "event_time",
    "event_type",
    "user_id",
    "item_id",
    "position",
    "price",
    "quantity",
    "currency",
    "more",
]


@few
@given(csv_rows(CANONICAL, {"event_time": st.just(TIMES[0]), "event_type": kinds, "event_id": st.sampled_from("abc")}))
def test_canonical_csv(rows: list[list[str]]) -> None:
    report = check("canonical", lambda path: path.write_bytes(csv_bytes(CANONICAL, rows)), "events.csv")
    assert report.tables["events"].rows_in == len(rows)


PERSONALIZE = ["USER_ID", "ITEM_ID", "TIMESTAMP", "EVENT_TYPE", "EVENT_VALUE", "IMPRESSION", "RECOMMENDATION_ID"]


@few
@given(
    csv_rows(PERSONALIZE, {"TIMESTAMP": st.just("1577836800"), "EVENT_TYPE": kinds, "IMPRESSION": st.just("a|b||c")})
)
def test_personalize(rows: list[list[str]]) -> None:
    report = check("personalize", lambda path: path.write_bytes(csv_bytes(PERSONALIZE, rows)), "interactions.csv")
    whole = [row for row in rows if len(row) == len(PERSONALIZE)]
    assert report.tables["events"].rows_in == len(rows)
    slots = sum(len(row[5].split("|")) for row in whole if row[5])
    assert (report.tables["slates"].rows_in if "slates" in report.tables else 0) == slots


OPEN_BANDIT = ["", "timestamp", "item_id", "position", "click", "propensity_score", "user_feature_0"]


@few
@given(
    csv_rows(
        OPEN_BANDIT,
        {
            "timestamp": st.just(TIMES[0]),
            "position": st.sampled_from("123"),
            "click": st.sampled_from("01"),
            "propensity_score": st.sampled_from(["0.1", "1e-06", "1.5"]),
        },
    )
)
def test_open_bandit(rows: list[list[str]]) -> None:
    report = check("open-bandit", lambda path: path.write_bytes(csv_bytes(OPEN_BANDIT, rows)), "all.csv")
    assert sum(report.tables[t].rows_in for t in ("slates",) if t in report.tables) == len(rows)
    clicks = [row for row in rows if len(row) == len(OPEN_BANDIT) and row[4] == "1"]
    assert report.tables["events"].rows_in == len(clicks)


def json_lines(records: list[Any]) -> bytes:
    return "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records).encode("utf-8", "surrogatepass")


def records(clean: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[list[Any]]:
    dirty = st.fixed_dictionaries({}, optional={name: st.one_of(good, anything) for name, good in clean.items()})
    broken = st.sampled_from(["{", "[1]", "nul", '{"a": 1', "3"])
    return st.lists(st.one_of(st.fixed_dictionaries(clean), dirty, broken), max_size=10)


def thing(**names: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.fixed_dictionaries({}, optional={n: st.one_of(s, anything) for n, s in names.items()}), anything
    )


ga4_items = st.lists(thing(item_id=st.sampled_from("ab"), price=st.just(1), index=st.integers(0, 3)), max_size=3)
GA4 = {
    "event_name": st.sampled_from([*EVENT_TYPES, *LISTS, "page_view"]),
    "event_timestamp": st.just("1577836800000000"),
    "user_pseudo_id": st.sampled_from("uv"),
    "items": ga4_items,
    "event_params": st.one_of(st.just([{"key": "ga_session_id", "value": {"int_value": 3}}]), anything),
}


@few
@given(records(GA4))
def test_ga4(rows: list[Any]) -> None:
    units = 0
    for row in rows:
        items = row.get("items") if isinstance(row, dict) else None
        known = isinstance(row, dict) and isinstance(row.get("event_name"), str)
        known = known and row["event_name"] in {*EVENT_TYPES, *LISTS}
        count = len(items) if isinstance(items, list) else 0
        units += count + 1 if known and row["event_name"] == SEARCH else max(count, 1) if known else 1
    report = check("ga4", lambda path: path.write_bytes(json_lines(rows)), "ga4.jsonl")
    assert sum(c.rows_in for c in report.tables.values() if not c.derived) == units


SEGMENT = {
    "type": st.just("track"),
    "event": st.sampled_from(["Product Viewed", "Product Clicked", "Products Searched", LIST, *MANY_PRODUCTS, "Else"]),
    "messageId": st.sampled_from(["m1", "m2", "m3"]),
    "userId": st.sampled_from("uv"),
    "timestamp": st.sampled_from(TIMES[:3]),
    "properties": thing(
        product_id=st.sampled_from("ab"),
        price=st.just(2),
        products=st.lists(thing(product_id=st.sampled_from("ab"), position=st.integers(1, 3)), max_size=3),
    ),
}


@few
@given(records(SEGMENT))
def test_segment(rows: list[Any]) -> None:
    units = 0
    for row in rows:
        said = row.get("properties") if isinstance(row, dict) else None
        products = said.get("products") if isinstance(said, dict) else None
        many = isinstance(row, dict) and row.get("type", "track") == "track" and isinstance(row.get("event"), str)
        many = many and row["event"] in {*MANY_PRODUCTS, LIST}
        units += max(len(products), 1) if many and isinstance(products, list) else 1
    report = check("segment", lambda path: path.write_bytes(json_lines(rows)), "segment.jsonl")
    assert sum(c.rows_in for c in report.tables.values() if not c.derived) == units


retail_row = st.fixed_dictionaries(
    {
        "Description": st.sampled_from([None, "", " mug ", "POSTAGE", "?", "Amazon Fee", "x" * 300, "é"]),
        "Quantity": st.sampled_from([1, -1, 0, 2**31 - 1, -(2**31), None]),
        "UnitPrice": st.sampled_from([1.5, 0.0, -2.0, float("nan"), float("inf"), None]),
        "CustomerID": st.sampled_from([12345.0, None]),
        "Country": st.sampled_from(["France", None]),
        "at": st.sampled_from([1_300_000_000_000_000, 0, -1, None]),
    }
)


@few
@given(st.lists(retail_row, max_size=12))
def test_online_retail(rows: list[dict[str, Any]]) -> None:
    types = {"Description": pa.string(), "Quantity": pa.int32(), "UnitPrice": pa.float64()}
    types |= {"CustomerID": pa.float64(), "Country": pa.string()}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    columns["InvoiceDate"] = pa.array([row["at"] for row in rows], pa.timestamp("us"))
    report = check("online-retail", lambda path: pq.write_table(pa.table(columns), path), "online_retail.parquet")
    assert sum(c.rows_in for c in report.tables.values() if not c.derived) == len(rows)


parquet_row = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["a", "b", "c", "", None, "x" * 300, "n\0"]),
        "event_type": st.sampled_from(["view", "search", "wave", None]),
        "item_id": st.sampled_from(["i", None]),
        "price": st.sampled_from([1.0, None, float("nan"), -1.0]),
        "position": st.sampled_from([1, 0, None, 2**40]),
        "at": st.sampled_from([1_300_000_000_000_000, 0, None, 10**17]),
    }
)


@few
@given(st.lists(parquet_row, max_size=12))
def test_canonical_parquet(rows: list[dict[str, Any]]) -> None:
    types = {"event_id": pa.string(), "event_type": pa.string(), "item_id": pa.string(), "price": pa.float64()}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    columns["position"] = pa.array([row["position"] for row in rows], pa.int64())
    columns["event_time"] = pa.array([row["at"] for row in rows], pa.timestamp("us", tz="UTC"))
    report = check("canonical", lambda path: pq.write_table(pa.table(columns), path), "events.parquet")
    assert sum(c.rows_in for c in report.tables.values()) == len(rows)
