"""Counts that a check names: currencies and sizes of prices, events of people who did not agree, strays.

Choices. All are faults of no row, so no rule of rows sees them, and all change what a run means: prices are compared
and added as plain numbers; who did not agree trains nothing, so that a shop may learn from far less than it sent; and
an event of another year than all others is mostly a clock's, which nobody hears of where it decides nothing.
"""
# Queries are put together from the names of `schema.py`, never from the data.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from features.bulk import bulk_of
from features.evidence import Evidence
from features.rules import Rule
from features.schema import MAX_PRICE, Events, Items, Users
from features.validation import ValidationParams

NO_CONSENT = f"SELECT {Users.USER_ID} FROM {Users.TABLE} WHERE NOT {Users.PERSONALIZATION_CONSENT}"
NAMED = 8  # currencies with their counts


def _without_consent(table: str) -> str:
    """Predicate of rows whose user did not agree; no answer counts as consent, as in cleaning."""
    return f"coalesce({table}.{Events.USER_ID} IN ({NO_CONSENT} AND {Users.USER_ID} IS NOT NULL), false)"


def knows_consent(run: Evidence) -> bool:
    """Whether the shop tells who agreed."""
    return {Users.USER_ID, Users.PERSONALIZATION_CONSENT} <= set(run.columns(Users.TABLE))


def take(run: Evidence) -> None:
    """Fill the measures of this module, those for which the columns are there."""
    for table, price, currency in (
        (Events.TABLE, Events.PRICE, Events.CURRENCY),
        (Items.TABLE, Items.PRICE, Items.CURRENCY),
    ):
        if {price, currency} <= set(run.columns(table)):
            _count_currencies(run, table, price, currency)
    if knows_consent(run) and Events.USER_ID in run.columns(Events.TABLE):
        bad = run.bad_rows(Events.TABLE, _without_consent(Events.TABLE))
        run.measures["no_consent_share"] = bad / max(run.sources[Events.TABLE].rows, 1)


def _count_currencies(run: Evidence, table: str, price: str, currency: str) -> None:
    found = run.con.execute(
        f"SELECT {currency}, count(*) n FROM {table} WHERE {price} IS NOT NULL AND {currency} IS NOT NULL"
        " GROUP BY ALL ORDER BY n DESC, 1"
    ).fetchall()
    more = [f"and {len(found) - NAMED:,} more"] if len(found) > NAMED else []
    run.measures[f"{table}_currencies"] = float(len(found))
    run.words[f"{table}_currencies"] = ", ".join([*(f"{code} {n:,}" for code, n in found[:NAMED]), *more])


def rules(params: ValidationParams) -> list[Rule]:
    """The warnings."""
    share = params.no_consent_share_warning
    one = "all prices are in one currency: they are compared and added as plain numbers, convert them before import"
    told = [
        Rule(
            Events.TABLE,
            Events.USER_ID,
            f"at most {share:.0%} of the events are of users without consent (users.{Users.PERSONALIZATION_CONSENT} is"
            " false): they get the cold-start page, and training leaves them out",
            "warning",
            "measure",
            (Events.USER_ID,),
            _without_consent(Events.TABLE),
            measure="no_consent_share",
            low=0,
            high=share,
        )
    ]
    for table, price, currency in (
        (Events.TABLE, Events.PRICE, Events.CURRENCY),
        (Items.TABLE, Items.PRICE, Items.CURRENCY),
    ):
        usual = f"(SELECT mode({currency}) FROM {table} WHERE {price} IS NOT NULL)"
        other = f"{price} IS NOT NULL AND {currency} <> {usual}"
        measure = f"{table}_currencies"
        needs = (price, currency)
        told.append(Rule(table, currency, one, "warning", "measure", needs, other, measure=measure, low=0, high=1))
        dear = f"{price} is at most {MAX_PRICE:g}: what no shop asks is set aside"
        told.append(Rule(table, price, dear, "warning", "rows", (price,), f"{price} > {MAX_PRICE}"))
    return told


def strays(run: Evidence, rows_by_day: Mapping[str, int]) -> list[Rule]:
    """The rule on events far from all others, whose measure is filled here; none where there is no day."""
    if not rows_by_day:
        return []
    bulk = bulk_of({date.fromisoformat(day): rows for day, rows in rows_by_day.items()})
    run.measures["strays"] = float(sum(bulk.before.values()) + sum(bulk.after.values()))
    run.words["strays"] = bulk.words() or "none"
    time = Events.EVENT_TIME
    outside = f"({time} < TIMESTAMP '{bulk.begin}' OR {time} >= TIMESTAMP '{bulk.end}') AND isfinite({time})"
    sentence = "slices: no event lies apart from the days that decide where the slices lie"
    return [Rule(Events.TABLE, time, sentence, "info", "measure", (time,), outside, measure="strays", low=0, high=0)]


def of_the_willing(run: Evidence, table: str) -> str:
    """A predicate of rows that training may use, for the tiers."""
    return f"NOT {_without_consent(table)}" if knows_consent(run) and _has_users(run, table) else "true"


def _has_users(run: Evidence, table: str) -> bool:
    return Events.USER_ID in run.columns(table)
