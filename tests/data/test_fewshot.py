"""Few-shot draws, and base and novel classes."""

import subprocess
import sys

import pytest

from vlcomp.data.classification_sets import ClassificationSet, load_classification_set
from vlcomp.data.fewshot import base_and_novel, base_novel_labels, few_shot, few_shot_splits, select_classes
from vlcomp.data.folders import load_image_classes
from vlcomp.errors import ArgumentError, DataError
from vlcomp.testing import make_class_folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = make_class_folder(tmp_path_factory.mktemp("classes"), ("ant", "bee", "cat", "dog", "elk"), n=9)
    return load_image_classes(folder).dataset


def names_of(rows):
    return [path["path"].rsplit("/", 2)[1:] for path in rows["image"]]


def test_each_class_has_its_shots(rows):
    drawn = few_shot(rows, 4, seed=3)
    assert drawn["label"][:] == [label for label in range(5) for _ in range(4)]
    found = {(label, name[0]) for label, name in zip(drawn["label"], names_of(drawn), strict=True)}
    assert found == set(enumerate(rows.features["label"].names))
    assert len({tuple(name) for name in names_of(drawn)}) == 20


def test_a_draw_depends_on_the_seed_and_the_class_alone(rows):
    first, again, other = (names_of(few_shot(rows, 4, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    # Fewer shots are a part of more, and a class is drawn the same among other classes.
    assert all(name in first for name in names_of(few_shot(rows, 2, seed=1)))
    fewer = ClassificationSet("x", "{}", tuple("abcde"), {"train": rows})
    part = select_classes(fewer, [3, 1]).split("train").cast_column("label", _labels("dog", "bee"))
    kept = names_of(few_shot(part, 4, seed=1))
    assert kept == [name for name in first if name[0] == "dog"] + [name for name in first if name[0] == "bee"]


def _labels(*names):
    import datasets

    return datasets.ClassLabel(names=list(names))


def test_another_process_draws_the_same(rows, tmp_path):
    folder = make_class_folder(tmp_path / "f", ("ant", "bee"), n=9)
    code = (
        "import sys; from vlcomp.data.fewshot import few_shot; from vlcomp.data.folders import load_image_classes;"
        f"print([r['path'] for r in few_shot(load_image_classes({str(folder)!r}).dataset, 3, seed=5)['image']])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = few_shot(load_image_classes(folder).dataset, 3, seed=5)
    assert run.stdout.strip() == str([row["path"] for row in here["image"]])


def test_a_class_with_too_few_images_is_named(rows):
    lacking = rows.select([row for row in range(len(rows)) if row not in (9, 10, 11)])
    assert few_shot(lacking, 6)
    with pytest.raises(DataError, match="class 'bee' of the zoo has 6 images, fewer than the 7 shots"):
        few_shot(lacking, 7, name="the zoo")
    with pytest.raises(ArgumentError, match="shots=0 must be at least 1"):
        few_shot(rows, 0)


@pytest.mark.parametrize(("shots", "validation"), [(2, 2), (4, 4), (6, 4)])
def test_validation_shots_are_at_most_four(rows, shots, validation):
    data = ClassificationSet("x", "{}", tuple(rows.features["label"].names), {"train": rows, "validation": rows})
    train, held = few_shot_splits(data, shots, seed=1)
    assert (len(train), len(held)) == (5 * shots, 5 * validation)
    assert few_shot_splits(ClassificationSet("x", "{}", data.class_names, {"train": rows}), 1)[1] is None


@pytest.mark.parametrize(("count", "base"), [(4, 2), (5, 3), (10, 5), (37, 19), (101, 51)])
def test_the_base_half_has_the_odd_class(count, base):
    first, second = base_novel_labels(count)
    assert first == list(range(base)) and second == list(range(base, count))
    with pytest.raises(ArgumentError, match="count=3"):
        base_novel_labels(3)


def test_base_and_novel_are_numbered_from_zero_and_keep_their_images(rows):
    names = ("ant", "bee", "cat", "dog", "elk")
    base, novel = base_and_novel(ClassificationSet("zoo", "{}", names, {"train": rows, "test": rows}))
    assert base.class_names == names[:3] and novel.class_names == names[3:]
    for half in (base, novel):
        for split in ("train", "test"):
            part = half.split(split)
            assert part.features["label"].names == list(half.class_names)
            found = {(label, name[0]) for label, name in zip(part["label"], names_of(part), strict=True)}
            assert found == set(enumerate(half.class_names)) and len(part) == 9 * len(half.class_names)
    with pytest.raises(ArgumentError, match="7 is not one of the 5 classes"):
        select_classes(ClassificationSet("zoo", "{}", names, {"train": rows}), [7])
    with pytest.raises(ArgumentError, match="each must be given once"):
        select_classes(ClassificationSet("zoo", "{}", names, {"train": rows}), [1, 1])
    with pytest.raises(DataError, match="has no split 'train'; it has 'test'"):
        ClassificationSet("zoo", "{}", names, {"test": rows}).split("train")


def test_scenes_halves_have_other_nouns_and_the_same_colours():
    base, novel = base_and_novel(load_classification_set("scenes/attribute-noun", image_size=24))
    words = [[name.split() for name in half.class_names] for half in (base, novel)]
    assert not {noun for _, noun in words[0]} & {noun for _, noun in words[1]}
    assert {colour for colour, _ in words[0]} == {colour for colour, _ in words[1]}
