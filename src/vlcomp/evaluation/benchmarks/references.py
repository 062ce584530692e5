"""Reference scorers on benchmark items: what a benchmark gives away without what it is meant to measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..reference import NGramScorer, cross_validated_scores, linked_items, word_bag
from .comparisons import Cell, Outcome, Prepared, Rule, Scorer, choose_text, judge

_FOLDS = 5
# Pairs of captions up to which the text-only classifier is trained: above, it takes minutes.
_CLASSIFIER_PAIRS = 40_000


def reference_outcomes(
    prepared: Prepared,
    rules: Mapping[str, Rule],
    *,
    own_texts: Mapping[int, tuple[int, ...]],
    captions: Sequence[str] | None = None,
) -> dict[str, dict[str, Outcome]]:
    """Outcomes of the scorers that apply to the items.

    `bag_of_words` is an oracle that knows which words are true of each image, but not how they combine. `text_only` is
    an n-gram model of given captions, `text_only_classifier` learns from true against false captions of other items.

    Args:
        prepared ([`Prepared`]):
            The items.
        rules (`Mapping[str, Rule]`):
            What makes an item right, by metric.
        own_texts (`Mapping[int, tuple[int, ...]]`):
            Texts of an item that are true of its images, by position.
        captions (`Sequence[str]`, *optional*):
            Captions for the n-gram model.

    Returns:
        `dict[str, dict[str, Outcome]]`: by scorer and metric.
    """
    items = prepared.items
    shapes = {(len(item.images), len(item.texts)) for item in items}
    cells = {m: {c for s in shapes for pair in rule(*s) for c in pair} for m, rule in rules.items()}
    # The oracle must know the true words of every image that is compared.
    known = [m for m, used in cells.items() if all(kind == "it" and i in own_texts for kind, i, _ in used)]
    choices = [m for m, rule in rules.items() if rule is choose_text]
    scorers: dict[str, tuple[Scorer | None, list[str]]] = {
        "bag_of_words": (bag_of_words(prepared, own_texts) if known else None, known),
        "text_only": (ngram(prepared, captions) if choices and captions is not None else None, choices),
        "text_only_classifier": (classifier(prepared) if choices else None, choices),
    }
    return {
        name: {m: judge(items, rules[m], scorer) for m in metrics}
        for name, (scorer, metrics) in scorers.items()
        if scorer is not None
    }


def bag_of_words(prepared: Prepared, own_texts: Mapping[int, tuple[int, ...]]) -> Scorer:
    """1 for a text with the words of a true one, in whatever order, 0 for others."""
    items = prepared.items
    bags = {text: word_bag(text) for text in prepared.texts}

    def score(positions: list[int], cell: Cell) -> np.ndarray:
        _, image, text = cell
        own = own_texts[image]
        texts = [items[p].texts for p in positions]
        return np.array([bags[t[text]] in {bags[t[o]] for o in own} for t in texts], dtype=float)

    return score


def ngram(prepared: Prepared, captions: Sequence[str]) -> Scorer:
    """Log-probability of a text."""
    scores = dict(zip(prepared.texts, NGramScorer(captions)(prepared.texts), strict=True))
    return lambda positions, cell: np.array([scores[prepared.items[p].texts[cell[2]]] for p in positions])


def classifier(prepared: Prepared) -> Scorer | None:
    """Trained by cross-validation on true against false captions; `None` if there are too few or too many."""
    items = prepared.items
    at = [(p, k) for p, item in enumerate(items) for k in range(1, len(item.texts))]
    true, false = [items[p].texts[0] for p, _ in at], [items[p].texts[k] for p, k in at]
    clusters = [items[p].independent for p, _ in at]
    # Fewer items would say more about the fold than about the captions.
    if len(at) > _CLASSIFIER_PAIRS or len(set(clusters)) < 10 * _FOLDS:
        return None
    if len(set(linked_items(true, false, clusters))) < 2 * _FOLDS:
        return None
    table: dict[tuple[int, int], float] = {}
    for pair, high, low in zip(at, *cross_validated_scores(true, false, clusters, folds=_FOLDS), strict=True):
        table[pair] = low
        table[pair[0], 0] = high
    return lambda positions, cell: np.array([table[p, cell[2]] for p in positions])
