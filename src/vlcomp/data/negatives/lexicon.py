"""What the corpus knows: how often words occur, and beside which others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from .tables import ADJECTIVES, NOUN_FORMS, VERB_FORMS
from .tagging import Phrase, Sentence
from .words import FRAME_NOUNS, NOUN_UNITS, VAGUE_ADJECTIVES

_SMOOTHING = 2.0
_MAX_FALLBACK = 400  # candidates per kind of a word that no table knows


class Lexicon:
    """Counts over a corpus of captions.

    Kept are words, neighbouring pairs, and pairs of a preposition or verb with its noun ("riding ... horse").
    """

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.governed: Counter[tuple[str, str]] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()  # (kind, word)
        self.lengths: Counter[int] = Counter()
        self.total = 1
        self.length_limit = 0
        self._by_kind: dict[str, list[str]] = {}

    def add(self, sentence: Sentence) -> None:
        """Count one caption.

        Args:
            sentence ([`Sentence`]):
                The caption.
        """
        tokens = sentence.tokens
        previous = "<"
        for token in tokens:
            word = token.word
            self.words[word] += 1
            self.pairs[previous, word] += 1
            previous = word
            if (code := token.code) in "JGVBZ":
                self.kinds[code, word] += 1
            elif token.noun is not None:
                self.kinds["N+" if token.noun.plural else "N", word] += 1
        self.pairs[previous, ">"] += 1
        for phrase in sentence.phrases:
            self.governed[governor(sentence, phrase), tokens[phrase.head].word] += 1
        self.lengths[len(sentence.text.split())] += 1

    def merge(self, other: Lexicon) -> None:
        """Add the counts of another part of the corpus.

        Args:
            other ([`Lexicon`]):
                Counts of other captions.
        """
        for name in ("words", "pairs", "governed", "kinds", "lengths"):
            getattr(self, name).update(getattr(other, name))

    def freeze(self) -> None:
        """Work out what depends on all counts; call it after the last caption."""
        self.total = max(1, sum(self.words.values()))
        count = sum(self.lengths.values())
        mean = sum(length * times for length, times in self.lengths.items()) / max(1, count)
        # Captions that gain words may not become longer than the mean: length must not tell true from false.
        self.length_limit = math.ceil(mean)
        by_kind: dict[str, list[tuple[int, str]]] = {}
        for (kind, word), times in self.kinds.items():
            known = NOUN_FORMS if kind[0] == "N" else ADJECTIVES if kind == "J" else VERB_FORMS
            if word not in known and times > 1 and word not in FRAME_NOUNS and word not in NOUN_UNITS:
                if word not in VAGUE_ADJECTIVES and word.isalpha():
                    by_kind.setdefault(kind, []).append((-times, word))
        self._by_kind = {kind: [word for _, word in sorted(found)[:_MAX_FALLBACK]] for kind, found in by_kind.items()}

    def of_kind(self, kind: str) -> list[str]:
        """Frequent words that no table knows.

        Args:
            kind (`str`):
                `"N"`, `"N+"` (plural) or the code of a verb form or adjective.

        Returns:
            `list[str]`
        """
        return self._by_kind.get(kind, [])

    def seen(self, left: str, right: str) -> bool:
        """Whether two words stand beside each other in the corpus.

        Args:
            left (`str`):
                First word.
            right (`str`):
                Second word.

        Returns:
            `bool`
        """
        return (left, right) in self.pairs

    def weights(
        self, candidates: Iterable[str], left: str, right: str, governing: str | None, replaced: str
    ) -> list[tuple[str, float]]:
        """How well each candidate fits a place: likely there in the corpus, and as frequent as `replaced`.

        Args:
            candidates (`Iterable[str]`):
                Words that may come there.
            left (`str`):
                Word before the place.
            right (`str`):
                Word after it.
            governing (`str`, *optional*):
                Preposition or verb that governs the noun there.
            replaced (`str`):
                Word that stands there.

        Returns:
            `list[tuple[str, float]]`: words of the corpus with their weights; words that it lacks only if it has none.
        """
        words, pairs, total, k = self.words, self.pairs, self.total, _SMOOTHING
        frequency = words.get(replaced, 0) + 1.0
        right_share = k * (words.get(right, 0) + 1.0) / total
        out, unseen = [], []
        for word in candidates:
            count = words.get(word, 0)
            if not count:
                unseen.append((word, 1.0))
                continue
            share = count / total
            weight = (
                (pairs.get((left, word), 0) + k * share) * (pairs.get((word, right), 0) + right_share) / (count + k)
            )
            if governing is not None:
                weight *= (self.governed.get((governing, word), 0) + k * share) / share / total
            ratio = count / frequency
            out.append((word, weight**0.7 * (ratio if ratio < 1 else 1 / ratio) ** 0.35))
        return out or unseen


def governor(sentence: Sentence, phrase: Phrase) -> str:
    """The preposition or verb before a noun phrase.

    Args:
        sentence ([`Sentence`]):
            The caption.
        phrase ([`Phrase`]):
            One of its noun phrases.

    Returns:
        `str`: `"<"` at the start of the caption.
    """
    return sentence.tokens[phrase.start - 1].word if phrase.start else "<"
