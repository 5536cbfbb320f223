"""Text search over the catalogue: SQLite FTS5 for the words, one edit of tolerance for typing, then the person.

Choices. FTS5 because it ships with Python, holds 100,000 titles in memory, ranks by bm25, matches prefixes, and a
query is data for it once its words are quoted; tantivy and DuckDB FTS would be one more dependency for no gain at
this size. Typing errors are mended against the catalogue's own vocabulary (shared letter pairs, then edit distance),
so that letters without sense find nothing. All words beat some words; the whole title beats everything.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from models.policy import FloatArray, IntArray

WORD = re.compile(r"\w+")
MAX_WORDS, MAX_WORD = 32, 64
DEPTH = 300  # hits that the person re-ranks
EXACT = 2.0  # relevance of a whole title; all others lie in 0..1


def normal(text: str) -> str:
    """Words in lower case, single spaces."""
    return " ".join(WORD.findall(text.casefold()))


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


class SearchIndex:
    """The texts of one catalogue; immutable once built, safe for threads."""

    def __init__(
        self, titles: Sequence[str | None], brands: Sequence[str | None], categories: Sequence[str | None]
    ) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE texts USING fts5(title, brand, category,"
            " tokenize='unicode61 remove_diacritics 2', prefix='2 3')"
        )
        rows = (
            (n, t or "", b or "", c or "") for n, (t, b, c) in enumerate(zip(titles, brands, categories, strict=True))
        )
        self._db.executemany("INSERT INTO texts (rowid, title, brand, category) VALUES (?, ?, ?, ?)", rows)
        self._db.execute("CREATE VIRTUAL TABLE words USING fts5vocab(texts, row)")
        self._words = sorted(row[0] for row in self._db.execute("SELECT term FROM words"))
        self._titles: dict[str, list[int]] = defaultdict(list)
        for index, title in enumerate(titles):
            if title:
                self._titles[normal(title)].append(index)
        self._by_pair: dict[str, list[str]] = defaultdict(list)
        for word in self._words:
            for pair in pairs(word):
                self._by_pair[pair].append(word)

    def find(self, query: str) -> tuple[IntArray, FloatArray]:
        """Items that the words find, best first: places in the catalogue and relevance (0..1; a whole title 2)."""
        plain = normal(query)
        words = [word[:MAX_WORD] for word in plain.split()[:MAX_WORDS]]
        found: dict[int, float] = dict.fromkeys(self._titles.get(plain, [])[:DEPTH], EXACT)
        if words:
            terms = [self._term(word) for word in words]
            known = [term for term in terms if term]
            if len(known) == len(terms):
                self._add(found, " AND ".join(known), 0.5)
            if len(found) < DEPTH and len(known) and (len(words) > 1 or len(known) < len(terms)):
                self._add(found, " OR ".join(known), 0.5 * len(known) / len(words) - 0.5)
        order = sorted(found, key=lambda index: -found[index])
        return np.asarray(order, dtype=np.int64), np.asarray([found[index] for index in order], dtype=np.float64)

    def _add(self, found: dict[int, float], expression: str, base: float) -> None:
        """Add hits with base + 0..0.5; a negative base marks hits of some of the words."""
        sql = "SELECT rowid, bm25(texts, 10, 3, 2) FROM texts WHERE texts MATCH ? ORDER BY 2 LIMIT ?"
        with self._lock:
            rows = self._db.execute(sql, (expression, DEPTH)).fetchall()
        best = min((score for _, score in rows), default=-1.0) or -1.0
        for index, score in rows:
            found.setdefault(index, max(0.0, base) + 0.5 * max(0.0, score / best) * (1.0 if base > 0 else 0.9))

    def _term(self, word: str) -> str:
        """The FTS5 expression of a word: itself as a prefix, or what it was meant to be; empty if nothing is near."""
        at = bisect_left(self._words, word)
        if at < len(self._words) and self._words[at].startswith(word):
            return f'"{word}"*'
        with self._lock:  # the tokenizer may know it in another form (accents)
            if self._db.execute("SELECT 1 FROM texts WHERE texts MATCH ? LIMIT 1", (f'"{word}"*',)).fetchone():
                return f'"{word}"*'
        meant = self._mend(word)
        return "(" + " OR ".join(f'"{one}"' for one in meant) + ")" if meant else ""

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
