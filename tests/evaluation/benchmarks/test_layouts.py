"""Benchmarks whose official files are not at hand: small files in the official layout."""

import json
import re

import numpy as np
import pytest

from vlcomp.errors import ArgumentError, DataError, EvaluationError
from vlcomp.evaluation import get_task

from ..common import ConstantModel, HashModel
from .layouts import LAYOUTS, write_aro_relation, write_coco_retrieval, write_winoground

NAMES = [name for name, _, _ in LAYOUTS]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The files of every layout, written once."""
    found = {}
    for name, write, _ in LAYOUTS:
        found[name] = tmp_path_factory.mktemp(name.replace("/", "_"))
        write(found[name])
    return found


class NanModel(HashModel):
    """Gives no number for one text."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def encode_texts(self, texts):
        output = super().encode_texts(texts)
        output[[text == self.text for text in texts]] = np.nan
        return output


@pytest.mark.parametrize(("name", "naive"), [(name, naive) for name, _, naive in LAYOUTS], ids=NAMES)
def test_scores_equal_a_loop(folders, name, naive):
    model = HashModel()
    result = get_task(name, data=folders[name], allow_partial=True).run(model)
    expected = naive(folders[name], HashModel())
    assert {metric: result.scores[metric].value for metric in expected} == pytest.approx(expected, abs=1e-12)
    # Random embeddings are neither always right nor always wrong, so the comparison could fail.
    assert 0 < expected[result.headline] < 1
    assert len(model.texts) == len(set(model.texts)) and len(model.images) == len(set(model.images))
    assert len({item["item_id"] for item in result.items}) == len(result.items)
    # Published numbers are of metrics that there are.
    facts = get_task(name, data=folders[name], allow_partial=True).facts
    for published in (*facts.published, *([facts.human] if facts.human else [])):
        assert set(published.scores) <= set(result.scores)
    assert result.gallery and all(entry["images"] for entry in result.gallery)


@pytest.mark.parametrize("name", NAMES)
def test_ties_are_wrong_and_counted(folders, name):
    result = get_task(name, data=folders[name], allow_partial=True, gallery=False).run(ConstantModel())
    assert {score.value for score in result.scores.values()} == {0.0}
    headline = result.scores[result.headline]
    assert headline.ties == headline.n > 0
    assert not any(item["correct"] for item in result.items) and all(item["tie"] for item in result.items)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_without_a_number_aborts(folders, name):
    task = get_task(name, data=folders[name], allow_partial=True)
    text = HashModel()
    task.run(text)
    with pytest.raises(EvaluationError, match=re.escape(f"text {text.texts[3]!r} is not a number")):
        task.run(NanModel(text.texts[3]))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bivlc"])  # its images are in its files
def test_a_missing_image_is_told_with_where_it_comes_from(folders, name, tmp_path):
    facts = get_task(name, data=folders[name], allow_partial=True).facts
    # The official files alone, without any picture.
    for path in folders[name].rglob("*"):
        if path.suffix in (".json", ".jsonl", ".csv"):
            target = tmp_path / path.relative_to(folders[name])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="are missing, first") as caught:
        get_task(name, data=tmp_path, allow_partial=True)
    message = str(caught.value)
    assert str(tmp_path) in message and facts.images.url in message and facts.images.licence in message
    # The pictures elsewhere, in the folder that is given for them.
    elsewhere = folders[name] / "images" if (folders[name] / "images").is_dir() else folders[name]
    get_task(name, data=tmp_path, images=elsewhere, allow_partial=True)


def test_a_count_that_is_not_the_official_one_is_refused(folders):
    with pytest.raises(DataError, match="examples.jsonl holds 30 items, the official file 400.*allow_partial"):
        get_task("winoground", data=folders["winoground"])
    result = get_task("winoground", data=folders["winoground"], limit=8).run(HashModel())
    assert result.scores["group_score"].n == 8 and any("holds 30 items" in w for w in result.warnings)
    assert result.config["official"] is False
    with pytest.raises(DataError, match="holds 71|holds 77|official file 25,010"):
        get_task("coco_retrieval", data=folders["coco_retrieval"])


