"""`vlcomp report` as a stranger would type it."""

import json
import re

import pytest

import _vlcomp_cli
from vlcomp import evaluate

from ..evaluation.runs import SeededHashModel


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(folder / "cache"))
        for seed, name in enumerate(("org/clip", "org/clip", "other", "CLIP ViT-B/32")):
            tasks = ["scenes/swap_attribute", "scenes/classification/clean"]
            out = folder / f"run{seed}"
            evaluate(SeededHashModel(seed), tasks=tasks, size=20, name=name, output=out, progress=False)
    return folder


def report(capsys, *arguments):
    code = _vlcomp_cli.main(["report", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out.strip(), captured.err.strip()


def headings(path):
    return re.findall(r'<span class="key run\d"></span><b>(.*?)</b>', path.read_text(encoding="utf-8"))


def test_a_page_of_three_runs(runs, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    code, out, _ = report(capsys, *(runs / f"run{i}" for i in (0, 2, 3)), "--output", page)
    assert (code, out) == (0, str(page))
    assert headings(page)[:3] == ["clip", "other", "CLIP ViT-B/32"]
    text = page.read_text(encoding="utf-8")
    assert "other minus clip, item by item" in text and "<figure" in text
    assert report(capsys, runs / "run0", "--output", page, "--no-gallery")[0] == 0
    assert "<figure" not in page.read_text(encoding="utf-8")


def test_runs_of_one_model_are_told_apart_by_their_folders_or_given_names(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(runs)
    page = tmp_path / "page.html"
    assert report(capsys, "run0", "run1", "--output", page)[0] == 0
    assert headings(page)[:2] == ["run0", "run1"]
    assert report(capsys, "A=run0", "B=run1", "--output", page)[0] == 0
    assert headings(page)[:2] == ["A", "B"]
    code, _, error = report(capsys, "A=run0", "A=run1", "--output", page)
    assert code == 2 and "'A' is given twice" in error


def test_groups_by_list_and_by_pattern(runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    arguments = ["--group", f"one={runs}/run[01]", "--group", f"two={runs}/run2,{runs}/run3", "--output", page]
    assert report(capsys, *arguments)[0] == 0
    text = page.read_text(encoding="utf-8")
    assert headings(page)[:2] == ["one", "two"] and text.count("mean of 2 runs") >= 2 and "95 % over seeds" in text
    assert report(capsys, runs / "run2", "--group", f"one={runs}/run[01]", "--output", tmp_path / "page.md")[0] == 0
    values = [
        json.loads((runs / f"run{i}" / "results.json").read_text())["tasks"]["scenes/swap_attribute"]["scores"]
        for i in (0, 1)
    ]
    mean = sum(scores["accuracy"]["value"] for scores in values) / 2
    markdown = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert re.search(rf"\| swap attribute \|.*\| {mean:.3f} \(", markdown)
    assert "one: mean of 2 runs" in markdown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no RUN is given"),
        (["missing"], "missing/results.json does not exist"),
        (["{run}", "--output", "page.pdf"], "'page.pdf' must end in .html or .md"),
        (["{run}", "--output", "."], "must end in .html or .md"),
        (["--group", "name"], "--group 'name' must be NAME=RUN"),
        (["--group", "a=nothing*"], "no folder matches 'nothing*'"),
        (["--group", "a={run},{run}"], "is named twice"),
        (["--group", "a={run}", "--group", "a={run}"], "'a' is given twice"),
    ],
)
def test_mistakes_are_one_line(runs, capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = report(capsys, *(argument.replace("{run}", str(runs / "run0")) for argument in arguments))
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 0 and message in error
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_option_names_the_right_one(capsys):
    with pytest.raises(SystemExit) as stop:
        _vlcomp_cli.main(["report", "run", "--ouput", "x.html"])
    assert stop.value.code == 2 and "did you mean --output" in capsys.readouterr().err
