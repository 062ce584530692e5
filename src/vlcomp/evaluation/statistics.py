"""Intervals for benchmark scores: clustered bootstrap over items, t-interval over seeds, paired differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ArgumentError

# Elements of a block of resampling weights: 2**22 float64 are 32 MiB.
_BLOCK = 2**22


@dataclass(frozen=True)
class Interval:
    """An estimate with its uncertainty.

    Args:
        value (`float`):
            The estimate.
        standard_error (`float`):
            Its standard error; NaN if it cannot be told (one seed, one cluster).
        low (`float`):
            Lower end of the interval; NaN if it cannot be told.
        high (`float`):
            Upper end of the interval; NaN if it cannot be told.
        n (`int`):
            Number of items (bootstrap) or of seeds (t-interval).
        clusters (`int`):
            Number of independent units that were resampled.
    """

    value: float
    standard_error: float
    low: float
    high: float
    n: int
    clusters: int


def cluster_bootstrap(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    *,
    strata: Sequence[Hashable] | np.ndarray | None = None,
    weights: dict[Hashable, float] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean of item values with a percentile interval by bootstrap over clusters.

    Items that share an image (or a sentence) are not independent, so whole clusters are drawn with replacement. With
    `strata` the estimate is the weighted mean of the means of each stratum (a macro average), and a cluster that
    reaches into several strata is drawn with all of its items.

    Where all clusters agree on 0 or on 1, resampling cannot see any uncertainty; the interval is then Wilson's with
    the number of clusters as sample size. A single cluster of mixed values has no interval: its ends are NaN.

    Args:
        values (`Sequence[float]` of shape [items]):
            One value an item, for instance 1 for right and 0 for wrong.
        clusters (`Sequence` of shape [items], *optional*):
            The cluster of each item; each item is its own if not given.
        strata (`Sequence` of shape [items], *optional*):
            The stratum of each item.
        weights (`dict`, *optional*):
            Weight of each stratum, equal if not given; weights are scaled to sum to 1.
        resamples (`int`, defaults to 2000):
            Number of bootstrap resamples.
        confidence (`float`, defaults to 0.95):
            Coverage of the interval.
        seed (`int`, defaults to 0):
            Seed of the resampling; the same input and seed give the same interval.

    Returns:
        [`Interval`]

    Raises:
        ArgumentError: if there are no values, a value is not finite, or lengths differ.

    Example:
        >>> from vlcomp.evaluation.statistics import cluster_bootstrap
        >>> interval = cluster_bootstrap([1, 1, 0, 1, 0, 1], clusters=["a", "a", "b", "b", "c", "c"])
        >>> round(interval.value, 3), interval.clusters
        (0.667, 3)
    """
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if resamples < 2:
        raise ArgumentError(f"resamples={resamples} must be at least 2")
    if not array.size:
        raise ArgumentError("cluster_bootstrap got no values; there must be at least one item")
    if not np.isfinite(array).all():
        raise ArgumentError(f"cluster_bootstrap: value {int(np.argmin(np.isfinite(array)))} is not a finite number")
    cluster_index = np.arange(array.size) if clusters is None else _codes(clusters, array.size, "clusters")[0]
    stratum_index, names = (np.zeros(array.size, dtype=np.int64), [None])
    if strata is not None:
        stratum_index, names = _codes(strata, array.size, "strata")
    stratum_weights = np.full(len(names), 1.0)
    if weights is not None:
        missing = [name for name in names if name not in weights]
        if missing:
            raise ArgumentError(f"cluster_bootstrap: `weights` lacks the strata {missing[:5]}")
        stratum_weights = np.array([weights[name] for name in names], dtype=np.float64)
    stratum_weights = stratum_weights / stratum_weights.sum()

    count = int(cluster_index.max()) + 1
    num_strata = len(names)
    sums, counts = (np.bincount(stratum_index, weights=w, minlength=num_strata) for w in (array, np.ones(array.size)))
    value = float(_estimate(np.concatenate([sums, counts]), num_strata, stratum_weights))

    kinds, frequency = _kinds_of_clusters(array, cluster_index, stratum_index, num_strata)
    estimates = _resample(kinds, frequency, num_strata, stratum_weights, resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    if array.min() == array.max() and array[0] in (0.0, 1.0):
        low, high = wilson_interval(value, count, confidence=confidence)
    elif count == 1:
        low = high = math.nan
    else:
        low, high = (float(q) for q in np.quantile(estimates, [tail, 1 - tail]))
    error = float(np.std(estimates, ddof=1)) if count > 1 else math.nan
    return Interval(value, error, low, high, int(array.size), count)


def _codes(labels: Sequence[Hashable] | np.ndarray, size: int, name: str) -> tuple[np.ndarray, list]:
    labels = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if len(labels) != size:
        raise ArgumentError(f"cluster_bootstrap: `{name}` has {len(labels)} entries for {size} values")
    known: dict[Hashable, int] = {}
    codes = np.fromiter((known.setdefault(label, len(known)) for label in labels), dtype=np.int64, count=size)
    return codes, list(known)


def _estimate(sums: np.ndarray, num_strata: int, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of stratum means from `[..., sums | counts]`."""
    counts = sums[..., num_strata:]
    # A resample may miss a small stratum altogether; the others then share its weight.
    present = counts > 0
    means = sums[..., :num_strata] / np.where(present, counts, 1.0)
    return (means @ weights) / (present @ weights)


def _kinds_of_clusters(
    values: np.ndarray, clusters: np.ndarray, strata: np.ndarray, num_strata: int
) -> tuple[np.ndarray, np.ndarray]:
    """The different rows `[sums | counts]` of clusters, in order, and the number of clusters that have each.

    Without the table of all clusters, which for 50,000 images of 1,000 classes would not fit in memory.
    """
    cells, position = np.unique(clusters * num_strata + strata, return_inverse=True)
    entries = np.stack(
        [cells % num_strata, np.bincount(position, weights=values) + 0.0, np.bincount(position)], axis=1
    )
    starts = np.flatnonzero(np.diff(cells // num_strata, prepend=-1))
    frequency: dict[bytes, int] = {}
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(cells)], strict=True):
        key = entries[start:stop].tobytes()
        frequency[key] = frequency.get(key, 0) + 1
    kinds = np.zeros((len(frequency), 2 * num_strata))
    for row, key in zip(kinds, frequency, strict=True):
        stratum, total, count = np.frombuffer(key).reshape(-1, 3).T
        row[stratum.astype(np.int64)] = total
        row[num_strata + stratum.astype(np.int64)] = count
    order = np.lexsort(kinds.T[::-1])
    return kinds[order], np.array(list(frequency.values()))[order]


def _resample(
    kinds: np.ndarray,
    frequency: np.ndarray,
    num_strata: int,
    weights: np.ndarray,
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    # Clusters with equal rows are interchangeable: how often a *kind* of row is drawn is multinomial. With values 0
    # and 1 there are few kinds, which makes thousands of resamples of any number of items a matter of milliseconds.
    total = int(frequency.sum())
    share = frequency / total
    step = max(1, _BLOCK // len(kinds))
    out = np.empty(resamples)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.multinomial(total, share, size=size).astype(np.float64)
        out[start : start + size] = _estimate(drawn @ kinds, num_strata, weights)
    return out


def wilson_interval(value: float, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for a proportion.

    Args:
        value (`float`):
            Observed proportion.
        n (`int`):
            Sample size.
        confidence (`float`, defaults to 0.95):
            Coverage.

    Returns:
        `tuple[float, float]`: lower and upper end.

    Example:
        >>> from vlcomp.evaluation.statistics import wilson_interval
        >>> [round(x, 4) for x in wilson_interval(1.0, 100)]
        [0.963, 1.0]
    """
    z = normal_quantile((1 + confidence) / 2)
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def combine_independent(parts: Sequence[Interval], *, confidence: float = 0.95) -> Interval:
    """Mean of independent estimates, each with equal weight, with a normal interval.

    Args:
        parts (`Sequence[Interval]`):
            Estimates from separate items, for instance one for each category.
        confidence (`float`, defaults to 0.95):
            Coverage.

    Returns:
        [`Interval`]

    Raises:
        ArgumentError: if there are no parts.
    """
    if not parts:
        raise ArgumentError("combine_independent got no estimates")
    value = sum(part.value for part in parts) / len(parts)
    error = math.sqrt(sum(part.standard_error**2 for part in parts)) / len(parts)
    half = normal_quantile((1 + confidence) / 2) * error
    return Interval(value, error, value - half, value + half, sum(p.n for p in parts), sum(p.clusters for p in parts))


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean over seeds with Student's t-interval.

    Args:
        values (`Sequence[float]`):
            One result for each seed.
        confidence (`float`, defaults to 0.95):
            Coverage.

    Returns:
        [`Interval`]: with one value, the standard error and both ends are NaN: one run says nothing about spread.

    Raises:
        ArgumentError: if there are no values or one is not finite.

    Example:
        >>> from vlcomp.evaluation.statistics import mean_interval
        >>> interval = mean_interval([0.70, 0.72, 0.74])
        >>> round(interval.value, 3), round(interval.low, 3), round(interval.high, 3)
        (0.72, 0.67, 0.77)
    """
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    if not array.size or not np.isfinite(array).all():
        raise ArgumentError(f"mean_interval needs at least one finite value; got {list(values)!r}")
    mean = float(array.mean())
    if array.size == 1:
        return Interval(mean, math.nan, math.nan, math.nan, 1, 1)
    error = float(array.std(ddof=1) / math.sqrt(array.size))
    half = t_quantile((1 + confidence) / 2, array.size - 1) * error
    return Interval(mean, error, mean - half, mean + half, int(array.size), int(array.size))


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two scorers on the same items.

    Args:
        interval (`Interval`):
            Mean of `a - b` with its clustered interval.
        a_only (`int`):
            Items on which `a` scores higher than `b` (right against wrong).
        b_only (`int`):
            Items on which `b` scores higher than `a`.
        p_value (`float`):
            Exact two-sided McNemar (sign) test of `a_only` against `b_only`; it takes items as independent.
    """

    interval: Interval
    a_only: int
    b_only: int
    p_value: float


def paired_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Compare two scorers item by item.

    Where all differences are equal (two scorers that agree everywhere), resampling cannot see any uncertainty; the
    interval then reaches as far to either side, within -1 and 1, as Wilson's does for a proportion of 0.

    Args:
        a (`Sequence[float]` of shape [items]):
            Values of the first scorer (1 right, 0 wrong).
        b (`Sequence[float]` of shape [items]):
            Values of the second scorer on the same items in the same order.
        clusters (`Sequence` of shape [items], *optional*):
            Cluster of each item.
        resamples (`int`, defaults to 2000):
            Bootstrap resamples.
        confidence (`float`, defaults to 0.95):
            Coverage.
        seed (`int`, defaults to 0):
            Seed of the resampling.

    Returns:
        [`PairedDifference`]

    Raises:
        ArgumentError: if lengths differ.

    Example:
        >>> from vlcomp.evaluation.statistics import paired_difference
        >>> difference = paired_difference([1, 1, 1, 0], [1, 0, 0, 0])
        >>> difference.interval.value, difference.a_only, difference.b_only
        (0.5, 2, 0)
    """
    first, second = np.asarray(a, dtype=np.float64).reshape(-1), np.asarray(b, dtype=np.float64).reshape(-1)
    if first.shape != second.shape:
        raise ArgumentError(f"paired_difference: `a` has {first.size} items and `b` {second.size}; they must be equal")
    difference = first - second
    interval = cluster_bootstrap(difference, clusters, resamples=resamples, confidence=confidence, seed=seed)
    if difference.min() == difference.max():
        _, reach = wilson_interval(0.0, interval.clusters, confidence=confidence)
        low, high = max(-1.0, interval.value - reach), min(1.0, interval.value + reach)
        interval = replace(interval, low=low, high=high)
    a_only, b_only = int((first > second).sum()), int((second > first).sum())
    return PairedDifference(interval, a_only, b_only, _sign_test(a_only, b_only))


def _sign_test(a: int, b: int) -> float:
    n, k = a + b, min(a, b)
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)
    terms = (
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + log_half) for i in range(k + 1)
    )
    return min(1.0, 2 * sum(terms))


def normal_quantile(probability: float) -> float:
    """Quantile of the standard normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t distribution, for probabilities of at least one half.

    Args:
        probability (`float`):
            Between 0.5 and 1.
        degrees (`int`):
            Degrees of freedom, at least 1.

    Returns:
        `float`

    Raises:
        ArgumentError: if an argument is out of range.
    """
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ArgumentError(f"t_quantile: probability={probability} must lie in [0.5, 1), degrees={degrees} be >= 1")
    low, high = 0.0, 1.0
    while _t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if _t_cdf(middle, degrees) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_cdf(t: float, degrees: int) -> float:
    """Closed forms for whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    theta = math.atan2(t, math.sqrt(degrees))
    sine, cosine = math.sin(theta), math.cos(theta)
    if degrees % 2:
        total, term = 0.0, cosine
        for j in range(1, (degrees - 1) // 2 + 1):
            total += term
            term *= cosine * cosine * 2 * j / (2 * j + 1)
        area = 2 / math.pi * (theta + sine * total)
    else:
        total, term = 0.0, 1.0
        for j in range(1, degrees // 2 + 1):
            total += term
            term *= cosine * cosine * (2 * j - 1) / (2 * j)
        area = sine * total
    return 0.5 + area / 2
