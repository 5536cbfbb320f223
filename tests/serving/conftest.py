"""One small model, one Bento and one running service for all tests of serving."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pyarrow.parquet as pq
import pytest

from serving.package import build_bento, served

HERE = Path(__file__).parent


def load_module(path: Path, name: str) -> ModuleType:
    """A module from a file that is in no package."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shop_data() -> ModuleType:
    return load_module(HERE / "shop_data.py", "shop_data")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory, shop_data: ModuleType) -> Path:
    folder: Path = shop_data.make_model(tmp_path_factory.mktemp("model") / "model")
    return folder


@pytest.fixture(scope="session")
def items_file(tmp_path_factory: pytest.TempPathFactory, shop_data: ModuleType) -> Path:
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    pq.write_table(shop_data.items_table(), path)
    return path


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    return build_bento(model_dir, tmp_path_factory.mktemp("bento") / "homeranker")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, bento: Path) -> Iterator[str]:
    """Base URL of a service without keys, with one worker and a replaceable clock."""
    quick = {"HOMERANKER_REPLAY": "1", "HOMERANKER_DRAIN_SECONDS": "0.1"}
    with served(bento, tmp_path_factory.mktemp("home"), **quick) as (base, _):
        yield base


@pytest.fixture(scope="session")
def pair_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="session")
def pair(pair_home: Path, bento: Path) -> Iterator[str]:
    """Base URL of a service with two workers and two keys."""
    told = {"HOMERANKER_REPLAY": "1", "HOMERANKER_DRAIN_SECONDS": "0.1", "HOMERANKER_API_KEYS": "right other"}
    with served(bento, pair_home, workers=2, **told) as (base, _):
        yield base


@pytest.fixture
def client(service: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service, timeout=20) as client:
        yield client
