"""Counts that a warning names: currencies of prices, and events of people who did not agree to personalisation.

Choices. Both are faults of no row, so no rule of rows sees them, and both change what a run means: prices are compared
and added as plain numbers, and who did not agree trains nothing, so that a shop may learn from far less than it sent.
"""
# Queries are put together from the names of `schema.py`, never from the data.
# ruff: noqa: S608

from __future__ import annotations

from features.evidence import Evidence
from features.rules import Rule
from features.schema import Events, Items, Users
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
    return told


def of_the_willing(run: Evidence, table: str) -> str:
    """A predicate of rows that training may use, for the tiers."""
    return f"NOT {_without_consent(table)}" if knows_consent(run) and _has_users(run, table) else "true"


def _has_users(run: Evidence, table: str) -> bool:
    return Events.USER_ID in run.columns(table)
