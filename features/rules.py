"""What must hold of the tables, as data: rules of a column from `schema.py`, rules of rows and of measures from here.

Choices. A rule is a sentence, a severity and either a schema column, or an SQL predicate that is true of a bad row
(counted against an allowed share), or a named measure with bounds. `expectations` turns each into one Great
Expectations expectation; the predicate also finds the sample rows. A rule runs only where its columns are there.
"""
# Predicates are put together from the names of `schema.py`, never from the data.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import pyarrow as pa

from features.schema import FUTURE_TOLERANCE_S, PARTITION, TABLES, Column, Events, Items, ItemVectors, Slates, Users
from features.validation import Severity, ValidationParams

Kind = Literal["columns", "not_null", "in_set", "between", "length", "unique", "rows", "measure"]
PARTITION_DAY = "_partition_day"  # of the view: the date in the file's path, null where there is none
DUPLICATES = "_duplicates"  # of the database: event ids that occur more than once, see `drift.find_duplicates`
EMAIL = r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$"
FULL_NAME = r"^[A-Z][a-z]+ [A-Z][a-z]+$"
LAST_ACCEPTED, EARLIER_DAYS = "the last accepted run", "the days before the newest week"
PRICED = f"({Events.EVENT_TYPE} IN ('purchase', 'return'))"


@dataclass(frozen=True)
class Rule:
    """One rule. `bad`: predicate of a wrong row; `alone`: holds a subquery, so it is counted by a query of its own."""

    table: str
    column: str
    sentence: str
    severity: Severity
    kind: Kind
    needs: tuple[str, ...]
    bad: str | None = None
    alone: bool = False
    share: float = 0.0
    spec: Column | None = None
    measure: str | None = None
    low: float | None = None
    high: float | None = None
    items: tuple[str, ...] = ()  # columns of the catalogue that the predicate reads


def column_rules(table: str, separate_keys: tuple[str, ...] = (Events.EVENT_ID,)) -> list[Rule]:
    """The rules that a table's `Column`s state. A unique event id is no column rule: a repeat may be a retry."""
    names = ", ".join(c.name for c in TABLES[table].COLUMNS if not c.nullable)
    rules = [Rule(table, "(columns)", f"the columns {names} are there and of their types", "critical", "columns", ())]
    for c in TABLES[table].COLUMNS:

        def add(kind: Kind, sentence: str, bad: str, c: Column = c) -> None:
            rules.append(Rule(table, c.name, sentence, "critical", kind, (c.name,), bad, spec=c))

        if not c.nullable:
            add("not_null", f"{c.name} is never null", f"{c.name} IS NULL")
        if c.is_id:
            add("length", f"{c.name} has 1 to 256 characters", f"length({c.name}) NOT BETWEEN 1 AND 256")
        if c.values:
            values = ", ".join(c.values) if len(c.values) < 10 else "an ISO 4217 code"
            quoted = ", ".join(f"'{value}'" for value in c.values)
            add("in_set", f"{c.name} is one of {values}", f"{c.name} NOT IN ({quoted})")
        if c.minimum is not None or c.maximum is not None:
            low = "" if c.minimum is None else f"{'over' if c.exclusive_minimum else 'at least'} {c.minimum:g}"
            high = "" if c.maximum is None else f" and at most {c.maximum:g}"
            below = "" if c.minimum is None else f"{c.name} {'<=' if c.exclusive_minimum else '<'} {c.minimum}"
            above = "" if c.maximum is None else f" OR {c.name} > {c.maximum}"
            add("between", f"{c.name} is {low}{high}", f"({below}{above})")
        if c.unique and c.name not in separate_keys:
            bad = f"{c.name} IN (SELECT {c.name} FROM {table} GROUP BY 1 HAVING count(*) > 1)"
            add("unique", f"{c.name} is unique", bad)
        if pa.types.is_floating(c.type):
            rules.append(_rows(table, c.name, f"{c.name} is a finite number", "critical", f"NOT isfinite({c.name})"))
    return rules


