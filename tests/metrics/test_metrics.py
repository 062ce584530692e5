"""Metrics load by path, offline, and agree with definitions written as loops."""

import doctest
import importlib
import math

import evaluate
import numpy as np
import pytest

from vlcomp import metrics
from vlcomp.errors import ArgumentError, EvaluationError


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Caches of `evaluate`, which copies modules and keeps inputs in files."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("evaluate"))
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", folder)
        yield


@pytest.fixture(scope="module")
def load():
    return {name: evaluate.load(metrics.path(name)) for name in metrics.names()}


def test_group_score(load):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (60, 2, 2)) / 4
    text = [s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0] for s in scores]
    image = [s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1] for s in scores]
    found = load["group_score"].compute(scores=scores.tolist())
    assert found["text_score"] == np.mean(text) and found["image_score"] == np.mean(image)
    assert found["group_score"] == np.mean([a and b for a, b in zip(text, image, strict=True)])
    ties = [s[0, 0] == s[0, 1] or s[1, 1] == s[1, 0] for s in scores]
    assert found["text_ties"] == sum(ties) > 0 and found["items"] == 60
    assert load["group_score"].compute(scores=np.ones((3, 2, 2)).tolist())["group_score"] == 0.0


def test_strict_pair_accuracy(load):
    true, false = [0.9, 0.5, 0.2, 0.5], [0.1, 0.5, 0.4, 0.5 + 5e-8]
    found = load["strict_pair_accuracy"].compute(true_scores=true, false_scores=false)
    assert found == {"accuracy": 0.25, "ties": 2, "expected_accuracy": 0.5, "items": 4}
    for pair in zip(true, false, strict=True):
        load["strict_pair_accuracy"].add(true_scores=pair[0], false_scores=pair[1])
    assert load["strict_pair_accuracy"].compute() == found


def test_retrieval_recall(load):
    rng = np.random.default_rng(0)
    queries, groups = [0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3]
    scores = rng.integers(0, 5, (4, 8)) / 5
    ranks = []
    for row, own in zip(scores, queries, strict=True):
        best = max(score for score, group in zip(row, groups, strict=True) if group == own)
        ranks.append(1 + sum(score >= best for score, group in zip(row, groups, strict=True) if group != own))
    found = load["retrieval_recall"].compute(
        scores=scores.tolist(), query_groups=queries, candidate_groups=groups, k=[1, 3]
    )
    assert found["recall@1"] == np.mean([rank <= 1 for rank in ranks])
    assert found["recall@3"] == np.mean([rank <= 3 for rank in ranks])
    assert found["chance@1"] == 0.25 and found["median_rank"] == np.median(ranks)
    square = load["retrieval_recall"].compute(scores=np.ones((3, 3)).tolist(), query_groups=[5, 6, 7], k=2)
    assert square["recall@2"] == 0.0 and square["tied_queries"] == 3


def test_harmonic_mean(load):
    found = load["harmonic_mean"].compute(base=[0.8, 0.0, 0.5], novel=[0.4, 0.9, 0.5])
    each = [1 / ((1 / 0.8 + 1 / 0.4) / 2), 0.0, 0.5]
    assert math.isclose(found["harmonic_mean"], sum(each) / 3)
    base, novel = 1.3 / 3, 1.8 / 3
    assert math.isclose(found["harmonic_mean_of_averages"], 2 * base * novel / (base + novel))


@pytest.mark.parametrize(
    ("name", "inputs", "error", "message"),
    [
        ("group_score", {"scores": [[[1.0, 2.0]]]}, ArgumentError, r"scores\[0\] has rows of \[2\]"),
        ("group_score", {"scores": [[[1.0, math.nan], [0.0, 1.0]]]}, EvaluationError, "item 0 is nan"),
        ("strict_pair_accuracy", {"true_scores": [math.inf], "false_scores": [0.0]}, EvaluationError, "item 0 is inf"),
        ("retrieval_recall", {"scores": [[1.0, 2.0]], "query_groups": [0]}, ArgumentError, "pass candidate_groups"),
        (
            "retrieval_recall",
            {"scores": [[1.0]], "query_groups": [0], "k": [0]},
            ArgumentError,
            "k=0 must be at least",
        ),
        (
            "retrieval_recall",
            {"scores": [[1.0]], "query_groups": [0], "candidate_groups": [1]},
            ArgumentError,
            "query 0 has no right answer",
        ),
        ("harmonic_mean", {"base": [0.5], "novel": [-0.1]}, EvaluationError, r"novel\[0\] is -0.1"),
    ],
)
def test_mistakes_are_named(name, inputs, error, message):
    with pytest.raises(error, match=message):
        evaluate.load(metrics.path(name)).compute(**inputs)


@pytest.mark.parametrize("name", metrics.names())
def test_examples_run(name):
    module = importlib.import_module(f"vlcomp.metrics.{name}.{name}")
    example = doctest.DocTestParser().get_doctest(module._INPUTS, {}, name, None, 0)
    results = doctest.DocTestRunner().run(example)
    assert results.attempted >= 4 and not results.failed


def test_examples_of_the_helper_run_and_unknown_names_are_refused():
    assert doctest.testmod(metrics) == doctest.TestResults(0, 6)
    with pytest.raises(ArgumentError, match="did you mean 'group_score'"):
        metrics.path("groupscore")
