"""The feature store, offline and online, on real SQLite and a real Redis server."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import StoreError, UsageError
from features.history import History, HistoryRow, history_row, same_row, write_history
from features.store import (
    ReadCounts,
    delete_online,
    materialize,
    read_online,
    read_watermark,
    training_rows,
    write_online,
)
from features.views import SERVICE, redis_connection, store_for

H = History
START = datetime(2026, 1, 5, tzinfo=UTC)
USERS = ["u1", "u2", "u3"]


def state(
    user: str, when: datetime, event_id: str = "e1", n_events: int = 1, pairs: int = 2, taste_time: int = 0
) -> dict[str, Any]:
    """One row of the history table, its values told by its version, as they are of one log."""
    us = int(when.timestamp() * 1_000_000)
    return {
        H.USER_ID: user, H.EVENT_TIMESTAMP: when, H.LAST_EVENT_ID: event_id, H.LAST_TIME: us,
        H.ITEM_IDS: np.array([f"{event_id}-i{n}" for n in range(pairs)], dtype=object),
        H.EVENT_TYPES: np.array(["view"] * pairs, dtype=object),
        H.COUNTS: np.arange(pairs) + 1.0, H.QUANTITIES: np.arange(pairs) + 0.5,
        H.FIRST_TIMES: np.full(pairs, us - 7), H.LAST_TIMES: np.full(pairs, us),
        H.N_EVENTS: n_events, H.N_SESSIONS: 1, H.FIRST_TIME: us - 7,
        H.MEAN_PRICE: float("nan") if n_events == 1 else us / 3,
        H.TASTE_NAMES: np.array([f"brand {n}" for n in range(n_events - 1)], dtype=object),
        H.TASTE_WEIGHTS: np.arange(n_events - 1) - 0.5, H.TASTE_TIME: taste_time,
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=H.SCHEMA.names)
    frame[H.EVENT_TIMESTAMP] = pd.to_datetime(frame[H.EVENT_TIMESTAMP], utc=True).dt.as_unit("us")
    return frame


def newest(rows: list[dict[str, Any]]) -> dict[str, HistoryRow]:
    """Of each user the row with the greatest (time, event id, events known)."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        old = best.get(row[H.USER_ID])
        names = (H.LAST_TIME, H.LAST_EVENT_ID, H.N_EVENTS)
        if old is None or [row[n] for n in names] > [old[n] for n in names]:
            best[row[H.USER_ID]] = row
    return {user: history_row(row) for user, row in best.items()}


