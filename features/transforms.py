"""Ibis expressions over the canonical tables, written once; DuckDB and Spark give the same tables.

Choices. Nothing here depends on an engine's order: every window has a total order, ties break by event id, nulls come
first. Money is summed in whole 1/10,000 of a unit, because sums of doubles depend on their order. A `return` never
changes the purchase row, which lies before it in time: it carries a negative `net_quantity` of its own, so that the
sum over any stretch of time knows only what had happened by its end.
"""

from __future__ import annotations

from datetime import datetime

import ibis
import ibis.expr.types as ir

from features.schema import Events, Items, Slates, Users

USER_KEY = "user_key"  # user_id, or "session:" + session_id for a guest
NET_QUANTITY = "net_quantity"  # + bought, - returned of what was bought before; 0 for other events
REASON = "reason"
NO_CONSENT = "user_id: no consent to personalization"  # a reason
BROWSING = ("view", "click", "search")
_UNITS = 10_000  # of money
_MOST = 1e26  # units of a row: above the dearest price times the greatest quantity; their sums stay in 38 digits
UTC_TIME = "timestamp('UTC', 6)"


def moment(time: datetime) -> ir.TimestampScalar:
    """A UTC time as a literal."""
    return ibis.literal(time, type=UTC_TIME)


def dedupe(rows: ir.Table, keys: list[str], order: list[str]) -> ir.Table:
    """One row for each key: the first by `order`, nulls first."""
    window = ibis.window(group_by=keys, order_by=[ibis.asc(rows[name], nulls_first=True) for name in order])
    ranked = rows.mutate(_rank=ibis.row_number().over(window))
    return ranked.filter(ranked["_rank"] == 0).drop("_rank")


def repeats(rows: ir.Table, keys: list[str]) -> ir.IntegerScalar:
    """How many keys have more than one row: far cheaper to ask than `dedupe` is where wide rows have to be ordered."""
    counted = rows.group_by(keys).aggregate(_rows=rows.count())
    return counted.filter(counted["_rows"] > 1).count()


def with_sessions(events: ir.Table, gap_s: int) -> ir.Table:
    """`session_id` filled where it is null: a user's events no further apart than `gap_s` are one session.

    The id is a hash of the user and the session's first event; an event without user and session is its own session.
    """
    group = ibis.coalesce(events[Events.USER_ID], events[Events.EVENT_ID])
    rows = events.mutate(_group=group, _open=events[Events.SESSION_ID].isnull())
    by_time = ibis.window(group_by=["_group", "_open"], order_by=[rows[Events.EVENT_TIME], rows[Events.EVENT_ID]])
    before = rows[Events.EVENT_TIME].lag().over(by_time)
    starts = before.isnull() | (rows[Events.EVENT_TIME] > before + ibis.interval(seconds=gap_s))
    rows = rows.mutate(_starts=starts.cast("int64"))
    running = ibis.cumulative_window(
        group_by=["_group", "_open"], order_by=[rows[Events.EVENT_TIME], rows[Events.EVENT_ID]]
    )
    rows = rows.mutate(_number=rows["_starts"].sum().over(running))
    in_session = ibis.window(
        group_by=["_group", "_open", "_number"], order_by=[rows[Events.EVENT_TIME], rows[Events.EVENT_ID]]
    )
    rows = rows.mutate(_first=rows[Events.EVENT_ID].first().over(in_session))
    derived = (rows["_group"] + "|" + rows["_first"]).hexdigest("md5")
    filled = rows.mutate(**{Events.SESSION_ID: ibis.coalesce(rows[Events.SESSION_ID], derived)})
    return filled.drop("_group", "_open", "_starts", "_number", "_first")


def with_user_key(rows: ir.Table) -> ir.Table:
    """`user_key`: the user, else the session, so that a guest's basket still teaches what goes together."""
    session = ibis.literal("session:") + rows[Events.SESSION_ID]
    request = ibis.literal("request:") + rows[Events.REQUEST_ID]
    return rows.mutate(**{USER_KEY: ibis.coalesce(rows[Events.USER_ID], session, request)})


def with_net_quantity(events: ir.Table) -> ir.Table:
    """`net_quantity` (int64): what an event adds to the units of the item that the user keeps, never below nothing.

    With S the running sum of bought minus returned, the units kept are S - min(0, min S so far); the column is its
    change. A return of something that was bought before the data begin thus counts 0.
    """
    units = ibis.coalesce(events[Events.QUANTITY].cast("int64"), 1)
    kind = events[Events.EVENT_TYPE]
    rows = events.mutate(_signed=ibis.cases((kind == "purchase", units), (kind == "return", -units), else_=0))
    order = [rows[Events.EVENT_TIME], rows[Events.EVENT_TYPE], rows[Events.EVENT_ID]]
    keys = [USER_KEY, Events.ITEM_ID]
    running = ibis.cumulative_window(group_by=keys, order_by=order)
    rows = rows.mutate(_sum=rows["_signed"].sum().over(running))
    rows = rows.mutate(_low=rows["_sum"].min().over(running))
    rows = rows.mutate(_kept=rows["_sum"] - ibis.least(rows["_low"], 0))
    before = ibis.coalesce(rows["_kept"].lag().over(ibis.window(group_by=keys, order_by=order)), 0)
    counts = kind_in(rows, ("purchase", "return"))
    rows = rows.mutate(**{NET_QUANTITY: ibis.ifelse(counts, rows["_kept"] - before, 0).cast("int64")})
    return rows.drop("_signed", "_sum", "_low", "_kept")


