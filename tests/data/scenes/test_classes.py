"""Classification sets of Scenes."""

import hashlib

import datasets
import pytest

from vlcomp.data.scenes.classes import ATTRIBUTE_NOUNS, list_scenes_classes, load_scenes_classes
from vlcomp.data.scenes.world import ALLOWED_COLOURS, SHAPES, Scene
from vlcomp.errors import ArgumentError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path))


def test_attribute_noun_classes_are_pairs_that_training_shows():
    assert len(set(ATTRIBUTE_NOUNS)) == 80
    for colour, shape in ATTRIBUTE_NOUNS:
        assert colour in ALLOWED_COLOURS[shape] and colour != "orange"
    assert [shape for _, shape in ATTRIBUTE_NOUNS[::4]] == list(SHAPES)


@pytest.mark.parametrize("name", list_scenes_classes())
def test_a_picture_shows_its_class(name):
    rows = load_scenes_classes(name, size=45, image_size=24)
    names = rows.features["label"].names
    assert len(rows) == 45 and rows["label"][:] == [index % len(names) for index in range(45)]
    for row in rows:
        scene = Scene.from_json(row["scene"])
        (item,) = scene.objects
        said = {item.colour, item.shape, item.texture, item.size, scene.background, "thing", "on"}
        assert set(names[row["label"]].split()) <= said
        assert item.colour in ALLOWED_COLOURS[item.shape]
        assert row["image"].size == (24, 24)
        assert names[row["label"]][0] not in "aeiou"


def test_splits_sizes_and_seeds():
    few, more = (load_scenes_classes("noun", size=size, image_size=24) for size in (5, 9))
    assert more["scene"][:5] == few["scene"][:]
    other = [load_scenes_classes("noun", size=9, image_size=24, **over) for over in ({"seed": 1}, {"split": "train"})]
    assert not {*more["scene"]} & {*other[0]["scene"], *other[1]["scene"]}
    assert len(load_scenes_classes("size", split="train", image_size=24)) == 64


def test_pictures_stay_as_they_are():
    """Raise CLASSES_VERSION when this changes."""
    found = hashlib.sha256()
    for name in ("attribute-noun", "noun/sketch", "colour", "texture", "background"):
        rows = load_scenes_classes(name, size=6, image_size=24).cast_column("image", datasets.Image(decode=False))
        for row in rows:
            found.update(row["image"]["bytes"] + row["scene"].encode())
    assert found.hexdigest()[:16] == "eb2266893c304aab"


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="name='nouns' is not a classification set of Scenes; did you mean 'noun'"):
        load_scenes_classes("nouns")
    with pytest.raises(ArgumentError, match="split='dev' is not one of"):
        load_scenes_classes("noun", split="dev")
    with pytest.raises(ArgumentError, match="image_size=8 must be at least 24"):
        load_scenes_classes("noun", image_size=8)
    with pytest.raises(ArgumentError, match="size=0 must be at least 1"):
        load_scenes_classes("noun", size=0)
