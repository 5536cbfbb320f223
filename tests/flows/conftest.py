"""One checkout and one finished run for the tests that only look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.flows.checkout import Checkout, make_checkout, quarter_of_the_shop


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canonical tables: every fourth customer of Online Retail, without guests."""
    return quarter_of_the_shop(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """One checkout for the tests that only look."""
    return make_checkout(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="session")
def first_run(checkout: Checkout, shop: Path) -> dict[str, Any]:
    """A finished run of the checkout."""
    return checkout.retrain(shop)
