import json

import pytest

from vlcomp.errors import ArgumentError, DataError
from vlcomp.evaluation import mean_interval
from vlcomp.studies.frame import Study, differences, load_runs, run_study, study_table


def make_study(calls, **changes):
    def run(settings, seed, folder):
        calls.append((settings["bonus"], seed))
        assert folder.is_dir()
        if settings["bonus"] == 13:
            raise RuntimeError("killed")
        return {"metrics": {"score": 0.5 + 0.01 * seed + settings["bonus"]}, "curve": [1, 2]}

    options = {
        "name": "toy",
        "title": "Toy",
        "version": "1",
        "configurations": {"plain": {"bonus": 0.0}, "better": {"bonus": 0.2}},
        "seeds": (0, 1, 2),
        "run": run,
        "columns": {"score": "score", "absent": "absent"},
    }
    return Study(**{**options, **changes})


def quiet(_):
    pass


def test_every_configuration_runs_on_every_seed_once(tmp_path):
    calls = []
    runs = run_study(make_study(calls), tmp_path, log=quiet)
    assert len(runs) == len(calls) == 6
    again = run_study(make_study(calls), tmp_path, log=quiet)
    assert len(calls) == 6 and again == runs
    record = json.loads((tmp_path / "better" / "seed2.json").read_text())
    assert record["metrics"]["score"] == pytest.approx(0.72)
    assert record["configuration"] == "better" and record["seed"] == 2 and record["curve"] == [1, 2]
    assert record["environment"]["torch"]


def test_a_killed_study_continues(tmp_path):
    calls = []
    broken = make_study(calls, configurations={"plain": {"bonus": 0.0}, "bad": {"bonus": 13}})
    with pytest.raises(RuntimeError, match="killed"):
        run_study(broken, tmp_path, log=quiet)
    assert not (tmp_path / "bad" / "seed0.json").exists() and not list(tmp_path.rglob("*.tmp"))
    calls.clear()
    run_study(make_study(calls), tmp_path, seeds=[0], log=quiet)
    assert calls == [(0.2, 0)]


def test_selection_of_seeds_and_configurations(tmp_path):
    calls = []
    run_study(make_study(calls), tmp_path, configurations=["better"], seeds=[5], log=quiet)
    assert calls == [(0.2, 5)]
    with pytest.raises(ArgumentError, match="'beter'.*better"):
        run_study(make_study(calls), tmp_path, configurations=["beter"], log=quiet)


def test_runs_of_other_settings_or_versions_are_refused_before_anything_runs(tmp_path):
    calls = []
    run_study(make_study(calls), tmp_path, seeds=[1], log=quiet)
    calls.clear()
    for changed in ({"version": "2"}, {"configurations": {"plain": {"bonus": 0.1}}}):
        with pytest.raises(DataError, match="seed1.json was made by"):
            run_study(make_study(calls, **changed), tmp_path, log=quiet)
    assert not calls


def test_a_broken_result_file_is_named(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "seed0.json").write_text("{")
    with pytest.raises(DataError, match="seed0.json: not a result file"):
        run_study(make_study([]), tmp_path, log=quiet)


def test_table_has_mean_and_interval(tmp_path):
    study = make_study([])
    run_study(study, tmp_path, log=quiet)
    table = study_table(study, load_runs(study, tmp_path))
    interval = mean_interval([50, 51, 52])
    assert f"| plain | 3 | 51.0 ± {(interval.high - interval.low) / 2:.1f} |  |" in table
    assert table.splitlines()[0] == "| configuration | seeds | score | absent |"


def test_table_of_one_seed_claims_no_interval(tmp_path):
    study = make_study([])
    run_study(study, tmp_path, seeds=[0], log=quiet)
    assert "±" not in study_table(study, load_runs(study, tmp_path))


def test_differences_to_a_run_that_has_no_seed():
    def run(name, seed, value):
        return {"configuration": name, "seed": seed, "metrics": {"a": value}}

    runs = [run("start", 0, 0.5), run("x", 0, 0.6), run("x", 1, 0.8), run("y", 1, 0.7)]
    pairs = [("x", "start"), ("x", "y"), ("y", "gone")]
    lines = differences(runs, pairs, {"a": "A"}, seedless=["start"]).splitlines()
    # 0.1 and 0.3 of two seeds; 12.7 is the t-quantile of one degree of freedom.
    assert lines[2:] == ["| x - start | 2 | +20.0 ± 127.1 |", "| x - y | 1 | +10.0 |"]
    assert differences(runs, pairs[:1], {"a": "A"}).splitlines()[2:] == ["| x - start | 1 | +10.0 |"]
