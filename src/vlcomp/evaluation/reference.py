"""Reference scorers: what a benchmark gives away to someone who does not do what it is meant to measure.

Text-only scorers never see a picture. A benchmark on which they are far above chance measures, in part, which captions
sound true.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from ..errors import ArgumentError

_TOKEN = re.compile(r"\w+|[^\w\s]")
# An apostrophe belongs to its word: "man's" is not "man" and "s".
_WORD = re.compile(r"[\w']+")
_START, _END = "<s>", "</s>"


def words(text: str) -> list[str]:
    """Lower-case words and punctuation marks of a text."""
    return _TOKEN.findall(text.lower())


def word_bag(text: str) -> frozenset[tuple[str, int]]:
    """The words of a text with how often each occurs, without their order, their case and the punctuation.

    Two captions with the same bag cannot be told apart by a model that knows which words are true of an image but not
    how they combine.

    Args:
        text (`str`):
            A caption.

    Returns:
        `frozenset[tuple[str, int]]`

    Example:
        >>> from vlcomp.evaluation.reference import word_bag
        >>> word_bag("A red cup, a blue star.") == word_bag("a blue cup a red star")
        True
        >>> word_bag("a cup and a cup") == word_bag("a cup and")
        False
    """
    return frozenset(Counter(_WORD.findall(text.lower())).items())


class NGramScorer:
    """Log-probability of a caption under an interpolated Kneser-Ney n-gram model of training captions.

    Args:
        captions (`Sequence[str]`):
            Captions to count.
        order (`int`, defaults to 3):
            Length of the n-grams.
        discount (`float`, defaults to 0.75):
            Absolute discount.

    Raises:
        ArgumentError: if there are no captions.

    Example:
        >>> from vlcomp.evaluation.reference import NGramScorer
        >>> scorer = NGramScorer(["a red cup", "a red star", "a blue cup"])
        >>> bool(scorer(["a red cup"])[0] > scorer(["cup red a"])[0])
        True
    """

    def __init__(self, captions: Sequence[str], *, order: int = 3, discount: float = 0.75) -> None:
        if not len(captions):
            raise ArgumentError("NGramScorer got no captions to learn from")
        self.order = order
        self.discount = discount
        # Level n - 1 holds n-grams: real counts at the top, numbers of distinct left neighbours below (Kneser-Ney).
        grams: list[Counter] = [Counter() for _ in range(order)]
        for caption, times in Counter(captions).items():
            tokens = [_START] * (order - 1) + words(caption) + [_END]
            for i in range(order - 1, len(tokens)):
                grams[-1][tuple(tokens[i - order + 1 : i + 1])] += times
        for level in range(order - 2, -1, -1):
            for gram in grams[level + 1]:
                grams[level][gram[1:]] += 1
        self._grams = grams
        self._totals: list[dict] = []
        self._kinds: list[dict] = []
        for counts in grams:
            totals: dict = defaultdict(int)
            kinds: dict = defaultdict(int)
            for gram, count in counts.items():
                totals[gram[:-1]] += count
                kinds[gram[:-1]] += 1
            self._totals.append(dict(totals))
            self._kinds.append(dict(kinds))
        # One more for words never seen.
        self._vocabulary = len(grams[0]) + 1

    def _probability(self, gram: tuple[str, ...]) -> float:
        if not gram:
            return 1.0 / self._vocabulary
        lower = self._probability(gram[1:])
        level = len(gram) - 1
        total = self._totals[level].get(gram[:-1])
        if not total:
            return lower
        count = self._grams[level].get(gram, 0)
        kept = max(count - self.discount, 0.0) / total
        return kept + self.discount * self._kinds[level][gram[:-1]] / total * lower

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Score captions.

        Args:
            captions (`Sequence[str]`):
                The captions.

        Returns:
            `np.ndarray` of shape [captions]: natural log-probabilities.
        """
        known: dict[str, float] = {}
        for caption in captions:
            if caption not in known:
                tokens = [_START] * (self.order - 1) + words(caption) + [_END]
                known[caption] = sum(
                    math.log(self._probability(tuple(tokens[i - self.order + 1 : i + 1])))
                    for i in range(self.order - 1, len(tokens))
                )
        return np.array([known[caption] for caption in captions])


