import itertools
import math

import numpy as np
import pytest

from vlcomp.errors import ArgumentError
from vlcomp.evaluation.reference import NGramScorer, TextClassifier, cross_validated_scores, linked_items
from vlcomp.evaluation.scoring import expected_accuracy

CAPTIONS = ["a red cup", "a red star", "a blue cup", "the cup", "a red cup"]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngram_probabilities_sum_to_one(order):
    scorer = NGramScorer(CAPTIONS, order=order)
    vocabulary = ["a", "red", "cup", "star", "blue", "the", "</s>", "unknown"]
    for history in itertools.product(["<s>", "a", "red", "unknown"], repeat=order - 1):
        assert sum(scorer._probability((*history, word)) for word in vocabulary) == pytest.approx(1.0)


def test_ngram_prefers_what_it_has_seen():
    scorer = NGramScorer(CAPTIONS)
    seen, unseen, strange = scorer(["a red cup", "a blue star", "xyz cup red"])
    assert seen > unseen > strange and math.isfinite(strange)
    assert scorer(["a red cup", "a red cup"])[0] == seen
    with pytest.raises(ArgumentError):
        NGramScorer([])


def test_bigram_by_hand():
    scorer = NGramScorer(["a b", "a c"], order=2, discount=0.5)
    # Continuations: a, b, c and the end after b or c (2): 5 in all, 4 kinds; 5 words with the unknown one.
    unigram_a = (1 - 0.5) / 5 + 0.5 * 4 / 5 / 5
    assert scorer._probability(("a",)) == pytest.approx(unigram_a)
    assert scorer._probability(("<s>", "a")) == pytest.approx((2 - 0.5) / 2 + 0.5 * 1 / 2 * unigram_a)


def test_classifier_minimises_its_loss():
    rng = np.random.default_rng(0)
    words = ["red", "blue", "cup", "star", "of"]
    true = [" ".join(rng.choice(words, 3)) for _ in range(40)]
    false = [" ".join(rng.choice(words, 3, p=[0.1, 0.1, 0.2, 0.2, 0.4])) for _ in range(40)]
    scorer = TextClassifier(true, false, penalty=0.01, steps=3000)

    def loss(weights):
        scorer._weights = weights
        return np.log1p(np.exp(-(scorer(true) - scorer(false)))).mean() + 0.005 * weights @ weights

    best = scorer._weights
    lowest = loss(best)
    for _ in range(30):
        assert loss(best + 0.01 * rng.normal(size=best.size)) > lowest


def test_classifier_learns_a_giveaway_and_nothing_from_mirrored_pairs():
    true, false = ["a cup", "a star", "a dog"], ["a cup too", "a star too", "a dog too"]
    scorer = TextClassifier(true, false)
    assert scorer(["a cat"])[0] > scorer(["a cat too"])[0]
    mirrored = TextClassifier(true + false, false + true)
    assert np.allclose(mirrored(["a cat", "a cat too"]), 0.0)


def test_cross_validation_never_tests_on_what_it_learned():
    # Each cluster has a word of its own that gives the answer away; no other cluster can know it.
    true = [f"word{i // 4} cup" for i in range(40)]
    false = [f"noun{i // 4} cup" for i in range(40)]
    clusters = [i // 4 for i in range(40)]
    true_scores, false_scores = cross_validated_scores(true, false, clusters)
    assert np.allclose(true_scores, false_scores)
    with pytest.raises(ArgumentError, match="folds=5"):
        cross_validated_scores(["a"], ["b"], [0])


def test_mirrored_items_on_different_images_are_at_chance():
    rng = np.random.default_rng(0)
    first = [" ".join(rng.choice([f"w{i}" for i in range(30)], 6, replace=False)) for _ in range(60)]
    second = [" ".join(reversed(caption.split())) for caption in first]
    images = list(range(120))
    # One who has learned that `first` is true would choose it where it is false too, and be wrong nearly always.
    scores = cross_validated_scores(first + second, second + first, images)
    assert expected_accuracy(*scores) == 0.5


def test_links_are_followed_to_the_end():
    true, false = ["a", "b", "c", "d", "e", "c"], ["b", "a", "d", "c", "f", "x"]
    assert linked_items(true, false, [0, 1, 1, 2, 3, 4]) == [0, 0, 0, 0, 4, 5]