def _rows(
    table: str,
    column: str,
    sentence: str,
    severity: Severity,
    bad: str,
    needs: tuple[str, ...] = (),
    share: float = 0.0,
    items: tuple[str, ...] = (),
) -> Rule:
    return Rule(table, column, sentence, severity, "rows", (column, *needs), bad, "SELECT" in bad, share, items=items)


def _time_rules(table: str, column: str, params: ValidationParams, load_time: datetime | None) -> list[Rule]:
    rules = [_rows(table, column, f"{column} is not before 1990", "critical", f"{column} < TIMESTAMP '1990-01-01'")]
    if load_time is not None:
        latest = (load_time + timedelta(seconds=FUTURE_TOLERANCE_S)).strftime("%Y-%m-%d %H:%M:%S.%f")
        sentence = f"{column} is not in the future of the load time plus {FUTURE_TOLERANCE_S // 60} min"
        rules.append(_rows(table, column, sentence, "critical", f"{column} > TIMESTAMP '{latest}'"))
    other_day = f"{PARTITION_DAY} IS NOT NULL AND {PARTITION_DAY} <> strftime({column}, '%Y-%m-%d')"
    sentence = f"the {PARTITION} partition is the UTC date of {column}"
    rules.append(_rows(table, column, sentence, "warning", other_day))
    share = params.partition_share_critical
    rules.append(_rows(table, column, f"{sentence} (all but {share:.1%})", "critical", other_day, share=share))
    return rules


def _person_rules(table: str, column: str) -> list[Rule]:
    email = f"regexp_matches({column}, '{EMAIL}')"
    name = f"regexp_matches({column}, '{FULL_NAME}')"
    return [
        _rows(table, column, f"{column} is a pseudonym, never an e-mail address", "critical", email),
        _rows(table, column, f"{column} is a pseudonym, never a person's name", "warning", name),
    ]


def _known_item_rules(table: str, column: str, params: ValidationParams) -> list[Rule]:
    unknown = f"{column} IS NOT NULL AND {column} NOT IN (SELECT {Items.ITEM_ID} FROM {Items.TABLE})"
    share = params.unknown_item_share_critical
    key = (Items.ITEM_ID,)
    many = f"{column} is known to the catalogue (all but {share:.0%})"
    return [
        _rows(table, column, f"{column} is known to the catalogue (else kept aside)", "warning", unknown, items=key),
        _rows(table, column, many, "critical", unknown, share=share, items=key),
    ]


def _duplicate_rules(params: ValidationParams) -> list[Rule]:
    e = Events
    conflict = f"{e.EVENT_ID} IN (SELECT id FROM {DUPLICATES} WHERE contents > 1)"
    rules = [
        _rows(e.TABLE, e.EVENT_ID, "one event_id has one content", "warning", conflict),
        _rows(
            e.TABLE,
            e.EVENT_ID,
            f"one event_id has one content (all but {params.conflict_share_critical:.1%})",
            "critical",
            conflict,
            share=params.conflict_share_critical,
        ),
    ]
    repeat = f"{e.EVENT_ID} IN (SELECT id FROM {DUPLICATES})"
    limits: tuple[tuple[Severity, float], ...] = (
        ("warning", params.retry_share_warning),
        ("critical", params.retry_share_critical),
    )
    for severity, high in limits:
        sentence = f"event_id is unique: retries are at most {high:.0%} of a day"
        rules.append(
            Rule(
                e.TABLE,
                e.EVENT_ID,
                sentence,
                severity,
                "measure",
                (e.EVENT_ID, e.EVENT_TIME),
                repeat,
                measure="retry_share",
                low=0,
                high=high,
            )
        )
    return rules


