"""Business rules: a small YAML file that says what a page may hold, compiled to arrays before anything is drawn.

    pin: [{item: A12, position: 1}]
    boost: [{category: "garden", by: 0.2}]        # by: in units of utility, 0..1 is the span of a module's candidates
    bury: [{brand: Acme, by: 0.3}]
    exclude: [{item: B7}, {price_above: 500}]     # all that one entry names must match
    cap: [{per: brand, most: 2, first: 12}]       # at most 2 of a brand in the first 12 slots
    new: {at_least: 2, days: 30}                  # items listed in the last 30 days
    recently_bought: {days: 7}                    # hide what this user bought in the last 7 days

Rules act before sampling, never after: what a rule forbids is never a candidate, so the logged probabilities stay
exact. A cap is stronger than the page's length and than `new`: where only capped items are left, the page is shorter.
A category matches itself and what lies below it ("garden" matches "garden > tools").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from features.errors import UsageError
from models.policy import BoolArray, FloatArray, IntArray

DAY_US = 86_400_000_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Strict):
    """Which items a rule is about; everything named must match."""

    item: str | None = None
    brand: str | None = None
    category: str | None = None
    price_above: float | None = None
    price_below: float | None = None

    @model_validator(mode="after")
    def _names_something(self) -> Match:
        if all(getattr(self, name) is None for name in Match.model_fields):
            raise ValueError("names no item, brand, category, price_above or price_below")
        return self


class Weighted(Match):
    """A boost or a burial by this much utility."""

    by: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]


class Pin(_Strict):
    """An item that stands in a fixed slot."""

    item: str
    position: Annotated[int, Field(ge=1, le=100)]


class Cap(_Strict):
    """At most so many of one brand or category in the first slots."""

    per: Literal["brand", "category"]
    most: Annotated[int, Field(ge=0)]
    first: Annotated[int, Field(ge=1, le=100)] = 100


class New(_Strict):
    """At least so many items listed lately."""

    at_least: Annotated[int, Field(ge=0, le=100)]
    days: Annotated[float, Field(gt=0)] = 30.0


class RecentlyBought(_Strict):
    """How long a purchase hides the item from the buyer."""

    days: Annotated[float, Field(gt=0)]


class Rules(_Strict):
    """The file as a whole; an empty file is a shop without rules."""

    pin: tuple[Pin, ...] = ()
    boost: tuple[Weighted, ...] = ()
    bury: tuple[Weighted, ...] = ()
    exclude: tuple[Match, ...] = ()
    cap: tuple[Cap, ...] = ()
    new: New | None = None
    recently_bought: RecentlyBought | None = None

    @model_validator(mode="after")
    def _pins_differ(self) -> Rules:
        positions, items = [pin.position for pin in self.pin], [pin.item for pin in self.pin]
        if len(set(positions)) < len(positions) or len(set(items)) < len(items):
            raise ValueError("two pins share a position or an item")
        return self


def load_rules(path: Path) -> Rules:
    """Read and check a rules file; UsageError names file, place and fault; a missing file means no rules."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Rules()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    try:
        return Rules.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: no valid YAML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise UsageError(f"{path}: {faults}. See models/rules.py for the form.") from error


@dataclass(frozen=True)
class ItemFacts:
    """What rules and diversity look at; arrays over the I items of the catalogue."""

    ids: Sequence[str]
    brands: Sequence[str | None]
    categories: Sequence[str | None]
    price_I: FloatArray
    listed_at_I: IntArray
    brand_code_I: IntArray = field(init=False)
    category_code_I: IntArray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "brand_code_I", codes(self.brands))
        object.__setattr__(self, "category_code_I", codes(self.categories))


def codes(values: Sequence[str | None]) -> IntArray:
    """Equal values -> equal numbers from 0; None -> -1."""
    seen: dict[str, int] = {}
    numbers = [-1 if value is None else seen.setdefault(value, len(seen)) for value in values]
    return np.asarray(numbers, dtype=np.int64)


@dataclass(frozen=True)
class CompiledRules:
    """Rules as arrays over I items; what a page is composed under."""

    excluded_I: BoolArray
    lift_I: FloatArray
    pins: dict[int, int]  # position -> item
    caps: tuple[tuple[IntArray, int, int], ...]  # (code_I, most, first)
    new_I: BoolArray
    at_least_new: int


def _matches(match: Match, facts: ItemFacts) -> BoolArray:
    hit_I = np.ones(len(facts.ids), dtype=np.bool_)
    if match.item is not None:
        hit_I &= np.fromiter((i == match.item for i in facts.ids), np.bool_, len(facts.ids))
    if match.brand is not None:
        hit_I &= np.fromiter((b == match.brand for b in facts.brands), np.bool_, len(facts.ids))
    if match.category is not None:
        below = match.category + " > "
        named = (c is not None and (c == match.category or c.startswith(below)) for c in facts.categories)
        hit_I &= np.fromiter(named, np.bool_, len(facts.ids))
    if match.price_above is not None:
        hit_I &= facts.price_I > match.price_above
    if match.price_below is not None:
        hit_I &= facts.price_I < match.price_below
    return hit_I


def compile_rules(rules: Rules, facts: ItemFacts, now_us: int) -> CompiledRules:
    """Rules for this catalogue at this time; pins of unknown items are left out (why-not names them)."""
    count = len(facts.ids)
    excluded_I, lift_I = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.float64)
    for match in rules.exclude:
        excluded_I |= _matches(match, facts)
    for sign, entries in ((1.0, rules.boost), (-1.0, rules.bury)):
        for entry in entries:
            lift_I[_matches(entry, facts)] += sign * entry.by
    place = {item: index for index, item in enumerate(facts.ids)} if rules.pin else {}
    pins = {pin.position: place[pin.item] for pin in rules.pin if pin.item in place}
    code = {"brand": facts.brand_code_I, "category": facts.category_code_I}
    since = now_us - int((rules.new.days if rules.new else 30.0) * DAY_US)
    return CompiledRules(
        excluded_I=excluded_I,
        lift_I=lift_I,
        pins=pins,
        caps=tuple((code[cap.per], cap.most, cap.first) for cap in rules.cap),
        new_I=facts.listed_at_I >= since,
        at_least_new=rules.new.at_least if rules.new else 0,
    )
