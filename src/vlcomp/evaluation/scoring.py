"""The scores of benchmarks as functions of numbers, in NumPy.

Models are scored strictly: right means strictly higher than every wrong alternative, so a tie is wrong (and counted),
and a score that is not a number stops the evaluation. Reference scorers, which tie by construction, are scored in
expectation: a tie counts as if broken at random.

Two scores that differ by at most `TIE_TOLERANCE` are a tie. Embeddings are float32: the same picture in another batch,
or the same sum in another order, moves a cosine by some 1e-8 to 1e-7, and such noise must not decide what is right.
Every comparison of scores goes through [`settle`] or the tolerance of [`rank_candidates`].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..errors import ArgumentError, EvaluationError

# Well above the noise of float32 embeddings (1e-7 in a cosine), well below any difference that means something.
TIE_TOLERANCE = 1e-6
# Part of the version of every result, `<version of the task>.<SCORING_VERSION>`: raised with any change of the rules
# here that alters scores. 1: scores within 1e-6 tie (before, pairs were compared exactly).
SCORING_VERSION = "1"


def settle(margins: np.ndarray, tolerance: float = TIE_TOLERANCE) -> np.ndarray:
    """Differences of scores with those within the tolerance set to 0, so that `> 0` is right and `== 0` is a tie.

    Args:
        margins (`np.ndarray`):
            Differences of scores.
        tolerance (`float`, defaults to `TIE_TOLERANCE`):
            Scores that differ by no more are tied.

    Returns:
        `np.ndarray` of the same shape.

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.scoring import settle
        >>> settle(np.array([0.25, 5e-8, -5e-8])).tolist()
        [0.25, 0.0, 0.0]
    """
    return np.where(np.abs(margins) <= tolerance, 0.0, margins)


def check_scores(scores: np.ndarray, item_ids: Sequence[Any] | None = None, *, what: str = "score") -> None:
    """Refuse scores that are not finite.

    Args:
        scores (`np.ndarray` of shape [items, ...]):
            Scores with items along the first axis.
        item_ids (`Sequence`, *optional*):
            Names of the items for the message; their positions if not given.
        what (`str`, defaults to `"score"`):
            What the numbers are, for the message.

    Raises:
        EvaluationError: naming the first item with a score that is not finite.
    """
    finite = np.isfinite(scores)
    if finite.all():
        return
    place = tuple(int(i) for i in np.argwhere(~finite)[0])
    name = place[0] if item_ids is None else item_ids[place[0]]
    raise EvaluationError(
        f"the {what} of item {name!r} is {scores[place]}; nothing can be said about a model that gives no number. "
        "Check the weights and the precision (half precision overflows on some models; try float32)"
    )


@dataclass(frozen=True)
class PairComparison:
    """Outcome of comparing true with false scores, item by item.

    Args:
        correct (`np.ndarray` of shape [items], bool):
            The true score is strictly higher.
        tie (`np.ndarray` of shape [items], bool):
            Both scores are equal, up to `TIE_TOLERANCE`.
        margin (`np.ndarray` of shape [items]):
            True minus false score, 0 for a tie.
    """

    correct: np.ndarray
    tie: np.ndarray
    margin: np.ndarray

    @property
    def expected(self) -> np.ndarray:
        """1 for right, 0.5 for a tie, 0 for wrong."""
        return self.correct + 0.5 * self.tie


def compare_pairs(
    true_scores: Sequence[float] | np.ndarray,
    false_scores: Sequence[float] | np.ndarray,
    *,
    item_ids: Sequence[Any] | None = None,
) -> PairComparison:
    """Compare the score of each true alternative with that of the false one.

    Args:
        true_scores (`Sequence[float]` of shape [items]):
            Scores of the true alternatives.
        false_scores (`Sequence[float]` of shape [items]):
            Scores of the false alternatives.
        item_ids (`Sequence`, *optional*):
            Names of the items, for error messages.

    Returns:
        [`PairComparison`]

    Raises:
        ArgumentError: if the lengths differ or are zero.
        EvaluationError: if a score is not finite.
    """
    true_array, false_array = (np.asarray(x, dtype=np.float64).reshape(-1) for x in (true_scores, false_scores))
    if true_array.shape != false_array.shape or not true_array.size:
        raise ArgumentError(
            f"there are {true_array.size} true and {false_array.size} false scores; "
            "pass one of each for every item, and at least one item"
        )
    check_scores(np.stack([true_array, false_array], axis=1), item_ids)
    margin = settle(true_array - false_array)
    return PairComparison(margin > 0, margin == 0, margin)


def strict_accuracy(
    true_scores: Sequence[float] | np.ndarray,
    false_scores: Sequence[float] | np.ndarray,
    *,
    item_ids: Sequence[Any] | None = None,
) -> float:
    """Share of items whose true score is strictly higher; ties are wrong.

    Args:
        true_scores (`Sequence[float]` of shape [items]):
            Scores of the true alternatives.
        false_scores (`Sequence[float]` of shape [items]):
            Scores of the false alternatives.
        item_ids (`Sequence`, *optional*):
            Names of the items, for error messages.

    Returns:
        `float`

    Raises:
        EvaluationError: if a score is not finite.

    Example:
        >>> from vlcomp.evaluation.scoring import strict_accuracy
        >>> strict_accuracy([0.9, 0.5, 0.2, 0.8], [0.1, 0.5, 0.4, 0.3])
        0.5
    """
    return float(compare_pairs(true_scores, false_scores, item_ids=item_ids).correct.mean())


def expected_accuracy(
    true_scores: Sequence[float] | np.ndarray,
    false_scores: Sequence[float] | np.ndarray,
    *,
    item_ids: Sequence[Any] | None = None,
) -> float:
    """Like [`strict_accuracy`], but a tie counts one half; for reference scorers only.

    Args:
        true_scores (`Sequence[float]` of shape [items]):
            Scores of the true alternatives.
        false_scores (`Sequence[float]` of shape [items]):
            Scores of the false alternatives.
        item_ids (`Sequence`, *optional*):
            Names of the items, for error messages.

    Returns:
        `float`

    Example:
        >>> from vlcomp.evaluation.scoring import expected_accuracy
        >>> expected_accuracy([0.9, 0.5, 0.2, 0.8], [0.1, 0.5, 0.4, 0.3])
        0.625
    """
    return float(compare_pairs(true_scores, false_scores, item_ids=item_ids).expected.mean())


@dataclass(frozen=True)
class Ranks:
    """Where each query finds its best own candidate.

    Args:
        better (`np.ndarray` of shape [queries]):
            Number of foreign candidates that score higher than the best own one.
        tied (`np.ndarray` of shape [queries]):
            Number of foreign candidates that score the same as the best own one.
        own_tied (`np.ndarray` of shape [queries]):
            Number of own candidates at the best own score, at least 1.
        own (`np.ndarray` of shape [queries]):
            Position of the best own candidate.
        other (`np.ndarray` of shape [queries]):
            Position of the best foreign candidate, -1 if there is none.
        own_score (`np.ndarray` of shape [queries]):
            Score of the best own candidate.
        other_score (`np.ndarray` of shape [queries]):
            Score of the best foreign candidate, `-inf` if there is none.
    """

    better: np.ndarray
    tied: np.ndarray
    own_tied: np.ndarray
    own: np.ndarray
    other: np.ndarray
    own_score: np.ndarray
    other_score: np.ndarray

    @property
    def rank(self) -> np.ndarray:
        """Strict rank: 1 + number of foreign candidates with a score at least as high."""
        return 1 + self.better + self.tied

    def hits(self, k: int) -> np.ndarray:
        """Whether the own candidate is among the first `k`, ties counted as wrong."""
        return self.rank <= k

    def expected_hits(self, k: int) -> np.ndarray:
        """Probability that an own candidate is among the first `k` when ties are broken at random."""
        places = np.clip(k - self.better, 0, None).astype(np.int64)
        missed = np.ones(len(self.better))
        for j in range(int(places.max(initial=0))):
            live = j < places
            total = self.own_tied + self.tied - j
            step = np.where(total > 0, np.clip(self.tied - j, 0, None) / np.maximum(total, 1), 0.0)
            missed = np.where(live, missed * step, missed)
        return 1.0 - missed

    @staticmethod
    def concatenate(parts: Sequence[Ranks]) -> Ranks:
        """Join the ranks of several blocks of queries."""
        return Ranks(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Ranks)))


def rank_candidates(
    scores: np.ndarray,
    query_groups: Sequence[int] | np.ndarray,
    candidate_groups: Sequence[int] | np.ndarray,
    *,
    query_ids: Sequence[Any] | None = None,
    tolerance: float = TIE_TOLERANCE,
) -> Ranks:
    """Rank the best own candidate of each query among the foreign ones.

    A candidate is a query's own if their groups are equal. Own candidates do not compete with each other, so an image
    with five captions has rank 1 if any of the five comes first.

    Args:
        scores (`np.ndarray` of shape [queries, candidates]):
            Similarities.
        query_groups (`Sequence[int]` of shape [queries]):
            Group of each query, for instance its image id.
        candidate_groups (`Sequence[int]` of shape [candidates]):
            Group of each candidate.
        query_ids (`Sequence`, *optional*):
            Names of the queries, for error messages.
        tolerance (`float`, defaults to `TIE_TOLERANCE`):
            Scores that differ by no more count as tied.

    Returns:
        [`Ranks`]

    Raises:
        ArgumentError: if shapes do not fit or a query has no own candidate.
        EvaluationError: if a score is not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    queries, candidates = np.asarray(query_groups), np.asarray(candidate_groups)
    if scores.shape != (len(queries), len(candidates)):
        raise ArgumentError(f"scores have shape {list(scores.shape)}; expected [{len(queries)}, {len(candidates)}]")
    check_scores(scores, query_ids)
    mine = queries[:, None] == candidates[None, :]
    lost = ~mine.any(axis=1)
    if lost.any():
        row = int(np.argmax(lost))
        name = row if query_ids is None else query_ids[row]
        raise ArgumentError(f"query {name!r} has no right answer among the {len(candidates)} candidates")
    own_scores = np.where(mine, scores, -np.inf)
    other_scores = np.where(mine, -np.inf, scores)
    best = own_scores.max(axis=1, keepdims=True)
    better = (other_scores > best + tolerance).sum(axis=1)
    tied = (other_scores >= best - tolerance).sum(axis=1) - better
    other = other_scores.argmax(axis=1)
    other_best = other_scores.max(axis=1)
    return Ranks(
        better=better,
        tied=tied,
        own_tied=(own_scores >= best - tolerance).sum(axis=1),
        own=own_scores.argmax(axis=1),
        other=np.where(np.isfinite(other_best), other, -1),
        own_score=best[:, 0],
        other_score=other_best,
    )


