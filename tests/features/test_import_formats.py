"""Each format, on a sample written from its published description, becomes the canonical tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import SchemaError, SourceError, UsageError
from features.importers import FORMATS, ImportReport, import_data
from features.tables import read_table

Rows = list[dict[str, Any]]
Run = Callable[..., tuple[ImportReport, Callable[[str], Rows]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Import a source; the report, and a function that gives a table's rows."""

    def importing(format: str, src: Path, **options: Any) -> tuple[ImportReport, Callable[[str], Rows]]:
        report = import_data(format, src, tmp_path / "out", **options)
        return report, lambda table: read_table(tmp_path / "out", table).to_pylist()

    return importing


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_the_formats_of_the_contract_are_there() -> None:
    assert set(FORMATS) == {"canonical", "personalize", "ga4", "segment", "open-bandit", "online-retail"}
    with pytest.raises(UsageError, match="unknown format 'csv'; one of canonical"):
        import_data("csv", Path(), Path("out"))


def test_personalize(run: Run, tmp_path: Path) -> None:
    src = tmp_path / "src"
    src.mkdir()
    (src / "interactions.csv").write_text(
        "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE,IMPRESSION,RECOMMENDATION_ID\n"
        "u1,i2,1700000000,Click,,i1|i2|i3,rec-1\n"
        "u1,i2,1700000001,AddToCart,2.5,,\n"
        "u1,i2,1700000001,AddToCart,2.5,,\n"  # the same row: a retry
        "u1,i2,1700000002,dance,,,\n"
        "u1,,1700000003,View,,,\n"
        "u1,i2,yesterday,View,,,\n"
        "u1,i2,1700000004000,View,,,\n"  # milliseconds
        "u2,i1,1700000005,buy,9.9,i1||i3,\n"
        "u2,i1,1700000005\n"
    )
    (src / "items.csv").write_text(
        "ITEM_ID,PRICE,CATEGORY_L1,CATEGORY_L2,CREATION_TIMESTAMP\ni1,9.5,toys,cars,1600000000\n"
    )
    (src / "users.csv").write_text("USER_ID,AGE\nu1,40\n")
    report, table = run("personalize", src)
    events = {e["event_type"]: e for e in table("events")}
    assert set(events) == {"click", "add_to_cart", "purchase"}
    assert (events["click"]["request_id"], events["click"]["position"]) == ("rec-1", 2)
    assert events["add_to_cart"]["event_value"] == "2.5" and events["add_to_cart"]["price"] is None
    count = report.tables["events"]
    assert (count.rows_in, count.rows_out, count.merged) == (9, 3, 1)
    assert count.quarantined == {
        "another number of fields than the header has": 1,
        "event_time: not a whole number": 1,
        "event_time: not between 1970 and 2200 (seconds, milli- or microseconds mixed up?)": 1,
        "event_type: not one of view, click, add_to_cart, remove_from_cart, purchase, return, search": 1,
        "item_id: missing, only a search may lack it": 1,
    }
    shown = [(s["request_id"] == "rec-1", s["position"], s["item_id"], s["propensity"]) for s in table("slates")]
    assert shown[:3] == [(True, 1, "i1", None), (True, 2, "i2", None), (True, 3, "i3", None)]
    assert report.tables["slates"].quarantined == {"item_id: empty": 1}
    item = table("items")[0]
    assert (item["category"], item["price"], item["listed_at"].year) == ("toys > cars", 9.5, 2020)
    assert table("users")[0]["age"] == "40"


def test_personalize_without_a_needed_column_names_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("USER_ID,ITEM_ID\nu,i\n")
    with pytest.raises(SchemaError, match=r"a\.csv: no column TIMESTAMP; personalize \(interactions\) needs USER_ID"):
        run("personalize", tmp_path / "a.csv")


GA4_ITEMS = [
    {"item_id": "A", "item_name": "Ape", "item_brand": "Zoo", "item_category": "toys", "item_category2": "soft",
     "price": 12.5, "quantity": 2, "item_list_id": "home_top", "index": 0},
    {"item_id": "B", "item_name": "(not set)", "price": 3, "item_list_id": "home_top", "index": 1},
]  # fmt: skip


