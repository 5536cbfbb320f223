"""What is true about runs and champions: our own record, append-only, readable without any server.

Choices. Prefect is the view and the clock, never the truth: its database may be deleted. A line of register.jsonl is
written and fsynced before the state that it tells of; `champion` and `previous` are small files replaced by rename, so
that a reader sees the old one or the new one. A run's own directory holds everything that a decision is about.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.errors import ApprovalPending, ArtifactError, GateRefused, UsageError
from flows.paths import Home
from models.checkpoint import sha256_of

RECORD, MANIFEST, FILES = "record.json", "manifest.json", "files.json"
RUNNING, DONE, FAILED = "running", "done", "failed"
APPROVAL_DAYS = 14


def now() -> str:
    """RFC 3339 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def replace_json(path: Path, value: Any) -> None:
    """Write beside, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


class Registry:
    """The register of one HOMERANKER_HOME."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.log = home.registry / "register.jsonl"

    def append(self, kind: str, **facts: Any) -> None:
        """One more line, durable before this returns."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps({"at": now(), "kind": kind, **facts}, sort_keys=True, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """The whole register, oldest first; a torn last line (a crash while writing) is left out."""
        if not self.log.exists():
            return []
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def run_dir(self, run: str) -> Path:
        """The directory of a run; UsageError names the runs that there are. `last` is the newest finished one."""
        if run == "last":
            done = [record["run"] for record in self.runs() if record["status"] == DONE]
            if not done:
                raise UsageError("there is no finished run yet; start one with `homeranker retrain`")
            return self.home.runs / str(done[-1])
        directory = self.home.runs / run
        if "/" in run or not (directory / RECORD).exists():
            known = ", ".join(record["run"] for record in self.runs()[-5:]) or "none"
            raise UsageError(f"no run {run!r}; the newest runs are: {known}")
        return directory

    def record(self, run: str) -> dict[str, Any]:
        """What is known of a run."""
        told: dict[str, Any] = json.loads((self.run_dir(run) / RECORD).read_text())
        return told

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace a run's record."""
        replace_json(self.home.runs / record["run"] / RECORD, record)

    def runs(self) -> list[dict[str, Any]]:
        """All records, oldest first."""
        places = sorted(self.home.runs.glob(f"*/{RECORD}")) if self.home.runs.exists() else []
        return sorted((json.loads(place.read_text()) for place in places), key=lambda one: str(one["started_at"]))

    def pointer(self, name: str) -> dict[str, Any] | None:
        """`champion` or `previous`, None where there is none."""
        path = self.home.registry / name
        if not path.exists():
            return None
        told: dict[str, Any] = json.loads(path.read_text())
        return told

    def manifest(self, run: str) -> dict[str, Any]:
        """The manifest of a finished run."""
        path = self.run_dir(run) / MANIFEST
        if not path.exists():
            raise UsageError(f"run {run} has no manifest: it did not finish (homeranker status)")
        told: dict[str, Any] = json.loads(path.read_text())
        return told

    # ------------------------------------------------------------ decisions

    def decide(self, run: str, decision: str, by: str, why: str) -> None:
        """`approved` or `rejected`, bound to the bytes of manifest and report."""
        if not by.strip() or not why.strip():
            raise UsageError("a decision needs --by NAME and --why TEXT")
        self.append("decision", run=run, decision=decision, by=by, why=why, bound_to=self._bound(run))

    def _bound(self, run: str) -> dict[str, str]:
        directory = self.run_dir(run)
        return {name: sha256_of(directory / name) for name in (MANIFEST, "report.html", "verdict.json")}

    def decision(self, run: str) -> dict[str, Any] | None:
        """The newest decision on a run that still holds: same bytes, not older than 14 days."""
        mine = [line for line in self.lines() if line["kind"] == "decision" and line["run"] == run]
        if not mine:
            return None
        newest = mine[-1]
        age = datetime.now(UTC) - datetime.fromisoformat(newest["at"])
        if newest["bound_to"] != self._bound(run) or age.days >= APPROVAL_DAYS:
            return None
        return newest

    def promote(self, run: str, approval_required: bool) -> dict[str, Any]:
        """Make a run the champion; raises what `check_promotable` raises."""
        self.check_promotable(run, approval_required)
        record, manifest, champion = self.record(run), self.manifest(run), self.pointer("champion")
        fresh = {
            "run": run,
            "version": manifest["content"]["model_version"],
            "model_dir": str(self.run_dir(run) / "model"),
            "bento": str(self.run_dir(run) / "bento"),
            "since": now(),
        }
        self.append("promote", run=run, version=fresh["version"], before=champion, started=record["started_at"])
        if champion is not None and champion["run"] != run:
            replace_json(self.home.registry / "previous", champion)
        replace_json(self.home.registry / "champion", fresh)
        return fresh

    def check_promotable(self, run: str, approval_required: bool) -> None:
        """GateRefused without a pass, ApprovalPending without a valid approval, ArtifactError with changed bytes."""
        verdict = self.manifest(run)["content"]["verdict"]
        if verdict != "pass":
            raise GateRefused(f"the gate said {verdict!r} of run {run}; see `homeranker report {run}` for its reasons")
        decided = self.decision(run)
        if decided is not None and decided["decision"] == "rejected":
            raise GateRefused(f"run {run} was rejected by {decided['by']}: {decided['why']}")
        if approval_required and decided is None:
            raise ApprovalPending(f"run {run} waits: homeranker approve {run} --by NAME --why TEXT")
        wrong = self.verify(run)
        if wrong:
            raise ArtifactError(
                f"run {run} is not as it was written: {'; '.join(wrong)}; retrain, or restore the files"
            )

    def rollback(self) -> dict[str, Any]:
        """Make the previous champion the champion again, and the other way round."""
        champion, previous = self.pointer("champion"), self.pointer("previous")
        if previous is None:
            raise UsageError("there is no previous champion to go back to")
        self.append("rollback", run=previous["run"], version=previous["version"], before=champion)
        fresh = previous | {"since": now()}
        if champion is not None:
            replace_json(self.home.registry / "previous", champion)
        replace_json(self.home.registry / "champion", fresh)
        return fresh

    # ------------------------------------------------------------ hashes

    def seal(self, run: str) -> None:
        """Write down the sha256 of every file of a finished run."""
        directory = self.run_dir(run)
        names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
        kept = [name for name in names if name not in (FILES, RECORD)]
        replace_json(directory / FILES, {name: sha256_of(directory / name) for name in kept})

    def verify(self, run: str) -> list[str]:
        """One sentence for every file that is missing or has other bytes than when the run ended."""
        directory = self.run_dir(run)
        if not (directory / FILES).exists():
            raise UsageError(f"run {run} has no list of hashes: it did not finish (homeranker status)")
        wrong = []
        for name, expected in json.loads((directory / FILES).read_text()).items():
            path = directory / name
            if not path.exists():
                wrong.append(f"{name}: missing")
            elif sha256_of(path) != expected:
                wrong.append(f"{name}: changed since the run ended")
        return wrong


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that the kernel frees when the holder dies; BusyError says who holds it."""
    from features.errors import BusyError

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "somebody"
            raise BusyError(f"{what} is under way already: {holder}; wait for it, or end that process") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} since {now()}")
        file.flush()
        yield
