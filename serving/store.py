"""SQLite as the service's store on disk: opening, and one writer thread a process that commits in groups.

Choices. SQLite in WAL mode, because many workers and a command line may read and write it at once, it survives
SIGKILL, deletes one person's rows, and needs no server. Jobs that arrive while a commit is under way share the next
one, so that one fsync serves many requests. `durable` stores fsync every commit; others (slates) leave that to the
next checkpoint, and gather for a moment first, so that nobody's answer shares the interpreter with their commit.
`secure_delete` overwrites what an erasure removes.
Rows that a page waits for are read at once: between two rows Python gives its lock away, and beside a page under way it
takes most of a millisecond to have it back, for every row.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from features.errors import StoreError

BUSY_MS = 5000
OPEN_TRIES = 50
GROUP = 256  # jobs in one commit
WAITING = 2048  # jobs that may wait; more are refused
GATHER_S = 0.02
SHRINK_S, SHRINK_BUSY_S = 5.0, 0.1  # tried so long; writers wait so long at most for one try

Job = Callable[[sqlite3.Connection], Any]


def connect(path: Path, durable: bool, busy_s: float = BUSY_MS / 1000) -> sqlite3.Connection:
    """A connection in autocommit mode that waits so long for others; StoreError where the file cannot be opened."""
    for left in range(OPEN_TRIES, 0, -1):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("PRAGMA secure_delete=ON")
            return connection
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or left == 1:  # another worker is switching it to WAL
                raise StoreError(f"{path}: cannot be opened: {error}") from error
            time.sleep(0.05)
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened: {error}") from error
    raise StoreError(f"{path}: stays locked")


@contextmanager
def _known_column() -> Iterator[None]:
    """Go on where a column is there already."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "duplicate column name" not in str(error):
            raise


class Store:
    """One database file: reads on a connection a thread, writes through the group writer."""

    def __init__(self, path: Path, schema: str, added: Sequence[str] = (), *, durable: bool = True) -> None:
        """`added`: statements for what files of an earlier version lack; a column that is there already is none."""
        self.path, self._schema, self._added, self._durable = path, schema, added, durable
        self._local = threading.local()
        self._jobs: queue.Queue[tuple[Job, Future[Any]] | None] = queue.Queue(WAITING)
        self._open().close()
        self._thread = threading.Thread(target=self._work, name=f"writer-{path.stem}", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        connection = connect(self.path, self._durable)
        try:
            connection.executescript(self._schema)
            for statement in self._added:
                with _known_column():
                    connection.execute(statement)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error
        return connection

    def read(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        """All rows of a query; StoreError where the file cannot be read."""
        try:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = connect(self.path, self._durable)
            return connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            self._local.connection = None
            raise StoreError(f"{self.path}: cannot be read: {error}") from error

    def read_at_once(self, columns: str, query: str, values: tuple[Any, ...] = ()) -> list[list[Any]]:
        """The named columns of a query as one row of SQLite's, in no order; reals to 15 digits, no blobs."""
        whole = f"SELECT json_group_array(json_array({columns})) FROM ({query})"  # noqa: S608
        found: list[list[Any]] = orjson.loads(self.read(whole, values)[0][0])
        return found

    def submit(self, job: Job) -> Future[Any]:
        """Have the writer run a job inside its next commit; the future ends after the commit, or with StoreError."""
        future: Future[Any] = Future()
        try:
            self._jobs.put_nowait((job, future))
        except queue.Full:
            future.set_exception(StoreError(f"{self.path}: too many writes are waiting"))
        return future

    def write(self, job: Job, timeout: float = 30.0) -> Any:
        """Run a job and wait for its commit."""
        return self.submit(job).result(timeout)

    def shrink(self) -> None:
        """Write the write-ahead log back and empty it: what was deleted is in no file. StoreError where others read.

        Patient on a connection of its own: whoever waits for a checkpoint with a long timeout keeps writers waiting.
        """
        connection = connect(self.path, self._durable, SHRINK_BUSY_S)
        try:
            end = time.monotonic() + SHRINK_S
            while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:  # 1: somebody was in its way
                if time.monotonic() >= end:
                    raise StoreError(f"{self.path}: is read all the time, so what was deleted is still in its log")
                time.sleep(SHRINK_BUSY_S)
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: cannot be written back: {error}") from error
        finally:
            connection.close()

    def close(self) -> None:
        """Commit what waits, then stop."""
        self._jobs.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        connection: sqlite3.Connection | None = None
        ending = False
        while not ending:
            group = [self._jobs.get()]
            if not self._durable:
                time.sleep(GATHER_S)
            while len(group) < GROUP and not self._jobs.empty():
                group.append(self._jobs.get())
            ending = None in group
            jobs = [one for one in group if one is not None]
            if jobs:
                connection = self._commit(connection, jobs)
        if connection is not None:
            connection.close()

    def _commit(self, connection: sqlite3.Connection | None, jobs: list[tuple[Job, Future[Any]]]) -> Any:
        """Run the jobs in one transaction; returns the connection, or None where it is not to be trusted."""
        try:
            connection = connection or connect(self.path, self._durable)
            connection.execute("BEGIN IMMEDIATE")
            results = [job(connection) for job, _ in jobs]
            connection.execute("COMMIT")
        except (sqlite3.Error, StoreError) as error:
            if connection is not None:
                connection.close()  # rolls back
            for _, future in jobs:
                future.set_exception(StoreError(f"{self.path}: cannot be written: {error}"))
            return None
        for (_, future), result in zip(jobs, results, strict=True):
            future.set_result(result)
        return connection