def event_rules(params: ValidationParams, load_time: datetime | None) -> list[Rule]:
    """Rules of `events` that go beyond one column."""
    e, t = Events, Events.TABLE
    wrong_currency = (
        f"{e.CURRENCY} <> (SELECT any_value(i.{Items.CURRENCY}) FROM {Items.TABLE} i"
        f" WHERE i.{Items.ITEM_ID} = {t}.{e.ITEM_ID})"
    )
    kind = (e.EVENT_TYPE,)
    return [
        *_time_rules(t, e.EVENT_TIME, params, load_time),
        *_person_rules(t, e.USER_ID),
        *_known_item_rules(t, e.ITEM_ID, params),
        *_duplicate_rules(params),
        _rows(t, e.ITEM_ID, "item_id is null only for search", "critical",
              f"{e.ITEM_ID} IS NULL AND {e.EVENT_TYPE} <> 'search'", kind),
        _rows(t, e.USER_ID, "at least half of the events name a user or a session", "warning",
              f"{e.USER_ID} IS NULL AND {e.SESSION_ID} IS NULL", (e.SESSION_ID,), 0.5),
        _rows(t, e.CURRENCY, "a transaction with a price has a currency", "warning",
              f"{PRICED} AND {e.PRICE} IS NOT NULL AND {e.CURRENCY} IS NULL", (e.PRICE, *kind)),
        _rows(t, e.PRICE, "a transaction has a price", "info", f"{PRICED} AND {e.PRICE} IS NULL", kind),
        _rows(t, e.QUANTITY, "a transaction has a quantity", "info", f"{PRICED} AND {e.QUANTITY} IS NULL", kind),
        _rows(t, e.PRICE, "price is null where the event is no transaction", "info",
              f"NOT {PRICED} AND {e.PRICE} IS NOT NULL", kind),
        _rows(t, e.QUERY, "a search has its query", "info", f"{e.EVENT_TYPE} = 'search' AND {e.QUERY} IS NULL", kind),
        _rows(t, e.CURRENCY, f"currency is the catalogue's (all but {params.currency_share_warning:.1%})", "warning",
              wrong_currency, (e.ITEM_ID,), params.currency_share_warning, (Items.ITEM_ID, Items.CURRENCY)),
    ]  # fmt: skip


def slate_rules(params: ValidationParams, load_time: datetime | None) -> list[Rule]:
    """Rules of `slates` that go beyond one column."""
    s, t = Slates, Slates.TABLE
    twice = "({0}) IN (SELECT ({0}) FROM slates GROUP BY {0} HAVING count(*) > 1)"
    slot = twice.format(f"{s.REQUEST_ID}, {s.POSITION}")
    item = twice.format(f"{s.REQUEST_ID}, {s.ITEM_ID}")
    return [
        *_time_rules(t, s.SERVED_AT, params, load_time),
        *_person_rules(t, s.USER_ID),
        *_known_item_rules(t, s.ITEM_ID, params),
        _rows(t, s.POSITION, "a slot (request_id, position) is there once", "critical", slot, (s.REQUEST_ID,), 0.001),
        _rows(t, s.ITEM_ID, "a slate shows an item once", "warning", item, (s.REQUEST_ID,)),
        _rows(t, s.PROPENSITY, "an explored slot has a propensity below 1", "warning",
              f"{s.EXPLORED} AND {s.PROPENSITY} >= 1", (s.EXPLORED,)),
        _rows(t, s.PROPENSITY, "no propensity is below 0.001 (its weight would drown the rest)", "info",
              f"{s.PROPENSITY} < 0.001"),
    ]  # fmt: skip


def catalogue_rules() -> list[Rule]:
    """Rules of `items`, `users` and `item_vectors` that go beyond one column."""
    v, t = ItemVectors, ItemVectors.TABLE
    lengths = f"len({v.VECTOR}) <> (SELECT mode(len(o.{v.VECTOR})) FROM {t} o WHERE o.{v.MODALITY} = {t}.{v.MODALITY})"
    key = f"{v.ITEM_ID}, {v.MODALITY}"
    twice = f"({key}) IN (SELECT ({key}) FROM {t} GROUP BY {key} HAVING count(*) > 1)"
    odd = f"len(list_filter({v.VECTOR}, lambda x: NOT isfinite(x))) > 0"
    gone = f"{Items.AVAILABLE} = false"
    return [
        _rows(Items.TABLE, Items.AVAILABLE, "at least a tenth of the items is available", "critical", gone, share=0.9),
        *_person_rules(Users.TABLE, Users.USER_ID),
        _rows(t, v.VECTOR, "vectors of a modality have one length", "critical", lengths, (v.MODALITY,)),
        _rows(t, v.VECTOR, "vectors are finite", "critical", odd),
        _rows(t, v.ITEM_ID, "an item has one vector a modality", "critical", twice, (v.MODALITY,)),
    ]


