import argparse
import json

import pytest

from _vlcomp_cli import main
from vlcomp import ZeroShotPipeline
from vlcomp.cli import classify
from vlcomp.testing import make_captioned_folder, make_class_folder, tiny_images


@pytest.fixture
def pictures(tmp_path):
    return make_class_folder(tmp_path / "pictures", n=2)


def test_table_and_json_hold_the_scores_of_the_pipeline(clip_checkpoint, pictures, tmp_path, capsys):
    out = tmp_path / "new" / "out.json"
    labels = ["a cup", "a star", "a dog"]
    one = str(pictures / "cup" / "000.png")
    arguments = [one, str(pictures), "--labels", *labels, "--json", str(out), "--batch-size", "1"]
    assert main(["classify", str(clip_checkpoint), *arguments]) == 0
    record = json.loads(out.read_text())
    paths = sorted(str(path) for path in pictures.rglob("*.png"))
    assert [row["image"] for row in record["results"]] == paths  # the one given twice is classified once
    expected = ZeroShotPipeline(clip_checkpoint)(paths, labels)
    for row, entries in zip(record["results"], expected, strict=True):
        assert [entry["label"] for entry in row["labels"]] == [entry["label"] for entry in entries]
        assert row["labels"][0]["score"] == pytest.approx(entries[0]["score"], abs=1e-6)
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("  ")]
    assert len(lines) == 12 and all(path in printed for path in paths)
    assert f"{expected[0][0]['score']:.4f}" in lines[0] and lines[0].split()[1] == expected[0][0]["label"].split()[1]


def test_labels_file_templates_and_top_k(clip_checkpoint, pictures, tmp_path, capsys):
    file = tmp_path / "labels.txt"
    file.write_text("a cup\n\n  a star \na dog\n", encoding="utf-8-sig")
    options = ["--labels-file", str(file), "--template", "{}", "a {}", "--top-k", "1", "--batch-size", "1"]
    assert main(["classify", str(clip_checkpoint), str(pictures), *options]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(lines) == 4
    expected = ZeroShotPipeline(clip_checkpoint)(
        str(pictures / "cup" / "000.png"), ["a cup", "a star", "a dog"], hypothesis_template=["{}", "a {}"]
    )
    assert f"{expected[0]['score']:.4f}" in lines[0]


def test_errors_name_what_is_wrong(clip_checkpoint, pictures, tmp_path, capsys):
    picture = str(pictures / "cup" / "000.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    cases = [
        ([str(tmp_path / "gone.png"), "--labels", "a"], "gone.png: there is no such picture"),
        ([str(tmp_path / "empty"), "--labels", "a"], "empty: there is no picture in this folder"),
        ([picture, "--labels-file", str(tmp_path / "gone.txt")], "gone.txt cannot be read"),
        ([picture, "--labels-file", str(tmp_path / "none.txt")], "none.txt holds no label"),
        ([picture, "--labels-file", str(tmp_path / "latin.txt")], "latin.txt is not UTF-8 text (byte 3)"),
        ([picture, "--labels", "a", "a"], "'a' is there twice"),
        ([picture, "--labels", "a", "--template", "photo"], "'photo' has no"),
        ([picture, "--labels", "a", "--top-k", "0"], "--top-k 0"),
        ([picture, "--labels", "a", "--batch-size", "0"], "--batch-size 0"),
        ([picture, "--labels", "a", "--device", "gpu"], "device='gpu'"),
        ([picture, "--labels", "a", "--json", picture + "/out.json"], "cannot be written"),
    ]
    for arguments, message in cases:
        assert main(["classify", str(clip_checkpoint), *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert main(["classify", str(tmp_path), picture, "--labels", "a"]) == 2
    assert "no config.json" in capsys.readouterr().err


def test_bad_images_stop_or_are_skipped_and_listed(clip_checkpoint, pictures, tmp_path, capsys):
    (pictures / "cup" / "bad.png").write_text("not a picture")
    gone = str(tmp_path / "gone.png")
    arguments = ["classify", str(clip_checkpoint), str(pictures), "--labels", "a cup", "a star"]
    assert main(arguments) == 2
    assert "bad.png" in capsys.readouterr().err
    out = tmp_path / "out.json"
    assert (
        main([*arguments[:3], gone, *arguments[3:], "--skip-bad-images", "--json", str(out), "--batch-size", "2"]) == 0
    )
    printed = capsys.readouterr()
    assert "skipped 2 of 6 pictures" in printed.err and "bad.png" in printed.err and "gone.png" in printed.err
    record = json.loads(out.read_text())
    assert len(record["results"]) == 4 and [entry["image"] for entry in record["skipped"]][1] == gone
    assert main(["classify", str(clip_checkpoint), gone, "--labels", "a", "b", "--skip-bad-images"]) == 2
    assert "none of the 1 pictures can be read" in capsys.readouterr().err


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["classify", "--help"])
    assert stop.value.code == 0
    assert "vlcomp classify runs/clip photo.jpg --labels" in capsys.readouterr().out
    parser = argparse.ArgumentParser()
    classify.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["model", "image.png"])  # neither --labels nor --labels-file


def test_long_labels_do_not_break_the_table(clip_checkpoint, tmp_path, capsys):
    tiny_images(1)[0].save(tmp_path / "a.png")
    long = "a very " * 30 + "red cup"
    assert main(["classify", str(clip_checkpoint), str(tmp_path / "a.png"), "--labels", long, "star"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines()[1:])) <= 2 + 60 + 2 + 6 + 2 + 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PICTURE", "--labels", "cat", "cat"], "--labels[1]='cat' is there twice"),
        (["PICTURE", "--labels", "cat", " "], "--labels[1]=' ' is empty"),
        (["PICTURE", "--labels", "cat", "dog", "--template", "a photo"], "--template='a photo' has no"),
        (["TORN", "--labels", "cat", "dog"], "1 picture of those to classify cannot be read"),
    ],
)
def test_mistakes_show_before_the_model_is_loaded(tmp_path, capsys, arguments, message):
    make_captioned_folder(tmp_path / "photos", 2)
    torn = tmp_path / "photos" / "0001.png"
    torn.write_bytes(torn.read_bytes()[:60])
    names = {"PICTURE": str(tmp_path / "photos" / "0000.png"), "TORN": str(tmp_path / "photos")}
    assert main(["classify", "no/model/there", *[names.get(word, word) for word in arguments]]) == 2
    assert message in capsys.readouterr().err


def test_one_label_says_nothing_under_a_softmax(clip_checkpoint, siglip_checkpoint, tmp_path, capsys):
    folder = make_captioned_folder(tmp_path / "photos", 1)
    assert main(["classify", str(clip_checkpoint), str(folder), "--labels", "cat"]) == 2
    assert "give at least two labels" in capsys.readouterr().err
    assert main(["classify", str(siglip_checkpoint), str(folder), "--labels", "cat"]) == 0
    assert capsys.readouterr().err == ""
