"""What a person who types gets: the words, the beginning of words, mistyped words, and nothing for nonsense."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.search import DEPTH, EXACT, SearchIndex, personal_order, within
from serving.text_analysis import normal

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
        ("garden zzzz", 3),
        ("tea", 6),
    ],
)
def test_words_prefixes_accents_and_typing_errors_find_the_item(query: str, first: int) -> None:
    index_C, relevance_C = INDEX.find(query)
    assert index_C[0] == first
    assert (np.diff(relevance_C) <= 0).all()


def index_of(*titles: str) -> SearchIndex:
    return SearchIndex(titles, [None] * len(titles), [None] * len(titles))


@pytest.mark.parametrize("query", ["red lantern", "lantern", "lantren", "lantern zzzz"])
def test_no_number_of_sold_out_items_hides_those_that_can_be_bought(query: str) -> None:
    sold_out, others = DEPTH + 50, 20_000
    titles = ["Red lantern"] * sold_out + ["Red lantern of a very long name that says much"] * 4 + ["Red lantern"]
    index = index_of(*titles, *["Basket"] * others)
    eligible_I = np.arange(len(titles) + others) >= sold_out
    assert sorted(index.find(query, eligible_I)[0].tolist()) == list(range(sold_out, len(titles)))


SCRIPTS = [
    *(
        "Café crème für Gäste",
        "Ёлка большая",
        "Straße Ⅳ",
        "ΤΈΛΟΣ",
        "ﬁne glass",
        "हिन्दी किताब",
        "कल",
        "कील",
        "كِتَاب جديد",
    ),
    *(
        "東京タワー 置物",
        "iPhoneケース・赤",
        "ガラスのコップ",
        "红色灯笼大号",
        "한국어 책갈피",
        "크로스백",
        "กาแฟน้ำแข็ง",
        "𠮷野家の丼",
    ),
    *("🦄", "★☆", "???", "!"),
]
WORLD = index_of(*SCRIPTS)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
@pytest.mark.parametrize("title", SCRIPTS)
def test_a_title_is_found_first_in_every_script_and_however_its_letters_are_composed(title: str, form: str) -> None:
    typed = unicodedata.normalize(form, title)
    index_C, relevance_C = WORLD.find(typed)
    assert index_C[0] == SCRIPTS.index(title) and relevance_C[0] == EXACT and (relevance_C[1:] < EXACT).all()
    index_C, _ = index_of("Teapot", typed).find(title.upper())
    assert index_C.tolist() == [1]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("елка", "Ёлка большая"),
        ("ёлк", "Ёлка большая"),
        ("ｃａｆｅ", "Café crème für Gäste"),
        ("किता", "हिन्दी किताब"),
        ("京タワ", "東京タワー 置物"),
        ("タワー置", "東京タワー 置物"),
        ("ｹｰｽ iph", "iPhoneケース・赤"),
        ("ガラ", "ガラスのコップ"),
        ("灯", "红色灯笼大号"),
        ("灯笼大", "红色灯笼大号"),
        ("大号红色灯笼", "红色灯笼大号"),
        ("로스", "크로스백"),
        ("한국어책", "한국어 책갈피"),
        ("แฟน้ำ", "กาแฟน้ำแข็ง"),
        ("野家", "𠮷野家の丼"),
    ],
)
def test_a_part_of_a_title_finds_it_where_words_have_no_spaces_between_them(query: str, title: str) -> None:
    assert SCRIPTS[WORLD.find(query)[0][0]] == title


@settings(deadline=None)
@given(st.text(st.sampled_from("東京タワー赤いガラス灯笼책갈피กาแฟ้"), min_size=1, max_size=12), st.data())
def test_any_part_of_a_title_without_spaces_finds_it(title: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(title) - 1))
    end = data.draw(st.integers(start + 1, len(title)))
    assert 1 in index_of("ケース", title).find(title[start:end])[0]


def test_a_longer_title_with_all_that_was_asked_comes_before_one_with_a_part_of_it() -> None:
    index_C, relevance_C = index_of("红色蜡烛", "大号红色灯笼", "书").find("红色灯笼")
    assert index_C.tolist() == [1, 0] and relevance_C[0] >= 0.5 > relevance_C[1]


@pytest.mark.parametrize(
    ("query", "found"), [(" ", []), ("??", []), ("???", [2]), ("🦄", [0, 3]), ("🦄★", [3]), ("★!", [1, 3])]
)
def test_signs_without_words_find_themselves_and_pictures_also_what_holds_them(query: str, found: list[int]) -> None:
    index_C, _ = index_of("🦄 Unicorn", "★ star?", "???", "🦄 ★", "!!").find(query)
    assert sorted(index_C.tolist()) == found


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
