"""A person's word on a run: bound to its bytes, dated, signed where a key is configured, and never taken back silently.

Choices. A decision is a line of the register and nothing else, so the command line, Prefect's waiting flow and a
deployer on another machine read the same record. It is bound to the sha256 of manifest, report and gates: one changed
byte voids it. Whoever started a run does not approve it, unless `run.self_approval` says so. An override goes past
the gate or a missing approval, needs a name and a reason, and stays in the register and in `status`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from features.errors import ApprovalPending, ArtifactError, GateRefused, UsageError
from flows import signing
from models.checkpoint import sha256_of

VALID = timedelta(days=14)
BOUND_TO = ("manifest.json", "report.html", "verdict.json")
DECISION, APPROVED, REJECTED, OVERRIDE = "decision", "approved", "rejected", "override"


def bound_to(run_dir: Path) -> dict[str, str]:
    """The hashes of what a decision is about; ArtifactError names a file that is gone."""
    missing = [name for name in BOUND_TO if not (run_dir / name).exists()]
    if missing:
        raise ArtifactError(f"{run_dir}: {', '.join(missing)} missing; only a finished run can be decided on")
    return {name: sha256_of(run_dir / name) for name in BOUND_TO}


def check_person(by: str, why: str) -> None:
    """UsageError without a name or a reason."""
    if not by.strip() or not why.strip():
        raise UsageError("a decision needs --by NAME and --why TEXT")


def decide(registry: Any, run: str, decision: str, by: str, why: str, *, self_approval: bool) -> dict[str, Any]:
    """Write down `approved` or `rejected`; UsageError where the one who started the run approves it."""
    check_person(by, why)
    record = registry.record(run)
    if decision == APPROVED and not self_approval and _same_person(by, str(record["by"])):
        raise UsageError(
            f"run {run} was started by {record['by']}, who cannot approve it; ask somebody else "
            "(or set run.self_approval: true in params.yaml)"
        )
    told: dict[str, Any] = {"run": run, "decision": decision, "by": by.strip(), "why": why.strip()}
    told["bound_to"] = bound_to(registry.run_dir(run))
    told["decided_at"] = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return dict(registry.append(DECISION, **signing.sign(told)))


def _same_person(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def newest(registry: Any, run: str) -> tuple[dict[str, Any] | None, str]:
    """(the newest decision on a run that holds, why the newest one does not hold)."""
    mine = [line for line in registry.lines() if line["kind"] == DECISION and line["run"] == run]
    if not mine:
        return None, "nobody decided on it yet"
    reason = void(mine[-1], registry.run_dir(run))
    return (None, reason) if reason else (mine[-1], "")


def void(decision: dict[str, Any], run_dir: Path, keys: dict[str, Any] | None = None) -> str:
    """Why a decision does not hold now; empty where it does. `keys`: the trusted ones, by default the configured."""
    whose = f"the decision of {decision['by']}"
    changed = [name for name, digest in bound_to(run_dir).items() if decision["bound_to"].get(name) != digest]
    if changed:
        return f"{whose} is void: {', '.join(changed)} changed since"
    age = datetime.now(UTC) - datetime.fromisoformat(decision["decided_at"])
    if age >= VALID:
        return f"{whose} is {age.days} days old and holds {VALID.days}"
    keys = signing.trusted() if keys is None else keys
    signed = {name: value for name, value in decision.items() if name not in ("at", "kind")}
    wrong = None if keys is None else signing.fault(signed, keys)
    return f"{whose} does not count: {wrong}" if wrong else ""


def check(registry: Any, run: str, required: bool) -> None:
    """May this run be promoted? GateRefused, ApprovalPending, or ArtifactError with changed bytes."""
    verdict = registry.manifest(run)["content"]["verdict"]
    if verdict != "pass":
        raise GateRefused(f"the gate said {verdict!r} of run {run}; see `homeranker report {run}` for its reasons")
    decided, why_not = newest(registry, run)
    if decided is not None and decided["decision"] == REJECTED:
        raise GateRefused(f"run {run} was rejected by {decided['by']}: {decided['why']}")
    if required and decided is None:
        raise ApprovalPending(f"run {run} waits ({why_not}): homeranker approve {run} --by NAME --why TEXT")
    check_bytes(registry, run)


def check_bytes(registry: Any, run: str) -> None:
    """ArtifactError where a file of the run is not as it was written."""
    wrong = registry.verify(run)
    if wrong:
        raise ArtifactError(f"run {run} is not as it was written: {'; '.join(wrong)}; retrain, or restore the files")
