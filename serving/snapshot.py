"""All that one request reads of model, catalogue and rules, as one immutable value that is swapped whole.

Choices. A request takes the snapshot once, so that no page mixes two models or two catalogues. A change of stock only
replaces the mask (microseconds); a new or rewritten item extends the model and rebuilds the text index, beside the
running service. Without a model the catalogue still makes a popular page, where the operator allows that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.homepage import HomepageModel
from models.items import ItemTable
from models.page import Composer, PageParams
from models.policy import BoolArray, FloatArray, IntArray
from models.policy.plackett_luce import PlackettLuce, PlackettLuceParams
from models.rules import ItemFacts, Rules, compile_rules
from serving.catalogue import Patch, patched
from serving.params import ServingParams
from serving.search import SearchIndex

NO_MODEL = "none"


@dataclass(frozen=True)
class Snapshot:
    """Model, items, mask, rules and text index that belong together; arrays over I items."""

    model: HomepageModel | None
    items: ItemTable
    available_I: BoolArray
    popular_I: FloatArray
    composer: Composer
    search: SearchIndex
    rules: Rules
    params: ServingParams
    no_consent: frozenset[str]
    item_seq: int
    made_us: int
    near: dict[int, IntArray] = field(default_factory=dict)  # filled as visitors come; only ever grows

    @property
    def version(self) -> str:
        """The model's version, as every answer names it."""
        return self.model.version if self.model else NO_MODEL

    def may_personalize(self, user_id: str | None) -> bool:
        """False for a user who refused consent."""
        if user_id is None or not self.no_consent:
            return True
        return hashlib.sha256(user_id.encode()).hexdigest() not in self.no_consent


def composer_of(items: ItemTable, rules: Rules, params: ServingParams, now_us: int) -> Composer:
    """The page composer for a catalogue under these rules."""
    facts = ItemFacts(items.item_ids, items.brands, items.categories, items.price_I, items.listed_at_I)
    policy = PlackettLuce(PlackettLuceParams(params.temperature, params.floor))
    return Composer(facts, compile_rules(rules, facts, now_us), policy, PageParams(diversity=params.diversity))


def build(
    model: HomepageModel | None,
    patches: Sequence[Patch],
    rules: Rules,
    params: ServingParams,
    now_us: int,
    counts: Mapping[str, int] | None = None,
    ranks: bool = True,
) -> Snapshot:
    """A snapshot of a model with all changes of the catalogue; without a model, of the changes alone and `counts`.

    With `ranks` False the model only lends its catalogue and popularity: nobody let it rank.
    """
    table = model.items if model else ItemTable.from_rows([])
    rows = [patched(table, patch) for patch in patches]
    if model and rows:
        model = model.extend(rows, now_us)
    items = model.items if model else ItemTable.from_rows(rows)
    if model:
        popular_I = np.asarray(model.popular_I, dtype=np.float64)
    else:
        popular_I = np.array([float((counts or {}).get(item, 0)) for item in items.item_ids])
    return Snapshot(
        model=model if ranks else None,
        items=items,
        available_I=np.asarray(items.available_I, dtype=np.bool_).copy(),
        popular_I=popular_I,
        composer=composer_of(items, rules, params, now_us),
        search=SearchIndex(items.titles, items.brands, items.categories),
        rules=rules,
        params=params,
        no_consent=frozenset(model.manifest.get("no_consent_hashes", ())) if model else frozenset(),
        item_seq=max((patch.seq for patch in patches), default=0),
        made_us=now_us,
    )


def stock_changed(old: Snapshot, patches: Sequence[Patch]) -> Snapshot:
    """The same catalogue with the availability that the patches say; at once. Unknown items wait for `extended`."""
    available_I = old.available_I.copy()
    for patch in patches:
        at = old.items.index.get(patch.item_id)
        if at is not None and "available" in patch.fields:
            available_I[at] = patch.fields["available"] is not False
    return replace(old, available_I=available_I)


def needs_more(old: Snapshot, patch: Patch) -> bool:
    """Whether a patch changes more than the stock of a known item."""
    at = old.items.index.get(patch.item_id)
    if at is None:
        return True
    return replace(patched(old.items, patch), available=None) != replace(old.items.row(at), available=None)


def with_rules(old: Snapshot, rules: Rules, now_us: int) -> Snapshot:
    """The same catalogue under other rules."""
    composer = composer_of(old.items, rules, old.params, now_us)
    return replace(old, rules=rules, composer=composer, made_us=now_us, near={})