def kind_in(events: ir.Table, kinds: tuple[str, ...]) -> ir.BooleanValue:
    """Whether an event is of one of the kinds."""
    return events[Events.EVENT_TYPE].isin(kinds)


def bot_days(events: ir.Table, per_hour: int, per_day: int) -> ir.Table:
    """`user_key, bot_day` of users with more views, clicks and searches in one hour or one UTC day than the limits.

    Order lines do not count, so that a wholesaler's basket of 700 lines is no bot.
    """
    browsing = events.filter(kind_in(events, BROWSING))
    hours = browsing.mutate(hour=browsing[Events.EVENT_TIME].truncate("h"), bot_day=day_of(browsing[Events.EVENT_TIME]))
    by_hour = hours.group_by([USER_KEY, "bot_day", "hour"]).aggregate(n=hours.count())
    by_day = by_hour.group_by([USER_KEY, "bot_day"]).aggregate(most=by_hour["n"].max(), total=by_hour["n"].sum())
    over = by_day.filter((by_day["most"] > per_hour) | (by_day["total"] > per_day))
    return over.select(USER_KEY, "bot_day")


def day_of(time: ir.Value) -> ir.Value:
    """The UTC day as text, YYYY-MM-DD."""
    return time.strftime("%Y-%m-%d")


def judge(
    rows: ir.Table, time: str, items: ir.Table, users: ir.Table, bots: ir.Table | None, latest: datetime
) -> ir.Table:
    """`rows` (events or slates, with `user_key`) with `reason`: why a row is left out, null where it stays."""
    known = items.select(Items.ITEM_ID).distinct().mutate(_known=ibis.literal(True)).rename(_item=Items.ITEM_ID)
    refused = users.filter(~ibis.coalesce(users[Users.PERSONALIZATION_CONSENT], True))
    refused = refused.select(Users.USER_ID).distinct().mutate(_refused=ibis.literal(True)).rename(_user=Users.USER_ID)
    joined = rows.left_join(known, rows[Events.ITEM_ID] == known["_item"])
    joined = joined.left_join(refused, joined[Events.USER_ID] == refused["_user"])
    cases = [
        (joined[time] > moment(latest), f"{time}: in the future"),
        (joined["_refused"].notnull(), NO_CONSENT),
        (joined[Events.ITEM_ID].notnull() & joined["_known"].isnull(), "item_id: unknown item"),
    ]
    temporary = ["_item", "_known", "_user", "_refused"]
    if bots is not None:
        marks = bots.mutate(_bot=ibis.literal(True)).rename(_bot_user=USER_KEY, _bot_day="bot_day")
        joined = joined.mutate(_day=day_of(joined[time]))
        joined = joined.left_join(marks, [joined[USER_KEY] == marks["_bot_user"], joined["_day"] == marks["_bot_day"]])
        cases.append((joined["_bot"].notnull(), "user_id: a bot by the rule of events an hour or day"))
        temporary += ["_bot", "_bot_user", "_bot_day", "_day"]
    return joined.mutate(**{REASON: ibis.cases(*cases, else_=ibis.null("string"))}).drop(*temporary)


def daily_item_aggregates(events: ir.Table) -> ir.Table:
    """One row for each item and UTC day: views, clicks, carts, purchases, returns (rows), units and revenue, net.

    Returns count on the day of the return. Revenue adds prices as they are: a shop of several currencies is warned of
    by validation.
    """
    rows = events.filter(events[Events.ITEM_ID].notnull()).mutate(day=day_of(events[Events.EVENT_TIME]))
    kind, units = rows[Events.EVENT_TYPE], rows[NET_QUANTITY]
    paid = ibis.coalesce(rows[Events.PRICE], 0.0) * units * _UNITS
    # Whole numbers of 28 digits, not of 64 bits: a price may be wrong by far, and a stage must not break on one row.
    money = ibis.greatest(ibis.least(paid, _MOST), -_MOST).cast("decimal(28, 0)")

    def count(name: str) -> ir.IntegerScalar:
        return (kind == name).sum().cast("int64")

    return (
        rows.group_by(["day", Events.ITEM_ID])
        .aggregate(
            views=count("view"),
            clicks=count("click"),
            carts=count("add_to_cart"),
            purchases=count("purchase"),
            returns=count("return"),
            units=units.sum().cast("int64"),
            revenue=money.sum().cast("float64") / _UNITS,
        )
        .order_by(["day", Events.ITEM_ID])
    )


def until_day(rows: ir.Table, time: str, end: datetime) -> ir.Table:
    """The rows before `end`."""
    return rows.filter(rows[time] < moment(end))


def from_day(rows: ir.Table, time: str, start: datetime | None) -> ir.Table:
    """The rows from `start` on, and those without a time; None for all."""
    return rows if start is None else rows.filter((rows[time] >= moment(start)) | rows[time].isnull())


SLATE_KEYS = [Slates.REQUEST_ID, Slates.POSITION]
