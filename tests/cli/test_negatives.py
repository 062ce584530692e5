import json
from pathlib import Path

import pytest

from _vlcomp_cli import main
from vlcomp.cli import negatives
from vlcomp.data import load_captioned, load_image
from vlcomp.testing import make_captioned_folder


@pytest.fixture
def data(tmp_path):
    return make_captioned_folder(tmp_path / "data", n=6, captions_per_image=2)


def rows(folder):
    return [json.loads(line) for line in (Path(folder) / "metadata.jsonl").read_text().splitlines()]


def run(data, output, *options):
    return main(["negatives", "--data", str(data), "--output", str(output), *options])


def test_the_output_is_a_data_set_with_negatives(data, tmp_path, capsys):
    assert run(data, tmp_path / "out", "--types", "all", "--per-caption", "2") == 0
    printed = capsys.readouterr().out
    assert "12 captions, 12 with a negative (100.0%)" in printed
    before, after = load_captioned(data), load_captioned(tmp_path / "out")
    assert after["caption"] == before["caption"]
    assert after["image_id"] == before["image_id"]
    for row in after:
        assert 1 <= len(row["negative_captions"]) <= 2
        assert len(row["negative_captions"]) == len(row["negative_types"]) == len(row["negative_sources"])
        assert row["caption"] not in row["negative_captions"]
        assert json.loads(row["negative_sources"][0])["rule"] == row["negative_types"][0]
        assert load_image(row["image"]).size == (40, 32)
    # Referred to, not copied.
    assert not list((tmp_path / "out").rglob("*.png"))


def test_copied_images_are_shared_by_the_captions_of_one_image(data, tmp_path):
    assert run(data, tmp_path / "out", "--copy-images") == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 6
    names = [row["file_name"] for row in rows(tmp_path / "out")]
    assert len(names) == 12 and len(set(names)) == 6 and not any(name.startswith("..") for name in names)
    assert len(load_captioned(tmp_path / "out")) == 12


def test_an_interrupted_run_continues_and_gives_the_same(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(negatives, "_ROWS_PER_CHUNK", 5)
    assert run(data, tmp_path / "whole") == 0
    real, written = negatives._write, []

    def stops(path, text):
        if len(written) == 3:  # settings and two chunks
            raise KeyboardInterrupt
        written.append(path)
        real(path, text)

    monkeypatch.setattr(negatives, "_write", stops)
    assert run(data, tmp_path / "out") == 130
    assert not (tmp_path / "out" / "metadata.jsonl").exists()
    again = []
    monkeypatch.setattr(negatives, "_write", lambda path, text: (again.append(path.name), real(path, text)))
    assert run(data, tmp_path / "out") == 0
    assert again == ["negatives.json", "000002.jsonl"]
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    capsys.readouterr()
    assert run(data, tmp_path / "out") == 0
    assert "complete already" in capsys.readouterr().out and len(again) == 2


def test_rows_without_an_image_are_left_out_on_request(data, tmp_path, capsys):
    gone = sorted(data.rglob("*.png"))[0]
    gone.unlink()
    assert run(data, tmp_path / "out") == 2
    assert "--skip-bad-images" in capsys.readouterr().err
    assert run(data, tmp_path / "out", "--skip-bad-images") == 0
    assert len(rows(tmp_path / "out")) == 10


def test_errors_name_what_is_wrong(data, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    assert run(data, tmp_path / "out", "--seed", "1") == 0
    assert run(f"{data}/", tmp_path / "out", "--seed", "1") == 0  # the same folder
    cases = [
        ((data, tmp_path / "new", "--types", "colour"), "negative type 'colour' is unknown"),
        ((data, tmp_path / "new", "--num-proc", "0"), "--num-proc 0"),
        ((data, tmp_path / "new", "--num-proc", "2", "--fill-mask", "m"), "--fill-mask would load"),
        ((data, tmp_path / "new", "--per-caption", "0"), "per_caption=0"),
        ((data, data), "is the folder of the data itself"),
        ((data, tmp_path / "full"), "is not empty"),
        ((data, tmp_path / "file"), "is a file"),
        ((data, tmp_path / "out", "--seed", "2"), "made with another seed (1, now 2)"),
        ((tmp_path / "out", tmp_path / "new"), "has the column 'negative_captions' already"),
        ((tmp_path / "gone", tmp_path / "new"), "gone"),
    ]
    for arguments, message in cases:
        capsys.readouterr()
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error, (message, error)
        assert not (tmp_path / "new").exists()


def test_help_shows_types_and_an_example(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["negatives", "--help"])
    assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    assert "vlcomp negatives --data photos" in printed and "swap_attribute" in printed