def ga4(name: str, **more: Any) -> dict[str, Any]:
    params = [
        {"key": "ga_session_id", "value": {"int_value": 7}},
        {"key": "currency", "value": {"string_value": "eur"}},
    ]
    base = {"event_name": name, "event_timestamp": "1700000000000000", "user_pseudo_id": "p.1", "platform": "WEB"}
    return {**base, "event_params": params, "items": GA4_ITEMS, **more}


def test_ga4(run: Run, tmp_path: Path) -> None:
    search = [{"key": "search_term", "value": {"string_value": "ape"}}]
    records = [
        ga4("view_item_list"),
        ga4("select_item", items=GA4_ITEMS[1:]),
        ga4("purchase", ecommerce={"transaction_id": "t1"}),
        ga4("purchase", ecommerce={"transaction_id": "t1"}),  # the same record: a retry of two rows
        ga4("refund", items=GA4_ITEMS[:1]),
        ga4("view_search_results", event_params=search, items=[]),
        ga4("page_view", items=[]),
        ga4("add_to_cart", items=[]),
        ga4("view_item", items=["A"]),
        ga4("view_item", items=[{"item_id": "A", "price": -1}]),
    ]
    report, table = run("ga4", lines(tmp_path / "ga4.jsonl", records))
    events = table("events")
    assert sorted(e["event_type"] for e in events) == ["click", "purchase", "purchase", "return", "search"]
    bought = next(e for e in events if e["event_type"] == "purchase" and e["item_id"] == "A")
    assert (bought["price"], bought["quantity"], bought["currency"], bought["platform"]) == (12.5, 2, "EUR", "web")
    assert len({e["session_id"] for e in events if e["event_type"] != "search"}) == 1
    assert next(e for e in events if e["event_type"] == "click")["position"] == 2
    assert next(e for e in events if e["event_type"] == "search")["query"] == "ape"
    assert [(s["module"], s["position"], s["item_id"]) for s in table("slates")] == [
        ("home_top", 1, "A"),
        ("home_top", 2, "B"),
    ]
    assert report.tables["events"].merged == 2
    assert report.tables["events"].quarantined == {
        "event_name: not one that is read": 1,
        "items: none": 1,
        "items: not an object": 1,
        "price: below 0": 1,
    }
    items = {i["item_id"]: i for i in table("items")}
    assert (items["A"]["title"], items["A"]["category"], items["A"]["brand"]) == ("Ape", "toys > soft", "Zoo")
    assert items["B"]["title"] is None and report.tables["items"].derived


def test_ga4_parquet_gives_the_same_events(run: Run, tmp_path: Path) -> None:
    records = [ga4("view_item_list"), ga4("purchase")]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "ga4.parquet")
    report, _ = run("ga4", tmp_path / "ga4.parquet")
    assert (report.tables["events"].rows_out, report.tables["slates"].rows_out) == (2, 2)


def segment(event: str, number: int, **properties: Any) -> dict[str, Any]:
    base = {"type": "track", "userId": None, "anonymousId": "an-1", "timestamp": "2026-01-31T12:00:00.123Z"}
    return {**base, "event": event, "messageId": f"m{number}", "properties": properties}


