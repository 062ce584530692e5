import json

import pytest

import _vlcomp_cli
from vlcomp.testing import make_captioned_folder, make_class_folder


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_evaluate_prints_a_table_and_writes_results_and_page(clip_checkpoint, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["evaluate", str(clip_checkpoint), "--task", "scenes/swap_*", "--size", "12", "--fit", "squash"]
    assert _vlcomp_cli.main([*arguments, "--output", str(out), "--html"]) == 0
    printed = capsys.readouterr().out
    assert "scenes/swap_attribute/accuracy" in printed and "95 % interval" in printed and "bag of words" in printed
    results = json.loads((out / "results.json").read_text())
    assert results["settings"]["fit"] == "squash" and set(results["tasks"]) == {
        "scenes/swap_object",
        "scenes/swap_attribute",
    }
    assert (out / "report.html").stat().st_size > 10_000
    assert _vlcomp_cli.main(["report", str(out), str(out), "--output", str(tmp_path / "both.html")]) == 0
    assert "2 models compared" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_evaluate_on_a_folder(clip_checkpoint, tmp_path, capsys):
    folder = make_captioned_folder(tmp_path / "data", 8)
    assert _vlcomp_cli.main(["evaluate", str(clip_checkpoint), "--task", "retrieval", "--data", str(folder)]) == 0
    assert "retrieval/image_to_text/recall@5" in capsys.readouterr().out


def test_image_choice_on_real_data(clip_checkpoint, data_root, capsys):
    pairs = data_root / "nlvr1" / "dev_pairs.jsonl"
    arguments = ["evaluate", str(clip_checkpoint), "--task", "image_choice", "--data", str(pairs), "--limit", "60"]
    assert _vlcomp_cli.main(arguments) == 0
    assert "image_choice/accuracy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "scenes/swap_atribute"], "did you mean scenes/swap_attribute"),
        (["--task", "retrieval"], "needs data"),
        (["--task", "image_choice", "--data", "missing.jsonl"], "'missing.jsonl'"),
        (["--task", "scenes/swap_object", "--html"], "--html without a file name"),
        (["--task", "scenes/swap_object", "--data", "x"], "leave data"),
        (["--task", "scenes/swap_object", "--class-names", "x"], "'class_names'"),
        (["--task", "scenes/swap_object", "--limit", "0"], "limit=0"),
    ],
)
def test_mistakes_are_one_line(clip_checkpoint, capsys, arguments, message):
    assert _vlcomp_cli.main(["evaluate", str(clip_checkpoint), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and message in error[-1]


def test_a_folder_that_is_no_checkpoint(tmp_path, capsys):
    assert _vlcomp_cli.main(["evaluate", str(tmp_path), "--task", "scenes/swap_object", "--size", "4"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_tasks_lists_and_filters(capsys):
    assert _vlcomp_cli.main(["tasks"]) == 0
    printed = capsys.readouterr().out
    for words in ("scenes/swap_attribute", "image_choice", "needs --data: JSONL", "licence: Apache-2.0"):
        assert words in printed
    assert _vlcomp_cli.main(["tasks", "caption_choice", "--long"]) == 0
    assert "SugarCrepe, NeurIPS 2023" in capsys.readouterr().out
    assert _vlcomp_cli.main(["tasks", "scenes/systematic", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
    assert _vlcomp_cli.main(["tasks", "nothing_like_it"]) == 2


@pytest.mark.parametrize("verb", ["evaluate", "tasks", "report"])
def test_help_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit):
        _vlcomp_cli.main([verb, "--help"])
    assert "examples:" in capsys.readouterr().out


def test_several_templates_after_one_option(clip_checkpoint, tmp_path):
    folder = str(make_class_folder(tmp_path / "classes"))
    arguments = ["evaluate", str(clip_checkpoint), "--task", "zero_shot_classification", "--data", folder]
    more = ["--template", "a {}", "one {}", "--template", "some {}", "--output", str(tmp_path / "run")]
    assert _vlcomp_cli.main([*arguments, *more]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["tasks"]["zero_shot_classification"]["config"]["templates"] == ["a {}", "one {}", "some {}"]


def test_the_full_suite_says_what_it_left_out(clip_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    captioned = make_captioned_folder(tmp_path / "data", 6)
    arguments = [
        "evaluate",
        str(clip_checkpoint),
        "--suite",
        "full",
        "--size",
        "6",
        "--data",
        f"retrieval={captioned}",
    ]
    assert _vlcomp_cli.main([*arguments, "--no-shuffle", "--breakdown"]) == 0
    printed = capsys.readouterr().out
    for words in ("retrieval/image_to_text/recall@1", "scenes/mean/accuracy", "scenes/classification/clean/accuracy"):
        assert words in printed
    assert "- sugarcrepe: task 'sugarcrepe' needs its official files" in printed and "words in common" in printed
    assert "words shuffled" not in printed


def test_a_finished_part_is_kept_and_the_same_command_goes_on(clip_checkpoint, tmp_path, capsys, monkeypatch):
    from vlcomp.evaluation.tasks import ScenesRetrieval

    out = tmp_path / "run"
    arguments = ["evaluate", str(clip_checkpoint), "--task", "scenes/swap_object", "--task", "scenes/retrieval"]
    arguments += ["--size", "8", "--output", str(out), "--cache", str(tmp_path / "cache")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScenesRetrieval, "run", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("killed")))
        with pytest.raises(RuntimeError):
            _vlcomp_cli.main(arguments)
    assert _vlcomp_cli.main([*arguments[:-4], "--limit", "4", *arguments[-4:]]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert _vlcomp_cli.main(arguments) == 0
    results = json.loads((out / "results.json").read_text())
    assert set(results["tasks"]) == {"scenes/swap_object", "scenes/retrieval"}
    assert list((tmp_path / "cache").rglob("*.keys.npy")) and not (out / ".unfinished").exists()
    printed = capsys.readouterr().out
    assert "words shuffled" in printed and "images shuffled" in printed


def test_options_of_the_tasks(clip_checkpoint, tmp_path, capsys):
    for split, count in (("train", 6), ("test", 4)):
        make_class_folder(tmp_path / "classes" / split, ("cup", "star"), n=count)
    arguments = ["evaluate", str(clip_checkpoint), "--task", "linear_probe", "--data", str(tmp_path / "classes")]
    out = str(tmp_path / "run")
    assert _vlcomp_cli.main([*arguments, "--shots", "4", "--option", "strengths=[1, 10]", "--output", out]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    config = results["tasks"]["linear_probe"]["config"]
    assert config["shots"] == 4 and config["train_images"] == 8 and results["settings"]["strengths"] == [1, 10]


def test_pictures_of_training_are_looked_for(clip_checkpoint, tmp_path, capsys):
    folder = make_captioned_folder(tmp_path / "data", 6)
    arguments = ["evaluate", str(clip_checkpoint), "--task", "retrieval", "--data", str(folder)]
    assert _vlcomp_cli.main([*arguments, "--training-images", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "same picture in training" in printed and "6 of its 6 images are among the training images" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "full", "--task", "scenes"], "leave --task out"),
        (["--task", "scenes/swap_object", "--option", "seed"], "NAME=VALUE"),
        (["--task", "scenes/swap_object", "--option", "sede=1"], "has an option 'sede'"),
        (["--task", "scenes/swap_object", "--option", "limit=1"], "an argument of its own"),
        (["--task", "scenes/swap_object", "--option", "size=4", "--size", "5"], "are the same"),
        (["--task", "retrieval", "--data", "a", "--data", "b"], "TASK=PATH"),
        (["--task", "retrieval", "--data", "retreival=a"], "did you mean retrieval"),
        (["--task", "retrieval", "--data", "sugarcrepe=a"], "none of the tasks to run"),
        (["--task", "scenes/swap_object", "--reference-captions", "absent.txt"], "absent.txt is not a file"),
        (["--task", "scenes/swap_object", "--text-scorer", "absent"], "causal language model"),
        (["--task", "scenes/swap_object", "--training-images", "absent"], "'absent' is not a folder"),
        (["--suite", "full", "--data", "retrieval=absent"], "absent"),
    ],
)
def test_more_mistakes_are_one_line(clip_checkpoint, capsys, arguments, message):
    assert _vlcomp_cli.main(["evaluate", str(clip_checkpoint), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and message in error[-1]
