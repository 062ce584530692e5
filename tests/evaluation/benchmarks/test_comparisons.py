import itertools

import numpy as np
import pytest

from vlcomp.errors import EvaluationError
from vlcomp.evaluation.benchmarks.comparisons import (
    Item,
    Picture,
    chance_of,
    choose_image,
    choose_text,
    group_score,
    image_score,
    judge,
    text_score,
)
from vlcomp.evaluation.benchmarks.sugarcrepe_pp import both_above, closer_together
from vlcomp.evaluation.benchmarks.verification import auc, auc_score, best_threshold
from vlcomp.evaluation.scoring import compare_pairs, winoground_scores


def items_of(count, images, texts):
    return [Item(f"item {i}", tuple(Picture(f"{i}/{k}") for k in range(images)), ("t",) * texts) for i in range(count)]


def grid_scorer(scores):
    """Scores of image-text cells from an array [items, images, texts]."""
    return lambda positions, cell: scores[positions, cell[1], cell[2]]


@pytest.mark.parametrize(
    ("comparisons", "chance"),
    [
        (choose_text(1, 2), 1 / 2),
        (choose_text(1, 6), 1 / 6),
        (choose_image(9, 1), 1 / 9),
        (text_score(2, 2), 1 / 4),
        (image_score(2, 2), 1 / 4),
        (group_score(2, 2), 1 / 6),
        (both_above(1, 3), 1 / 3),
        (closer_together(1, 3), 1 / 3),
    ],
)
def test_chance_is_that_of_random_scores(comparisons, chance):
    assert chance_of(comparisons) == pytest.approx(chance)
    cells = sorted({cell for pair in comparisons for cell in pair})
    if len(cells) <= 4:
        return
    drawn = dict(zip(cells, np.random.default_rng(0).random((len(cells), 40_000)), strict=True))
    right = np.all([drawn[high] > drawn[low] for high, low in comparisons], axis=0)
    assert right.mean() == pytest.approx(chance, abs=0.01)


def test_two_captions_are_judged_as_pairs_are():
    scores = np.random.default_rng(1).integers(0, 3, (200, 1, 2)).astype(float)
    outcome = judge(items_of(200, 1, 2), choose_text, grid_scorer(scores))
    expected = compare_pairs(scores[:, 0, 0], scores[:, 0, 1])
    for name in ("correct", "tie", "margin", "expected"):
        assert np.array_equal(getattr(outcome, name), getattr(expected, name)), name
    assert outcome.rank == [1 if right else 2 for right in outcome.correct]


def test_two_by_two_is_judged_as_winoground_is():
    scores = np.random.default_rng(2).integers(0, 4, (300, 2, 2)).astype(float)
    expected = winoground_scores(scores)
    items = items_of(300, 2, 2)
    for rule, name in ((text_score, "text"), (image_score, "image"), (group_score, "group")):
        assert np.array_equal(judge(items, rule, grid_scorer(scores)).correct, getattr(expected, name))
    outcome = judge(items, text_score, grid_scorer(scores))
    assert np.array_equal(outcome.margin, expected.text_margin)
    # A tie is an item that is not lost, but not won.
    assert np.array_equal(outcome.tie, (expected.text_margin == 0))


def test_items_of_several_shapes_keep_their_order():
    items = [*items_of(1, 1, 3), *items_of(1, 1, 2), *items_of(1, 1, 3)]
    table = [[0.5, 0.1, 0.9], [0.4, 0.3], [0.7, 0.2, 0.6]]
    outcome = judge(items, choose_text, lambda at, cell: np.array([table[p][cell[2]] for p in at]))
    assert outcome.correct.tolist() == [False, True, True] and outcome.rank == [2, 1, 1]
    assert outcome.chance == pytest.approx([1 / 3, 1 / 2, 1 / 3])
    # The table of items shows the comparison that decides.
    assert [pair[1][2] for pair in outcome.closest] == [2, 1, 2]
    assert outcome.false_score.tolist() == [0.9, 0.3, 0.6]


@pytest.mark.parametrize(
    ("rule", "images", "texts"), [(choose_text, 1, 4), (text_score, 2, 2), (group_score, 2, 2), (choose_image, 3, 1)]
)
def test_ties_are_broken_at_random_in_expectation(rule, images, texts):
    """Against all ways to break the ties of small whole numbers."""
    for seed in range(12):
        scores = np.random.default_rng(seed).integers(0, 2, (1, images, texts)).astype(float)
        outcome = judge(items_of(1, images, texts), rule, grid_scorer(scores))
        right = []
        for order in itertools.permutations(range(images * texts)):
            broken = scores + 1e-3 * np.array(order).reshape(scores.shape)
            right.append(bool(judge(items_of(1, images, texts), rule, grid_scorer(broken)).correct[0]))
        assert outcome.expected[0] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_names_the_item(bad):
    scores = np.random.default_rng(3).random((5, 1, 4))
    scores[3, 0, 2] = bad
    with pytest.raises(EvaluationError, match="item 'item 3' is (nan|inf)"):
        judge(items_of(5, 1, 4), choose_text, grid_scorer(scores))


def test_threshold_is_the_best_of_all():
    rng = np.random.default_rng(4)
    scores, labels = rng.normal(size=60).round(1), rng.random(60) < 0.4

    def accuracy(threshold):
        return np.where(labels, scores > threshold, scores < threshold).mean()

    best = max(accuracy(t) for t in np.linspace(-4, 4, 4001))
    assert accuracy(best_threshold(scores, labels)) == pytest.approx(best)


def test_auc_counts_pairs():
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 6, 80).astype(float), rng.random(80) < 0.5
    pairs = [(t, f) for t in scores[labels] for f in scores[~labels]]
    assert auc(scores, labels) == pytest.approx(np.mean([t > f for t, f in pairs]))
    assert auc(scores, labels, ties=0.5) == pytest.approx(np.mean([(t > f) + 0.5 * (t == f) for t, f in pairs]))
    weights = rng.integers(0, 3, 80).astype(float)
    repeated = np.repeat(np.arange(80), weights.astype(int))
    assert auc(scores, labels, weights=weights) == pytest.approx(auc(scores[repeated], labels[repeated]))
    assert np.isnan(auc(scores[labels], labels[labels]))


def test_auc_interval_is_wider_for_items_that_go_together():
    rng = np.random.default_rng(6)
    shared = np.repeat(rng.normal(size=30), 8)
    labels = np.tile([True, False], 120)
    scores = shared + 0.5 * labels + 0.1 * rng.normal(size=240)
    alone, together = (auc_score(scores, labels, clusters) for clusters in (range(240), np.repeat(np.arange(30), 8)))
    assert alone.value == together.value == auc(scores, labels)
    assert together.low < together.value < together.high
    assert auc_score(scores, labels, ["one"] * 240).low is None
