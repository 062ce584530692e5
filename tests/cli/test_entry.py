"""The command itself: help, verbs, errors."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

import _vlcomp_cli
from vlcomp.cli import __path__ as cli_path


def test_help_answers_in_under_a_second_without_transformers():
    code = "import sys, _vlcomp_cli; _vlcomp_cli.main(['--help']); assert 'transformers' not in sys.modules"
    best = 9.0
    for _ in range(3):
        start = time.perf_counter()
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        best = min(best, time.perf_counter() - start)
    assert best < 1.0
    for verb in _vlcomp_cli.VERBS:
        assert f"  {verb} " in out


def test_table_of_verbs_and_modules_agree():
    modules = {p.stem for p in Path(cli_path[0]).glob("*.py") if not p.stem.startswith("_")}
    assert modules == set(_vlcomp_cli.VERBS)


def test_unknown_verb_names_a_close_one(capsys):
    assert _vlcomp_cli.main(["evalute"]) == 2
    assert "did you mean evaluate?" in capsys.readouterr().err


def test_version(capsys):
    import vlcomp

    assert _vlcomp_cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"vlcomp {vlcomp.__version__}"


def test_no_argument_prints_help_and_fails(capsys):
    assert _vlcomp_cli.main([]) == 2
    assert "usage: vlcomp" in capsys.readouterr().out


@pytest.mark.parametrize("verb", _vlcomp_cli.VERBS)
def test_every_verb_has_a_help_with_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        _vlcomp_cli.main([verb, "--help"])
    assert stop.value.code == 0
    assert f"vlcomp {verb}" in capsys.readouterr().out.split("usage:")[1].split("\n", 1)[1]


def test_errors_are_one_line(capsys, monkeypatch):
    assert _vlcomp_cli.main(["reproduce", "clipp"]) == 2
    captured = capsys.readouterr().err
    assert captured.startswith("error: ") and captured.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "m", "--bach-size", "3"], "'--bach-size' is not known; did you mean --batch-size"),
        (["evaluate", "--bach-size", "3"], "'--bach-size' is not known; did you mean --batch-size"),
        (["evaluate", "m", "--batch-size", "x"], "--batch-size: invalid int value: 'x'"),
        (["evaluate", "m", "--fit", "foo"], "invalid choice: 'foo'"),
        (["classify", "m", "p.png", "--label", "cat"], "'--label' is not known; did you mean --labels"),
        (["classify", "m", "p.png"], "--labels --labels-file is required"),
        (["train", "clipp"], "invalid choice: 'clipp'"),
        (["train", "clip", "--lora", "x"], "`vlcomp train clip --help`"),
        (["demo", "stray"], "'stray' is not known"),
        (["tasks", "--jsn"], "did you mean --json"),
    ],
)
def test_mistyped_arguments_are_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        _vlcomp_cli.main(arguments)
    captured = capsys.readouterr().err
    assert stop.value.code == 2
    assert captured.startswith("error: ") and captured.count("\n") == 1
    assert message in captured


def test_an_error_of_several_lines_is_printed_as_one_after_the_bars(capsys, monkeypatch):
    from tqdm import tqdm

    import vlcomp.cli.tasks
    from vlcomp.errors import ArgumentError

    def run(args):
        tqdm(total=3)
        raise ArgumentError("first\nsecond")

    monkeypatch.setattr(vlcomp.cli.tasks, "run", run)
    assert _vlcomp_cli.main(["tasks"]) == 2
    assert capsys.readouterr().err.endswith("\nerror: first second\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "--threads 0"),
        (["--threads", "-1"], "--threads -1"),
        (["--seeds", "0", "-1"], "--seeds -1"),
        (["--table", "--seeds", "1"], "--table prints all"),
    ],
)
def test_reproduce_refuses_what_it_cannot_use(capsys, tmp_path, arguments, message):
    assert _vlcomp_cli.main(["reproduce", "clip", "--output", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
