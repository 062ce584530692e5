"""Paired comparison of runs, and several seeds as one model."""

import copy
import math

import numpy as np
import pytest

from vlcomp import evaluate
from vlcomp.errors import ArgumentError
from vlcomp.evaluation import Report, mean_interval
from vlcomp.evaluation.comparison import Column, compare, welch_interval
from vlcomp.evaluation.layout import make_columns, published_table, trade_offs
from vlcomp.evaluation.markdown import render_markdown

from .runs import SUBSETS, SeededHashModel, photographs_as_sugarcrepe

TASKS = ["sugarcrepe", "scenes/swap_attribute", "scenes/retrieval", "scenes/classification/clean", "scenes/winoground"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(folder / "cache"))
        data = photographs_as_sugarcrepe(folder)
        settings = {"data": {"sugarcrepe": data}, "size": 25, "allow_partial": True, "progress": False}
        return [evaluate(SeededHashModel(s), tasks=TASKS, gallery=False, **settings) for s in range(4)]


def without(report, keep):
    """A copy with the items that `keep` says."""
    return Report(copy.deepcopy(report.results), [dict(item) for item in report.items if keep(item)])


def by_metric(comparisons, task):
    (found,) = [comparison for comparison in comparisons if comparison.task == task]
    return found, {difference.metric: difference for difference in found.differences}


def test_differences_are_those_of_the_scores_and_counts_those_of_the_items(runs):
    a, b = Column("a", runs[:1]), Column("b", runs[1:2])
    compared = compare(a, b)
    assert [comparison.task for comparison in compared] == TASKS
    for comparison in compared:
        assert comparison.notes == [] and comparison.differences
        scores = [run.results["tasks"][comparison.task]["scores"] for run in runs[:2]]
        for difference in comparison.differences:
            expected = scores[0][difference.metric]["value"] - scores[1][difference.metric]["value"]
            assert difference.paired.interval.value == pytest.approx(expected, abs=1e-12)
            assert difference.paired.interval.low <= expected <= difference.paired.interval.high
            assert difference.seeds is None
    sugarcrepe, found = by_metric(compared, "sugarcrepe")
    assert sugarcrepe.matched == 56
    assert list(found) == ["micro/accuracy", "macro/accuracy", *(f"{subset}/accuracy" for subset in SUBSETS)]
    # One item at a time.
    ours, theirs = ({i["item_id"]: i for i in run.items if i["task"] == "sugarcrepe"} for run in runs[:2])
    only = [
        sum(mine[key]["correct"] and not other[key]["correct"] for key in mine)
        for mine, other in ((ours, theirs), (theirs, ours))
    ]
    paired = found["micro/accuracy"].paired
    assert [paired.a_only, paired.b_only] == only and min(only) > 0
    n, k = sum(only), min(only)
    assert paired.p_value == pytest.approx(min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n))
    _, retrieval = by_metric(compared, "scenes/retrieval")
    assert list(retrieval) == ["image_to_text/recall@1", "text_to_image/recall@1"]


def test_a_run_does_not_differ_from_itself(runs):
    for comparison in compare(Column("a", runs[:1]), Column("b", runs[:1])):
        for difference in comparison.differences:
            paired = difference.paired
            assert (paired.interval.value, paired.a_only, paired.b_only) == (0.0, 0, 0)


def test_items_that_only_one_run_has_are_left_out_and_told(runs):
    fewer = without(runs[1], lambda item: item["task"] != "sugarcrepe" or item["subset"] != "swap_obj")
    comparison, found = by_metric(compare(Column("a", runs[:1]), Column("b", [fewer])), "sugarcrepe")
    assert comparison.matched == 48 and "swap_obj/accuracy" not in found
    assert comparison.notes == ["items differ: 8 items only with a, left out"]


def test_what_cannot_be_compared_is_not(runs):
    version = without(runs[1], lambda item: True)
    version.results["tasks"]["sugarcrepe"]["version"] = "0"
    empty = without(runs[1], lambda item: False)
    renamed = without(runs[1], lambda item: True)
    for item in renamed.items:
        item["item_id"] += "x"
    other = without(runs[1], lambda item: True)
    for item in other.items:
        item["text"] += " indeed"
    for report, note in (
        (version, "and 0 of the task differ"),
        (empty, "no items are saved with b"),
        (renamed, "no item id is in both"),
        (other, "those of the same id have another text"),
    ):
        comparison, found = by_metric(compare(Column("a", runs[:1]), Column("b", [report])), "sugarcrepe")
        assert not found and any(note in text for text in comparison.notes), note


def test_other_settings_of_a_task_are_told(runs):
    other = without(runs[1], lambda item: True)
    other.results["tasks"]["sugarcrepe"]["config"]["limit"] = 100
    comparison, found = by_metric(compare(Column("a", runs[:1]), Column("b", [other])), "sugarcrepe")
    assert found and comparison.notes == ["limit is None with a, 100 with b"]


def test_seeds_are_averaged_with_an_interval_over_seeds(runs):
    column = Column("both", runs[:3])
    name = "micro/accuracy"
    values = [run.results["tasks"]["sugarcrepe"]["scores"][name]["value"] for run in runs[:3]]
    expected, score = mean_interval(values), column.report.results["tasks"]["sugarcrepe"]["scores"][name]
    assert score["value"] == pytest.approx(np.mean(values)) and score["n"] == 56
    assert (score["low"], score["high"]) == (max(0.0, expected.low), min(1.0, expected.high))
    assert column.report.results["model"]["name"] == "both"
    ties = [run.results["tasks"]["sugarcrepe"]["scores"][name]["ties"] for run in runs[:3]]
    assert score["ties"] == sum(ties)
    # The runs themselves are as they were.
    assert runs[0].results["tasks"]["sugarcrepe"]["scores"][name]["value"] == values[0]
    items = column.items("sugarcrepe")
    assert len(items) == 56 and {item.correct for item in items.values()} <= {0.0, 1 / 3, 2 / 3, 1.0}
    assert np.mean([item.correct for item in items.values()]) == pytest.approx(np.mean(values))


