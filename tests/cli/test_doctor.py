"""`vlcomp doctor`: nothing, something, everything and something broken."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

import _vlcomp_cli
from vlcomp.evaluation.benchmarks import BENCHMARKS

from ..evaluation.runs import photographs_as_sugarcrepe


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))


def doctor(capsys, *arguments):
    code = _vlcomp_cli.main(["doctor", *map(str, arguments)])
    return code, capsys.readouterr().out


def inspect(capsys, *arguments):
    code, out = doctor(capsys, *arguments, "--json")
    found = json.loads(out)
    return code, {entry["name"]: entry for entry in found["benchmarks"]}, found["environment"]


def winoground(root, lines=400, pictures=True):
    """The whole of it, made on the fly."""
    folder = root / "winoground"
    (folder / "images").mkdir(parents=True)
    rows = [
        {"id": i, "image_0": f"ex_{i}_0", "image_1": f"ex_{i}_1", "caption_0": f"a {i}", "caption_1": f"{i} a"}
        for i in range(lines)
    ]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if pictures:
        first = folder / "images" / "ex_0_0.png"
        Image.new("RGB", (8, 8)).save(first)
        for i in range(2 * lines):
            target = folder / "images" / f"ex_{i // 2}_{i % 2}.png"
            if target != first:
                os.link(first, target)
    return folder


def test_nothing_installed_is_no_failure(capsys):
    code, out = doctor(capsys, "--strict")
    assert code == 0
    assert "VLCOMP_DATA: not set" in out and "nothing says where they are" in out
    for task in BENCHMARKS:
        assert f"  {task.facts.name} " in out and f"in $VLCOMP_DATA/{task.facts.folder}\n" in out
        assert task.facts.licence in out
    assert "gated: access is granted on the Hugging Face hub" in out
    assert f"{len(BENCHMARKS)} not installed" in out


def test_environment_has_what_a_bug_report_needs(capsys, tmp_path):
    import torch
    import transformers

    import vlcomp

    (tmp_path / "cache" / "scenes").mkdir(parents=True)
    (tmp_path / "cache" / "scenes" / "x").write_bytes(b"0" * 1500)
    _, _, environment = inspect(capsys, "winoground")
    assert environment["vlcomp"] == vlcomp.__version__
    assert environment["packages"]["transformers"] == transformers.__version__
    assert set(environment["packages"]) >= {"torch", "peft", "datasets", "torchvision"}
    assert environment["devices"] and ("cuda:0" in environment["devices"][0]) == torch.cuda.is_available()
    assert environment["cache"] == {"folder": str(tmp_path / "cache"), "bytes": 1500}
    _, out = doctor(capsys, "winoground")
    assert f"torch {torch.__version__}" in out and f"cache:    {tmp_path / 'cache'}, 1.5 kB" in out


def test_a_whole_benchmark_is_ready(capsys, tmp_path, monkeypatch):
    folder = winoground(tmp_path)
    monkeypatch.setenv("VLCOMP_DATA", str(tmp_path))
    code, found, _ = inspect(capsys, "--strict")
    entry = found["winoground"]
    assert code == 0 and entry["state"] == "ready" and entry["problem"] == ""
    assert entry["looked_in"] == [str(folder)]
    assert entry["bytes"] == (folder / "examples.jsonl").stat().st_size
    assert entry["images"]["found"] == 800
    assert entry["images"]["bytes"] == 800 * (folder / "images" / "ex_0_0.png").stat().st_size
    assert all(e["state"] == "not installed" for name, e in found.items() if name != "winoground")
    assert inspect(capsys, "winoground", "--quick")[1]["winoground"]["state"] == "found"


def test_missing_images_are_told_and_no_damage(capsys, tmp_path):
    winoground(tmp_path, pictures=False)
    code, found, _ = inspect(capsys, "winoground", "--data", tmp_path, "--strict")
    assert code == 0 and found["winoground"]["state"] == "images missing"
    assert "800 of 800 images are missing" in found["winoground"]["problem"]
    _, out = doctor(capsys, "winoground", "--data", tmp_path)
    assert "Unpack images.zip into the folder images" in out and "examples.jsonl: 400 items" in out


@pytest.mark.parametrize("how", ["fewer", "cut", "empty", "other"])
def test_damage_fails_when_strict(capsys, tmp_path, how):
    folder = winoground(tmp_path, lines=399 if how == "fewer" else 400, pictures=False)
    file = folder / "examples.jsonl"
    content = {"cut": file.read_bytes()[:-20], "empty": b"", "other": b"\xff\xfe\x00PK"}.get(how, file.read_bytes())
    file.write_bytes(content)
    code, found, _ = inspect(capsys, "winoground", "--data", tmp_path, "--strict")
    assert code == 1 and found["winoground"]["state"] == "damaged" and found["winoground"]["problem"]
    assert inspect(capsys, "winoground", "--data", tmp_path)[0] == 0


def test_checksums_tell_a_changed_file(capsys, tmp_path):
    folder = photographs_as_sugarcrepe(tmp_path)
    code, found, _ = inspect(capsys, "sugarcrepe", "--data", tmp_path, "--strict")
    entry = found["sugarcrepe"]
    assert code == 1 and entry["state"] == "damaged" and "holds 8 items, the official file 1,652" in entry["problem"]
    assert [file["official"] for file in entry["files"]] == [False] * 7
    (folder / "swap_obj.json").unlink()
    code, found, _ = inspect(capsys, "sugarcrepe", "--data", tmp_path, "--strict")
    entry = found["sugarcrepe"]
    assert code == 1 and entry["state"] == "changed"
    assert entry["problem"].startswith("1 of 7 official files are missing; not the official file")
    code, found, _ = inspect(capsys, "sugarcrepe", "--data", tmp_path, "--strict", "--quick")
    assert code == 0 and found["sugarcrepe"]["state"] == "incomplete"


def test_official_files_are_recognised(capsys):
    root = Path(os.environ.get("VLCOMP_BENCHMARKS") or Path(__file__).resolve().parents[3] / "shared" / "benchmarks")
    if not root.is_dir():
        pytest.skip(f"official benchmark files not found at {root}; VLCOMP_BENCHMARKS says where they are")
    code, found, _ = inspect(capsys, "sugarcrepe", "--data", root, "--strict")
    entry = found["sugarcrepe"]
    assert [file["official"] for file in entry["files"]] == [True] * 7
    assert code == 0 and entry["state"] in ("ready", "images missing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sugarcrep"], "did you mean sugarcrepe"),
        (["scenes/swap_attribute"], "has no official files"),
        (["--data", "nowhere"], "--data 'nowhere' is not a folder"),
        (["--images", "nowhere"], "--images 'nowhere' is not a folder"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message):
    assert _vlcomp_cli.main(["doctor", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and error.count("\n") == 0 and message in error
