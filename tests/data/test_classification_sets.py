"""Readers of classification sets, on small folders in the shape of the official ones."""

import json

import pytest
from PIL import Image

from vlcomp.data.classification_facts import ELEVEN, SETS, VARIANTS
from vlcomp.data.classification_sets import list_classification_sets, load_classification_set
from vlcomp.errors import ArgumentError, DataError
from vlcomp.testing import make_class_folder

CLASSES = ("red_setter", "boxer", "pug", "corgi", "beagle")
IDS = ("n01440764", "n01443537", "n01484850", "n01491361")
NAMES = ("tench", "goldfish", "great white shark", "tiger shark")


def picture(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (colour % 256, 0, 0)).save(path)


def make_split(folder, images, file, counts=(3, 1, 2)):
    """A set with CoOp's split file: paths relative to the image folder, labels, names."""
    content = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        content[split] = []
        for label, name in enumerate(CLASSES):
            for k in range(count):
                path = f"{name}/{split}_{k}.jpg"
                picture(folder / images / path, label)
                content[split].append([path, label, name])
    (folder / file).write_text(json.dumps(content))
    return content


def make_aircraft(folder):
    variants = ("A300 B4", "F/A-18", "Boeing 707-320", "Yak-42")
    (folder / "images").mkdir(parents=True)
    (folder / "variants.txt").write_text("".join(f"{name}\n" for name in variants))
    number = 0
    for split in ("train", "val", "test"):
        lines = []
        for name in variants:
            number += 1
            picture(folder / "images" / f"{number:07d}.jpg", number)
            lines.append(f"{number:07d} {name}\n")
        (folder / f"images_variant_{split}.txt").write_text("".join(reversed(lines)))


def make_imagenet(folder, places, per_class=3):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("".join(f"{i} {n}\n" for i, n in zip(IDS, NAMES, strict=True)))
    for place in places:
        for folder_name in IDS:
            for k in range(per_class):
                picture(folder / place / folder_name / f"{k}.JPEG", k)


@pytest.mark.parametrize("name", [n for n, f in SETS.items() if f.layout == "split"])
def test_sets_with_a_split_file(name, tmp_path):
    facts = SETS[name]
    content = make_split(tmp_path / facts.folder, facts.images, facts.split_file)
    data = load_classification_set(name, tmp_path)
    assert data.class_names == ("red setter", "boxer", "pug", "corgi", "beagle")
    assert data.template == facts.template and data.template.count("{}") == 1
    assert not data.official and data.prompt_template == "a photo of a {}."
    for split, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = data.split(split)
        assert [row["path"] for row in rows["image"]] == [
            str(tmp_path / facts.folder / facts.images / path) for path, _, _ in content[key]
        ]
        assert rows["label"][:] == [label for _, label, _ in content[key]]
    # The folder itself may be given, too.
    assert load_classification_set(name, tmp_path / facts.folder).class_names == data.class_names


def test_aircraft_reads_the_lists_of_its_authors(tmp_path, monkeypatch):
    make_aircraft(tmp_path / "fgvc_aircraft")
    monkeypatch.setenv("VLCOMP_DATA", str(tmp_path))
    data = load_classification_set("fgvc_aircraft")
    assert data.class_names == ("A300 B4", "F/A-18", "Boeing 707-320", "Yak-42")
    assert data.split("test")["label"][:] == [3, 2, 1, 0]
    assert data.split("validation")["image"][0]["path"].endswith("images/0000008.jpg")
    lists = tmp_path / "fgvc_aircraft" / "images_variant_val.txt"
    lists.write_text(lists.read_text() + "0000001 Concorde\n")
    with pytest.raises(DataError, match=r"line 5 of .*images_variant_val.txt: 'Concorde' is not in variants.txt"):
        load_classification_set("fgvc_aircraft")


def test_imagenet_measures_the_validation_images(tmp_path):
    make_imagenet(tmp_path / "imagenet", ("images/train", "images/val"), per_class=6)
    data = load_classification_set("imagenet", tmp_path)
    assert data.class_names == NAMES
    assert [len(data.split(split)) for split in ("train", "validation", "test")] == [20, 4, 24]
    assert all("/images/val/" in row["path"] for row in data.split("test")["image"])
    held = {row["path"] for row in data.split("validation")["image"]}
    assert all("/images/train/" in path for path in held)
    assert not held & {row["path"] for row in data.split("train")["image"]}
    assert data.split("validation")["label"][:] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "imagenet_v2"])
def test_variants_of_imagenet(name, tmp_path):
    facts = SETS[name]
    make_imagenet(tmp_path / facts.folder, (facts.images,))
    for path in (tmp_path / facts.folder / facts.images / IDS[1]).iterdir():
        path.unlink()
    (tmp_path / facts.folder / facts.images / IDS[1]).rmdir()
    data = load_classification_set(name, tmp_path)
    assert data.class_names == ("tench", "great white shark", "tiger shark")  # the classes that it has
    assert list(data.splits) == ["test"] and data.split("test")["label"][:] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_imagenet_v2_has_numbered_folders(tmp_path):
    folder = tmp_path / "imagenetv2"
    ids = [f"n{k:08d}" for k in range(12)]
    folder.mkdir()
    (folder / "classnames.txt").write_text("".join(f"{i} name {int(i[1:])}\n" for i in ids))
    for k in range(12):
        picture(folder / "imagenetv2-matched-frequency-format-val" / str(k) / f"{k}.jpeg")
    data = load_classification_set("imagenet_v2", tmp_path)
    assert data.class_names == tuple(f"name {k}" for k in range(12))
    numbers = [int(row["path"].split("/")[-2]) for row in data.split("test")["image"]]
    assert numbers == data.split("test")["label"][:] == list(range(12))  # "10" is not class 2


