"""The requests of CONTRACT section 2 as pydantic models; every rule of a field is here, and so is its documentation.

Choices. Strict types ("24" is no number), but 24.0 is an integer, as JSON says. A row of events or items is checked
by its own model, so that one bad row rejects itself only. Times become microseconds since 1970 in UTC.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from features.schema import CURRENCIES, EVENT_TYPES, FUTURE_TOLERANCE_S, MAX_ID_LENGTH, PLATFORMS, SURFACES
from serving.wire import Problem, pointer

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d):(\d\d)(\.\d+)?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)


def parse_time(text: Any) -> int:
    """RFC 3339 with offset -> microseconds since 1970; ValueError otherwise. A leap second is the second before."""
    match = RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("must be an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z")
    day, minute, second, fraction, offset = match.groups()
    second = "59" if second == "60" else second
    micros = int(((fraction or ".")[1:] + "000000")[:6])
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}:{second}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as error:
        raise ValueError(f"is no time that exists: {error}") from None
    micros += (moment - EPOCH) // timedelta(microseconds=1)
    if not -62_135_596_800_000_000 <= micros <= 253_402_300_799_999_999:
        raise ValueError("lies outside the years 1 to 9999")
    return micros


def format_time(micros: int) -> str:
    """Microseconds since 1970 -> RFC 3339 in UTC."""
    return (EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def now_us() -> int:
    """The wall clock in microseconds."""
    return time.time_ns() // 1000


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold NUL")
    return text


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


INT32 = 2**31 - 1
Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH), AfterValidator(_no_nul)]
Text = Annotated[str, Field(max_length=100_000), AfterValidator(_no_nul)]

# An integer of a range, which stands inside so that the JSON schema names it; 24.0 is one too.
_Hundred = Annotated[int, Field(ge=1, le=100)]
_Twenty = Annotated[int, Field(ge=1, le=20)]
_Many = Annotated[int, Field(ge=1, le=INT32)]
UpTo100 = Annotated[_Hundred, BeforeValidator(_whole, json_schema_input_type=_Hundred)]
UpTo20 = Annotated[_Twenty, BeforeValidator(_whole, json_schema_input_type=_Twenty)]
Many = Annotated[_Many, BeforeValidator(_whole, json_schema_input_type=_Many)]
Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Time = Annotated[int, BeforeValidator(parse_time), WithJsonSchema({"type": "string", "format": "date-time"})]
Platform = Literal[PLATFORMS]  # type: ignore[valid-type]
Surface = Literal[SURFACES]  # type: ignore[valid-type]
EventType = Literal[EVENT_TYPES]  # type: ignore[valid-type]


def _known_currency(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("is no code of ISO 4217")
    return code


Currency = Annotated[str, AfterValidator(_known_currency)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class HomepageRequest(_Body):
    """One page for one visit."""

    session_id: Id
    user_id: Id | None = None
    platform: Platform | None = None
    page_size: UpTo100 = 24
    exclude: Annotated[list[Id], Field(max_length=1000)] = []
    context: dict[str, Any] | None = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "u1", "session_id": "s1", "platform": "web", "page_size": 24}]}
    )


class SearchRequest(_Body):
    """A search for one person."""

    query: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_no_nul)]
    session_id: Id
    user_id: Id | None = None
    limit: UpTo100 = 20

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "red cup", "session_id": "s1", "user_id": "u1", "limit": 20}]}
    )


class Ad(_Body):
    """One candidate ad; bid and budgets in the shop's currency, the bid a click; a `daily_budget` asks for pacing."""

    ad_id: Id
    item_id: Id
    bid: Money
    budget_left: Annotated[float, Field(allow_inf_nan=False)]
    daily_budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class AdsRequest(_Body):
    """Which ads, in which order, at which price."""

    session_id: Id
    user_id: Id | None = None
    slots: UpTo20
    ads: list[Ad]

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "session_id": "s1",
                    "slots": 2,
                    "ads": [{"ad_id": "a1", "item_id": "i1", "bid": 0.4, "budget_left": 20.0}],
                }
            ]
        }
    )


