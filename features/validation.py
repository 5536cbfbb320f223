"""What validation found, as plain data: one `Check` for each expectation, the verdict, the profile, the tiers.

Choices. The report is a frozen dataclass that turns into JSON with a stable key order and holds no clock time, so that
the same data gives the same bytes. Sample rows name ids only, and a user or session only by a short hash: the report
is read by more people than the data. A failed check is told apart by severity: `critical` stops a retrain, `warning`
goes on and stands in the report, `info` is worth knowing. No framework here: the suites are run in `expectations`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from features.errors import ValidationFailed

Severity = Literal["critical", "warning", "info"]
Verdict = Literal["pass", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
SAMPLE_ROWS = 5


@dataclass(frozen=True)
class ValidationParams:
    """Limits of the rules. Shares are of a table's rows, between 0 and 1."""

    max_age_days: float = 7.0  # newest event against the load time
    retry_share_warning: float = 0.01  # exact repeats of an event, on the worst day
    retry_share_critical: float = 0.10
    conflict_share_critical: float = 0.001  # one event id with two contents
    unknown_item_share_critical: float = 0.20  # below it cleaning keeps the rows aside
    bad_row_share_critical: float = 0.0001  # rows that break a column's rule: up to here set aside with a warning
    partition_share_critical: float = 0.001  # rows in the partition of another day
    no_consent_share_warning: float = 0.5  # of all events: of users who did not agree, and who train nothing
    currency_share_warning: float = 0.005  # of all events: priced in another currency than the catalogue
    price_ratio: float = 5.0  # a price this many times over or under its measure means another unit
    volume_low: float = 0.6  # rows a day, as a ratio to the last accepted run
    volume_high: float = 2.5
    overlap_ratio: float = 0.8  # rows of days that were accepted before: fewer (or 1/ratio more) means they changed
    psi: float = 0.25  # population stability index, over its noise
    null_share_change: float = 0.2
    top_user_share: float = 0.2  # of one day's events
    reference_days: int = 28  # the newest days of a profile that are compared
    min_rows: int = 500  # no statement on volume or distribution from fewer rows
    memory_limit_mb: int = 800
    threads: int = 2
    tier_purchases: int = 1_000
    tier_users: int = 50
    tier_views: int = 10_000
    tier_impressions: int = 10_000
    tier_clicks: int = 100
    tier_propensity_share: float = 0.99  # of impressions carry a propensity
    tier_random_share: float = 0.05  # of impressions were drawn with a propensity below 1


@dataclass(frozen=True)
class Check:
    """One expectation and how the data met it; `unexpected` counts rows (or files), `percent` is of the table."""

    table: str
    column: str
    rule: str
    severity: Severity
    passed: bool
    unexpected: int = 0
    percent: float = 0.0
    observed: str = ""
    samples: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Tier:
    """What the data allows: `number` 1 to 4; where shut, `why` holds the check that keeps it shut, with its numbers."""

    number: int
    name: str
    allows: str
    open: bool
    why: str


@dataclass(frozen=True)
class ReferenceProfile:
    """What accepted data looked like: the measure of the next run.

    `rows_by_day`: every day of `events`. The rest is of its newest `reference_days` days: `counts` column to value to
    rows, `nulls` column to rows, `rows`, and mean and number of the logarithm of the price of transactions.
    """

    rows_by_day: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    nulls: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    log_price_mean: float | None = None
    log_price_rows: int = 0

    @staticmethod
    def from_json(text: str) -> ReferenceProfile:
        """The profile written by `to_json`; unknown keys raise TypeError."""
        return ReferenceProfile(**json.loads(text))

    def to_json(self) -> str:
        """Stable JSON text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


@dataclass(frozen=True)
class ValidationReport:
    """Everything that validation says of one directory of canonical tables."""

    verdict: Verdict
    rows: Mapping[str, int]  # table to rows
    first_event: str | None
    last_event: str | None
    checks: tuple[Check, ...]
    tiers: tuple[Tier, ...]
    profile: ReferenceProfile

    def failed(self, severity: Severity | None = None) -> tuple[Check, ...]:
        """Checks that failed, of one severity or of all."""
        return tuple(c for c in self.checks if not c.passed and severity in (None, c.severity))

    def to_json(self) -> str:
        """JSON text with a stable key order and no clock time."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, indent=1, ensure_ascii=False)


def verdict_of(checks: tuple[Check, ...]) -> Verdict:
    """`fail` with a failed critical check, `warn` with a failed warning, else `pass`."""
    failed = {c.severity for c in checks if not c.passed}
    return "fail" if "critical" in failed else "warn" if "warning" in failed else "pass"


def pseudonym(value: object) -> str | None:
    """A short hash in place of a user or session id; the same id gives the same hash."""
    return None if value is None else "#" + hashlib.sha256(str(value).encode("utf-8", "replace")).hexdigest()[:10]


def _line(check: Check) -> str:
    count = f": {check.unexpected:,} ({check.percent:.3g} %)" if check.unexpected else ""
    observed = f"; observed {check.observed}" if check.observed else ""
    broken = "" if check.unexpected else "not so: "  # without a count the rule alone would read as if it held
    return f"{check.table}.{check.column}: {broken}{check.rule}{count}{observed}"


def _samples(check: Check) -> list[str]:
    return [f"    {json.dumps(dict(row), ensure_ascii=False, default=str)}" for row in check.samples]


def raise_if_critical(report: ValidationReport) -> None:
    """Raise ValidationFailed naming table, column, rule, count and sample rows of every failed critical check."""
    failed = report.failed("critical")
    if not failed:
        return
    lines = [f"validation stopped the run: {len(failed)} critical rule(s) failed; correct the data and load it again"]
    for check in failed:
        lines += [f"- {_line(check)}", *_samples(check)]
    raise ValidationFailed("\n".join(lines))


def render_text(report: ValidationReport) -> str:
    """The report for a terminal: verdict, rows, what failed, tiers."""
    rows = ", ".join(f"{table} {count:,}" for table, count in report.rows.items())
    window = f"{report.first_event} to {report.last_event}" if report.first_event else "no events"
    lines = [f"verdict: {report.verdict}   rows: {rows or 'none'}   events: {window}"]
    for severity in SEVERITIES:
        for check in report.failed(severity):
            lines += [f"[{severity}] {_line(check)}", *_samples(check)]
    lines.append(f"{sum(c.passed for c in report.checks)} of {len(report.checks)} checks passed")
    for tier in report.tiers:
        lines.append(f"tier {tier.number} {tier.name}: {'open' if tier.open else 'shut'} ({tier.allows}); {tier.why}")
    return "\n".join(lines)