def test_groups_are_compared_over_seeds_too_and_without_mcnemar(runs):
    a, b = Column("a", runs[:2]), Column("b", runs[2:])
    _, found = by_metric(compare(a, b), "sugarcrepe")
    difference = found["micro/accuracy"]
    scores = [run.results["tasks"]["sugarcrepe"]["scores"]["micro/accuracy"]["value"] for run in runs]
    assert not difference.exact
    assert difference.seeds == welch_interval(scores[:2], scores[2:])
    assert difference.seeds.value == pytest.approx(difference.paired.interval.value)


def test_welch_by_hand():
    a, b = [1.0, 2.0, 3.0, 4.0], [2.0, 2.5, 6.0]
    interval = welch_interval(a, b)
    # Variances 5/3 and 4.75: degrees (5/12 + 4.75/3)^2 / ((5/12)^2/3 + (4.75/3)^2/2) = 3.05, so 3; t = 3.182446.
    error = math.sqrt(5 / 3 / 4 + 4.75 / 3)
    assert interval.value == pytest.approx(-1.0) and interval.standard_error == pytest.approx(error)
    assert interval.high - interval.value == pytest.approx(3.182446 * error, rel=1e-6)
    with pytest.raises(ArgumentError, match="1 and 2 results"):
        welch_interval([1.0], [1.0, 2.0])


def test_groups_that_make_no_sense_are_refused(runs):
    with pytest.raises(ArgumentError, match="no runs"):
        Column("none", [])
    other = without(runs[1], lambda item: True)
    other.results["tasks"]["sugarcrepe"]["version"] = "0"
    with pytest.raises(ArgumentError, match="in versions 0 and "):
        Column("mixed", [runs[0], other])
    only = without(runs[1], lambda item: True)
    only.results["tasks"] = {"x": only.results["tasks"]["sugarcrepe"]}
    with pytest.raises(ArgumentError, match="no task in common"):
        Column("apart", [runs[0], only])
    del other.results["tasks"]["sugarcrepe"]
    assert Column("fewer", [runs[0], other]).left_out == ["sugarcrepe: not all 2 runs have it"]
    with pytest.raises(ArgumentError, match="'a' is given twice"):
        make_columns(runs[:1], names=["a"], groups={"a": runs[1:]})


def test_published_scores_stand_beside_the_measured_ones(runs):
    table = published_table("sugarcrepe", make_columns(runs[:2], names=["a", "b"]))
    models = ["CLIP ViT-B/32", "NegCLIP", "CE-CLIP", "VladVA, LLaVA-1.5-7B"]
    assert table.header == ["a", "b", *(f"{model}, published" for model in models), "human"]
    rows = dict(table.rows)
    measured = [run.results["tasks"]["sugarcrepe"]["scores"] for run in runs[:2]]
    swap = [scores["swap_att/accuracy"]["value"] for scores in measured]
    assert rows["swap att"] == [*swap, 0.64, 0.754, 0.77, 0.829, None]
    micro = [scores["micro/accuracy"]["value"] for scores in measured]
    assert rows["micro"] == [*micro, None, None, None, None, 0.989]
    assert any("arXiv:2306.08832" in source for source in table.sources)
    # These files are not the official ones.
    assert any("published scores do not compare: a, b" in note for note in table.notes)
    assert published_table("scenes/swap_attribute", make_columns(runs[:1])) is None


def test_trade_offs_need_both_kinds_and_two_models(runs):
    columns = make_columns(runs[:2], names=["a", "b"])
    planes = {plane.x_label: plane for plane in trade_offs(columns)}
    assert set(planes) == {"zero-shot classification", "retrieval"}
    plane = planes["retrieval"]
    assert plane.x_tasks == ["scenes/retrieval"]
    assert set(plane.y_tasks) == {"sugarcrepe", "scenes/swap_attribute", "scenes/winoground"}
    tasks = runs[0].results["tasks"]
    heads = [tasks[t]["scores"][tasks[t]["headline"]]["value"] for t in plane.y_tasks]
    assert plane.values[0] == (
        0,
        tasks["scenes/retrieval"]["scores"]["image_to_text/recall@1"]["value"],
        np.mean(heads),
    )
    assert trade_offs(columns[:1]) == []


def test_markdown_has_the_same_numbers(runs):
    text = render_markdown(runs[:2], names=["a", "b|c"])
    assert text.startswith("# 2 models compared\n") and "b\\|c" in text
    score = runs[1].results["tasks"]["sugarcrepe"]["scores"]["micro/accuracy"]
    assert f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})" in text
    _, found = by_metric(compare(Column("b", runs[1:2]), Column("a", runs[:1])), "sugarcrepe")
    assert f"{found['micro/accuracy'].paired.interval.value:+.3f}" in text
    assert "b\\|c minus a, item by item" in text and "arXiv:2306.08832" in text
    assert "Compositionality against retrieval" in text
    # Every line of a table has as many cells as its heading.
    width = None
    for line in text.splitlines():
        cells = line.replace("\\|", "").count("|") if line.startswith("|") else None
        assert width is None or cells is None or cells == width
        width = cells
