"""What a person who types gets: the words, the beginning of words, mistyped words, and nothing for nonsense."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.search import EXACT, SearchIndex, normal, personal_order, within

TITLES = ["Red Lantern", "Red lantern with stand", "Café crème cup", "Garden basket", None, "Basket, red", "Teapot"]
INDEX = SearchIndex(TITLES, [None, "Acme"] + [None] * 5, [None] * 6 + ["home > tea"])


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("red lantern", 0),
        ("RED LANTERN!", 0),
        ("lant", 0),
        ("red lantren", 0),
        ("cafe creme", 2),
        ("acme", 1),
        ("teepot", 6),
        ("garden teapot basket", 3),
        ("tea", 6),
    ],
)
def test_words_prefixes_accents_and_typing_errors_find_the_item(query: str, first: int) -> None:
    index_C, relevance_C = INDEX.find(query)
    assert index_C[0] == first
    assert (np.diff(relevance_C) <= 0).all()


@pytest.mark.parametrize("query", ["qzxv" * 125, "zzzz", "", "?!", "\"'*"])
def test_nonsense_finds_nothing(query: str) -> None:
    assert INDEX.find(query)[0].size == 0


@settings(deadline=None)
@given(st.text(max_size=500))
def test_any_text_is_a_query(query: str) -> None:
    index_C, relevance_C = INDEX.find(query)
    assert len(set(index_C.tolist())) == index_C.size and np.isfinite(relevance_C).all()


def test_a_whole_title_stays_on_top_whatever_the_person_likes() -> None:
    index_C, relevance_C = INDEX.find("red lantern")
    assert relevance_C[0] == EXACT
    person_C = np.zeros(index_C.size)
    person_C[1:] = 1.0
    assert int(np.argmax(personal_order(relevance_C, person_C, 0.25))) == 0


SMALL = st.lists(st.text("ab é'-", min_size=1, max_size=8).filter(lambda one: one.strip()), min_size=1, max_size=8)


@settings(deadline=None)
@given(SMALL, st.data())
def test_a_whole_title_comes_first_whoever_searches(titles: list[str], data: st.DataObject) -> None:
    index = SearchIndex(titles, [None] * len(titles), [None] * len(titles))
    wanted = data.draw(st.integers(0, len(titles) - 1))
    index_C, relevance_C = index.find(titles[wanted])
    person_C = np.array(data.draw(st.lists(st.floats(0, 1), min_size=index_C.size, max_size=index_C.size)))
    order = index_C[np.argsort(-personal_order(relevance_C, person_C, 0.25), kind="stable")]
    same = sum(normal(title) == normal(titles[wanted]) for title in titles)
    assert wanted in order[:same]


@pytest.mark.slow
def test_every_title_of_the_shop_that_ships_is_on_the_first_page_of_its_own_search() -> None:
    table = pq.read_table("data/online_retail.parquet", columns=["Description"])
    titles = sorted({str(one).strip().upper() for one in table["Description"].unique().to_pylist() if one})
    index = SearchIndex(titles, [None] * len(titles), [None] * len(titles))
    rng, missed = np.random.default_rng(0), []
    for wanted, title in enumerate(titles):
        index_C, relevance_C = index.find(title)
        score_C = personal_order(relevance_C, rng.random(index_C.size), 0.25)
        if wanted not in index_C[np.argsort(-score_C, kind="stable")][:20]:
            missed.append(title)
    assert len(titles) > 3000 and missed == []


def test_edits_are_counted() -> None:
    assert within("lantren", "lantern", 1) and within("abc", "abd", 1) and not within("abc", "xyz", 2)
