import itertools
import math

import numpy as np
import pytest

from vlcomp.errors import ArgumentError, EvaluationError
from vlcomp.evaluation.encoding import embed_texts, pair_scores, rank_embeddings
from vlcomp.evaluation.scoring import (
    chance_recall,
    classification_accuracy,
    compare_pairs,
    expected_accuracy,
    rank_candidates,
    recall_at_k,
    strict_accuracy,
    winoground_scores,
)

from .common import ConstantModel


def unit(rng, rows, dimensions=8):
    array = rng.normal(size=(rows, dimensions))
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_pairs_equal_a_loop_and_ties_are_wrong():
    rng = np.random.default_rng(0)
    true, false = rng.integers(0, 4, 200) / 4, rng.integers(0, 4, 200) / 4
    right = sum(1 for a, b in zip(true, false, strict=True) if a > b)
    ties = sum(1 for a, b in zip(true, false, strict=True) if a == b)
    assert ties > 20
    assert strict_accuracy(true, false) == right / 200
    assert expected_accuracy(true, false) == (right + ties / 2) / 200
    assert compare_pairs(true, false).tie.sum() == ties


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_aborts_and_names_the_item(bad):
    with pytest.raises(EvaluationError, match="'third'"):
        strict_accuracy([1, 2, bad], [0, 0, 0], item_ids=["first", "second", "third"])
    with pytest.raises(EvaluationError, match="'b'"):
        rank_candidates(np.array([[1.0, 0.0], [0.0, bad]]), [0, 1], [0, 1], query_ids=["a", "b"])
    with pytest.raises(EvaluationError):
        winoground_scores(np.array([[[1.0, 0.0], [bad, 1.0]]]))


def test_empty_or_uneven_scores_are_refused():
    with pytest.raises(ArgumentError):
        strict_accuracy([], [])
    with pytest.raises(ArgumentError, match="2 true and 1 false"):
        strict_accuracy([1, 2], [1])


def test_recall_with_several_captions_equals_a_loop_both_ways():
    rng = np.random.default_rng(1)
    # Quarters make many ties.
    scores = rng.integers(0, 12, (30, 75)) / 4
    caption_of = np.concatenate([np.arange(30), rng.integers(0, 30, 45)])
    for k in (1, 5, 10):
        hits = []
        for i in range(30):
            best = max(scores[i, t] for t in range(75) if caption_of[t] == i)
            rank = 1 + sum(1 for t in range(75) if caption_of[t] != i and scores[i, t] >= best)
            hits.append(rank <= k)
        assert recall_at_k(scores, np.arange(30), caption_of, k) == pytest.approx(np.mean(hits), abs=0)
        hits = []
        for t in range(75):
            own = scores[caption_of[t], t]
            hits.append(1 + sum(1 for i in range(30) if i != caption_of[t] and scores[i, t] >= own) <= k)
        assert recall_at_k(scores.T, caption_of, np.arange(30), k) == pytest.approx(np.mean(hits), abs=0)


def test_a_dead_model_scores_zero():
    same = np.ones((50, 4)) / 2
    ranks = rank_embeddings(same, same, np.arange(50), np.arange(50))
    assert ranks.rank.tolist() == [50] * 50
    assert not ranks.hits(10).any()
    assert (ranks.tied == 49).all()
    assert classification_accuracy(np.zeros((6, 3)), [0, 1, 2, 0, 1, 2]) == 0.0


def test_expected_recall_breaks_ties_at_random():
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 3, (5, 6)).astype(float)
    groups = np.array([0, 1, 2, 3, 4, 0])
    ranks = rank_candidates(scores, np.arange(5), groups)
    orders = list(itertools.permutations(range(6)))
    for k in (1, 2, 4):
        for i in range(5):
            found = 0
            for order in orders:
                # A stable sort of a shuffled list breaks ties in the shuffled order.
                first = sorted(order, key=lambda t: -scores[i, t])[:k]
                found += any(groups[t] == i for t in first)
            assert ranks.expected_hits(k)[i] == pytest.approx(found / len(orders), abs=1e-12)


def test_chance_of_recall():
    assert chance_recall([1], 1000, 10) == 0.01
    # Two own among four: missed both times with 2/4 * 1/3.
    assert chance_recall([2], 4, 2) == pytest.approx(1 - 2 / 4 * 1 / 3)
    assert chance_recall([1, 3], 4, 1) == pytest.approx(0.5)


def test_a_query_without_an_answer_is_refused():
    with pytest.raises(ArgumentError, match="query 1"):
        rank_candidates(np.zeros((2, 1)), [0, 1], [0])


@pytest.mark.parametrize("block", [1, 37, 4096, 2**23])
def test_ranks_do_not_depend_on_the_block_size_and_copies_tie(block):
    rng = np.random.default_rng(3)
    images, texts = unit(rng, 61, 33), unit(rng, 61, 33)
    copies = np.concatenate([texts, texts])
    owners = np.concatenate([np.arange(61), np.full(61, -1)])
    ranks = rank_embeddings(images, copies, np.arange(61), owners, block=block)
    # The copy of the right text always ties with it, wherever the columns lie in the product.
    assert (ranks.tied >= 1).all()
    assert not ranks.hits(1).any()
    alone = rank_embeddings(images, texts, np.arange(61), np.arange(61), block=block)
    assert (ranks.better == 2 * alone.better).all()
    whole = rank_embeddings(images, texts, np.arange(61), np.arange(61))
    assert (alone.rank == whole.rank).all()


def test_equal_embeddings_give_equal_pair_scores_to_the_last_bit():
    rng = np.random.default_rng(4)
    images, texts = unit(rng, 7, 513), unit(rng, 5, 513)
    texts = np.concatenate([texts, texts])
    image_index = rng.integers(0, 7, 300)
    text_index = rng.integers(0, 5, 300)
    first = pair_scores(images, texts, image_index, text_index)
    second = pair_scores(images, texts, image_index[::-1].copy(), text_index[::-1].copy() + 5)[::-1]
    assert (first == second).all()


def test_winoground_equals_its_definition():
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 4, (300, 2, 2)).astype(float)
    outcome = winoground_scores(scores)
    for n, s in enumerate(scores):
        text = s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0]
        image = s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1]
        assert (outcome.text[n], outcome.image[n], outcome.group[n]) == (text, image, text and image)
        assert outcome.text_tie[n] == (s[0, 0] == s[0, 1] or s[1, 1] == s[1, 0])


def test_model_output_is_checked():
    class Bad:
        def __init__(self, output):
            self.output = output

        def encode_texts(self, texts):
            return self.output

    texts = [f"text {i}" for i in range(3)]
    with pytest.raises(EvaluationError, match="returned shape"):
        embed_texts(Bad(np.ones((2, 4))), texts, [])
    with pytest.raises(EvaluationError, match="returned shape"):
        embed_texts(Bad(np.ones(3)), texts, [])
    broken = np.ones((3, 4))
    broken[1, 2] = np.nan
    with pytest.raises(EvaluationError, match="'text 1'"):
        embed_texts(Bad(broken), texts, [])
    with pytest.raises(EvaluationError, match="one space"):
        pair_scores(np.ones((1, 3)), np.ones((1, 4)), np.array([0]), np.array([0]))


def test_collapse_is_warned_of():
    warnings = []
    embed_texts(ConstantModel(), [f"text {i}" for i in range(10)], warnings)
    assert "nearly the same" in warnings[0]