class EventRow(BaseModel):
    """One row of `events`; extra fields are kept."""

    model_config = ConfigDict(strict=True, extra="allow")

    event_id: Id
    event_time: Time
    event_type: EventType
    user_id: Id | None = None
    session_id: Id | None = None
    item_id: Id | None = None
    surface: Surface | None = None
    request_id: Id | None = None
    position: Many | None = None
    price: Money | None = None
    quantity: Many | None = None
    currency: Currency | None = None
    platform: Platform | None = None
    query: Text | None = None

    @model_validator(mode="after")
    def _together(self) -> EventRow:
        if self.user_id is None and self.session_id is None:
            raise ValueError("needs a user_id or a session_id")
        if self.item_id is None and self.event_type != "search":
            raise ValueError(f"item_id is null, which only a search may be, not a {self.event_type}")
        return self


class ItemRowIn(BaseModel):
    """One row of `items`; fields that are given replace, others stay."""

    model_config = ConfigDict(strict=True, extra="ignore")

    item_id: Id
    title: Text | None = None
    brand: Text | None = None
    category: Text | None = None
    price: Money | None = None
    currency: Currency | None = None
    image_url: Text | None = None
    available: bool | None = None
    listed_at: Time | None = None


class EventsRequest(_Body):
    """A batch of rows; each row is checked for itself."""

    events: Annotated[list[Any], Field(min_length=1, max_length=1000)]


class ItemsRequest(_Body):
    """A batch of catalogue rows; each row is checked for itself."""

    items: Annotated[list[Any], Field(min_length=1, max_length=1000)]


Row = TypeVar("Row", bound=BaseModel)
ID = TypeAdapter(Id, config=ConfigDict(strict=True))


def errors_of(error: ValidationError, root: tuple[str | int, ...] = ()) -> list[tuple[str, str]]:
    """Pairs of pointer and detail; every bad field once, without the value that was sent."""
    found: dict[str, str] = {}
    for one in error.errors(include_input=False, include_url=False):
        found.setdefault(pointer((*root, *(at for at in one["loc"] if at != "[key]"))), _said(one))
    return list(found.items())


def _said(error: Any) -> str:
    """What is wrong in words of the wire, not of the library that found it."""
    kind, bounds = error["type"], error.get("ctx", {})
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be a JSON object"
    if kind == "too_long":
        return f"must not hold more than {bounds['max_length']:,} entries"
    if kind == "too_short":
        return "must not be empty"
    if kind == "string_unicode":
        return "must be text without lone surrogates" if error["loc"] else "a name of a field holds a lone surrogate"
    return str(error["msg"]).removeprefix("Value error, ")


def validated(model: type[Row], value: Any) -> Row:
    """The request, or Problem 422 that names every bad field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Problem(422, "the request has invalid fields", errors_of(error)) from None


def check_row(model: type[Row], value: Any) -> tuple[Row | None, str]:
    """A row, or None and the reason."""
    try:
        return model.model_validate(value), ""
    except ValidationError as error:
        if not isinstance(value, dict):
            return None, "a row must be a JSON object"
        return None, "; ".join(f"{where.removeprefix('/') or 'row'}: {what}" for where, what in errors_of(error))


def check_event(value: Any, now: int) -> tuple[EventRow | None, str]:
    """A row of events at this time, or None and the reason."""
    row, reason = check_row(EventRow, value)
    if row is not None and row.event_time > now + FUTURE_TOLERANCE_S * 1_000_000:
        return None, f"event_time: lies more than {FUTURE_TOLERANCE_S // 60} minutes in the future"
    return row, reason


def check_id(value: str, name: str, status: int = 422) -> str:
    """An id from a path or a query string, or a Problem."""
    try:
        return ID.validate_python(value)
    except ValidationError as error:
        raise Problem(status, f"{name} is no valid id", errors_of(error, (name,))) from None
