"""What is sorted once for many requests names the same candidates as what is searched for each."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.retrieval import first_of, ordered, strongest


@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), st.booleans())), st.integers(1, 5))
def test_the_first_of_an_order_are_the_strongest(items: list[tuple[float, bool]], n: int) -> None:
    score_I, open_I = np.array([one for one, _ in items]), np.array([one for _, one in items], dtype=bool)
    found = first_of(ordered(score_I), n, open_I).tolist()
    assert found == sorted(np.flatnonzero(open_I & (score_I > 0)), key=lambda at: (-score_I[at], at))[:n]
    assert score_I[found].tolist() == score_I[strongest(score_I, n, open_I)].tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 2000))
@settings(max_examples=30, deadline=None)
def test_a_large_catalogue_is_searched_by_a_sample_without_losing_anybody(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    score_I, open_I = rng.normal(size=40_000) ** 3, rng.random(40_000) < 0.9
    assert strongest(score_I, n, open_I).tolist() == first_of(ordered(score_I), n, open_I).tolist()
