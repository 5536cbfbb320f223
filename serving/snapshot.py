"""All that one request reads of model, catalogue and rules, as one immutable value that is swapped whole.

Choices. A request takes the snapshot once, so that no page mixes two models or two catalogues. A change of stock only
replaces the mask (microseconds); a new or rewritten item extends the model and rebuilds the text index, beside the
running service. Without a model, where the operator allows that, a blank one lends its form: then only what is learned
online orders the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from models.blank import blank_model, unranked
from models.homepage import HomepageModel, Ranking
from models.items import ItemTable
from models.live_signals import Learned, live_sums, new_after, on_items
from models.page import Composer, PageParams
from models.policy import BoolArray, FloatArray, IntArray
from models.policy.plackett_luce import PlackettLuce, PlackettLuceParams
from models.rules import ItemFacts, Rules, compile_rules
from serving import consent
from serving.catalogue import Patch, patched
from serving.learning import Learning
from serving.params import ServingParams
from serving.search import SearchIndex


@dataclass(frozen=True)
class Snapshot:
    """Model, items, mask, rules and text index that belong together; arrays over I items."""

    base: HomepageModel  # as it was trained, with the whole catalogue
    model: HomepageModel  # the same, its statistics as of now
    ranks: bool  # False: nobody let a model rank; the page says `popular`
    learned: Learned
    items: ItemTable
    available_I: BoolArray
    hot_I: FloatArray
    composer: Composer
    search: SearchIndex
    rules: Rules
    params: ServingParams
    no_consent: frozenset[str]
    item_seq: int
    made_us: int
    new_after_us: int
    near: dict[int, IntArray] = field(default_factory=dict)  # filled as visitors come; only ever grows
    # What the model says to people of whom nothing is known, and of which items: the same for all of them.
    strangers: list[tuple[BoolArray, Ranking]] = field(default_factory=list, init=False, compare=False)

    @property
    def version(self) -> str:
        """The model's version, as every answer names it."""
        return self.base.version

    def may_personalize(self, user_id: str | None) -> bool:
        """False for a user who refused consent."""
        if user_id is None or not self.no_consent:
            return True
        return consent.mark(user_id) not in self.no_consent


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
    learning: Learning | None = None,
    ranks: bool = True,
) -> Snapshot:
    """A snapshot of a model with all changes of the catalogue; without a model, of the changes alone.

    With `ranks` False the model only lends its catalogue and what it counted: nobody let it rank.
    """
    table = model.items if model else ItemTable.from_rows([])
    rows = [patched(table, patch) for patch in patches]
    if model is None:
        model, ranks = blank_model(ItemTable.from_rows(rows), now_us), False
    else:
        model = model.extend(rows, now_us) if rows else model
        model = model if ranks else unranked(model)
    items, learning = model.items, learning or Learning(params.learning)
    made = Snapshot(
        base=model,
        model=model,
        ranks=ranks,
        learned=Learned.of(*learning.told, items),
        items=items,
        available_I=np.asarray(items.available_I, dtype=np.bool_).copy(),
        hot_I=model.hot_I,
        composer=composer_of(items, rules, params, now_us),
        search=SearchIndex(items.titles, items.brands, items.categories),
        rules=rules,
        params=params,
        no_consent=consent.refused(model.manifest),
        item_seq=max((patch.seq for patch in patches), default=0),
        made_us=now_us,
        new_after_us=new_after(items),
    )
    return learned(made, learning)


def learned(old: Snapshot, learning: Learning) -> Snapshot:
    """The same snapshot with what was learned online up to now."""
    counts, choices = learning.told
    view = Learned.of(counts, choices, old.items, old.learned)
    if not counts.clock_us:
        return replace(old, learned=view)
    sums = live_sums(counts, view.item_J, len(old.items))
    last_us_J = counts.last_us[: view.item_J.size].astype(np.float64)
    last_us_I = on_items(last_us_J, view.item_J, len(old.items)).astype(np.int64)
    model = old.base.moved(sums, last_us_I, counts.clock_us)
    return replace(old, learned=view, model=model, hot_I=model.hot_I)


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


def taken_up(old: Snapshot, patches: Sequence[Patch]) -> tuple[Snapshot, bool]:
    """The stock that the patches (at least one) say, and whether the catalogue has to be built again for the rest."""
    now = stock_changed(old, patches)
    more = any(needs_more(old, patch) for patch in patches)
    return (now if more else replace(now, item_seq=patches[-1].seq)), more


def with_rules(old: Snapshot, rules: Rules, now_us: int) -> Snapshot:
    """The same catalogue under other rules."""
    composer = composer_of(old.items, rules, old.params, now_us)
    return replace(old, rules=rules, composer=composer, made_us=now_us, near={})
