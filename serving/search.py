"""Text search over the catalogue: SQLite FTS5 for the words, one edit of tolerance for typing, then the person.

Choices. FTS5 because it ships with Python, holds 100,000 titles in memory, ranks by bm25, matches prefixes, and a
query is data for it once its words are quoted; tantivy and DuckDB FTS would be one more dependency for no gain at
this size. Typing errors are mended against the catalogue's own vocabulary (shared letter pairs, then edit distance),
so that letters without sense find nothing. All words beat some words; the whole title beats everything. What may not
be shown is passed over before the cut, so that no number of sold out items hides one that can be bought.
"""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from models.policy import BoolArray, FloatArray, IntArray
from serving.text_analysis import normal, symbols, words

MAX_WORDS, MAX_WORD = 32, 64
DEPTH = 300  # hits that the person re-ranks
EVERYTHING = 1 << 40  # more hits than there can be
FIRST_SYLLABLE = "\u2e80"  # from here on, a sign of a script without spaces is about a syllable, before it a letter
EXACT = 2.0  # relevance of a whole title; all others lie in 0..1


def pairs(word: str) -> set[str]:
    """Letter pairs of a word with its borders."""
    padded = f"^{word}$"
    return {padded[at : at + 2] for at in range(len(padded) - 1)}


def within(one: str, two: str, limit: int) -> bool:
    """Whether at most `limit` edits (insert, delete, replace, swap of neighbours) part two words."""
    if abs(len(one) - len(two)) > limit:
        return False
    before: list[int] = []
    last = list(range(len(two) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, other in enumerate(two, 1):
            cost = min(last[column] + 1, line[-1] + 1, last[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == two[column - 2] and one[row - 2] == other:
                cost = min(cost, before[column - 2] + 1)
            line.append(cost)
        before, last = last, line
    return last[-1] <= limit


def _first(places: Iterable[int], eligible_I: BoolArray | None) -> list[int]:
    """The first places that are eligible, as many as a search may find."""
    return list(islice((at for at in places if eligible_I is None or eligible_I[at]), DEPTH))


class SearchIndex:
    """The texts of one catalogue; immutable once built, safe for threads."""

    def __init__(
        self, titles: Sequence[str | None], brands: Sequence[str | None], categories: Sequence[str | None]
    ) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        # A word may hold any letter: what is a word was decided before, and words come with spaces between them.
        self._db.execute(
            "CREATE VIRTUAL TABLE texts USING fts5(title, brand, category, tokenize='ascii', prefix='2 3')"
        )
        plain = [normal(title or "") for title in titles]
        again = lru_cache(1024)(lambda text: normal(text or ""))  # brands and categories, which many items share
        columns = zip(plain, map(again, brands), map(again, categories), strict=True)
        rows = ((index, *texts) for index, texts in enumerate(columns))
        self._db.executemany("INSERT INTO texts (rowid, title, brand, category) VALUES (?, ?, ?, ?)", rows)
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5vocab(texts, row)")
        self._words = sorted(row[0] for row in self._db.execute("SELECT term FROM words"))
        self._titles: dict[str, list[int]] = defaultdict(list)
        self._by_symbol: dict[str, list[int]] = defaultdict(list)
        for index, title in enumerate(titles):
            self._titles[plain[index]].append(index)
            for symbol in symbols(title or ""):
                self._by_symbol[symbol].append(index)
        self._titles.pop("", None)
        self._by_pair: dict[str, list[str]] = defaultdict(list)
        for word in self._words:
            for pair in pairs(word):
                self._by_pair[pair].append(word)

    def find(self, query: str, eligible_I: BoolArray | None = None) -> tuple[IntArray, FloatArray]:
        """Items that the words find, best first: places in the catalogue and relevance (0..1; a whole title 2).

        `eligible_I` says which items may be found; without it, all.
        """
        asked = [word[: 2 * MAX_WORD] if " " in word else word[:MAX_WORD] for word in words(query)[:MAX_WORDS]]
        found = dict.fromkeys(_first(self._titles.get(normal(query), ()), eligible_I), EXACT)
        if asked:
            terms = [self._phrase(word) if " " in word else self._term(word) for word in asked]
            if all(terms):
                self._add(found, " AND ".join(terms), 0.5, eligible_I)
            parts = [part for word, term in zip(asked, terms, strict=True) if (part := self._part(word) or term)]
            if len(found) < DEPTH and parts and (len(asked) > 1 or parts != terms):
                self._add(found, " OR ".join(parts), 0.0, eligible_I)
        else:
            for index in _first(self._with_symbols(query), eligible_I):
                found.setdefault(index, 1.0)
        order = sorted(found, key=lambda index: -found[index])
        return np.asarray(order, dtype=np.int64), np.asarray([found[index] for index in order], dtype=np.float64)

    def _with_symbols(self, query: str) -> list[int]:
        """Items whose titles hold all pictures of a query; none for a query without any."""
        held = [set(self._by_symbol.get(symbol, ())) for symbol in symbols(query)]
        return sorted(set.intersection(*held)) if held else []

    def _add(self, found: dict[int, float], expression: str, base: float, eligible_I: BoolArray | None) -> None:
        """Add hits with base + 0..0.5; a base of 0 marks hits of some of the words."""
        sql = "SELECT rowid, bm25(texts, 10, 3, 2) FROM texts WHERE texts MATCH ? ORDER BY 2 LIMIT ?"
        rows: list[tuple[int, float]] = []
        # To sort all hits takes three times as long: twice what is needed, by the share that may be found, is enough
        # unless what may not be found comes first.
        share = 1.0 if eligible_I is None else np.count_nonzero(eligible_I) / max(1, eligible_I.size)
        for limit in (int(2 * DEPTH / max(share, 1e-6)), EVERYTHING):
            with self._lock:
                read = self._db.execute(sql, (expression, limit)).fetchall()
            rows = [row for row in read if eligible_I is None or eligible_I[row[0]]][:DEPTH]
            if len(rows) == DEPTH or len(read) < limit:
                break
        best = min((score for _, score in rows), default=-1.0) or -1.0
        for index, score in rows:
            found.setdefault(index, base + 0.5 * max(0.0, score / best) * (1.0 if base else 0.9))

    def _term(self, word: str) -> str:
        """The FTS5 expression of a word: itself as a prefix, or what it was meant to be; empty if nothing is near."""
        at = bisect_left(self._words, word)
        if at < len(self._words) and self._words[at].startswith(word):
            return f'"{word}"*'
        meant = self._mend(word)
        return "(" + " OR ".join(f'"{one}"' for one in meant) + ")" if meant else ""

    def _phrase(self, run: str) -> str:
        """The expression of a run of single characters, empty where no text holds it."""
        with self._lock:
            found = self._db.execute("SELECT 1 FROM texts WHERE texts MATCH ? LIMIT 1", (f'"{run}"',)).fetchone()
        return f'"{run}"' if found else ""

    @staticmethod
    def _part(word: str) -> str:
        """The expression of what is about a word in a run of single characters: neighbours in it; empty elsewhere."""
        signs = word.split()
        count = 2 if word >= FIRST_SYLLABLE else 4
        grams = {" ".join(signs[at : at + count]): None for at in range(len(signs) - count + 1)}
        return "(" + " OR ".join(f'"{gram}"' for gram in grams) + ")" if len(signs) > 1 and grams else ""

    def _mend(self, word: str) -> list[str]:
        """Words of the catalogue at most one edit away (two from eight letters on), at most five."""
        if not 4 <= len(word) <= 32:
            return []
        shared: dict[str, int] = defaultdict(int)
        for pair in pairs(word):
            for other in self._by_pair.get(pair, ()):
                shared[other] += 1
        likely = sorted(shared, key=lambda other: -shared[other])[:200]
        limit = 2 if len(word) >= 8 else 1
        return [other for other in likely if len(other) >= 3 and within(word, other, limit)][:5]


def personal_order(relevance_C: FloatArray, person_C: FloatArray, weight: float) -> FloatArray:
    """Relevance and the person's utilities (0..1) -> final scores (C,); a whole title stays on top."""
    return np.where(relevance_C >= EXACT, EXACT, (1 - weight) * relevance_C) + weight * person_C