def test_segment(run: Run, tmp_path: Path) -> None:
    product = {"product_id": "P1", "sku": "S1", "name": "Pot", "price": 19, "position": 3, "category": "Kitchen"}
    records = [
        segment("Product Viewed", 1, **product, currency="usd"),
        segment("Product Clicked", 2, **product),
        segment("Product Added", 3, **product, quantity=1),
        segment("Product Removed", 4, sku="S1"),
        segment(
            "Order Completed", 5, order_id="o", currency="USD", products=[product, {"product_id": "P2", "price": 1}]
        ),
        segment(
            "Order Completed", 5, order_id="o", currency="USD", products=[product, {"product_id": "P2", "price": 1}]
        ),
        segment("Order Refunded", 6, order_id="o", products=[{"product_id": "P2", "quantity": 1}]),
        segment("Products Searched", 7, query="pot"),
        segment("Product List Viewed", 8, list_id="hot", products=[product, {"product_id": "P2"}]),
        segment("Order Completed", 9, order_id="o"),
        segment("Coupon Entered", 10),
        {"type": "page", "anonymousId": "an-1"},
        ["no object"],
    ]
    report, table = run("segment", lines(tmp_path / "segment.jsonl", records))
    events = table("events")
    assert {e["event_id"] for e in events} == {"m1", "m2", "m3", "m4", "m5:0", "m5:1", "m6:0", "m7"}
    assert {e["user_id"] for e in events} == {"an-1"}
    viewed = next(e for e in events if e["event_id"] == "m1")
    assert (viewed["item_id"], viewed["price"], viewed["currency"], viewed["position"]) == ("P1", 19.0, "USD", 3)
    assert [(s["request_id"], s["position"], s["item_id"]) for s in table("slates")] == [
        ("m8", 2, "P2"),
        ("m8", 3, "P1"),
    ]
    assert report.tables["events"].merged == 2
    assert report.tables["events"].quarantined == {
        "event: not one that is read": 1,
        "not a JSON object": 1,
        "products: none": 1,
        "type: not a track call": 1,
    }
    assert {i["item_id"]: i["title"] for i in table("items")} == {"P1": "Pot", "P2": None, "S1": None}


