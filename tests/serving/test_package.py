"""The Bento is its content: the same input gives the same bytes, and nothing else is in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from features.errors import ArtifactError, UsageError
from serving.package import build_bento, serve, served
from serving.params import from_environment, settings


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_model_gives_the_same_bytes_and_another_setting_another_version(
    bento: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMERANKER_API_KEYS", "secret")  # a shell that serves builds the same Bento
    two = build_bento(model_dir, tmp_path / ".hidden" / "two")
    other = build_bento(model_dir, tmp_path / "other", settings={"candidates": 300})
    assert contents(bento) == contents(two)
    versions = [yaml.safe_load((one / "bento.yaml").read_text())["version"] for one in (bento, two, other)]
    assert versions[0] == versions[1] != versions[2]


def test_what_serves_is_pinned_and_nothing_that_only_trains_is_installed(bento: Path) -> None:
    names = {line.split("==")[0].lower() for line in (bento / "env/python/requirements.txt").read_text().split()}
    assert {"bentoml", "torch", "feast", "safetensors", "redis", "starlette", "uvicorn"} <= names
    assert not names & {"prefect", "dvc", "great_expectations", "great-expectations", "pytest", "pyspark"}


def test_it_holds_what_serves_and_no_data(bento: Path) -> None:
    names = set(contents(bento))
    assert {name.split("/")[1] for name in names if name.startswith("src/")} == {
        "features",
        "models",
        "serving",
        "model",
        "bentofile.yaml",
        "requirements.txt",
    }
    assert not [name for name in names if name.endswith((".parquet", ".csv", ".pyc", ".pkl", ".db"))]


def test_it_stays_what_it_was_while_it_serves(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # as on most machines
    before = contents(bento)
    with served(bento, tmp_path / "home"):
        pass
    assert contents(bento) == before


def test_no_model_no_bento(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no model to package"):
        build_bento(tmp_path, tmp_path / "bento")


def test_without_keys_only_this_machine_is_served(bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOMERANKER_API_KEYS", raising=False)
    with pytest.raises(UsageError, match="needs keys"):
        serve(bento, tmp_path, "0.0.0.0", 1)  # noqa: S104 - that is what is refused


def test_wrong_settings_are_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match=r"candidatez.*known are candidates"):
        settings({"candidatez": 5})
    with pytest.raises(UsageError, match="must be numbers"):
        from_environment({"HOMERANKER_WORKERS": "two"})
    assert settings({"ads": {"reserve": 0.2}}).ads.reserve == 0.2
