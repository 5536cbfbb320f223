"""Does the shop still look like what the champion learned from? The live log against the training window.

Choices. Distributions are compared by the same population stability index, less chance, as in validation; scores by
the Kolmogorov-Smirnov distance to the model's own first live day, because a ranker's scores have no other reference.
Propensities are checked by a mean that must be one: over slots that were drawn, the greedy policy's importance weight
1[not explored] / propensity has expectation 1 exactly, whatever shoppers do. An alarm needs both a size and more
than chance. Limits stand in params.yaml, section `monitor`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from features.drift import count_days, profile_of, psi_over_noise
from features.errors import UsageError
from features.schema import Events, Slates
from features.store import read_watermark
from features.validation import ReferenceProfile
from flows import config
from flows.config import MonitorParams
from flows.online import WATERMARK
from flows.paths import REPOSITORY, Home
from flows.registry import Registry
from serving.export import logged

DRAWN_POSITIONS = 12


@dataclass(frozen=True)
class Measure:
    """One comparison: what, value, limit, and whether it is an alarm; `value` None where nothing can be said."""

    what: str
    value: float | None
    limit: float
    alarm: bool
    says: str = ""


def look(registry: Registry, days: float | None = None) -> dict[str, Any]:
    """All measures of the champion's live log; UsageError without a champion or with a wrong number of days."""
    params = config.load(REPOSITORY / "params.yaml").monitor
    champion = registry.pointer("champion")
    if champion is None:
        raise UsageError("there is no champion to watch; homeranker retrain --promote makes one")
    span = timedelta(days=params.days if days is None else days)
    if span <= timedelta(0):
        raise UsageError(f"--days {days}: must be above 0")
    now = datetime.now(UTC)
    events, slates = (logged(registry.home.root, table, now - span, now) for table in (Events.TABLE, Slates.TABLE))
    mine = slates.filter(
        pa.array([one == champion["version"] for one in slates[Slates.MODEL_VERSION].to_pylist()], pa.bool_())
    )
    run_dir = registry.run_dir(champion["run"])
    profile = ReferenceProfile.from_json(json.dumps(json.loads((run_dir / "validation.json").read_text())["profile"]))
    measures = [
        *_features(events, profile, params),
        *_scores(mine, params),
        *_clicks(events, mine, params),
        _weights(mine, params),
        _store(registry.home, run_dir, params),
    ]
    return {
        "champion": champion["run"],
        "from": (now - span).isoformat(timespec="seconds"),
        "events": events.num_rows,
        "impressions": slates.num_rows,
        "measures": [vars(one) for one in measures],
        "alarms": [one.says or one.what for one in measures if one.alarm],
    }


def _features(events: pa.Table, profile: ReferenceProfile, params: MonitorParams) -> Iterable[Measure]:
    """PSI of every column that the training window's profile counted."""
    import duckdb

    if events.num_rows < params.min_rows or profile.rows < params.min_rows:
        return [Measure("features", None, params.psi, False, f"{events.num_rows} events: too few to compare")]
    with duckdb.connect() as con:
        con.execute("SET TimeZone='UTC'")
        con.register(Events.TABLE, events)
        days = count_days(con, tuple(column.name for column in Events.COLUMNS))
    live = profile_of(days, list(days.rows), len(days.rows))
    found = []
    for column, before in sorted(profile.counts.items()):
        counts = live.counts.get(column, {})
        if before and counts:
            psi = psi_over_noise(counts, before)
            says = f"{column} drifted: PSI {psi:.2f} over {params.psi:g}"
            found.append(Measure(f"psi {column}", round(psi, 4), params.psi, psi > params.psi, says))
    return found