def test_a_repeated_name_of_imagenet_is_told_apart(tmp_path):
    make_imagenet(tmp_path / "imagenet", ("images/train", "images/val"))
    path = tmp_path / "imagenet" / "classnames.txt"
    for place in ("train", "val"):
        for folder in ("n03773504", "n04008634"):
            picture(tmp_path / "imagenet/images" / place / folder / "1.JPEG")
            picture(tmp_path / "imagenet/images" / place / folder / "2.JPEG")
    path.write_text(path.read_text() + "n03773504 missile\nn04008634 missile\n")
    assert load_classification_set("imagenet", tmp_path).class_names[-2:] == ("missile", "projectile")
    path.write_text(path.read_text().replace("tiger shark", "goldfish"))
    with pytest.raises(DataError, match="'goldfish' is the name of several classes"):
        load_classification_set("imagenet", tmp_path)


def test_the_official_numbers_are_known():
    assert len(ELEVEN) == 11 and len(VARIANTS) == 4
    for facts in SETS.values():
        assert facts.template.count("{}") == 1 and facts.url.startswith("http") and facts.licence and facts.citation
        assert facts.classes >= 10 and facts.sizes["test"] >= 1500
        assert bool(facts.split_file) == (facts.layout == "split")
    assert sum(SETS[name].classes for name in ELEVEN) == 2191
    assert set(SETS) < set(list_classification_sets())


def test_missing_folders_say_where_and_what(tmp_path, monkeypatch):
    with pytest.raises(DataError) as error:
        load_classification_set("oxford_pets", tmp_path)
    text = str(error.value)
    assert f"{tmp_path}/oxford_pets or {tmp_path};" in text and "split_zhou_OxfordPets.json and the images in" in text
    assert "robots.ox.ac.uk" in text and "CC-BY-SA-4.0" in text and "DATASETS.md" in text
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    with pytest.raises(ArgumentError, match=r"set 'dtd' needs its images: pass data=FOLDER \(--data-root FOLDER\)"):
        load_classification_set("dtd")
    with pytest.raises(
        ArgumentError, match="'oxford_pest' is neither a classification set nor a folder; did you mean"
    ):
        load_classification_set("oxford_pest")
    with pytest.raises(ArgumentError, match="template='a photo' needs one placeholder"):
        load_classification_set("dtd", template="a photo")


BROKEN = {
    "not JSON": ("{", "is not JSON"),
    "no test": ({"train": []}, "has no lists 'train' and 'test'"),
    "a pair": ({"train": [["a.jpg", 0]], "test": []}, r"train\[0\] is \['a.jpg', 0\]; expected"),
    "a half": ({"train": [["a.jpg", 0.5, "x"]], "test": []}, r"train\[0\] is"),
    "two names": ({"train": [["a.jpg", 0, "x"], ["a.jpg", 0, "y"]], "test": []}, "calls label 0 'y', earlier 'x'"),
    "a gap": ({"train": [["a.jpg", 0, "x"], ["a.jpg", 2, "y"]], "test": []}, "no image has label 1"),
    "one name": ({"train": [["a.jpg", 0, "x"], ["a.jpg", 1, "x"]], "test": []}, "'x' is the name of several classes"),
    "no image": ({"train": [["a.jpg", 0, "x"], ["b.jpg", 1, "y"]], "test": []}, "1 image of 2 .* is .*b.jpg"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_split_files(what, tmp_path):
    content, message = BROKEN[what]
    picture(tmp_path / "a.jpg")
    file = tmp_path / "split.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=message):
        load_classification_set(tmp_path, split_file=file)


def test_a_folder_of_classes_is_divided_in_the_same_way_anywhere(tmp_path):
    parts = []
    for place in ("one", "two"):
        folder = make_class_folder(tmp_path / place / "pets", ("red_setter", "pug"), n=10)
        data = load_classification_set(folder, template="a {}, a pet")
        assert (data.name, data.template, data.class_names) == ("pets", "a {}, a pet", ("pug", "red setter"))
        assert [len(data.split(split)) for split in ("train", "validation", "test")] == [10, 4, 6]
        parts.append(
            {
                s: [row["path"].split("/")[-2:] for row in data.split(s)["image"]]
                for s in ("train", "validation", "test")
            }
        )
    assert parts[0] == parts[1]
    images = [tuple(name) for names in parts[0].values() for name in names]
    assert len(set(images)) == len(images) == 20
    assert {name[0] for name in parts[0]["test"]} == {"pug", "red_setter"}


def test_split_folders_are_kept(tmp_path):
    for split, n in (("train", 10), ("test", 4)):
        make_class_folder(tmp_path / split, ("cup", "star"), n=n)
    data = load_classification_set(tmp_path)
    assert [len(data.split(split)) for split in ("train", "validation", "test")] == [16, 4, 8]
    assert all("/test/" in row["path"] for row in data.split("test")["image"])
    make_class_folder(tmp_path / "val", ("cup", "star"), n=3)
    assert [len(v) for v in load_classification_set(tmp_path).splits.values()] == [20, 6, 8]
    make_class_folder(tmp_path / "test", ("dog",), n=1)
    with pytest.raises(DataError, match="differ in their classes: 'test' and another in 'dog'"):
        load_classification_set(tmp_path)


def test_a_split_file_for_a_folder(tmp_path):
    content = make_split(tmp_path / "mine", "", "split.json")
    data = load_classification_set(tmp_path / "mine", split_file=tmp_path / "mine" / "split.json")
    assert len(data.split("train")) == len(content["train"])
    with pytest.raises(ArgumentError, match="split_file=.* goes with a folder"):
        make_split(tmp_path / "dtd", "images", "split_zhou_DescribableTextures.json")
        load_classification_set("dtd", tmp_path, split_file="x.json")
