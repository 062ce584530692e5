"""`vlcomp tasks`, as far as it differs between benchmarks and tasks on your own data."""

import json

import pytest

import _vlcomp_cli
from vlcomp import evaluate
from vlcomp.evaluation import list_tasks
from vlcomp.evaluation.tasks.classification import ZeroShotClassification, read_class_names
from vlcomp.testing import make_class_folder

from ..evaluation.common import HashModel


def lines_of(capsys, *arguments):
    assert _vlcomp_cli.main(["tasks", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_benchmarks_say_what_they_read_and_own_data_what_is_needed(capsys):
    winoground = lines_of(capsys, "winoground")
    assert any(line.strip().startswith("reads: folder of the official files") for line in winoground)
    assert not any("needs --data" in line for line in winoground)
    assert any(line.strip().startswith("needs --data: JSONL") for line in lines_of(capsys, "image_choice"))
    everything = "\n".join(lines_of(capsys))
    infos = list_tasks()
    assert everything.count("reads: ") == sum(info.facts is not None for info in infos)
    assert everything.count("needs --data: ") == sum(info.data_required for info in infos)


def test_json_names_every_task(capsys):
    assert [entry["name"] for entry in json.loads("\n".join(lines_of(capsys, "--json")))] == [
        info.name for info in list_tasks()
    ]


def test_a_name_that_two_classes_share_is_a_warning(tmp_path):
    """As "missile" and "sunglasses" in the official list of ImageNet."""
    assert read_class_names(["missile", "cup", "missile"], ["n01", "n02", "n03"]) == ["missile", "cup", "missile"]
    folder = make_class_folder(tmp_path, ("a", "b", "c"))
    task = ZeroShotClassification(folder, class_names=["missile", "cup", "missile"])
    result = task.run(HashModel())
    assert [warning for warning in result.warnings if "several classes" in warning] == [
        "missile: the name of several classes each; their images tie, and are wrong"
    ]
    # Their embeddings are equal, so neither can be strictly the nearest.
    rows = [row for row in result.items if row["text"] == "missile"]
    assert rows and not any(row["correct"] for row in rows)
    plain = evaluate(HashModel(), tasks="zero_shot_classification", data=folder, progress=False)
    assert not plain.results["tasks"]["zero_shot_classification"]["warnings"]


@pytest.mark.parametrize("word", ["winogroud", "imagenet_v3"])
def test_a_typo_names_a_close_task(capsys, word):
    assert _vlcomp_cli.main(["tasks", word]) == 2
    assert "did you mean" in capsys.readouterr().err
