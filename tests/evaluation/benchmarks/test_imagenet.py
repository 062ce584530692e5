"""ImageNet and its variants with the official class names and templates, on pictures made on the fly."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlcomp.errors import ArgumentError, DataError, EvaluationError
from vlcomp.evaluation import get_task

from ..common import ConstantModel, HashModel
from .layouts import load, picture
from .test_layouts import NanModel

SYNSETS = [f"n{10_000_000 + 37 * k}" for k in range(1000)]


@pytest.fixture(scope="module")
def names(benchmark_root):
    return json.loads((benchmark_root / "class_names" / "en_classnames.json").read_text())["imagenet1k"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One small picture for each of 1,000 classes."""
    root = tmp_path_factory.mktemp("imagenet") / "val"
    for k, synset in enumerate(SYNSETS):
        (root / synset).mkdir(parents=True)
        pixels = np.random.default_rng(k).integers(0, 256, (2, 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / synset / "0.bmp")
    return root


def naive(model, pictures, names, templates):
    """Right or wrong of each picture: (path, class), among named classes."""
    texts = {}
    for name in set(names):
        vectors = [model.vector(t.replace("{c}", name).encode()).astype(np.float64) for t in templates]
        mean = np.mean([v / np.linalg.norm(v) for v in vectors], axis=0)
        texts[name] = mean / np.linalg.norm(mean)
    right = []
    for path, label in pictures:
        image = model.vector(load(path).tobytes()).astype(np.float64)
        image /= np.linalg.norm(image)
        scores = [float(image @ texts[name]) for name in names]
        right.append(all(scores[label] > s for k, s in enumerate(scores) if k != label))
    return right


def test_imagenet_equals_a_loop(benchmark_root, folder, names):
    templates = ["a photo of a {c}.", "art of the {c}."]
    task = get_task("imagenet", data=benchmark_root, images=folder, templates=templates, limit=200)
    result = task.run(HashModel(3))
    pictures = [(path, SYNSETS.index(Path(path).parent.name)) for path in task.labelled.image_names]
    right = naive(HashModel(3), pictures, names, templates)
    assert [item["correct"] for item in result.items] == right and len(right) == 200
    assert result.scores["accuracy"].value == pytest.approx(np.mean(right))
    assert 0 < np.mean(right) < 0.1 and result.scores["accuracy"].chance == pytest.approx(0.001)
    assert any("holds 1,000 images, the official set 50,000" in w for w in result.warnings)
    # Two names stand for two classes each; a perfect model ties on them.
    assert any("missile, sunglasses" in w for w in result.warnings)
    assert names.count("missile") == names.count("sunglasses") == 2
    assert get_task("imagenet", data=benchmark_root, images=folder, limit=5).templates[0] == "a bad photo of a {c}."
    assert len(get_task("imagenet", data=benchmark_root, images=folder, limit=5).templates) == 80


def test_numbered_folders_are_class_numbers(benchmark_root, tmp_path, names):
    for k in (0, 2, 10, 101, 999):  # in the order of strings 0, 10, 101, 2, 999
        picture(tmp_path / str(k) / "a.png")
    task = get_task("imagenet_v2", data=benchmark_root, images=tmp_path, allow_partial=True)
    assert task.labelled.class_names == [names[k] for k in (0, 10, 101, 2, 999)]


def test_a_part_of_the_classes_needs_their_ids(benchmark_root, folder, tmp_path, names, monkeypatch):
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    chosen = [5, 17, 640]
    for k in chosen:
        picture(tmp_path / "imagenet-r" / SYNSETS[k] / "a.png")
    options = {"data": benchmark_root, "images": tmp_path / "imagenet-r", "allow_partial": True}
    with pytest.raises(ArgumentError, match="has 3 classes; .*not to be found .*synsets="):
        get_task("imagenet_r", **options)
    task = get_task("imagenet_r", synsets=folder, **options)
    assert task.labelled.class_names == [names[k] for k in chosen]
    (tmp_path / "ids.txt").write_text("\n".join(SYNSETS))
    assert get_task("imagenet_r", synsets=tmp_path / "ids.txt", **options).labelled.class_names == [
        names[k] for k in chosen
    ]
    result = task.run(HashModel())
    pictures = [(tmp_path / "imagenet-r" / SYNSETS[k] / "a.png", i) for i, k in enumerate(chosen)]
    right = naive(HashModel(), pictures, [names[k] for k in chosen], task.templates)
    assert result.scores["accuracy"].value == pytest.approx(np.mean(right))
    (tmp_path / "imagenet-r" / "n99999999").mkdir()
    picture(tmp_path / "imagenet-r" / "n99999999" / "a.png")
    with pytest.raises(ArgumentError, match="'n99999999' is not among them"):
        get_task("imagenet_r", synsets=folder, **options)


def test_a_dead_model_and_one_without_a_number(benchmark_root, folder):
    task = get_task("imagenet", data=benchmark_root, images=folder, templates="a {}", limit=50)
    result = task.run(ConstantModel())
    assert result.scores["accuracy"].value == 0 and result.scores["accuracy"].ties == 50
    with pytest.raises(EvaluationError, match="'a goldfish' is not a number"):
        task.run(NanModel("a goldfish"))


def test_what_is_missing_is_told(benchmark_root, folder, tmp_path, monkeypatch):
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    with pytest.raises(DataError, match="holds 1,000 images, the official set 50,000.*allow_partial"):
        get_task("imagenet", data=benchmark_root, images=folder)
    with pytest.raises(DataError, match="no images; looked in .*imagenet/val.*image-net.org.*licence"):
        get_task("imagenet", data=benchmark_root)
    (tmp_path / "en_classnames.json").write_text('{"pets": []}')
    (tmp_path / "en_zeroshot_classification_templates.json").write_text('{"imagenet1k": ["a {c}"]}')
    with pytest.raises(DataError, match="en_classnames.json has no list 'imagenet1k'"):
        get_task("imagenet", data=tmp_path, images=folder)