def recall_at_k(
    scores: np.ndarray,
    query_groups: Sequence[int] | np.ndarray,
    candidate_groups: Sequence[int] | np.ndarray,
    k: int = 1,
) -> float:
    """Share of queries with an own candidate strictly among the first `k`.

    Args:
        scores (`np.ndarray` of shape [queries, candidates]):
            Similarities.
        query_groups (`Sequence[int]` of shape [queries]):
            Group of each query.
        candidate_groups (`Sequence[int]` of shape [candidates]):
            Group of each candidate.
        k (`int`, defaults to 1):
            Cut-off.

    Returns:
        `float`

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.scoring import recall_at_k
        >>> recall_at_k(np.array([[0.9, 0.1], [0.8, 0.7]]), [0, 1], [0, 1])
        0.5
        >>> recall_at_k(np.ones((2, 2)), [0, 1], [0, 1])
        0.0
    """
    return float(rank_candidates(scores, query_groups, candidate_groups).hits(k).mean())


def chance_recall(own: Sequence[int] | np.ndarray, candidates: int, k: int) -> float:
    """Recall@k of a random order.

    Args:
        own (`Sequence[int]` of shape [queries]):
            Number of own candidates of each query.
        candidates (`int`):
            Number of candidates.
        k (`int`):
            Cut-off.

    Returns:
        `float`

    Example:
        >>> from vlcomp.evaluation.scoring import chance_recall
        >>> chance_recall([1, 1], 100, 5)
        0.05
    """
    counts, frequency = np.unique(np.asarray(own), return_counts=True)
    total = 0.0
    for count, times in zip(counts.tolist(), frequency.tolist(), strict=True):
        missed = 1.0
        for j in range(min(k, candidates)):
            missed *= max(0, candidates - count - j) / (candidates - j)
        total += (1 - missed) * times
    return round(total / int(frequency.sum()), 12)


