import math
import time
import tracemalloc

import numpy as np
import pytest

from vlcomp.errors import ArgumentError
from vlcomp.evaluation.statistics import (
    cluster_bootstrap,
    combine_independent,
    mean_interval,
    paired_difference,
    t_quantile,
    wilson_interval,
)


def slow_bootstrap(values, clusters, strata, resamples, seed):
    """One resample at a time, item by item."""
    members = {}
    for value, cluster, stratum in zip(values, clusters, strata, strict=True):
        members.setdefault(cluster, []).append((value, stratum))
    keys = list(members)
    names = list(dict.fromkeys(strata))
    rng = np.random.default_rng(seed)
    estimates = []
    for _ in range(resamples):
        found = {name: [] for name in names}
        for pick in rng.integers(0, len(keys), len(keys)):
            for value, stratum in members[keys[pick]]:
                found[stratum].append(value)
        estimates.append(np.mean([np.mean(rows) for rows in found.values() if rows]))
    return np.std(estimates, ddof=1), *np.quantile(estimates, [0.025, 0.975])


@pytest.mark.parametrize("stratified", [False, True])
def test_bootstrap_equals_the_slow_one(stratified):
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 60, 300)
    # Items of a cluster resemble each other, so that ignoring clusters would show.
    values = (rng.random(300) < np.where(clusters % 2, 0.9, 0.3)).astype(float)
    strata = rng.integers(0, 3, 300) if stratified else np.zeros(300, dtype=int)
    error, low, high = slow_bootstrap(values, clusters.tolist(), strata.tolist(), 3000, 1)
    fast = cluster_bootstrap(values, clusters, strata=strata, resamples=20_000)
    assert fast.standard_error == pytest.approx(error, rel=0.05)
    assert (fast.low, fast.high) == pytest.approx((low, high), abs=0.01)
    assert fast.clusters == len(set(clusters.tolist())) and fast.n == 300
    # Clusters make it wider than the formula for independent items.
    assert fast.standard_error > 1.3 * math.sqrt(values.mean() * (1 - values.mean()) / 300)


def test_bootstrap_of_independent_items_equals_the_formula():
    values = np.array([1.0] * 700 + [0.0] * 300)
    interval = cluster_bootstrap(values, resamples=20_000)
    assert interval.standard_error == pytest.approx(math.sqrt(0.7 * 0.3 / 1000), rel=0.03)
    assert interval.value == 0.7


def test_same_seed_same_interval_and_order_does_not_matter():
    rng = np.random.default_rng(1)
    values, clusters = rng.random(500) < 0.6, rng.integers(0, 80, 500)
    first = cluster_bootstrap(values, clusters)
    order = rng.permutation(500)
    assert first == cluster_bootstrap(values, clusters)
    assert first.value == pytest.approx(cluster_bootstrap(values[order], clusters[order]).value, abs=1e-12)


def test_mirrored_pairs_of_an_indifferent_scorer_have_no_spread():
    values = [1, 0] * 50
    pairs = [i // 2 for i in range(100)]
    interval = cluster_bootstrap(values, pairs)
    assert (interval.value, interval.standard_error, interval.low, interval.high) == (0.5, 0.0, 0.5, 0.5)


def test_all_right_is_not_certain():
    interval = cluster_bootstrap(np.ones(100))
    assert interval.value == 1.0 and interval.high == 1.0
    assert interval.low == pytest.approx(0.963, abs=0.001)
    assert cluster_bootstrap(np.zeros(100)).high == pytest.approx(0.037, abs=0.001)
    # One cluster is one observation, however many items it holds.
    assert cluster_bootstrap(np.ones(100), ["a"] * 100).low < 0.3
    mixed = cluster_bootstrap([1, 0, 1], ["a"] * 3)
    assert mixed.value == pytest.approx(2 / 3)
    assert all(math.isnan(x) for x in (mixed.standard_error, mixed.low, mixed.high))


def test_macro_average_weighs_strata():
    values, strata = [1, 1, 1, 1, 0, 0], ["a"] * 4 + ["b"] * 2
    assert cluster_bootstrap(values, strata=strata).value == 0.5
    assert cluster_bootstrap(values, strata=strata, weights={"a": 3, "b": 1}).value == 0.75
    with pytest.raises(ArgumentError, match="lacks the strata"):
        cluster_bootstrap(values, strata=strata, weights={"a": 1})


def test_small_strata_do_not_make_the_interval_vanish():
    interval = cluster_bootstrap([1, 0, 1, 0, 1, 1], strata=[0, 1, 2, 3, 4, 5])
    assert interval.low < interval.value < interval.high


def test_quick_on_ten_thousand_items():
    rng = np.random.default_rng(2)
    start = time.perf_counter()
    cluster_bootstrap(rng.random(10_000) < 0.7, rng.integers(0, 5000, 10_000))
    assert time.perf_counter() - start < 2.0


def test_many_strata_need_little_memory():
    rng = np.random.default_rng(3)
    values, classes = rng.random(20_000) < 0.6, rng.integers(0, 400, 20_000)
    tracemalloc.start()
    try:
        interval = cluster_bootstrap(values, strata=classes, resamples=50)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A table of all items and strata would take 128 MB.
    assert peak < 40e6
    assert interval.value == pytest.approx(np.mean([values[classes == k].mean() for k in range(400)]))


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_bad_values_are_refused(values):
    with pytest.raises(ArgumentError):
        cluster_bootstrap(values)


def test_uneven_clusters_are_refused():
    with pytest.raises(ArgumentError, match="2 entries for 3 values"):
        cluster_bootstrap([1, 0, 1], ["a", "b"])


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 4, 2.77645), (0.975, 30, 2.04227), (0.995, 7, 3.49948)],
)
def test_t_quantiles_of_the_tables(probability, degrees, quantile):
    assert t_quantile(probability, degrees) == pytest.approx(quantile, rel=1e-5)


def test_interval_over_seeds():
    interval = mean_interval([0.5, 0.6, 0.7])
    assert interval.value == pytest.approx(0.6)
    assert interval.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert interval.high - interval.value == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    assert math.isnan(mean_interval([0.5]).low)
    with pytest.raises(ArgumentError):
        mean_interval([])


def test_paired_difference_and_its_test():
    a, b = [1] * 10 + [0] * 2 + [1] * 8, [0] * 10 + [1] * 2 + [1] * 8
    found = paired_difference(a, b)
    assert found.interval.value == pytest.approx(8 / 20)
    assert (found.a_only, found.b_only) == (10, 2)
    # Two-sided sign test: 2 * P(X <= 2), X ~ Binomial(12, 1/2).
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert paired_difference(a, a).p_value == 1.0
    with pytest.raises(ArgumentError):
        paired_difference([1], [1, 0])


def test_equal_differences_are_not_certain_on_either_side():
    right, wrong = [1] * 100, [0] * 100
    reach = wilson_interval(0.0, 100)[1]
    for a, b, low, high in (
        (right, right, -reach, reach),
        (wrong, wrong, -reach, reach),
        (right, wrong, 1 - reach, 1.0),
        (wrong, right, -1.0, reach - 1),
    ):
        interval = paired_difference(a, b).interval
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)


def test_independent_parts():
    parts = [cluster_bootstrap([1, 0] * 50), cluster_bootstrap([1, 1, 1, 0] * 25)]
    mean = combine_independent(parts)
    assert mean.value == pytest.approx(0.625)
    assert mean.standard_error == pytest.approx(math.hypot(*(p.standard_error for p in parts)) / 2)


def test_wilson():
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