def _first_and_last(slates: pa.Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Masks: the model's first live day, and the newest day after it."""
    at = slates[Slates.SERVED_AT].cast(pa.int64()).to_numpy()
    day = 86_400_000_000
    if not at.size:
        return np.zeros(0, bool), np.zeros(0, bool)
    first = at < at.min() + day
    return first, (at >= at.max() - day) & ~first


def _scores(slates: pa.Table, params: MonitorParams) -> list[Measure]:
    from scipy.stats import ks_2samp

    score = slates[Slates.SCORE].to_numpy(zero_copy_only=False).astype(np.float64)
    first, last = (score[mask][np.isfinite(score[mask])] for mask in _first_and_last(slates))
    if min(first.size, last.size) < params.min_rows:
        return [Measure("ks score", None, params.ks, False, "under two days of this model's slates")]
    told = ks_2samp(first, last)
    far = bool(told.statistic > params.ks and told.pvalue < 1e-3)
    says = f"scores drifted: KS {told.statistic:.2f} over {params.ks:g} against the model's first live day"
    return [Measure("ks score", round(float(told.statistic), 4), params.ks, far, says)]


def _clicks(events: pa.Table, slates: pa.Table, params: MonitorParams) -> list[Measure]:
    """Clicks a slot by position on the newest day, as a ratio to the model's first day."""
    columns = (events[name].to_pylist() for name in (Events.EVENT_TYPE, Events.REQUEST_ID, Events.ITEM_ID))
    kinds = zip(*columns, strict=True)
    clicked = {(request, item) for kind, request, item in kinds if kind in ("click", "view") and request}
    shown = zip(slates[Slates.REQUEST_ID].to_pylist(), slates[Slates.ITEM_ID].to_pylist(), strict=True)
    click = np.array([pair in clicked for pair in shown], dtype=bool)
    position = slates[Slates.POSITION].to_numpy()
    first, last = _first_and_last(slates)
    found = []
    for place in range(1, DRAWN_POSITIONS + 1):
        before, now = click[first & (position == place)], click[last & (position == place)]
        if min(before.size, now.size) < params.min_rows or not before.any():
            continue
        ratio = float(now.mean() / before.mean())
        noise = math.sqrt(before.mean() * (1 - before.mean()) * (1 / before.size + 1 / now.size))
        sure = before.mean() - now.mean() > 3 * noise
        says = f"clicks at position {place} fell to {ratio:.0%} of the model's first live day"
        fell = bool(ratio < params.ctr_ratio and sure)
        found.append(Measure(f"ctr position {place}", round(ratio, 4), params.ctr_ratio, fell, says))
    return found or [Measure("ctr by position", None, params.ctr_ratio, False, "too few impressions of two days")]


def _weights(slates: pa.Table, params: MonitorParams) -> Measure:
    propensity = slates[Slates.PROPENSITY].to_numpy(zero_copy_only=False).astype(np.float64)
    explored = np.array([bool(one) for one in slates[Slates.EXPLORED].to_pylist()], dtype=bool)
    drawn = np.isfinite(propensity) & (propensity < 1)
    weight = np.where(explored, 0.0, 1 / np.maximum(propensity, 1e-12))[drawn]
    if weight.size < params.min_rows:
        return Measure("mean weight", None, 1.0, False, f"{weight.size} drawn slots: too few to say")
    mean, error = float(weight.mean()), float(weight.std() / math.sqrt(weight.size))
    off = abs(mean - 1) > max(params.weight_error, 4 * error)
    says = f"the mean weight is {mean:.3f} +- {error:.3f}, not 1: logged propensities are not those of the draw"
    return Measure("mean weight", round(mean, 4), 1.0, off, says)


def _store(home: Home, run_dir: Any, params: MonitorParams) -> Measure:
    """How far the online store lies behind the data that the champion was trained on."""
    told = json.loads((run_dir / "model" / "manifest.json").read_text())
    trained = datetime.fromisoformat(told["trained_until"])
    mark = read_watermark(home.online / WATERMARK)
    age = None if mark is None else max(0.0, (trained - mark) / timedelta(days=1))
    behind = age is None or age > params.store_age_days
    says = "no history is in the online store" if age is None else f"the online store is {age:.1f} days behind"
    return Measure("store age, days", age, params.store_age_days, behind, f"{says}; homeranker promote fills it")


def show(told: dict[str, Any]) -> None:
    """As a table for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    seen = f"{told['events']} events, {told['impressions']} slots"
    console.print(f"champion {told['champion']}, since {told['from']}: {seen}")
    table = Table("measure", "value", "limit", "")
    for one in told["measures"]:
        value = "-" if one["value"] is None else f"{one['value']:g}"
        mark = "ALARM: " + one["says"] if one["alarm"] else one["says"] if one["value"] is None else "ok"
        table.add_row(one["what"], value, f"{one['limit']:g}", mark)
    console.print(table)
    console.print("nothing drifted" if not told["alarms"] else f"{len(told['alarms'])} alarms: a retrain is due")