def test_duplicate_ids_are_refused(tmp_path):
    write_winoground(tmp_path)
    lines = (tmp_path / "examples.jsonl").read_text().splitlines()
    lines[7] = lines[7].replace('"id": 7', '"id": 5')
    (tmp_path / "examples.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match="item id '5' occurs twice"):
        get_task("winoground", data=tmp_path, allow_partial=True)


def test_skipped_images_lower_n_and_are_counted(tmp_path):
    write_aro_relation(tmp_path)
    (tmp_path / "images" / "3.jpg").unlink()
    (tmp_path / "images" / "4.jpg").write_bytes(b"not an image")
    task = get_task("aro/relation", data=tmp_path, allow_partial=True, skip_bad_images=True)
    result = task.run(HashModel())
    lost = sum(i % 9 in (3, 4) for i in range(40))
    assert result.scores["micro/accuracy"].n == 40 - lost
    assert any("2 images could not be read" in warning for warning in result.warnings)
    assert {name[:5] for name in result.config["skipped_images"]} == {"3.jpg", "4.jpg"}


def test_a_box_outside_of_the_picture_is_told(tmp_path):
    write_aro_relation(tmp_path)
    path = tmp_path / "visual_genome_relation.json"
    rows = json.loads(path.read_text())
    rows[2]["bbox_x"] = 500
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"the box \(500, 0, 5, 6\) is not within .*2.jpg"):
        get_task("aro/relation", data=tmp_path, allow_partial=True).run(HashModel())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("aro/relation", lambda text: text.replace('"bbox_w": 5', '"bbox_w": "wide"', 1), "bbox_w='wide'"),
        ("aro/attribution", lambda text: text.replace('["red", "old"]', '["red"]', 1), "expected a list of two"),
        ("colorswap", lambda text: text.replace('"caption_2": "a blue', '"caption_x": "a blue', 1), "caption_2=None"),
        ("cola", lambda text: text.replace('"red cup 3", ', "", 1), "item 3 .* is no"),
        ("mmvp_vlm", lambda text: text.rstrip().rpartition("\n")[0], "35 statements"),
        ("svo_probes", lambda text: text.replace("True", "False", 1), "0 of subj_neg, verb_neg, obj_neg"),
        ("spec/image_to_text", lambda text: text.replace('"label": 0', '"label": 7', 1), "label=7"),
        ("whatsup/controlled_a", lambda text: text.replace("_under_", "_beside_", 1), "does not tell"),
        ("negbench/mcq_coco", lambda text: text.replace(",0,", ",4,", 1), "correct_answer=4"),
        ("negbench/retrieval_coco", lambda text: text.replace("[", "(", 1), "expected a list of texts"),
        ("vl_checklist", lambda text: text.replace("POS", "PAS", 1), "item 0 .* is no"),
    ],
)
def test_malformed_files_are_named(folders, tmp_path, name, change, message):
    write = {n: w for n, w, _ in LAYOUTS}[name]
    write(tmp_path)
    file = tmp_path / get_task(name, data=folders[name], allow_partial=True).facts.files[0].name
    changed = change(file.read_text())
    assert changed != file.read_text()
    file.write_text(changed)
    with pytest.raises(DataError, match=message) as caught:
        get_task(name, data=tmp_path, allow_partial=True)
    assert file.name in str(caught.value) or "item" in str(caught.value)


def test_where_data_is_looked_for(folders, tmp_path, monkeypatch):
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    with pytest.raises(ArgumentError, match="VLCOMP_DATA.*winoground/.*examples.jsonl.*licence"):
        get_task("winoground")
    (tmp_path / "winoground").symlink_to(folders["winoground"])
    # The folder above, with --data or by the variable.
    assert get_task("winoground", data=tmp_path, allow_partial=True).prepared.items
    monkeypatch.setenv("VLCOMP_DATA", str(tmp_path))
    assert get_task("winoground", allow_partial=True).prepared.items
    with pytest.raises(DataError, match=f"looked in {tmp_path}/cola and found none.*github.com/arijitray1993/COLA"):
        get_task("cola")
    with pytest.raises(DataError, match="is a file"):
        get_task("winoground", data=folders["winoground"] / "examples.jsonl")
    with pytest.raises(DataError, match="is not a folder"):
        get_task("winoground", data=tmp_path, images=tmp_path / "nothing", allow_partial=True)


def test_an_image_that_stands_twice_is_refused(tmp_path):
    write_coco_retrieval(tmp_path)
    path = tmp_path / "coco_karpathy_test.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[4]]))
    with pytest.raises(DataError, match="names the image 'val2014/COCO_val2014_000000000004.jpg' twice"):
        get_task("coco_retrieval", data=tmp_path, allow_partial=True)


def test_retrieval_leaves_out_bad_images(tmp_path):
    write_coco_retrieval(tmp_path)
    (tmp_path / "val2014" / f"COCO_val2014_{3:012d}.jpg").unlink()
    (tmp_path / "val2014" / f"COCO_val2014_{4:012d}.jpg").write_bytes(b"not an image")
    task = get_task("coco_retrieval", data=tmp_path, allow_partial=True, skip_bad_images=True)
    result = task.run(HashModel())
    assert result.scores["image_to_text/recall@1"].n == 12 and result.scores["text_to_image/recall@1"].n == 77 - 6 - 5
    assert any("2 images could not be read" in w for w in result.warnings) and result.config["official"] is False
