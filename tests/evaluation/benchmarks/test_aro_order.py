"""ARO's word order: how captions are shuffled, and the choice among them."""

import random
from collections import Counter

import numpy as np
import pytest

from vlcomp.data.negatives.tagging import make_tagger
from vlcomp.errors import DataError
from vlcomp.evaluation import get_task
from vlcomp.evaluation.benchmarks.aro import SHUFFLES, clean_caption, shuffled

from ..common import ConstantModel, HashModel
from .layouts import dump, load, picture

CAPTIONS = [
    "A small brown dog sits on the wooden bench near two red cars.",
    "Two men are riding a big horse along the sandy beach.",
    "A green bus parks beside an old church and a tall tree!",
    "The young girl holds a yellow umbrella in the rain.",
]


@pytest.fixture
def folder(tmp_path):
    rows = []
    for i in range(12):
        picture(tmp_path / "val2014" / f"COCO_val2014_{i:012d}.jpg")
        rows.append({"image": f"val2014/COCO_val2014_{i:012d}.jpg", "caption": [f"{c} Number {i}" for c in CAPTIONS]})
    dump(tmp_path / "coco_karpathy_test.json", rows)
    return tmp_path


@pytest.mark.parametrize("way", SHUFFLES)
def test_a_shuffling_keeps_the_words(way):
    changed = 0
    for number, caption in enumerate(CAPTIONS):
        text = shuffled(caption, way, random.Random(number), make_tagger("textblob"))
        assert Counter(clean_caption(text).split()) == Counter(clean_caption(caption).split())
        changed += clean_caption(text) != clean_caption(caption)
    assert changed >= 3


def test_what_each_way_moves():
    caption = CAPTIONS[0]
    words = caption.replace(".", " .").split()
    kinds = [tag[:1] if tag[:1] in "NJ" else "" for tag in make_tagger("textblob")(words)]
    for seed in range(5):
        out = {way: shuffled(caption, way, random.Random(seed), make_tagger("textblob")).split() for way in SHUFFLES}
        content, rest, within, triples = (out[way] for way in SHUFFLES)
        for kind in ("N", "J"):  # nouns stay on places of nouns, adjectives on those of adjectives
            at = [i for i, k in enumerate(kinds) if k == kind]
            assert sorted(content[i] for i in at) == sorted(words[i] for i in at)
            assert [rest[i] for i in at] == [words[i] for i in at]
        assert [w for w, k in zip(content, kinds, strict=True) if not k] == [
            w for w, k in zip(words, kinds, strict=True) if not k
        ]
        parts = [words[i : i + 3] for i in range(0, len(words), 3)]
        assert [sorted(within[i : i + 3]) for i in range(0, len(words), 3)] == [sorted(part) for part in parts]
        # Whole triples change places; a shorter one at the end may be anywhere.
        joined = " ".join(triples)
        assert all(" ".join(part) in joined for part in parts)


def test_scores_equal_a_loop(folder):
    task = get_task("aro/coco_order", data=folder, allow_partial=True)
    result = task.run(HashModel())
    model, right = HashModel(), []
    for item in task.prepared.items:
        own, *others = (model.score(load(folder / item.images[0].name), text) for text in item.texts)
        right.append(len(others) == 4 and all(own > other for other in others))
    assert result.scores["accuracy"].value == pytest.approx(np.mean(right)) and len(right) == 48
    assert 0 < np.mean(right) < 1 and result.scores["accuracy"].chance == pytest.approx(0.2)
    assert [item.texts[0] for item in task.prepared.items][:2] == [
        "a small brown dog sits on the wooden bench near two red cars number 0",
        "two men are riding a big horse along the sandy beach number 0",
    ]
    assert get_task("aro/coco_order", data=folder, allow_partial=True).prepared.items == task.prepared.items
    # The bag of words sees no order: a choice among five.
    assert result.references["bag_of_words"]["accuracy"].value == pytest.approx(0.2)
    assert task.run(ConstantModel()).scores["accuracy"].value == 0


def test_long_captions_are_cut_and_cleaned():
    assert clean_caption("A dog, (red)  and\nblue: 'x'!") == "a dog, red and blue 'x'"
    assert len(clean_caption(" ".join(map(str, range(50)))).split()) == 30


def test_a_row_without_captions_is_told(folder):
    dump(folder / "coco_karpathy_test.json", [{"image": "val2014/x.jpg", "caption": "one"}])
    with pytest.raises(DataError, match="caption='one'; expected a list"):
        get_task("aro/coco_order", data=folder, allow_partial=True)
    with pytest.raises(DataError, match="caption='one'; expected a list"):
        get_task("coco_retrieval", data=folder, allow_partial=True)