def assert_holds(store: Any, rows: list[dict[str, Any]], users: list[str] = USERS) -> None:
    wanted = newest(rows)
    for user, found in zip(users, read_online(store, users), strict=True):
        assert same_row(found, wanted.get(user)), user


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("redis-server is not installed: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def online(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    return store_for(tmp_path_factory.mktemp("store"), offline_path=Path("nothing.parquet"), redis_url=url)


rows_of_history = st.builds(
    state,
    st.sampled_from(USERS),
    st.integers(0, 3).map(lambda n: START + timedelta(microseconds=n)),
    st.sampled_from(["e1", "e2"]),
    st.integers(1, 2),
    st.integers(0, 2),
).map(
    lambda row: state(
        row[H.USER_ID], row[H.EVENT_TIMESTAMP], row[H.LAST_EVENT_ID], row[H.N_EVENTS], row[H.N_EVENTS] - 1
    )
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(rows_of_history, min_size=1, max_size=8), data=st.data())
def test_any_order_and_repetition_of_batches_ends_in_the_same_store(
    online: Any, rows: Any, data: st.DataObject
) -> None:
    for user in USERS:
        delete_online(online, user)
    shuffled = data.draw(st.permutations(rows + rows))
    cut = data.draw(st.integers(0, len(shuffled)))
    for batch in (shuffled[:cut], shuffled[cut:], shuffled[:cut]):
        write_online(online, table(batch))
    assert_holds(online, rows)


def test_an_older_event_never_replaces_a_newer_one_and_ties_break_by_event_id(online: Any) -> None:
    delete_online(online, "u1")
    now = START + timedelta(days=1)
    assert write_online(online, table([state("u1", now, "e5")])) == 1
    assert write_online(online, table([state("u1", START, "e9"), state("u1", now, "e4")])) == 0
    assert write_online(online, table([state("u1", now, "e6")])) == 1
    assert [row and row.last_event_id for row in read_online(online, ["u1"])] == ["e6"]


def test_a_history_of_an_older_release_goes_online_without_tastes(online: Any) -> None:
    delete_online(online, "u1")
    old = table([state("u1", START, "e1", 2)]).drop(columns=[H.TASTE_NAMES, H.TASTE_WEIGHTS, H.TASTE_TIME])
    assert write_online(online, old) == 1
    found = read_online(online, ["u1"])[0]
    assert found is not None and found.item_ids.size == 2 and not found.taste_names.size


def test_a_taste_from_a_newer_page_replaces_an_older_one_whoever_did_nothing_since(online: Any) -> None:
    looked = [state("looked", START, n_events=2, taste_time=at) for at in (0, 5, 9)]
    looked[2][H.TASTE_WEIGHTS] = np.array([-1.5])
    assert [write_online(online, table([looked[at]])) for at in (0, 2, 1)] == [1, 1, 0]
    [found] = read_online(online, ["looked"])
    assert found is not None and found.taste_time == 9 and found.taste_weights.tolist() == [-1.5]


def test_a_read_says_what_feasts_own_service_says(online: Any) -> None:
    users = ["same-1", "same-2", "nobody"]
    write_online(online, table([state(user, START, n_events=n) for n, user in enumerate(users[:2], 1)]))
    told = online.get_online_features(
        online.get_feature_service(SERVICE), entity_rows=[{H.USER_ID: user} for user in users]
    ).to_dict()
    feasts = [
        None if told[H.LAST_TIME][at] is None else history_row({name: values[at] for name, values in told.items()})
        for at in range(len(users))
    ]
    ours = read_online(online, users)
    assert ours[2] is feasts[2] is None and all(map(same_row, ours[:2], feasts[:2]))


def test_a_value_past_its_age_is_missing_and_counted(online: Any) -> None:
    write_online(online, table([state("u7", START, "e1"), state("u8", START + timedelta(days=5), "e1")]))
    counts = ReadCounts()
    now = START + timedelta(days=6)
    found = read_online(online, ["u7", "u8", "u9"], now=now, max_age=timedelta(days=3), counts=counts)
    assert [row is not None for row in found] == [False, True, False]
    assert counts == ReadCounts(present=1, missing=1, expired=1)


def test_a_deleted_user_is_gone_and_the_others_stay(online: Any) -> None:
    write_online(online, table([state("gone", START), state("stays", START)]))
    delete_online(online, "gone")
    delete_online(online, "never there")
    assert [row is not None for row in read_online(online, ["gone", "stays"])] == [False, True]


def test_feast_is_imported_as_it_was_written_and_typeguard_is_left_as_it_was(tmp_path: Path) -> None:
    asked = (
        "from pathlib import Path; import sys; from features.views import store_for;"
        "store_for(Path(sys.argv[1]), offline_path=Path('none'));"
        "import feast, typeguard;"
        "assert 'TypeCheckMemo' not in feast.Entity.__init__.__code__.co_names;"
        "assert typeguard.typechecked.__name__ == 'typechecked'"
    )
    done = subprocess.run([sys.executable, "-c", asked, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_broken_store_says_so(tmp_path: Path) -> None:
    store = store_for(tmp_path, offline_path=tmp_path / "history.parquet")
    (tmp_path / "online.db").write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="the online store cannot be read"):
        read_online(store, ["u1"])


@pytest.mark.parametrize("url", ["http://host:1", "redis://", "redis://:a,b@host:1/0"])
def test_a_wrong_redis_address_names_the_variable(url: str) -> None:
    with pytest.raises(UsageError, match="HOMERANKER_REDIS_URL"):
        redis_connection(url)


def test_a_redis_address_is_told_to_feast_in_its_own_words() -> None:
    assert redis_connection("rediss://me:s%20t@host:7000/2") == "host:7000,db=2,username=me,password=s t,ssl=true"
    assert redis_connection("redis://host") == "host:6379,db=0"


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("offline")
    return store_for(folder, offline_path=folder / "history.parquet"), folder / "history.parquet"


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    states=st.lists(st.tuples(st.sampled_from(USERS), st.integers(0, 9)), unique=True, min_size=1, max_size=12),
    asked=st.lists(st.tuples(st.sampled_from([*USERS, "u9"]), st.integers(-1, 10)), min_size=1, max_size=8),
)
def test_training_rows_equal_a_brute_force_point_in_time_join(offline: Any, states: Any, asked: Any) -> None:
    store, path = offline
    rows = [state(user, START + timedelta(microseconds=us), f"e{us}", us + 2) for user, us in states]
    write_history(table(rows), path)
    entities = pd.DataFrame(asked, columns=[H.USER_ID, "us"], index=range(100, 100 + len(asked)))
    entities[H.EVENT_TIMESTAMP] = [START + timedelta(microseconds=us) for _, us in asked]
    found = training_rows(store, entities)
    assert found.index.equals(entities.index) and found["us"].tolist() == entities["us"].tolist()
    for (user, us), row in zip(asked, found.to_dict("records"), strict=True):
        past = [r for r in rows if r[H.USER_ID] == user and r[H.EVENT_TIMESTAMP] <= START + timedelta(microseconds=us)]
        if not past:
            assert pd.isna(row[H.LAST_TIME])
        else:
            assert same_row(history_row(row), newest(past)[user])


def test_a_state_older_than_its_time_to_live_does_not_reach_training(offline: Any) -> None:
    store, path = offline
    write_history(table([state("u1", START)]), path)
    times = [START + timedelta(days=729), START + timedelta(days=731)]
    rows = training_rows(store, pd.DataFrame({H.USER_ID: ["u1", "u1"], H.EVENT_TIMESTAMP: times}))
    assert rows[H.LAST_TIME].notna().tolist() == [True, False]
    assert training_rows(store, rows.iloc[:0][[H.USER_ID, H.EVENT_TIMESTAMP]]).empty


def many(users: int, days: int) -> list[dict[str, Any]]:
    return [
        state(
            f"u{u}",
            START + timedelta(days=d, hours=u % 24, microseconds=u * 7 + 1),
            f"e{u}-{d}",
            d + 1,
            1 + (u + d) % 5,
        )
        for d in range(days)
        for u in range(users)
        if (u + d) % 3
    ]


def test_materialize_goes_by_day_and_its_watermark_never_runs_ahead_of_the_data(tmp_path: Path) -> None:
    rows = many(30, 6)
    path, mark = write_history(table(rows), tmp_path / "history.parquet"), tmp_path / "watermark.json"
    store = store_for(tmp_path / "store", offline_path=path)
    assert read_watermark(mark) is None
    users = [f"u{u}" for u in range(30)]
    first = materialize(store, path, watermark_path=mark, until=START + timedelta(days=3))
    assert first.chunks == 3 and first.rows == first.written
    assert_holds(store, [r for r in rows if r[H.EVENT_TIMESTAMP] < START + timedelta(days=3)], users)
    second = materialize(store, path, watermark_path=mark, until=START + timedelta(days=99))
    assert_holds(store, rows, users)
    assert second.watermark == max(r[H.EVENT_TIMESTAMP] for r in rows) == read_watermark(mark)
    again = materialize(store, path, watermark_path=mark, until=START + timedelta(days=99))
    assert again.written == 0 and again.watermark == second.watermark
    mark.write_text("{}")
    with pytest.raises(StoreError, match="is no watermark"):
        read_watermark(mark)


CHILD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from features.store import materialize
from features.views import store_for
root = Path(sys.argv[1])
store = store_for(root / "store", offline_path=root / "history.parquet")
print("ready", flush=True)
until = datetime(2027, 1, 1, tzinfo=UTC)
materialize(store, root / "history.parquet", watermark_path=root / "watermark.json", until=until)
print("done", flush=True)
"""


def fill(root: Path, kill_after: float | None) -> bool:
    """Run `materialize` in a process; kill it after some seconds. True when it came to its end."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(root)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child.pid, signal.SIGKILL)
        return "done" in child.stdout.read()


@pytest.mark.slow
def test_materialize_killed_anywhere_and_resumed_leaves_no_gap_and_nothing_double(tmp_path: Path) -> None:
    rows = many(120, 40)
    path = write_history(table(rows), tmp_path / "history.parquet")
    users = [f"u{u}" for u in range(120)]
    moments, kills = random.Random(3), 0
    store = store_for(tmp_path / "store", offline_path=path)
    while not fill(tmp_path, moments.uniform(0.05, 1.2) if kills < 6 else None):
        kills += 1
        mark = read_watermark(tmp_path / "watermark.json")
        if mark is not None:
            before = newest([row for row in rows if row[H.EVENT_TIMESTAMP] <= mark])
            found = {row.user_id: row for row in read_online(store, users) if row is not None}
            assert all(found[user].last_time >= row.last_time for user, row in before.items())
    assert kills > 0
    assert_holds(store, rows, users)
    assert json.loads((tmp_path / "watermark.json").read_text())["watermark"] == str(
        table(rows)[H.EVENT_TIMESTAMP].max()
    ).replace(" ", "T")


def test_offline_value_equals_online_value_for_10_000_keys(tmp_path: Path) -> None:
    rows = many(15_000, 1)
    assert len(rows) == 10_000
    path = write_history(table(rows), tmp_path / "history.parquet")
    store = store_for(tmp_path / "store", offline_path=path)
    materialize(store, path, watermark_path=tmp_path / "w.json", until=START + timedelta(days=9))
    users = [row[H.USER_ID] for row in rows]
    when = START + timedelta(days=9)
    offline = training_rows(store, pd.DataFrame({H.USER_ID: users, H.EVENT_TIMESTAMP: [when] * len(users)}))
    pairs = zip(read_online(store, users), offline.to_dict("records"), strict=True)
    assert sum(not same_row(found, history_row(row)) for found, row in pairs) == 0
