"""One checkout and one finished run for the tests that only look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from features.importers import import_data
from features.tables import read_table, write_rows
from tests.flows.checkout import REPOSITORY, Checkout, make_checkout


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canonical tables: every fourth customer of Online Retail, without guests."""
    whole = tmp_path_factory.mktemp("whole")
    import_data("online-retail", REPOSITORY / "data" / "online_retail.parquet", whole)
    events = read_table(whole, "events")
    known = events.filter(pc.is_valid(events["user_id"]))
    quarter = pc.equal(pc.bit_wise_and(pc.cast(known["user_id"], pa.int64()), 3), 0)
    part = tmp_path_factory.mktemp("shop")
    write_rows(part, "events", [known.filter(quarter)])
    write_rows(part, "items", [read_table(whole, "items")])
    return part


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """One checkout for the tests that only look."""
    return make_checkout(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="session")
def first_run(checkout: Checkout, shop: Path) -> dict[str, Any]:
    """A finished run of the checkout."""
    return checkout.retrain(shop)
