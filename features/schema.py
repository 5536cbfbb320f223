"""The canonical tables: every column name, type and rule, spelled once.

Everything else is made from here: Arrow schemas, the Great Expectations suites, the importers' targets, the check of
posted events. A column is written `Events.ITEM_ID`, never `"item_id"`.

Choices. Rules are data (`Column`), not code, so that validation, documentation and the service read the same
sentence. Times are microseconds in UTC. The `date` partition is derived from the time column and is not stored.
Source: CONTRACT, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

TIMESTAMP = pa.timestamp("us", tz="UTC")
MAX_ID_LENGTH = 256  # code points
FUTURE_TOLERANCE_S = 300  # an event may lie this far beyond the load time
SESSION_GAP_S = 1800
# No shop sells one thing for more, in any currency (1e12 rials are a million dollars), and what stands in a column of
# prices by mistake lies above: an EAN of 13 digits, milliseconds since 1970.
MAX_PRICE = 1e12
PARTITION = "date"

EVENT_TYPES = ("view", "click", "add_to_cart", "remove_from_cart", "purchase", "return", "search")
SURFACES = ("home", "search", "ads", "item", "cart", "other")
PLATFORMS = ("web", "ios", "android", "other")
# ISO 4217, active codes (the list of 2026-01-01), without the codes for metals, funds and tests.
_CODES = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF"
    " CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL"
    " HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD"
    " MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG"
    " QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD"
    " TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"
)
# Withdrawn since 2001 (ISO 4217, list three: historic denominations), as events may be of any age.
_WITHDRAWN = (
    "ADP AFA ANG ATS AYM AZM BEF BGL BYB BYR CSD CUC CYP DEM EEK ESP FIM FRF GHC GRD HRK IEP ITL LTL LUF LVL MGF MRO"
    " MTL MZM NLG PTE ROL RUR SDD SIT SKK SLL SML SRG STD TJR TMM TPE TRL VAL VEB VEF YUM ZMK ZWD ZWL ZWN ZWR"
)
CURRENCIES = (*_CODES.split(), *_WITHDRAWN.split())


@dataclass(frozen=True)
class Column:
    """One column and the rules that its values keep; `None` means no such rule."""

    name: str
    type: pa.DataType
    nullable: bool = True
    unique: bool = False
    values: tuple[str, ...] | None = None  # the set that a non-null value is from
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    doubtful: float | None = None  # no rule, but a row above it is set aside, with a warning
    is_id: bool = False  # 1 to 256 code points


def _id(name: str, nullable: bool = True, unique: bool = False) -> Column:
    return Column(name, pa.string(), nullable, unique, is_id=True)


class Events:
    """What users did."""

    TABLE = "events"
    EVENT_ID = "event_id"
    EVENT_TIME = "event_time"
    EVENT_TYPE = "event_type"
    USER_ID = "user_id"
    SESSION_ID = "session_id"
    ITEM_ID = "item_id"
    SURFACE = "surface"
    REQUEST_ID = "request_id"
    POSITION = "position"
    PRICE = "price"
    QUANTITY = "quantity"
    CURRENCY = "currency"
    PLATFORM = "platform"
    QUERY = "query"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        _id(EVENT_ID, nullable=False, unique=True),
        Column(EVENT_TIME, TIMESTAMP, nullable=False),
        Column(EVENT_TYPE, pa.string(), nullable=False, values=EVENT_TYPES),
        _id(USER_ID),
        _id(SESSION_ID),
        _id(ITEM_ID),  # null only for `search`: a rule of two columns, see expectations.py
        Column(SURFACE, pa.string(), values=SURFACES),
        _id(REQUEST_ID),
        Column(POSITION, pa.int32(), minimum=1),
        Column(PRICE, pa.float64(), minimum=0, doubtful=MAX_PRICE),
        Column(QUANTITY, pa.int32(), minimum=1),
        Column(CURRENCY, pa.string(), values=CURRENCIES),
        Column(PLATFORM, pa.string(), values=PLATFORMS),
        Column(QUERY, pa.string()),
    )


class Slates:
    """What was shown, one row a slot."""

    TABLE = "slates"
    REQUEST_ID = "request_id"
    SERVED_AT = "served_at"
    USER_ID = "user_id"
    SESSION_ID = "session_id"
    SURFACE = "surface"
    PLATFORM = "platform"
    MODULE = "module"
    POSITION = "position"
    ITEM_ID = "item_id"
    SCORE = "score"
    PROPENSITY = "propensity"
    POLICY = "policy"
    MODEL_VERSION = "model_version"
    EXPLORED = "explored"
    CANDIDATE_COUNT = "candidate_count"
    FALLBACK = "fallback"
    SPONSORED = "sponsored"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        _id(REQUEST_ID, nullable=False),
        Column(SERVED_AT, TIMESTAMP, nullable=False),
        _id(USER_ID),
        _id(SESSION_ID),
        Column(SURFACE, pa.string(), values=SURFACES),
        Column(PLATFORM, pa.string(), values=PLATFORMS),
        Column(MODULE, pa.string()),
        Column(POSITION, pa.int32(), nullable=False, minimum=1),
        _id(ITEM_ID, nullable=False),
        Column(SCORE, pa.float64()),
        Column(PROPENSITY, pa.float64(), minimum=0, maximum=1, exclusive_minimum=True),
        Column(POLICY, pa.string()),
        Column(MODEL_VERSION, pa.string()),
        Column(EXPLORED, pa.bool_()),
        Column(CANDIDATE_COUNT, pa.int32(), minimum=0),
        Column(FALLBACK, pa.string()),
        Column(SPONSORED, pa.bool_()),
    )


class Items:
    """The catalogue."""

    TABLE = "items"
    ITEM_ID = "item_id"
    TITLE = "title"
    BRAND = "brand"
    CATEGORY = "category"
    PRICE = "price"
    CURRENCY = "currency"
    IMAGE_URL = "image_url"
    AVAILABLE = "available"
    LISTED_AT = "listed_at"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        _id(ITEM_ID, nullable=False, unique=True),
        Column(TITLE, pa.string()),
        Column(BRAND, pa.string()),
        Column(CATEGORY, pa.string()),
        Column(PRICE, pa.float64(), minimum=0, doubtful=MAX_PRICE),
        Column(CURRENCY, pa.string(), values=CURRENCIES),
        Column(IMAGE_URL, pa.string()),
        Column(AVAILABLE, pa.bool_()),
        Column(LISTED_AT, TIMESTAMP),
    )


class Users:
    """What the shop knows of a person, where it shares it."""

    TABLE = "users"
    USER_ID = "user_id"
    FIRST_SEEN = "first_seen"
    COUNTRY = "country"
    PLATFORM = "platform"
    PERSONALIZATION_CONSENT = "personalization_consent"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        _id(USER_ID, nullable=False, unique=True),
        Column(FIRST_SEEN, TIMESTAMP),
        Column(COUNTRY, pa.string()),
        Column(PLATFORM, pa.string(), values=PLATFORMS),
        Column(PERSONALIZATION_CONSENT, pa.bool_()),
    )


class ItemVectors:
    """What another model says of an item: one vector for each modality."""

    TABLE = "item_vectors"
    ITEM_ID = "item_id"
    MODALITY = "modality"
    VECTOR = "vector"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        _id(ITEM_ID, nullable=False),
        Column(MODALITY, pa.string(), nullable=False),
        Column(VECTOR, pa.list_(pa.float32()), nullable=False),
    )


class Quarantine:
    """Rows that were left out, each with its reason; `row` is the row as JSON text."""

    TABLE = "quarantine"
    SOURCE = "source"  # file or table
    ROW_NUMBER = "row_number"  # from 0 in its source; null where the source has no order
    REASON = "reason"
    ROW = "row"
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(SOURCE, pa.string(), nullable=False),
        Column(ROW_NUMBER, pa.int64()),
        Column(REASON, pa.string(), nullable=False),
        Column(ROW, pa.string(), nullable=False),
    )


TABLES: dict[str, type[Events] | type[Slates] | type[Items] | type[Users] | type[ItemVectors]] = {
    table.TABLE: table for table in (Events, Slates, Items, Users, ItemVectors)
}
PARTITIONED_BY: dict[str, str] = {Events.TABLE: Events.EVENT_TIME, Slates.TABLE: Slates.SERVED_AT}
REQUIRED_TABLES = (Events.TABLE, Items.TABLE)


def arrow_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """The Arrow schema of a table's columns, in their order."""
    return pa.schema([pa.field(column.name, column.type, column.nullable) for column in columns])