def measure_rules(params: ValidationParams, accepted: bool = True) -> list[Rule]:
    """Rules on measures of `events` as a whole: freshness, volume, distribution, crowding, against the reference.

    `accepted` false: there is no reference, and the newest week is compared with what lies before it.
    """
    e, p, before = Events, params, LAST_ACCEPTED if accepted else EARLIER_DAYS
    rules: list[Rule] = []

    def add(
        column: str, name: str, sentence: str, low: float | None, high: float | None, severity: Severity = "warning"
    ) -> None:
        rules.append(Rule(e.TABLE, column, sentence, severity, "measure", (), measure=name, low=low, high=high))

    add(
        e.EVENT_TIME,
        "age_days",
        f"freshness: the newest event is at most {p.max_age_days:g} days old",
        None,
        p.max_age_days,
    )
    volume = f"volume: rows a day are {p.volume_low:g} to {p.volume_high:g} times those of {before}"
    add(e.EVENT_ID, "volume_ratio", volume, p.volume_low, p.volume_high)
    odd = f"volume: every day has {p.volume_low:g} to {p.volume_high:g} times the rows of the days around it"
    add(e.EVENT_ID, "day_volume_ratio", odd, p.volume_low, p.volume_high)
    same = "volume: days that were accepted before still have their rows (ratio)"
    add(e.EVENT_ID, "overlap_ratio", same, p.overlap_ratio, 1 / p.overlap_ratio, "critical")
    unit = f"unit: the typical price is within {p.price_ratio:g} times "
    add(e.PRICE, "price_ratio", f"{unit}that of {before}", 1 / p.price_ratio, p.price_ratio, "critical")
    add(e.PRICE, "catalogue_price_ratio", unit + "the catalogue's", 1 / p.price_ratio, p.price_ratio, "critical")
    add(
        e.PRICE,
        "day_price_ratio",
        unit + "the median day's, on every day",
        1 / p.price_ratio,
        p.price_ratio,
        "critical",
    )
    crowd = f"bots: no user makes over {p.top_user_share:.0%} of a day's events"
    add(e.USER_ID, "top_user_share", crowd, None, p.top_user_share)
    named: dict[str, str] = {e.EVENT_TYPE: e.EVENT_TYPE, e.PLATFORM: e.PLATFORM, e.SURFACE: e.SURFACE,
                             e.CURRENCY: e.CURRENCY, "price_bucket": e.PRICE, "hour": e.EVENT_TIME}  # fmt: skip
    for key, column in named.items():
        sentence = f"drift: distribution of {key} as in {before} (PSI over its noise)"
        add(column, f"psi_{key}", sentence, None, p.psi)
        if key not in ("price_bucket", "hour"):
            add(column, f"new_{key}", f"in-set: no {key} that {before} did not have (rows)", None, 0)
            add(
                column,
                f"gone_{key}",
                f"in-set: every frequent {key} of {before} is there (values)",
                None,
                0,
            )
    for column in (e.USER_ID, e.SESSION_ID, e.PLATFORM, e.SURFACE, e.PRICE):
        sentence = f"nulls: share of null {column} as in {before}"
        add(column, f"null_change_{column}", sentence, -p.null_share_change, p.null_share_change)
    return rules


def all_rules(params: ValidationParams, load_time: datetime | None, accepted: bool = True) -> list[Rule]:
    """Every rule of every table, in the order of the report."""
    makers: list[Callable[[], list[Rule]]] = [
        lambda: [rule for table in TABLES for rule in column_rules(table)],
        lambda: event_rules(params, load_time),
        lambda: slate_rules(params, load_time),
        catalogue_rules,
        lambda: measure_rules(params, accepted),
    ]
    return [rule for make in makers for rule in make()]
