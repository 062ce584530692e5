"""`vlcomp analyze` as a stranger would type it."""

import json
import re

import pytest

import _vlcomp_cli
from vlcomp.testing import make_captioned_folder, tiny_iterated_clip, tiny_processor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run with two generations, the last of which is the final model."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    for step, generation in ((40, 1), (80, 2)):
        model = tiny_iterated_clip(seed=step)
        model.config.generation = generation
        for place in [folder / f"checkpoint-{step}", *([folder] if step == 80 else [])]:
            model.save_pretrained(place)
            tiny_processor().save_pretrained(place)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_captioned_folder(tmp_path_factory.mktemp("photos"), n=12)


def analyze(capsys, *arguments):
    try:
        code = _vlcomp_cli.main(["analyze", *map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def cells(out):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line[:1] == "|"]


def test_ease_over_a_run(run, photos, tmp_path, capsys):
    files = ["--json", tmp_path / "new" / "ease.json", "--figure", tmp_path / "ease.svg"]
    options = ["--data", photos, "--steps", 6, "--batch-size", 4, *files]
    code, out, _ = analyze(capsys, "ease", run, *options)
    assert code == 0
    table = cells(out)
    assert table[0] == ["model", "generation", "mean accuracy", "last tenth"]
    assert [row[:2] for row in table[2:]] == [["step 40", "1"], ["step 80", "2"]]
    numbers = json.loads((tmp_path / "new" / "ease.json").read_text())
    assert [len(curve) for curve in numbers["accuracy"].values()] == [6, 6]
    for row, curve in zip(table[2:], numbers["accuracy"].values(), strict=True):
        assert float(row[2]) == pytest.approx(sum(curve) / 6, abs=6e-4)
    assert numbers["settings"]["steps"] == 6
    assert (tmp_path / "ease.svg").read_text().count('<path d="M') >= 4


def test_smoothness_of_a_run_and_of_one_model(run, photos, tmp_path, capsys):
    code, out, _ = analyze(capsys, "smoothness", run, "--data", photos, "--size", 2, "--figure", tmp_path / "s.svg")
    assert code == 0 and "third is a lower bound" in out
    table = cells(out)
    assert [row[:2] for row in table[2:]] == [["step 40", "1"], ["step 80", "2"]]
    one = cells(analyze(capsys, "smoothness", run / "checkpoint-40", "--data", photos, "--size", 2)[1])
    assert one[2][2:] == table[2][2:] and one[2][0].endswith("checkpoint-40")


def test_codebook_page(run, photos, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    code, out, err = analyze(capsys, "codebook", run, "--data", photos, "--top", 3, "--output", page)
    assert code == 0 and "of 2 checkpoints the last one is reported, step 80" in err
    assert re.search(r"\d+ of 24 codes are used by images", out) and "code " in out
    assert page.read_text(encoding="utf-8").count('<section class="code">') == 3


def test_columns_with_other_names(run, photos, tmp_path, capsys):
    lines = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    renamed = [{"file_name": str(photos / line["file_name"]), "title": line["caption"]} for line in lines]
    data = tmp_path / "titled.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in renamed))
    options = ["--steps", 2, "--batch-size", 4, "--data"]
    code, out, err = analyze(capsys, "ease", run, *options, data, "--caption-column", "title")
    assert code == 0 and f"on 8 rows of {data}" in out, err
    assert cells(out) == cells(analyze(capsys, "ease", run, *options, photos)[1])
    data.write_text(data.read_text() + json.dumps({"file_name": "gone.png", "title": "a cup"}) + "\n")
    code, _, err = analyze(capsys, "ease", run, *options, data, "--caption-column", "title")
    assert code == 2 and "gone.png" in err and "--skip-bad-images" in err
    assert analyze(capsys, "ease", run, *options, data, "--caption-column", "title", "--skip-bad-images")[0] == 0


def test_topography_and_scenes_in_the_model_s_size(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path))
    code, out, _ = analyze(capsys, "topography", run / "checkpoint-40", "--size", 8)
    assert code == 0 and len(cells(out)[2]) == 6
    assert "retrieval-test-8-32px-0" in {path.name for path in (tmp_path / "scenes").rglob("retrieval*")}
    code, _, _ = analyze(capsys, "smoothness", run / "checkpoint-40", "--size", 2)
    assert code == 0 and [path.name for path in (tmp_path / "scenes").rglob("train-train-2-32px-0")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eas", "m"], "invalid choice: 'eas'"),
        (["ease"], "required: MODEL"),
        (["codebook", "{run}"], "--output"),
        (["codebook", "{run}", "--output", "page.pdf"], "--output page.pdf must name a file that ends in .html"),
        (["ease", "{run}", "--figure", "ease.png"], "--figure ease.png must name a file that ends in .svg"),
        (["ease", "{run}", "--steps", "0"], "--steps 0 must be at least 1"),
        (["topography", "{run}", "--size", "2"], "--size 2 must be at least 3"),
        (["ease", "{run}", "--data", "{photos}"], "there are 12 rows, and a batch has batch_size=128; lower it"),
        (["ease", "{run}", "--seed", "-1", "--data", "nowhere/"], "seed=-1 must be at least 0"),
        (["ease", "{run}", "--caption-column", "title", "--data", "{photos}"], "no column 'title'"),
        (["ease", "{run}", "--data", "nowhere/"], "no such file or folder: nowhere/"),
        (["ease", "{run}", "--stepz", "3"], "did you mean --steps"),
        (["smoothness", "./nothing"], "there is no such folder"),
        (["smoothness", "{photos}"], "so there is no model"),
        (["smoothness", "{siglip}", "--data", "{photos}"], "model is of type 'siglip'"),
        (["codebook", "{clip}", "--data", "nowhere/", "--output", "p.html"], "without a codebook"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    run, photos, arguments, message, capsys, clip_checkpoint, siglip_checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    places = {"run": run, "photos": photos, "clip": clip_checkpoint, "siglip": siglip_checkpoint}
    code, _, err = analyze(capsys, *(argument.format(**places) for argument in arguments))
    errors = [line for line in err.splitlines() if "error" in line]
    assert code == 2 and len(errors) == 1 and message in errors[0], err
