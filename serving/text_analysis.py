"""Text to words, the same for titles and queries, in every script.

Choices. Unicode normalisation and case folding in Python, and FTS5 only splits at spaces, because its own tokenizer
folds a composed letter but not always a decomposed one, and knows no word where a script puts no spaces. There a run
of characters is a word of single characters: as a phrase it finds every title that holds it. NFKD first, so that all
forms of a letter lose the same accents (ё is found as е, as é is as e); composed again, because the signs of other
scripts (が, 각) are no accents.
"""

from __future__ import annotations

import re
import unicodedata

# Letters of scripts without spaces between words, or whose words grow together; their punctuation is left out.
UNSPACED = "".join(
    (
        "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e80-\u0eff",  # Thai, Lao
        "\u1000-\u1049\u1050-\u109d\u1780-\u17d3\u17d7\u17dc\u17dd\u17e0-\u17e9",  # Myanmar, Khmer
        "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff",  # Hangul
        "\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\U0001b000-\U0001b16f",  # kana
        "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",  # Han
    )
)
# Accents of Latin, Greek and Cyrillic, the choice between a sign and its picture, and where a word may be broken.
ACCENTS = re.compile("[\u00ad\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe0f\ufe20-\ufe2f]")
TRADE_MARKS = re.compile("[™℠]")  # as letters they would be part of the word before


def _of(*categories: str) -> str:
    """The characters of these general categories, of the first plane: more would make `re` look at them one by one."""
    return "".join(chr(code) for code in range(0x80, 0x10000) if unicodedata.category(chr(code)) in categories)


_MARKS = re.sub(f"[{UNSPACED}]", "", _of("Mn", "Mc"))  # a vowel sign is part of its word, but not of `\w`
_WORD = re.compile(rf"[{UNSPACED}]+|(?:[^\W_{UNSPACED}]|[{_MARKS}])+")
_RUN = re.compile(f"[{UNSPACED}]")
_NOT_PLAIN = re.compile(f"[{UNSPACED}{_MARKS}]")
_PLAIN_WORD = re.compile(r"[^\W_]+")
_SYMBOL = re.compile(f"[{_of('So')}\U0001f000-\U0001faff]")


def folded(text: str) -> str:
    """The text without case, accents and forms of the same letter."""
    if text.isascii():
        return text.lower()
    bare = ACCENTS.sub("", unicodedata.normalize("NFKD", TRADE_MARKS.sub(" ", text))).casefold()
    return unicodedata.normalize("NFC", ACCENTS.sub("", unicodedata.normalize("NFKD", bare)))


def words(text: str) -> list[str]:
    """The words of a text; one of a script without spaces is its characters with spaces between them."""
    text = folded(text)
    if text.isascii() or not _NOT_PLAIN.search(text):  # the usual case, many times as fast
        return _PLAIN_WORD.findall(text)
    return [" ".join(word) if _RUN.match(word) else word for word in _WORD.findall(text)]


def normal(text: str) -> str:
    """What makes two titles the same: their words; where there is none, their signs."""
    return " ".join(words(text)) or "".join(folded(text).split())


def symbols(text: str) -> set[str]:
    """Pictures and the like in a text, which are no words."""
    return set() if text.isascii() else set(_SYMBOL.findall(folded(text)))
