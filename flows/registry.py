"""What is true about runs and champions: our own record, append-only, readable without any server.

Choices. Prefect is the view and the clock, never the truth: its database may be deleted. A line of register.jsonl is
written and fsynced before the state that it tells of; `champion` and `previous` are small files replaced by rename, so
that a reader sees the old one or the new one. A run's own directory holds everything that a decision is about.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.errors import BusyError, UsageError
from flows import approval
from flows.paths import Home
from models.checkpoint import sha256_of

RECORD, MANIFEST, FILES = "record.json", "manifest.json", "files.json"
LEASE = "lease"  # the sign of life of a run that is under way: no part of what it leaves
ROLLOUT = "rollout"  # a second model beside the champion, while it is tried
RUNNING, DONE, FAILED = "running", "done", "failed"


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

    def append(self, kind: str, **facts: Any) -> dict[str, Any]:
        """One more line, durable before this returns; the line."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        line = {"at": now(), "kind": kind, **facts}
        with self.log.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return line

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

    def promote(self, run: str, approval_required: bool, override: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Make a run the champion; raises what `approval.check` raises.

        `override` ({"by", "why"}) goes past gate and approval, never past changed bytes, and stays on record.
        """
        if override is None:
            approval.check(self, run, approval_required)
        else:
            approval.check_person(override["by"], override["why"])
            approval.check_bytes(self, run)
            self.append(approval.OVERRIDE, run=run, verdict=self.manifest(run)["content"]["verdict"], **override)
        record, manifest, champion = self.record(run), self.manifest(run), self.pointer("champion")
        fresh = {
            "run": run,
            "version": manifest["content"]["model_version"],
            "model_dir": str(self.run_dir(run) / "model"),
            "bento": str(self.run_dir(run) / "bento"),
            "since": now(),
        }
        if override is not None:
            fresh["override"] = dict(override)
        self.append("promote", run=run, version=fresh["version"], before=champion, started=record["started_at"])
        if champion is not None and champion["run"] != run:
            replace_json(self.home.registry / "previous", champion)
        replace_json(self.home.registry / "champion", fresh)
        (self.home.registry / ROLLOUT).unlink(missing_ok=True)
        return fresh

    def roll_out(self, run: str, mode: str, share: float, approval_required: bool) -> dict[str, Any]:
        """Put a run beside the champion as a `shadow` or a `canary`; raises what `approval.check` raises.

        UsageError without a champion, with the champion itself, or with a share that is none.
        """
        if not 0 < share <= 100:
            raise UsageError(f"--{mode} {share:g}: a share lies above 0 and up to 100 (per cent)")
        champion = self.pointer("champion")
        if champion is None or champion["run"] == run:
            what = "there is no champion" if champion is None else f"run {run} is the champion"
            raise UsageError(f"{what}: a {mode} stands beside another model; promote the run without --{mode}")
        approval.check(self, run, approval_required)
        version = self.manifest(run)["content"]["model_version"]
        fresh = {"mode": mode, "share": share, "run": run, "version": version, "since": now()}
        fresh |= {"model_dir": str(self.run_dir(run) / "model"), "since_us": int(datetime.now(UTC).timestamp() * 1e6)}
        self.append(mode, run=run, version=version, share=share)
        replace_json(self.home.registry / ROLLOUT, fresh)
        return fresh

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
        (self.home.registry / ROLLOUT).unlink(missing_ok=True)
        return fresh

    # ------------------------------------------------------------ hashes

    def seal(self, run: str) -> None:
        """Write down the sha256 of every file of a finished run."""
        directory = self.run_dir(run)
        names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
        kept = [name for name in names if name not in (FILES, RECORD, LEASE)]
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