@dataclass(frozen=True)
class WinogroundOutcome:
    """Right or wrong on two images and two captions, for each item.

    Args:
        text (`np.ndarray` of shape [items], bool):
            For both images the own caption scores strictly higher.
        image (`np.ndarray` of shape [items], bool):
            For both captions the own image scores strictly higher.
        text_tie (`np.ndarray` of shape [items], bool):
            A comparison of captions is tied.
        image_tie (`np.ndarray` of shape [items], bool):
            A comparison of images is tied.
        text_margin (`np.ndarray` of shape [items]):
            The smaller of the two caption margins.
        image_margin (`np.ndarray` of shape [items]):
            The smaller of the two image margins.
    """

    text: np.ndarray
    image: np.ndarray
    text_tie: np.ndarray
    image_tie: np.ndarray
    text_margin: np.ndarray
    image_margin: np.ndarray

    @property
    def group(self) -> np.ndarray:
        """Text and image score are both right."""
        return self.text & self.image


def winoground_scores(scores: np.ndarray, *, item_ids: Sequence[Any] | None = None) -> WinogroundOutcome:
    """Text, image and group score of Winoground, strictly.

    Args:
        scores (`np.ndarray` of shape [items, 2, 2]):
            `scores[n, i, c]` is the score of image `i` with caption `c`; caption `i` is true of image `i`.
        item_ids (`Sequence`, *optional*):
            Names of the items, for error messages.

    Returns:
        [`WinogroundOutcome`]

    Raises:
        ArgumentError: if the shape is wrong.
        EvaluationError: if a score is not finite.

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.scoring import winoground_scores
        >>> outcome = winoground_scores(np.array([[[0.9, 0.3], [0.5, 0.6]]]))
        >>> bool(outcome.text[0]), bool(outcome.image[0]), bool(outcome.group[0])
        (True, True, True)
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 3 or scores.shape[1:] != (2, 2):
        raise ArgumentError(f"Winoground scores have shape {list(scores.shape)}; expected [items, 2, 2]")
    check_scores(scores, item_ids)
    text = settle(np.stack([scores[:, 0, 0] - scores[:, 0, 1], scores[:, 1, 1] - scores[:, 1, 0]], axis=1))
    image = settle(np.stack([scores[:, 0, 0] - scores[:, 1, 0], scores[:, 1, 1] - scores[:, 0, 1]], axis=1))
    return WinogroundOutcome(
        text=(text > 0).all(axis=1),
        image=(image > 0).all(axis=1),
        text_tie=(text == 0).any(axis=1),
        image_tie=(image == 0).any(axis=1),
        text_margin=text.min(axis=1),
        image_margin=image.min(axis=1),
    )


def classification_accuracy(scores: np.ndarray, labels: Sequence[int] | np.ndarray, k: int = 1) -> float:
    """Share of images whose class is strictly among the first `k`.

    Args:
        scores (`np.ndarray` of shape [images, classes]):
            Score of each class.
        labels (`Sequence[int]` of shape [images]):
            The true class of each image.
        k (`int`, defaults to 1):
            Cut-off.

    Returns:
        `float`

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.scoring import classification_accuracy
        >>> classification_accuracy(np.array([[0.2, 0.8], [0.5, 0.5]]), [1, 0])
        0.5
    """
    scores = np.asarray(scores)
    return recall_at_k(scores, labels, np.arange(scores.shape[1]), k)
