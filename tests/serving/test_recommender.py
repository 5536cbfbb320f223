"""What one page is made of, without a server: modules with reasons, fallbacks, and an answer to "why not?"."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from models.history import Action, UserState
from models.homepage import HomepageModel
from models.rules import Rules
from models.taste import Taste
from serving import explanations
from serving.answers import hits
from serving.catalogue import Patch
from serving.explanations import why_not
from serving.params import ServingParams
from serving.recommender import page
from serving.snapshot import Snapshot, build, needs_more, stock_changed


@pytest.fixture(scope="module")
def now(shop_data: ModuleType) -> int:
    return int(shop_data.START_US + 28 * shop_data.DAY_US)


@pytest.fixture(scope="module")
def shop(model_dir: Path, now: int) -> Snapshot:
    return build(HomepageModel.load(model_dir), [], Rules(), ServingParams(), now)


def person(shop: Snapshot, now: int, *actions: tuple[str, str], visit: str = "s") -> UserState:
    done = [Action(item, kind, now - 60_000_000 + n, "s") for n, (item, kind) in enumerate(actions)]
    return UserState.build(None, done, shop.items.index, visit)


def shown(
    shop: Snapshot, state: UserState, now: int, size: int = 24, exclude: tuple[str, ...] = ()
) -> dict[str, list[str]]:
    made = page(shop, state, exclude, size, now, np.random.default_rng(0))
    modules: dict[str, list[str]] = {}
    for slot in made.slots:
        modules.setdefault(slot.module, []).append(shop.items.item_ids[slot.item])
    return modules


def test_a_returning_customer_gets_modules_with_their_reasons(shop: Snapshot, now: int) -> None:
    bought = [(f"i{n:03d}", "purchase") for n in range(0, 125, 5)]
    state = person(shop, now, *bought, ("i131", "view"), visit="the next one")
    made = page(shop, state, [], 24, now, np.random.default_rng(0))
    assert made.reasons["because_you_viewed"].startswith("Because you viewed")
    assert set(shown(shop, state, now)["buy_again"]) <= {item for item, _ in bought}
    assert "i131" not in shown(shop, state, now)["because_you_viewed"]


def test_what_a_visit_has_just_bought_comes_last_in_it_and_not_in_the_next(shop: Snapshot, now: int) -> None:
    bought = ("i004", "purchase")
    buyer, later = person(shop, now, bought), person(shop, now, bought, visit="the next one")

    def pages(state: UserState, at: int = now) -> set[str]:
        return {item for items in shown(shop, state, at).values() for item in items}

    assert "i004" not in pages(buyer)
    assert "bought in this visit" in why_not(shop, buyer, "i004", now)
    assert "i004" in pages(later)
    assert "i004" in pages(buyer, now + 4 * 3_600_000_000)  # a client that never ends a session
    others = tuple(item for item in shop.items.item_ids if item not in ("i004", "i011", "i021"))
    few = shown(shop, buyer, now, 24, others)
    assert [item for items in few.values() for item in items][-1] == "i004"  # no page is shorter for it


def test_what_is_kept_for_strangers_is_what_each_would_get_alone(shop: Snapshot, now: int) -> None:
    out_of_stock = stock_changed(shop, [Patch(f"i{n:03d}", {"available": False}, 1) for n in range(0, 200, 2)])
    others = ([], ["i001", "i003"])
    for later in (now, now + 40 * 86_400_000_000):
        for snapshot in (shop, out_of_stock):  # the first two visitors of a kind leave something to the next ones
            for exclude in others:
                kept = shown(snapshot, person(snapshot, later), later, exclude=tuple(exclude))
                alone = replace(snapshot)  # a copy keeps nothing
                assert not alone.strangers
                assert shown(alone, person(alone, later), later, exclude=tuple(exclude)) == kept
    assert shop.strangers
    assert shown(shop, person(shop, now), now) != shown(out_of_stock, person(shop, now), now)


def test_a_stranger_gets_no_personal_module(shop: Snapshot, now: int) -> None:
    modules = shown(shop, person(shop, now), now)
    assert not {"because_you_viewed", "buy_again"} & set(modules)
    assert sum(map(len, modules.values())) == 24


def test_a_page_is_short_only_where_items_are(shop: Snapshot, now: int) -> None:
    ids = shop.items.item_ids
    left = [item for item in ids if item.endswith("1")]
    exclude = tuple(item for item in ids if item not in left)
    modules = shown(shop, person(shop, now), now, 100, exclude)
    assert sorted(item for items in modules.values() for item in items) == sorted(left)


def test_a_model_that_fails_still_gives_a_popular_page(shop: Snapshot, now: int) -> None:
    assert shop.model is not None
    broken = replace(shop, model=replace(shop.model, ranker=None))  # type: ignore[arg-type]
    made = page(broken, person(shop, now), [], 24, now, np.random.default_rng(0))
    assert made.fallback == "popular" and len(made.slots) == 24


def test_why_not_names_the_filter_the_rule_or_the_score(shop: Snapshot, now: int, model_dir: Path) -> None:
    state = person(shop, now)
    rules = Rules.model_validate({"exclude": [{"item": "i003"}], "recently_bought": {"days": 7}})
    ruled = build(shop.model, [], rules, ServingParams(), now)
    buyer = person(shop, now, ("i004", "purchase"))
    assert "does not know" in why_not(shop, state, "nothing", now)
    assert "not available" in why_not(shop, state, "i019", now)
    assert "excluded by a rule" in why_not(ruled, state, "i003", now)
    assert "bought lately" in why_not(ruled, buyer, "i004", now)
    first = shown(shop, state, now)["for_you"][0]
    assert "rank" in why_not(shop, state, first, now)
    assert "no source" in why_not(shop, state, "i001", now)


def test_stock_changes_at_once_and_only_texts_rebuild(shop: Snapshot, now: int) -> None:
    gone = Patch("i001", {"available": False}, 1)
    assert not needs_more(shop, gone) and needs_more(shop, Patch("i001", {"title": "Other"}, 2))
    assert not stock_changed(shop, [gone]).available_I[shop.items.index["i001"]]
    told = build(shop.model, [Patch("n1", {"title": "Brand new kettle"}, 3)], Rules(), ServingParams(), now)
    assert told.search.find("kettle")[0].tolist() == [told.items.index["n1"]]
    assert told.items.titles[told.items.index["i001"]] == shop.items.titles[shop.items.index["i001"]]


def test_a_search_finds_what_may_be_shown_behind_hundreds_of_better_hits_that_may_not(shop: Snapshot, now: int) -> None:
    sold_out = [Patch(f"gone{n}", {"title": "Kettle", "available": False}, n + 1) for n in range(350)]
    barred = [Patch(f"barred{n}", {"title": "Kettle", "brand": "barred"}, n + 400) for n in range(350)]
    there = [Patch(f"there{n}", {"title": f"Kettle with a long name {n}"}, n + 800) for n in range(5)]
    rules = Rules.model_validate({"exclude": [{"brand": "barred"}]})
    full = build(shop.model, [*sold_out, *barred, *there], rules, ServingParams(), now)
    index_C, _, _ = hits(full, person(full, now), "kettle", now)
    assert {full.items.item_ids[at] for at in index_C} == {patch.item_id for patch in there}


def test_no_consent_means_no_personal_page(shop: Snapshot) -> None:
    hidden = replace(shop, no_consent=frozenset({hashlib.sha256(b"anna").hexdigest()}))
    assert not hidden.may_personalize("anna") and hidden.may_personalize("ben") and hidden.may_personalize(None)


def test_what_is_logged_of_a_person_is_what_the_ranker_saw(shop: Snapshot, now: int) -> None:
    ids, backwards = shop.items.item_ids, {item: at for at, item in enumerate(reversed(shop.items.item_ids))}
    state = replace(person(shop, now, ("i001", "view"), ("i002", "purchase")), taste=Taste({"price": 0.5}))
    kept = json.loads(json.dumps(explanations.keep_state(state, ids)))
    again = explanations.read_state(kept, shop.items.index)
    for name in ("item_P", "type_P", "count_P", "quantity_P", "first_us_P", "last_us_P", "session_P"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
    assert again.taste == state.taste and again.n_sessions == state.n_sessions
    moved = explanations.read_state(kept, backwards)  # under a later catalogue
    assert [ids[::-1][at] for at in moved.item_P.tolist()] == [ids[at] for at in state.item_P.tolist()]
    assert explanations.keep_state(UserState.build(None, [], shop.items.index), ids) == {}
