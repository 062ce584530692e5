"""What the corpus knows: how often words occur, and beside which others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from .places import PREPOSITIONS
from .tables import (
    ADJECTIVE_MEMBERS,
    NOUN_FORMS,
    NOUN_MEMBERS,
    VERB_MEMBERS,
    VERB_OVERLAPS,
    relatives,
    verb_form,
)
from .tagging import Phrase, Sentence
from .words import FRAME_NOUNS, NOUN_UNITS

_SMOOTHING = 2.0
_MAX_FALLBACK = 400  # candidates per number for a noun that no table knows
_FIT = 0.7  # how much a place decides; less gives more variety
_ROUNDS = 40  # of balancing
_SMALL_CLASS = 4  # nouns of a class with fewer words in the corpus exchange with those of other such classes
_TINY = 1000  # words of a corpus below which words that it lacks are put in


class Lexicon:
    """Counts over a corpus of captions.

    Kept are words, neighbouring pairs, and pairs of a preposition or verb with its noun ("riding ... horse").
    """

    def __init__(self) -> None:
        self.words: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.governed: Counter[tuple[str, str]] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()  # (part of speech or article, word)
        self.lengths: Counter[int] = Counter()
        self.total = 1
        self.length_limit = 0
        self._by_kind: dict[str, list[str]] = {}
        self._stats: dict[str, tuple[int, float, float, float]] = {}  # count, smoothing, norm, weight
        self._after: dict[str, dict[str, int]] = {}
        self._before: dict[str, dict[str, int]] = {}
        self._governed_by: dict[str, dict[str, int]] = {}
        self._nouns: dict[tuple[str, bool, bool], list[str]] = {}

    def add(self, sentence: Sentence) -> None:
        """Count one caption.

        Args:
            sentence ([`Sentence`]):
                The caption.
        """
        tokens = sentence.tokens
        words = [token.word for token in tokens]
        self.words.update(words)
        self.pairs.update(zip(["<", *words], [*words, ">"], strict=True))
        for token in tokens:
            if token.noun is not None:
                self.kinds["N+" if token.noun.plural else "N", token.word] += 1
        for phrase in sentence.phrases:
            head = tokens[phrase.head].word
            self.governed[governor(sentence, phrase), head] += 1
            self.kinds[article_kind(sentence, phrase), head] += 1
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
        by_kind: dict[str, list[tuple[int, str]]] = {"N": [], "N+": []}
        for (kind, word), times in self.kinds.items():
            if kind in by_kind and times > 1 and word.isalpha():
                if word not in NOUN_FORMS and word not in FRAME_NOUNS and word not in NOUN_UNITS:
                    by_kind[kind].append((-times, word))
        self._by_kind = {kind: [word for _, word in sorted(found)[:_MAX_FALLBACK]] for kind, found in by_kind.items()}
        self._nouns = self._noun_pools()
        balance: dict[str, float] = {}
        groups = list(_exchangeable())
        for pool in {id(pool): pool for pool in self._nouns.values()}.values():
            forms: dict[str, list[str]] = {}
            for word in pool:
                forms.setdefault(NOUN_FORMS[word].lemma, []).append(word)
            clash = {word: relatives(NOUN_FORMS[word].lemma) & forms.keys() for word in pool}
            groups.append({word: frozenset(f for lemma in clash[word] for f in forms[lemma]) for word in pool})
        for group in groups:
            balance.update(self._balanced({w: clash for w, clash in group.items() if w in self.words}))
        k, total = _SMOOTHING, self.total
        self._stats = {
            word: (count, k * count / total, 1.0 / (count * (count + k)), balance.get(word, count / total))
            for word, count in self.words.items()
        }
        # By one word first: asked for one place and many words.
        for (left, right), times in self.pairs.items():
            self._after.setdefault(left, {})[right] = times
            self._before.setdefault(right, {})[left] = times
        for (governing, word), times in self.governed.items():
            self._governed_by.setdefault(governing, {})[word] = times
        self.pairs.clear()

    def _noun_pools(self) -> dict[tuple[str, bool, bool], list[str]]:
        """Nouns of the corpus by class; small classes of one number share a pool."""
        out, small = {}, {}
        for key, members in NOUN_MEMBERS.items():
            pool = [word for word in members if word in self.words]
            out[key] = pool if len(pool) >= _SMALL_CLASS else small.setdefault(key[1:], [])
            if len(pool) < _SMALL_CLASS:
                small[key[1:]] += pool
        return out

    def nouns(self, category: str, plural: bool, mass: bool) -> list[str]:
        """Nouns that may replace one of a class.

        Args:
            category (`str`):
                Class.
            plural (`bool`):
                Number.
            mass (`bool`):
                Whether they are used without an article.

        Returns:
            `list[str]`: nouns of the corpus; of a tiny corpus all that the tables know.
        """
        if self.total < _TINY:
            return NOUN_MEMBERS.get((category, plural, mass), [])
        return self._nouns.get((category, plural, mass), [])

    def _balanced(self, group: dict[str, frozenset[str]]) -> dict[str, float]:
        """Weights that make words as frequent among those put in as among those taken out.

        If `w` becomes `v` with probability in proportion to `weight(v)`, and may become all words but `group[w]`, then
        a frequent word is put in too seldom: it cannot replace itself. So weights are raised by what is missing.
        """
        if len(group) < 2:
            return {}
        names = list(group)
        share = np.array([self.words[name] for name in names], dtype=np.float64)
        share /= share.sum()
        allowed = np.array([[other not in group[name] for other in names] for name in names], dtype=np.float64)
        weight = share.copy()
        for _ in range(_ROUNDS):
            put_in = weight * (allowed.T @ (share / np.maximum(allowed @ weight, 1e-9)))
            # Where a word is more than half of all there is no solution, so none gains or loses more than this.
            weight = np.clip(weight * np.sqrt(share / np.maximum(put_in, 1e-9)), share / 6, share * 6)
            weight /= weight.sum()
        scale = sum(self.words[name] for name in names) / self.total
        return {name: float(value) * scale for name, value in zip(names, weight, strict=True)}

    def unknown_nouns(self, plural: bool) -> list[str]:
        """Frequent nouns that no table knows.

        Args:
            plural (`bool`):
                Number.

        Returns:
            `list[str]`
        """
        return self._by_kind.get("N+" if plural else "N", [])

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
        return right in self._after.get(left, ())

    def weights(
        self, candidates: Iterable[str], left: str, right: str, governing: str | None = None
    ) -> list[tuple[str, float]]:
        """How well each candidate fits a place: likely there in the corpus, and in all as frequent as in the corpus.

        Args:
            candidates (`Iterable[str]`):
                Words that may come there.
            left (`str`):
                Word before the place.
            right (`str`):
                Word after it.
            governing (`str`, *optional*):
                Preposition or verb that governs the noun there.

        Returns:
            `list[tuple[str, float]]`: words of the corpus with their weights; in a tiny corpus words that it lacks if
            it has none.
        """
        stats, total = self._stats, self.total
        after, before = self._after.get(left, {}).get, self._before.get(right, {}).get
        governed = None if governing is None else self._governed_by.get(governing, {}).get
        right_share = _SMOOTHING * (self.words.get(right, 0) + 1.0) / total
        out, unseen = [], []
        for word in candidates:
            known = stats.get(word)
            if known is None:
                unseen.append((word, 1.0))
                continue
            count, smooth, norm, weight = known
            fit = (after(word, 0) + smooth) * (before(word, 0) + right_share) * norm
            if governed is not None:
                fit *= (governed(word, 0) + smooth) / count
            out.append((word, fit**_FIT * weight))
        return out or (unseen if total < _TINY else [])


def _exchangeable() -> Iterator[dict[str, frozenset[str]]]:
    """Groups of adjectives, verbs, prepositions that replace one another, each word with those it may not become."""
    for members in ADJECTIVE_MEMBERS.values():
        yield {word: frozenset(other for other, g in members if g == group) for word, group in members}
    for members in VERB_MEMBERS.values():
        for form in ("base", "s", "ing", "ed"):
            yield {
                verb_form(lemma, form): frozenset(
                    verb_form(other, form)
                    for other, g in members
                    if g == group or other in VERB_OVERLAPS.get(lemma, ())
                )
                for lemma, group in members
            }
    names = set(PREPOSITIONS).union(*(others.split() for others in PREPOSITIONS.values()))
    yield {name: frozenset(names - set(PREPOSITIONS.get(name, "").split())) for name in sorted(names)}


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


def article_kind(sentence: Sentence, phrase: Phrase) -> str:
    """How a noun phrase begins: `"N:a"`, `"N:the"` (also "his", "two", ...) or `"N:"` (no determiner).

    Args:
        sentence ([`Sentence`]):
            The caption.
        phrase ([`Phrase`]):
            One of its noun phrases.

    Returns:
        `str`
    """
    if phrase.determiner < 0:
        return "N:"
    return "N:a" if sentence.tokens[phrase.determiner].word in ("a", "an", "one", "another") else "N:the"
