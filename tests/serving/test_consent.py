"""Who refused consent stays refused when the loop is closed through an export that began empty."""

from __future__ import annotations

import json
import shutil
import time
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from features.schema import Users, arrow_schema
from features.tables import read_table, write_rows
from models import checkpoint
from serving import answers, consent
from serving.champion import CHAMPION
from serving.contract import EventsRequest, HomepageRequest, format_time, now_us
from serving.export import export_log
from serving.params import from_environment
from serving.runtime import Runtime

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def told_no(model_dir: Path, tmp_path: Path) -> Path:
    """A home whose champion knows that `no` and `never-came` refused."""
    directory = tmp_path / "home" / "model"
    shutil.copytree(model_dir, directory)
    manifest = json.loads((directory / "manifest.json").read_text())
    checkpoint.write_json(
        directory / "manifest.json", {**manifest, consent.REFUSED: consent.marks(["no", "never-came"])}
    )
    registered = tmp_path / "home" / CHAMPION
    registered.parent.mkdir()
    registered.write_text(json.dumps({"model_dir": "model", "version": checkpoint.seal(directory)}))
    return tmp_path / "home"


def visit(home: Path) -> None:
    """`yes` sends an event, `no` only looks at a page."""
    runtime = Runtime(from_environment({"HOMERANKER_HOME": str(home)}), None)
    runtime.start()
    row = {"event_id": uuid.uuid4().hex, "event_time": format_time(now_us()), "event_type": "view", "item_id": "i001"}
    answers.events(runtime, EventsRequest(events=[{**row, "user_id": "yes"}]), now_us())
    answers.homepage(runtime, HomepageRequest(session_id="s", user_id="no"), now_us())
    time.sleep(0.2)  # slates are logged within milliseconds
    runtime.stop()


def test_a_visitor_who_refused_stands_in_the_exported_users(told_no: Path, tmp_path: Path) -> None:
    visit(told_no)
    for _ in range(2):
        export_log(told_no, tmp_path / "out")
        users = read_table(tmp_path / "out", Users.TABLE).to_pylist()
        assert [(row["user_id"], row["personalization_consent"]) for row in users] == [("no", False)]


def test_what_the_shop_says_of_its_users_stays(told_no: Path, tmp_path: Path) -> None:
    visit(told_no)
    rows = [{"user_id": "no", "personalization_consent": True}, {"user_id": "other", "country": "FR"}]
    write_rows(tmp_path / "out", Users.TABLE, [pa.Table.from_pylist(rows, schema=arrow_schema(Users.COLUMNS))])
    before = read_table(tmp_path / "out", Users.TABLE)
    export_log(told_no, tmp_path / "out")
    assert read_table(tmp_path / "out", Users.TABLE).equals(before)
