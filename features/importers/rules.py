"""Text to typed columns, and the rules of a table as reasons, one for each row.

Choices. A bad value never stops an import and is never replaced: its row goes to quarantine with a reason. Reasons hold
no values, so that they can be counted and shown without showing personal data. The first broken rule names the row.
Everything is derived from `schema.Column` and done by whole columns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.schema import CURRENCIES, MAX_ID_LENGTH, TIMESTAMP, Column, Events

_INTEGER = r"^[+-]?[0-9]{1,18}(\.0+)?$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:?[0-9]{2})$"
_EARLIEST, _LATEST = datetime.fromisoformat("1970-01-01T00:00:00Z"), datetime.fromisoformat("2200-01-01T00:00:00Z")
_WRONG_CENTURY = "not between 1970 and 2200 (seconds, milli- or microseconds mixed up?)"
NOT_TEXT = "not valid text (a lone surrogate or no UTF-8)"


@dataclass(frozen=True)
class Parsed:
    """A column in its canonical type and, where a value did not fit, the reason (null elsewhere)."""

    values: pa.Array
    reasons: pa.Array


def no_reasons(length: int) -> pa.Array:
    """`length` nulls: no row has a reason yet."""
    return pa.nulls(length, pa.string())


def mark(reasons: pa.Array, broken: Any, text: str) -> pa.Array:
    """`reasons` with `text` where `broken` is true and no reason stands yet."""
    fresh = pc.and_(pc.fill_null(broken, False), pc.is_null(reasons))
    return pc.if_else(fresh, text, reasons)


def first_of(*reasons: pa.Array) -> pa.Array:
    """The first reason of each row."""
    return pc.coalesce(*reasons)


def text_array(values: Sequence[Any]) -> Parsed:
    """Python values as text; numbers become their digits; what is no scalar or no valid Unicode gets a reason."""
    try:
        return Parsed(pa.array(values, pa.string()), no_reasons(len(values)))
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        pairs = [_as_text(value) for value in values]
        return Parsed(pa.array([p[0] for p in pairs], pa.string()), pa.array([p[1] for p in pairs], pa.string()))


def _as_text(value: Any) -> tuple[str | None, str | None]:
    if value is None:
        return None, None
    if isinstance(value, bool):
        return ("true" if value else "false"), None
    if isinstance(value, (int, float)):
        return repr(value), None
    if not isinstance(value, str):
        return None, "a list or an object where one value belongs"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return None, NOT_TEXT
    return value, None


def parse_text(text: pa.Array, column: Column) -> Parsed:
    """Text in the column's canonical type; the reason is null where the text is null or parses."""
    none = no_reasons(len(text))
    if pa.types.is_string(column.type):
        return Parsed(text, none)
    if column.type == TIMESTAMP:
        return _parse_times(text, column.name)
    if pa.types.is_list(column.type):
        return _parse_vectors(text, column)
    if pa.types.is_boolean(column.type):
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(text))
        true, false = pc.is_in(lower, pa.array(["true", "1"])), pc.is_in(lower, pa.array(["false", "0"]))
        values = pc.if_else(true, True, pc.if_else(false, False, pa.scalar(None, pa.bool_())))
        bad = pc.and_(pc.is_valid(text), pc.is_null(values))
        return Parsed(values, mark(none, bad, f"{column.name}: neither true nor false"))
    return _parse_numbers(pc.utf8_trim_whitespace(text), column)


def _parse_numbers(text: pa.Array, column: Column) -> Parsed:
    whole = pa.types.is_integer(column.type)
    fits = pc.match_substring_regex(text, _INTEGER if whole else _NUMBER)
    kept = pc.if_else(fits, text, pa.scalar(None, pa.string()))
    kind = "a whole number" if whole else "a number"
    reasons = mark(no_reasons(len(text)), pc.invert(fits), f"{column.name}: not {kind}")
    if not whole:
        return Parsed(pc.cast(kept, pa.float64()), reasons)
    digits = pc.replace_substring_regex(kept, r"\.0+$", "")
    return fit_integers(pc.cast(pc.replace_substring_regex(digits, r"^\+", ""), pa.int64()), column, reasons)


def fit_integers(values: pa.Array, column: Column, reasons: pa.Array) -> Parsed:
    """int64 `values` in the column's width; what does not fit becomes null with a reason."""
    limit = 2 ** (column.type.bit_width - 1) - 1
    over = pc.or_(pc.greater(values, limit), pc.less(values, -limit))
    values = pc.if_else(pc.fill_null(over, False), pa.scalar(None, values.type), values)
    return Parsed(values.cast(column.type), mark(reasons, over, f"{column.name}: number too large"))


def _parse_times(text: pa.Array, name: str) -> Parsed:
    fits = pc.match_substring_regex(text, _TIME)
    kept = pc.if_else(fits, text, pa.scalar(None, pa.string()))
    kept = pc.replace_substring_regex(kept, r"(\.[0-9]{6})[0-9]+", r"\1")  # finer than a microsecond: cut
    reason = f"{name}: not a time with an offset, as 2026-01-31T12:00:00Z"
    try:
        values = pc.cast(kept, TIMESTAMP)
    except pa.ArrowInvalid:  # some date is none, such as the 31st of February
        values = pa.array([_time_or_none(value) for value in kept.to_pylist()], TIMESTAMP)
    bad = pc.and_(pc.is_valid(text), pc.is_null(values))
    return Parsed(values, mark(no_reasons(len(text)), bad, reason))


