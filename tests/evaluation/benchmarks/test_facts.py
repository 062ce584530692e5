"""What is known about the benchmarks as data, and their place among the tasks."""

import hashlib
import re

import pytest

import _vlcomp_cli
from vlcomp.evaluation import get_task, list_tasks, resolve_tasks
from vlcomp.evaluation.benchmarks import BENCHMARKS, SugarCrepe, Winoground, find_installed, sha256_of

NAMES = [task.facts.name for task in BENCHMARKS]


@pytest.mark.parametrize("task", BENCHMARKS, ids=NAMES)
def test_facts_are_complete(task):
    facts = task.facts
    assert facts.title and facts.folder and facts.files and re.search(r"[12]\d{3}", facts.citation)
    assert "http" in facts.url or "github.com" in facts.url
    assert facts.licence and facts.images.what and facts.images.url and facts.images.licence
    assert task.description and task.convention and task.headline and task.version
    assert task.name == facts.name and facts.licence in task.licence and facts.images.licence in task.licence
    counts = [file.items for file in facts.files]
    if None not in counts and facts.items is not None:
        assert sum(counts) == facts.items
    for published in (*facts.published, *([facts.human] if facts.human else [])):
        assert published.source and all(0 < value <= 1 for value in published.scores.values())
    for file in facts.files:
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    for word in ("*Source*", "*Licence*", "*Convention*"):
        assert word in task.__doc__


def test_names_are_unique_and_known():
    assert len(set(NAMES)) == len(NAMES)
    infos = {info.name: info for info in list_tasks()}
    for task in BENCHMARKS:
        info = infos[task.facts.name]
        assert info.facts is task.facts and not info.data_required and "VLCOMP_DATA" in info.data
        assert {"data", "images", "allow_partial", "limit", "skip_bad_images"} <= set(info.options)
    assert infos["caption_choice"].data_required and infos["caption_choice"].facts is None
    assert resolve_tasks("aro") == ["aro/relation", "aro/attribution", "aro/coco_order", "aro/flickr_order"]


def test_checksums_and_sizes_are_those_of_the_official_files(benchmark_root):
    checked = 0
    for task in BENCHMARKS:
        for file in task.facts.files:
            path = benchmark_root / task.facts.folder / file.name
            if file.sha256 is not None and path.is_file():
                assert sha256_of(path) == file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest(), path
                assert path.stat().st_size == file.size, path
                checked += 1
    assert checked == 7 + 5 + 11 + 2 + 5 * 2


def test_published_scores_are_of_metrics_that_there_are(benchmark_root, placeholders):
    for name in ("sugarcrepe", "sugarcrepe_pp", "valse", "vsr"):
        task = get_task(name, data=benchmark_root, images=placeholders, references=False)
        facts = task.facts
        names = {f"{item.subset}/accuracy" for item in task.prepared.items}
        names |= {"accuracy", "micro/accuracy", "macro/accuracy"}
        for published in (*facts.published, *([facts.human] if facts.human else [])):
            assert set(published.scores) <= names


def test_the_command_line_lists_them(capsys, monkeypatch):
    assert _vlcomp_cli.main(["tasks", "winoground", "--long"]) == 0
    shown = capsys.readouterr().out
    assert "Hugging Face hub after" in shown and "$VLCOMP_DATA/winoground" in shown
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    assert _vlcomp_cli.main(["evaluate", "nowhere", "--task", "sugarcrepe"]) == 2
    assert "task 'sugarcrepe' needs its official files" in capsys.readouterr().err
    assert _vlcomp_cli.main(["evaluate", "nowhere", "--task", "sugercrepe"]) == 2
    assert "did you mean sugarcrepe" in capsys.readouterr().err


def test_what_is_installed(benchmark_root, tmp_path, monkeypatch):
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    assert find_installed(SugarCrepe.facts).looked_in == ()
    there = find_installed(SugarCrepe.facts, benchmark_root)
    assert not there.missing and not there.changed and all(status.official for status in there.files)
    assert there.files[0].path.parent == benchmark_root / "sugarcrepe"
    for status in there.files[1:]:
        (tmp_path / status.path.name).write_bytes(status.path.read_bytes())
    (tmp_path / "swap_obj.json").write_text("{}")
    (tmp_path / "images").mkdir()
    partly = find_installed(SugarCrepe.facts, tmp_path)
    assert [status.file.name for status in partly.missing] == ["replace_obj.json"]
    assert [(status.file.name, status.size) for status in partly.changed] == [("swap_obj.json", 2)]
    assert partly.image_folders[0] == tmp_path / "images"
    assert not find_installed(SugarCrepe.facts, tmp_path, checksums=False).changed
    # No checksum is known of others.
    (tmp_path / "examples.jsonl").write_text("{}")
    (status,) = find_installed(Winoground.facts, tmp_path).files
    assert status.size == 2 and status.official is None
