"""True or false, with no alternative to compare with: thresholds and the area under the ROC curve."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from ...errors import EvaluationError
from ..scoring import TIE_TOLERANCE
from ..task import Score

_RESAMPLES = 2000


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the highest accuracy, half-way between two scores.

    Args:
        scores (`np.ndarray` of shape [items]):
            Scores of a set on which settings may be chosen.
        labels (`np.ndarray` of shape [items], bool):
            Which items are true.

    Returns:
        `float`: of several thresholds that are equally good, the lowest.

    Raises:
        EvaluationError: if there are no items.

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.benchmarks.verification import best_threshold
        >>> best_threshold(np.array([0.1, 0.2, 0.4, 0.6]), np.array([False, False, True, True]))
        0.30000000000000004
    """
    if not len(scores):
        raise EvaluationError("there are no items to choose a threshold on")
    levels = np.unique(scores)
    between = (levels[:-1] + levels[1:]) / 2
    candidates = np.concatenate([[levels[0] - 1.0], between, [levels[-1] + 1.0]])
    ordered = np.sort(scores[labels])
    wrong = np.sort(scores[~labels])
    above = len(ordered) - np.searchsorted(ordered, candidates, side="right")
    below = np.searchsorted(wrong, candidates, side="left")
    return float(candidates[int(np.argmax(above + below))])


def auc(scores: np.ndarray, labels: np.ndarray, *, ties: float = 0.0, weights: np.ndarray | None = None) -> float:
    """Probability that a true item scores higher than a false one, by more than `TIE_TOLERANCE`.

    Args:
        scores (`np.ndarray` of shape [items]):
            Scores.
        labels (`np.ndarray` of shape [items], bool):
            Which items are true.
        ties (`float`, defaults to 0.0):
            What a tie of a true with a false item counts: 0 for models, 0.5 for the usual area.
        weights (`np.ndarray` of shape [items], *optional*):
            How often each item counts.

    Returns:
        `float`: NaN if there are only true or only false items.

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.benchmarks.verification import auc
        >>> auc(np.array([0.9, 0.4, 0.4]), np.array([True, True, False]))
        0.5
    """
    weights = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores[~labels], kind="stable")
    wrong, mass = scores[~labels][order], np.concatenate([[0.0], np.cumsum(weights[~labels][order])])
    strictly = mass[np.searchsorted(wrong, scores[labels] - TIE_TOLERANCE, side="left")]
    at_most = mass[np.searchsorted(wrong, scores[labels] + TIE_TOLERANCE, side="right")]
    total = weights[labels].sum() * mass[-1]
    if not total:
        return float("nan")
    return float((weights[labels] * (strictly + ties * (at_most - strictly))).sum() / total)


def auc_score(scores: np.ndarray, labels: np.ndarray, clusters: Sequence[Hashable]) -> Score:
    """The area under the ROC curve with ties counted as wrong, and its interval by bootstrap over clusters.

    Args:
        scores (`np.ndarray` of shape [items]):
            Scores.
        labels (`np.ndarray` of shape [items], bool):
            Which items are true.
        clusters (`Sequence` of shape [items]):
            Items of one cluster are drawn together.

    Returns:
        [`~vlcomp.evaluation.Score`]: `ties` is the number of true items that tie with a false one.
    """
    value = auc(scores, labels)
    index = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    of = np.array([index[name] for name in clusters])
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(_RESAMPLES):
        times = np.bincount(rng.integers(len(index), size=len(index)), minlength=len(index))
        draws.append(auc(scores, labels, weights=times[of].astype(float)))
    kept = np.array([x for x in draws if not np.isnan(x)])
    wrong = np.sort(scores[~labels])
    below, above = (
        np.searchsorted(wrong, scores[labels] + s * TIE_TOLERANCE, side) for s, side in ((-1, "left"), (1, "right"))
    )
    tied = int((above > below).sum())
    if len(index) < 2 or len(kept) < 2:
        return Score(value, len(scores), ties=tied, chance=0.5)
    low, high = np.quantile(kept, (0.025, 0.975))
    return Score(value, len(scores), float(kept.std(ddof=1)), float(low), float(high), ties=tied, chance=0.5)