class TextClassifier:
    """Logistic regression on word n-grams that tells true captions from false ones.

    It learns from pairs, so that what the two captions share cancels out.

    Args:
        true_captions (`Sequence[str]` of shape [pairs]):
            True captions of some items.
        false_captions (`Sequence[str]` of shape [pairs]):
            The false captions of the same items.
        order (`int`, defaults to 2):
            Words, pairs of words, and so on up to this length, and the number of words.
        penalty (`float`, defaults to 1e-3):
            L2 penalty.
        steps (`int`, defaults to 150):
            Steps of gradient descent with momentum on all pairs.

    Raises:
        ArgumentError: if there are no pairs or the lengths differ.

    Example:
        >>> from vlcomp.evaluation.reference import TextClassifier
        >>> scorer = TextClassifier(["a red cup", "a red hat"], ["a red the cup", "the a red hat"])
        >>> true_score, false_score = scorer(["a red shoe", "the red shoe"])
        >>> bool(true_score > false_score)
        True
    """

    def __init__(
        self,
        true_captions: Sequence[str],
        false_captions: Sequence[str],
        *,
        order: int = 2,
        penalty: float = 1e-3,
        steps: int = 150,
    ) -> None:
        if not len(true_captions) or len(true_captions) != len(false_captions):
            raise ArgumentError(
                f"TextClassifier got {len(true_captions)} true and {len(false_captions)} false captions; "
                "pass as many of each, and at least one"
            )
        self.order = order
        self._columns: dict[Hashable, int] = {}
        count = len(true_captions)
        rows, columns, values = [], [], []
        for sign, captions in ((1.0, true_captions), (-1.0, false_captions)):
            for row, caption in enumerate(captions):
                for feature, value in self._features(caption).items():
                    rows.append(row)
                    columns.append(self._columns.setdefault(feature, len(self._columns)))
                    values.append(sign * value)
        row, column, value = np.array(rows), np.array(columns), np.array(values)
        size = len(self._columns)
        weights, lookahead = np.zeros(size), np.zeros(size)
        # The gradient changes no faster than a quarter of the largest row's squared norm.
        norms = np.bincount(row, weights=value * value, minlength=count)
        rate = 1.0 / (0.25 * max(float(norms.max()), 1e-12) + penalty)
        for step in range(steps):
            logits = np.bincount(row, weights=value * lookahead[column], minlength=count)
            push = 1.0 / (1.0 + np.exp(np.clip(logits, -50, 50)))
            gradient = penalty * lookahead - np.bincount(column, weights=value * push[row], minlength=size) / count
            previous, weights = weights, lookahead - rate * gradient
            lookahead = weights + step / (step + 3) * (weights - previous)
        self._weights = weights

    def _features(self, caption: str) -> dict[Hashable, float]:
        tokens = [_START, *words(caption), _END]
        found: dict[Hashable, float] = {"length": 0.2 * (len(tokens) - 2)}
        for n in range(1, self.order + 1):
            for i in range(len(tokens) - n + 1):
                gram = tuple(tokens[i : i + n])
                found[gram] = found.get(gram, 0.0) + 1.0
        return found

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Score captions.

        Args:
            captions (`Sequence[str]`):
                The captions.

        Returns:
            `np.ndarray` of shape [captions]: log-odds of being true, up to a constant.
        """
        known: dict[str, float] = {}
        for caption in captions:
            if caption not in known:
                known[caption] = sum(
                    value * float(self._weights[self._columns[feature]])
                    for feature, value in self._features(caption).items()
                    if feature in self._columns
                )
        return np.array([known[caption] for caption in captions])


def linked_items(
    true_captions: Sequence[str], false_captions: Sequence[str], clusters: Sequence[Hashable]
) -> list[int]:
    """Number the groups of items of which none may be learned from while another is tested.

    Items of one cluster belong together, and so do items with the same two captions: a scorer that has learned from
    one of two mirrored items, which exchange what is true and false, gets the other wrong.

    Args:
        true_captions (`Sequence[str]` of shape [items]):
            True captions.
        false_captions (`Sequence[str]` of shape [items]):
            False captions.
        clusters (`Sequence` of shape [items]):
            Cluster of each item.

    Returns:
        `list[int]` of shape [items]: group of each item.

    Example:
        >>> from vlcomp.evaluation.reference import linked_items
        >>> linked_items(["a", "b", "c"], ["b", "a", "d"], ["image 1", "image 2", "image 3"])
        [0, 0, 2]
    """
    parent = list(range(len(clusters)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    first: dict[Hashable, int] = {}
    for item, (true, false, cluster) in enumerate(zip(true_captions, false_captions, clusters, strict=True)):
        for key in (("cluster", cluster), ("captions", frozenset((true, false)))):
            low, high = sorted((root(item), root(first.setdefault(key, item))))
            parent[high] = low
    return [root(item) for item in range(len(parent))]


def cross_validated_scores(
    true_captions: Sequence[str],
    false_captions: Sequence[str],
    clusters: Sequence[Hashable],
    *,
    folds: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Score each item by a [`TextClassifier`] that learned from items that are not linked to it.

    Args:
        true_captions (`Sequence[str]` of shape [items]):
            True captions.
        false_captions (`Sequence[str]` of shape [items]):
            False captions.
        clusters (`Sequence` of shape [items]):
            Items of one cluster are in the same fold, and so are items with the same two captions ([`linked_items`]).
        folds (`int`, defaults to 5):
            Number of folds.
        seed (`int`, defaults to 0):
            Seed of the assignment to folds.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: scores of true and of false captions.

    Raises:
        ArgumentError: if there are fewer groups of linked items than folds.
    """
    _, group = np.unique(linked_items(true_captions, false_captions, clusters), return_inverse=True)
    count = int(group.max(initial=-1)) + 1
    if count < folds:
        raise ArgumentError(f"{count} groups of linked items cannot be divided into folds={folds}")
    fold = (np.random.default_rng(seed).permutation(count) % folds)[group]
    true_scores, false_scores = np.zeros(len(fold)), np.zeros(len(fold))
    for held_out in range(folds):
        train, test = np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
        scorer = TextClassifier([true_captions[i] for i in train], [false_captions[i] for i in train])
        true_scores[test] = scorer([true_captions[i] for i in test])
        false_scores[test] = scorer([false_captions[i] for i in test])
    return true_scores, false_scores
