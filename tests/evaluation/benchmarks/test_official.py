"""Benchmarks whose official files are at hand: official counts, and scores against a loop over one item at a time."""

import json
import shutil
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

import _vlcomp_cli
from vlcomp import Embedder
from vlcomp.errors import DataError
from vlcomp.evaluation import get_task
from vlcomp.evaluation.benchmarks import SugarCrepe, SugarCrepePP, Valse, Vsr
from vlcomp.testing import tiny_clip, tiny_processor

from ..common import ConstantModel, HashModel
from .test_layouts import NanModel


class Loop(HashModel):
    """Scores pictures by file, one pair at a time; what was seen is remembered, or a loop would take minutes."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.known = {}

    def unit(self, key, content):
        if key not in self.known:
            vector = self.vector(content()).astype(np.float64)
            self.known[key] = vector / np.linalg.norm(vector)
        return self.known[key]

    def image(self, name):
        return self.unit(("image", name), lambda: Image.open(self.folder / name).convert("RGB").tobytes())

    def text(self, text):
        return self.unit(("text", text), text.encode)

    def pair(self, name, text):
        return (self.image(name) * self.text(text)).sum()

    def texts_together(self, one, other):
        return (self.text(one) * self.text(other)).sum()


@pytest.fixture(scope="module")
def sugarcrepe(benchmark_root, placeholders):
    model = HashModel()
    return SugarCrepe(benchmark_root, images=placeholders, gallery=False).run(model), model


def test_sugarcrepe_loads_with_the_official_counts(sugarcrepe):
    result, model = sugarcrepe
    counts = {"replace_obj": 1652, "replace_att": 788, "replace_rel": 1406, "swap_obj": 245, "swap_att": 666}
    counts |= {"add_obj": 2062, "add_att": 692}
    assert {name: result.scores[f"{name}/accuracy"].n for name in counts} == counts
    assert result.scores["micro/accuracy"].n == 7511 and result.headline == "micro/accuracy"
    # Each distinct image and text once.
    assert len(model.images) == 1560 and len(model.texts) == len(set(model.texts)) == 11844
    assert result.config["official"] is True and result.warnings == []


def test_sugarcrepe_equals_a_loop(sugarcrepe, benchmark_root, placeholders):
    loop, right = Loop(placeholders), {}
    for path in (benchmark_root / "sugarcrepe").glob("*.json"):
        right[path.stem] = [
            loop.pair(row["filename"], row["caption"]) > loop.pair(row["filename"], row["negative_caption"])
            for row in json.loads(path.read_text()).values()
        ]
    means = {name: np.mean(rows) for name, rows in right.items()}
    groups = [np.mean([m for n, m in means.items() if n.startswith(g)]) for g in ("replace", "swap", "add")]
    expected = {f"{name}/accuracy": mean for name, mean in means.items()}
    expected["micro/accuracy"] = np.mean(sum(right.values(), []))
    expected["macro/accuracy"] = np.mean(list(means.values()))
    expected["macro_groups/accuracy"] = np.mean(groups)
    found = sugarcrepe[0].scores
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert len(set(expected.values())) == len(expected)  # no average stands for another one


def test_sugarcrepe_bag_of_words(sugarcrepe):
    reference = sugarcrepe[0].references["bag_of_words"]["micro/accuracy"]
    assert reference.ties == 572
    assert reference.value == pytest.approx(0.9619, abs=5e-5)
    strictly = reference.value - 0.5 * reference.ties / reference.n
    assert strictly == pytest.approx(0.9238, abs=5e-5)
    by_name = sugarcrepe[0].references["bag_of_words"]
    assert {name: by_name[f"{name}/accuracy"].ties for name in ("swap_obj", "swap_att", "add_obj")} == {
        "swap_obj": 164,
        "swap_att": 408,
        "add_obj": 0,
    }


def test_sugarcrepe_pp_equals_a_loop(benchmark_root, placeholders):
    result = SugarCrepePP(benchmark_root / "sugarcrepe_pp", images=placeholders, references=False).run(HashModel())
    loop, right = Loop(placeholders), defaultdict(list)
    for path in (benchmark_root / "sugarcrepe_pp").glob("*.json"):
        for row in json.loads(path.read_text()):
            first, second, false = row["caption"], row["caption2"], row["negative_caption"]
            scores = [loop.pair(row["filename"], text) for text in (first, second, false)]
            right[path.stem, "itt"].append(scores[0] > scores[2] and scores[1] > scores[2])
            together = loop.texts_together(first, second)
            right[path.stem, "tot"].append(
                together > loop.texts_together(first, false) and together > loop.texts_together(second, false)
            )
    expected = {f"{name}/{kind}_accuracy": np.mean(rows) for (name, kind), rows in right.items()}
    for kind in ("itt", "tot"):
        parts = [rows for (_, k), rows in right.items() if k == kind]
        assert len(parts) == 5
        expected[f"micro/{kind}_accuracy"] = np.mean(sum(parts, []))
        expected[f"macro/{kind}_accuracy"] = np.mean([np.mean(rows) for rows in parts])
    assert {name: score.value for name, score in result.scores.items()} == pytest.approx(expected, abs=1e-12)
    assert result.scores["micro/itt_accuracy"].n == 4757 and result.scores["swap_obj/itt_accuracy"].n == 245
    assert result.scores["micro/tot_accuracy"].chance == pytest.approx(1 / 3)
    assert any("2 items have the same text as true and as false" in w for w in result.warnings)


VALSE = {
    "existence": (534, 505),
    "plurals": (1000, 851),
    "counting-hard": (1000, 868),
    "counting-small-quant": (1000, 900),
    "counting-adversarial": (756, 691),
    "relations": (614, 535),
    "action-replacement": (779, 648),
    "actant-swap": (1042, 949),
    "coreference-standard": (916, 708),
    "coreference-hard": (141, 104),
    "foil-it": (1000, 943),
}


def test_valse_equals_a_loop_with_and_without_the_filter(benchmark_root, placeholders):
    result = Valse(benchmark_root, images=placeholders, references=False, gallery=False).run(HashModel())
    loop, right, kept = Loop(placeholders), {}, {}
    for path in (benchmark_root / "valse").glob("*.json"):
        rows = list(json.loads(path.read_text()).values())
        right[path.stem] = [
            loop.pair(row["image_file"], row["caption"]) > loop.pair(row["image_file"], row["foil"]) for row in rows
        ]
        kept[path.stem] = [r for r, row in zip(right[path.stem], rows, strict=True) if row["mturk"]["caption"] >= 2]
    assert {name: (len(right[name]), len(kept[name])) for name in right} == VALSE
    expected = {}
    for prefix, found in (("", kept), ("unfiltered/", right)):
        expected |= {f"{prefix}{name}/accuracy": np.mean(rows) for name, rows in found.items()}
        expected[f"{prefix}micro/accuracy"] = np.mean(sum(found.values(), []))
        expected[f"{prefix}macro/accuracy"] = np.mean([np.mean(rows) for rows in found.values()])
    assert {name: score.value for name, score in result.scores.items()} == pytest.approx(expected, abs=1e-12)
    assert {name: result.scores[f"{name}/accuracy"].n for name in VALSE} == {n: k for n, (_, k) in VALSE.items()}
    assert result.headline == "macro/accuracy" and any("24 items have the same text" in w for w in result.warnings)


def test_vsr_equals_a_loop(benchmark_root, placeholders):
    result = Vsr(benchmark_root, images=placeholders, gallery=False).run(HashModel())
    loop = Loop(placeholders)
    splits = {}
    for split in ("dev", "test"):
        rows = [json.loads(line) for line in (benchmark_root / "vsr_zeroshot" / f"{split}.jsonl").open()]
        splits[split] = [(loop.pair(row["image"], row["caption"]), bool(row["label"])) for row in rows]

    def accuracy(items, threshold):
        return np.mean([score > threshold if label else score < threshold for score, label in items])

    levels = sorted({score for score, _ in splits["dev"]})
    candidates = [levels[0] - 1, *((a + b) / 2 for a, b in zip(levels, levels[1:], strict=False)), levels[-1] + 1]
    threshold = max(candidates, key=lambda t: (accuracy(splits["dev"], t), -t))
    true = [score for score, label in splits["test"] if label]
    false = [score for score, label in splits["test"] if not label]
    area = np.mean([t > f for t in true for f in false])
    assert result.config["threshold"] == pytest.approx(threshold)
    assert result.scores["accuracy"].value == pytest.approx(accuracy(splits["test"], threshold))
    assert result.scores["auc"].value == pytest.approx(area)
    assert result.scores["auc"].low < area < result.scores["auc"].high
    assert result.scores["accuracy"].n == 1222 and len(result.items) == 1222
    # More of the dev split is false, more of the test split is true.
    assert result.references["majority"]["accuracy"].value == pytest.approx(593 / 1222)


def test_vsr_of_a_dead_model(benchmark_root, placeholders):
    result = Vsr(benchmark_root, images=placeholders).run(ConstantModel())
    assert result.scores["auc"].value == 0 and result.scores["auc"].ties == 629
    # All items get one answer, the one that is more frequent on dev.
    assert result.scores["accuracy"].value == pytest.approx(593 / 1222)


@pytest.mark.parametrize("task", [SugarCrepe, SugarCrepePP, Valse])
def test_a_dead_model_is_never_right(benchmark_root, placeholders, task):
    result = task(benchmark_root, images=placeholders, references=False, limit=300).run(ConstantModel())
    assert {score.value for score in result.scores.values()} == {0.0}
    assert all(score.ties == score.n for score in result.scores.values())


def test_vsr_without_a_number_aborts(benchmark_root, placeholders):
    with pytest.raises(Exception, match="'The car is behind the suitcase.' is not a number"):
        Vsr(benchmark_root, images=placeholders).run(NanModel("The car is behind the suitcase."))


def test_an_incomplete_folder_is_refused(benchmark_root, placeholders, tmp_path):
    folder = tmp_path / "sugarcrepe"
    shutil.copytree(benchmark_root / "sugarcrepe", folder)
    rows = json.loads((folder / "swap_att.json").read_text())
    del rows["17"]
    (folder / "swap_att.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"swap_att.json holds 665 items, the official file 666\. Get .*RAIVNLab"):
        SugarCrepe(folder, images=placeholders)
    (folder / "add_obj.json").unlink()
    with pytest.raises(DataError, match="swap_att.json holds 665 items.*1 more such file[)]"):
        SugarCrepe(folder, images=placeholders)
    task = get_task("sugarcrepe", data=folder, images=placeholders, allow_partial=True, references=False)
    result = task.run(HashModel())
    assert result.scores["micro/accuracy"].n == 7511 - 1 - 2062 and result.config["official"] is False
    assert [w for w in result.warnings if "add_obj.json does not exist (official: 2,062 items)" in w]
    # The right number of items, but not the official ones.
    rows["17"] = rows["18"]
    (folder / "swap_att.json").write_text(json.dumps(rows))
    task = get_task("sugarcrepe", data=folder, images=placeholders, allow_partial=True, references=False)
    assert "swap_att.json is not the official file, byte by byte" in task.prepared.partial


def test_a_key_that_occurs_twice_is_refused(benchmark_root, placeholders, tmp_path):
    folder = tmp_path / "sugarcrepe"
    shutil.copytree(benchmark_root / "sugarcrepe", folder)
    text = (folder / "swap_obj.json").read_text()
    (folder / "swap_obj.json").write_text(text.replace('"3": {', '"2": {', 1))
    with pytest.raises(DataError, match="swap_obj.json has the key '2' twice"):
        SugarCrepe(folder, images=placeholders)


def test_images_that_are_absent(benchmark_root):
    with pytest.raises(DataError) as caught:
        SugarCrepe(benchmark_root)
    message = str(caught.value)
    assert "1560 of 1560 images are missing, first 0000" in message
    assert str(benchmark_root / "sugarcrepe" / "images") in message
    assert "images.cocodataset.org/zips/val2017.zip" in message and "licence: COCO terms" in message


def test_limit_draws_whole_images(benchmark_root, placeholders):
    task = SugarCrepe(benchmark_root, images=placeholders, limit=200, references=False)
    full = SugarCrepe(benchmark_root, images=placeholders, references=False).prepared.items
    names = {item.images[0].name for item in task.prepared.items}
    assert 200 <= len(task.prepared.items) < 230
    assert [item for item in full if item.images[0].name in names] == task.prepared.items


def test_coco_folders_of_the_data_root_are_found(benchmark_root, placeholders, tmp_path, monkeypatch):
    (tmp_path / "sugarcrepe").symlink_to(benchmark_root / "sugarcrepe")
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "val2017").symlink_to(placeholders)
    monkeypatch.setenv("VLCOMP_DATA", str(tmp_path))
    assert len(SugarCrepe().prepared.sources) == 1560


def test_sugarcrepe_is_one_command(benchmark_root, placeholders, clip_checkpoint, tmp_path, capsys):
    command = ["evaluate", str(clip_checkpoint), "--task", "sugarcrepe", "--data", str(benchmark_root)]
    out = tmp_path / "out"
    assert (
        _vlcomp_cli.main([*command, "--images", str(placeholders), "--limit", "60", "--output", str(out), "--html"])
        == 0
    )
    assert "sugarcrepe/micro/accuracy" in capsys.readouterr().out and (out / "report.html").is_file()
    assert _vlcomp_cli.main(command) == 2
    error = capsys.readouterr().err
    assert "val2017.zip" in error and "licence" in error and len(error.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sugarcrepe", "sugarcrepe_pp", "valse", "vsr"])
def test_the_whole_with_a_small_clip(benchmark_root, placeholders, name):
    task = get_task(name, data=benchmark_root, images=placeholders)
    result = task.run(Embedder(tiny_clip(), tiny_processor(), batch_size=256))
    assert result.config["official"] is True and result.scores[result.headline].low is not None
