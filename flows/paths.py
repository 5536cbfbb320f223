"""Every path of a run and of the home directory, once.

`Artifacts` is the layout inside a run's worktree (what DVC tracks); `Home` is what stays on this machine between runs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Artifacts:
    """What the stages write, below the repository (or the worktree of a run)."""

    root: Path = Path("artifacts")

    @property
    def tables(self) -> Path:
        """Canonical tables as imported, with their quarantine."""
        return self.root / "tables"

    @property
    def import_report(self) -> Path:
        """Rows in, out, merged, quarantined."""
        return self.root / "import.json"

    @property
    def validation(self) -> Path:
        """What validation found."""
        return self.root / "validation.json"

    @property
    def clean(self) -> Path:
        """Clean tables and the cleaning report."""
        return self.root / "clean"

    @property
    def features(self) -> Path:
        """History rows, training rows from the point-in-time join, windows."""
        return self.root / "features"

    @property
    def sequence(self) -> Path:
        """The two sequence networks and their curves."""
        return self.root / "sequence"

    @property
    def model(self) -> Path:
        """judged/, final/, trees.txt, curves.json."""
        return self.root / "model"

    @property
    def policy(self) -> Path:
        """judged/, final/ with the page policy's network where one was learned, and policy.json."""
        return self.root / "policy"

    @property
    def evaluation(self) -> Path:
        """metrics.json, per_user.parquet, pages.json."""
        return self.root / "evaluation"

    @property
    def verdict(self) -> Path:
        """What the gate said."""
        return self.root / "verdict.json"

    @property
    def package(self) -> Path:
        """bento/ and manifest.json."""
        return self.root / "package"

    @property
    def report(self) -> Path:
        """report.html, report.md, report.json."""
        return self.root / "report"


CHAMPION_INPUT = Path("data/champion")  # a run puts the champion's judged model and data profile here
DATA_INPUT = Path("data/input")  # a run with --data DIR puts its copy here


@dataclass(frozen=True)
class Home:
    """HOMERANKER_HOME: runs, registry, online store, log, checkpoints; never in git."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        """`HOMERANKER_HOME`, by default `.homeranker` in the working directory."""
        return cls(Path(os.environ.get("HOMERANKER_HOME", ".homeranker")).resolve())

    @property
    def runs(self) -> Path:
        """One directory a run."""
        return self.root / "runs"

    @property
    def work(self) -> Path:
        """Worktrees of runs that are under way or failed."""
        return self.root / "work"

    @property
    def registry(self) -> Path:
        """register.jsonl, champion, previous."""
        return self.root / "registry"

    @property
    def checkpoints(self) -> Path:
        """Training states an epoch, by fingerprint."""
        return self.root / "checkpoints"

    @property
    def online(self) -> Path:
        """Feast's registry and SQLite store."""
        return self.root / "online"

    @property
    def prefect(self) -> Path:
        """PREFECT_HOME where none is set."""
        return self.root / "prefect"

    @property
    def log(self) -> Path:
        """The service's event log."""
        return self.root / "log"

    @property
    def lock(self) -> Path:
        """Held by the retrain that is under way."""
        return self.root / "retrain.lock"
