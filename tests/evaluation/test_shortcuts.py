import copy

import pytest

from vlcomp import evaluate
from vlcomp.evaluation import Report
from vlcomp.evaluation.comparison import Column
from vlcomp.evaluation.html import render_html
from vlcomp.evaluation.markdown import render_markdown
from vlcomp.evaluation.shortcuts import breakdown_table, leakage_table, left_out_lines

from .runs import SeededHashModel

TASK = "scenes/add_object"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return [
            evaluate(
                SeededHashModel(seed), tasks=TASK, size=40, progress=False, name=f"model {seed}", references=False
            )
            for seed in (0, 1)
        ]


def with_leak(report, **entry):
    results = copy.deepcopy(report.results)
    results["tasks"][TASK]["leakage"] = {"images": 40, "training_images": 7, "matches": [], **entry}
    results["left_out"] = {"winoground": "no data named for it (below $VLCOMP_DATA)"}
    return Report(results, report.items)


def test_groups_of_the_breakdown_are_those_of_each_run(runs):
    table = breakdown_table(TASK, [Column("a", runs[:1]), Column("b", runs[1:])])
    assert table.header == ["", "a", "b", "n"]
    wanted = {f"{p['by']}: {p['group']}": p for p in runs[1].results["tasks"][TASK]["breakdown"]}
    assert wanted and {row[0] for row in table.rows} == set(wanted)
    for name, _, cell, n in table.rows:
        assert cell.startswith(f"{wanted[name]['value']:.3f} (") and n == str(wanted[name]["n"])


def test_runs_of_one_model_have_the_mean_of_their_groups(runs):
    table = breakdown_table(TASK, [Column("both", runs)])
    for row, *parts in zip(table.rows, *(run.results["tasks"][TASK]["breakdown"] for run in runs), strict=True):
        assert row[1].startswith(f"{sum(part['value'] for part in parts) / 2:.3f} (")
    assert (
        "leakage"
        not in Column("both", [with_leak(run, same_pictures=1, only_same_names=0) for run in runs]).report.results[
            "tasks"
        ][TASK]
    )


def test_training_pictures_and_tasks_left_out_are_told_on_the_page(runs):
    leaked = with_leak(runs[0], same_pictures=13, only_same_names=2)
    columns = [Column("a", [leaked]), Column("b", runs[1:])]
    assert leakage_table(columns).rows == [["scenes/add object, a", "40", "13", "2", "7"]]
    assert left_out_lines(columns) == ["winoground: no data named for it (below $VLCOMP_DATA) (a)"]
    page, text = render_html([leaked, runs[1]]), render_markdown([leaked, runs[1]])
    for part in ("Training pictures in the benchmarks", "13", "no data named for it", "caption length and words"):
        assert part in page and part in text


def test_what_was_not_measured_is_not_shown(runs):
    bare = Report(copy.deepcopy(runs[0].results), runs[0].items)
    bare.results["tasks"][TASK].pop("breakdown")
    columns = [Column("a", [bare])]
    assert breakdown_table(TASK, columns) is None and leakage_table(columns) is None and left_out_lines(columns) == []
    page = render_html([bare])
    assert "Training pictures" not in page and "words in common" not in page and "left out" not in page