def parse_epoch(text: pa.Array, name: str, per_second: int) -> Parsed:
    """Whole numbers since 1970, `per_second` of them a second, as times; the reason where one is none."""
    numbers = _parse_numbers(pc.utf8_trim_whitespace(text), Column(name, pa.int64()))
    outside = pc.or_(pc.less(numbers.values, 0), pc.greater(numbers.values, int(_LATEST.timestamp()) * per_second))
    reasons = mark(numbers.reasons, outside, f"{name}: {_WRONG_CENTURY}")
    kept = pc.if_else(pc.fill_null(outside, False), pa.scalar(None, pa.int64()), numbers.values)
    return Parsed(pc.multiply(kept, 1_000_000 // per_second).cast(pa.timestamp("us")).cast(TIMESTAMP), reasons)


def _time_or_none(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _parse_vectors(text: pa.Array, column: Column) -> Parsed:
    values: list[list[float] | None] = []
    for one in text.to_pylist():
        try:
            vector = json.loads(one) if one is not None else None
            values.append([float(number) for number in vector] if vector is not None else None)
        except (ValueError, TypeError):
            values.append(None)
    array = pa.array(values, column.type)
    bad = pc.and_(pc.is_valid(text), pc.is_null(array))
    return Parsed(array, mark(no_reasons(len(text)), bad, f"{column.name}: not a JSON list of numbers"))


def check_utf8(values: pa.Array) -> Parsed:
    """A string column read from a file, with invalid UTF-8 replaced by null and a reason (Parquet does not check)."""
    try:
        values.validate(full=True)
        return Parsed(values, no_reasons(len(values)))
    except pa.ArrowInvalid:
        raw = values.cast(pa.binary()).to_pylist()
        good = [_utf8_or_none(one) for one in raw]
        array = pa.array(good, pa.string())
        bad = pa.array([one is not None and two is None for one, two in zip(raw, good, strict=True)])
        return Parsed(array, mark(no_reasons(len(raw)), bad, NOT_TEXT))


def _utf8_or_none(raw: bytes | None) -> str | None:
    try:
        return None if raw is None else raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def broken_rules(rows: pa.Table, columns: tuple[Column, ...]) -> pa.Array:
    """The first rule that each row breaks, or null: nulls, sets, ranges, ids and the search rule of events.

    `rows` holds the columns in their canonical types. Uniqueness is no rule of one row and is not looked at.
    """
    reasons = no_reasons(rows.num_rows)
    for column in columns:
        reasons = _column_rules(reasons, rows[column.name].combine_chunks(), column)
    if columns is Events.COLUMNS:
        other = pc.not_equal(rows[Events.EVENT_TYPE].combine_chunks(), "search")
        lacking = pc.and_(pc.is_null(rows[Events.ITEM_ID].combine_chunks()), other)
        reasons = mark(reasons, lacking, f"{Events.ITEM_ID}: missing, only a search may lack it")
    return reasons


def _column_rules(reasons: pa.Array, values: pa.Array, column: Column) -> pa.Array:
    name = column.name
    if not column.nullable:
        reasons = mark(reasons, pc.is_null(values), f"{name}: missing")
    if column.is_id:
        length = pc.utf8_length(values)
        reasons = mark(reasons, pc.equal(length, 0), f"{name}: empty")
        reasons = mark(reasons, pc.greater(length, MAX_ID_LENGTH), f"{name}: longer than {MAX_ID_LENGTH} characters")
        reasons = mark(reasons, pc.match_substring(values, "\0"), f"{name}: holds NUL")
    if column.values is not None:
        kind = "an ISO 4217 code" if column.values is CURRENCIES else f"one of {', '.join(column.values)}"
        known = pc.is_in(values, pa.array(column.values))
        reasons = mark(reasons, pc.and_(pc.is_valid(values), pc.invert(known)), f"{name}: not {kind}")
    if pa.types.is_floating(column.type):
        reasons = mark(reasons, pc.invert(pc.is_finite(values)), f"{name}: not a finite number")
    if column.minimum is not None:
        low = pc.less_equal if column.exclusive_minimum else pc.less
        word = "not above" if column.exclusive_minimum else "below"
        reasons = mark(reasons, low(values, column.minimum), f"{name}: {word} {column.minimum}")
    for most in (column.maximum, column.doubtful):
        if most is not None:
            reasons = mark(reasons, pc.greater(values, most), f"{name}: above {most:g}")
    if column.type == TIMESTAMP:
        outside = pc.or_(
            pc.less(values, pa.scalar(_EARLIEST, TIMESTAMP)), pc.greater(values, pa.scalar(_LATEST, TIMESTAMP))
        )
        reasons = mark(reasons, outside, f"{name}: {_WRONG_CENTURY}")
    return reasons
