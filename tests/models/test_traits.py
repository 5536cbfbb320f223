"""What an item is in names, whatever its title holds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.items import ItemRow, ItemTable
from models.traits import MOST_WORDS, words_of_title

maybe = st.none() | st.text(max_size=60)


def test_the_names_of_an_item_are_its_category_its_brand_and_its_words() -> None:
    items = ItemTable.from_rows([
        ItemRow("a", "Blue lamp, blue SHADE", "Acme", "home > light", 1.0),
        ItemRow("b", None, None, None, None),
    ])  # fmt: skip
    traits = items.traits
    told = {traits.names[at] for at in traits.place_IL[0] if at >= 0}
    words = {"word blue", "word lamp", "word shade"}
    assert told == {"category home > light", "top_category home", "brand Acme"} | words
    assert (traits.place_IL[1] == -1).all()
    weight_T = np.arange(len(traits), dtype=np.float64) + 1.0
    assert traits.sums(weight_T, np.array([1, 0])).tolist() == [0.0, weight_T.sum()]


@given(st.lists(st.tuples(maybe, maybe, maybe), max_size=8))
def test_every_trait_has_one_place_and_no_item_holds_one_twice(told: list[tuple[str | None, ...]]) -> None:
    items = ItemTable.from_rows([ItemRow(str(at), *row, None) for at, row in enumerate(told)])
    traits = items.traits
    assert [traits.index[name] for name in traits.names] == list(range(len(traits)))
    for at, (title, brand, category) in enumerate(told):
        places = [place for place in traits.place_IL[at].tolist() if place >= 0]
        assert (
            len(places)
            == len(set(places))
            == len(words_of_title(title))
            + sum((bool(brand), bool(category), bool((category or "").split(">")[0].strip())))
        )
        assert len(words_of_title(title)) <= MOST_WORDS