def test_open_bandit(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "obd" / "bts" / "men"
    folder.mkdir(parents=True)
    (folder / "men.csv").write_text(
        ",timestamp,item_id,position,click,propensity_score,user_feature_0,user-item_affinity_0\n"
        "0,2019-11-24 00:00:18.123456+00:00,29,2,1,0.03,abc,0.0\n"
        "1,2019-11-24 00:00:19+00:00,4,3,0,1e-06,abc,0.0\n"
        "2,2019-11-24 00:00:19+00:00,4,1,0,0,abc,0.0\n"
        "3,2019-11-24 00:00:19+00:00,4,1,maybe,0.1,abc,0.0\n"
    )
    (folder / "item_context.csv").write_text(",item_id,item_feature_0,item_feature_1\n0,29,-0.67,x\n1,4,0.1,y\n")
    report, table = run("open-bandit", folder)
    first, second = table("slates")
    assert (first["position"], first["item_id"], first["propensity"], first["policy"]) == (2, "men-29", 0.03, "bts")
    assert second["propensity"] == 1e-6 and first["user_feature_0"] == "abc"
    (click,) = table("events")
    assert (click["event_type"], click["request_id"], click["item_id"]) == ("click", first["request_id"], "men-29")
    assert report.tables["slates"].quarantined == {"click: neither 0 nor 1": 1, "propensity: not above 0": 1}
    assert [(i["item_id"], i["available"], i["item_feature_1"]) for i in table("items")] == [
        ("men-29", True, "x"),
        ("men-4", True, "y"),
    ]


def test_canonical_parquet_with_other_units_and_extra_columns(run: Run, tmp_path: Path) -> None:
    src = tmp_path / "src" / "events" / "date=2020-01-01"
    src.mkdir(parents=True)
    time = pa.array([1_577_880_000_000] * 2, pa.timestamp("ms", tz="Europe/Berlin"))
    columns = {
        "event_id": pa.array([1, 2]),
        "event_time": time,
        "event_type": pa.array(["view", "view"]).dictionary_encode(),
        "item_id": pa.array(["a", "a"], pa.large_string()),
        "position": pa.array([1, 2**40]),
        "campaign": ["x", "y"],
    }
    pq.write_table(pa.table(columns), src / "part.parquet")
    (src / "_SUCCESS").write_text("")
    (src / "notes.txt").write_text("ignored")
    report, table = run("canonical", tmp_path / "src")
    (row,) = table("events")
    assert (row["event_id"], row["event_time"].isoformat(), row["campaign"]) == ("1", "2020-01-01T12:00:00+00:00", "x")
    assert report.tables["events"].quarantined == {"position: number too large": 1}
    assert table("quarantine")[0]["row_number"] == 1


def test_canonical_csv_sets_bad_values_aside(run: Run, tmp_path: Path) -> None:
    good = "e1,2020-01-01T00:00:00+01:00,purchase,u,i,2.5,1,GBP"
    bad = [
        "e2,2020-01-01T00:00:00,purchase,u,i,2.5,1,GBP",
        "e3,2020-02-31T00:00:00Z,purchase,u,i,2.5,1,GBP",
        "e4,2020-01-01T00:00:00Z,purchase,u,i,nan,1,GBP",
        "e5,2020-01-01T00:00:00Z,purchase,u,i,1e999,1,GBP",
        "e6,2020-01-01T00:00:00Z,purchase,u,i,2.5,0,GBP",
        "e7,2020-01-01T00:00:00Z,purchase,u,i,2.5,1,POUND",
        f"{'x' * 257},2020-01-01T00:00:00Z,purchase,u,i,2.5,1,GBP",
        "e8,2020-01-01T00:00:00Z,purchase,u\0,i,2.5,1,GBP",
    ]
    header = "event_id,event_time,event_type,user_id,item_id,price,quantity,currency"
    (tmp_path / "src").mkdir()
    text = "\n".join([header, good, *bad]).encode() + b"\ne9,2020-01-01T00:00:00Z,view,\xff,i,,,\n"
    (tmp_path / "src" / "events.csv").write_bytes(text)
    report, table = run("canonical", tmp_path / "src")
    assert [e["event_time"].isoformat() for e in table("events")] == ["2019-12-31T23:00:00+00:00"]
    assert report.tables["events"].quarantined == {
        "currency: not an ISO 4217 code": 1,
        "event_id: longer than 256 characters": 1,
        "event_time: not a time with an offset, as 2026-01-31T12:00:00Z": 2,
        "price: not a finite number": 1,
        "price: not a number": 1,
        "quantity: below 1": 1,
        "user_id: holds NUL": 1,
        "user_id: not valid text (a lone surrogate or no UTF-8)": 1,
    }


def test_canonical_errors_say_what_is_wrong(run: Run, tmp_path: Path) -> None:
    src = tmp_path / "src"
    (src / "events").mkdir(parents=True)
    with pytest.raises(SourceError, match="no table 'events'; expected events/"):
        run("canonical", src)
    naive = {"event_id": ["a"], "event_type": ["view"], "event_time": pa.array([1], pa.timestamp("us"))}
    pq.write_table(pa.table(naive), src / "events" / "a.parquet")
    with pytest.raises(SchemaError, match="column 'event_time' holds times without a zone"):
        run("canonical", src)
    pq.write_table(pa.table({**naive, "event_time": ["now"]}), src / "events" / "a.parquet")
    with pytest.raises(SchemaError, match=r"'events', column 'event_time' is string, expected timestamp\[us, tz=UTC\]"):
        run("canonical", src)


def test_pseudonyms_replace_users_everywhere(run: Run, tmp_path: Path) -> None:
    records = [segment("Product Viewed", 1, product_id="P"), segment("Product Viewed", 2, product_id="P", price=-1)]
    _, table = run("segment", lines(tmp_path / "s.jsonl", records), pseudonym_key=b"k")
    (user,) = {e["user_id"] for e in table("events")}
    assert user != "an-1" and len(user) == 43
    assert "an-1" not in table("quarantine")[0]["row"] and user in table("quarantine")[0]["row"]
    assert table("users")[0]["user_id"] == user


def test_a_second_import_replaces_the_first(run: Run, tmp_path: Path) -> None:
    run("segment", lines(tmp_path / "s.jsonl", [segment("Product List Viewed", 1, products=[{"product_id": "P"}])]))
    _, table = run("segment", lines(tmp_path / "s.jsonl", [segment("Product Viewed", 2, product_id="Q")]))
    assert [i["item_id"] for i in table("items")] == ["Q"]
    assert not (tmp_path / "out" / "slates").exists()
