"""Whole-word edits of a caption that keep its case, spacing and articles; draws that depend on nothing but text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from .tables import article
from .tagging import Sentence

T = TypeVar("T")
_MASK = (1 << 64) - 1


@lru_cache(maxsize=256)
def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class Change(NamedTuple):
    """New text of the tokens `start` to `end` (excluded)."""

    start: int
    end: int
    text: str


class Edit(NamedTuple):
    """What a rule does to a caption."""

    changes: tuple[Change, ...]
    old: str
    new: str


class Draw:
    """A small random generator (splitmix64), seeded by text: cheap to make, the same on every machine."""

    __slots__ = ("_state",)

    def __init__(self, *parts: object) -> None:
        self._state = 0
        for part in parts:
            # Few different numbers and names, and one caption asked for several times in a row.
            self._state = (self._state * 0x9E3779B97F4A7C15 + _digest(str(part))) & _MASK

    def random(self) -> float:
        """A number from [0, 1)."""
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        if len(items) < 2:
            return list(items)
        return [item for _, _, item in sorted((self.random(), place, item) for place, item in enumerate(items))]

    def weighted(self, items: Sequence[tuple[T, float]]) -> T | None:
        """One item, drawn in proportion to its weight; `None` if there is none."""
        total = 0.0
        for _, weight in items:
            total += weight
        if not total > 0:
            return None
        point = self.random() * total
        for item, weight in items:
            point -= weight
            if point < 0:
                return item
        return items[-1][0]


def surface(sentence: Sentence, index: int) -> str:
    """The text of a token as it would stand within a sentence: without the capital of a first word.

    Args:
        sentence ([`Sentence`]):
            The caption.
        index (`int`):
            Position of the token.

    Returns:
        `str`
    """
    token = sentence.tokens[index]
    text = sentence.text[token.start : token.end]
    if sentence.style != "plain" or _starts(sentence, index):
        return text.lower()
    return text


def _starts(sentence: Sentence, index: int) -> bool:
    return index == 0 or sentence.tokens[index - 1].word in ".!?"


def apply(sentence: Sentence, edit: Edit) -> str:
    """Make the edit.

    Args:
        sentence ([`Sentence`]):
            The caption.
        edit ([`Edit`]):
            Changes at places that do not overlap, texts in lower case with `_` or a space between words.

    Returns:
        `str`: the new caption; `a` and `an` before a changed word are corrected.
    """
    tokens, text = sentence.tokens, sentence.text
    changes = list(edit.changes)
    touched = {index for change in changes for index in range(change.start, change.end)}
    for change in edit.changes:
        before = change.start - 1
        if before >= 0 and before not in touched and tokens[before].word in ("a", "an") and change.text:
            wanted = article(change.text)
            if wanted != tokens[before].word:
                changes.append(Change(before, before + 1, wanted))
    pieces, position = [], 0
    for change in sorted(changes):
        start, end = tokens[change.start].start, tokens[change.end - 1].end
        pieces.append(text[position:start])
        pieces.append(_cased(sentence, change))
        position = end
    pieces.append(text[position:])
    return "".join(pieces)


def _cased(sentence: Sentence, change: Change) -> str:
    new = change.text.replace("_", " ")
    if sentence.style == "upper":
        return new.upper()
    if sentence.style == "title":
        return " ".join(word[:1].upper() + word[1:] for word in new.split(" "))
    token = sentence.tokens[change.start]
    if _starts(sentence, change.start) and sentence.text[token.start].isupper():
        return new[:1].upper() + new[1:]
    return new
