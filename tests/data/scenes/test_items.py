import random
import re
from collections import Counter

import pytest

from vlcomp.data.scenes.items import CATEGORIES, SYSTEMATIC_CATEGORIES, sample_pair
from vlcomp.data.scenes.oracle import bag_of_words_score
from vlcomp.data.scenes.world import COLOURS, SHAPES, is_held_out

from .test_captions import check_true


def pairs(category, count=200, held_out=False):
    return [sample_pair(random.Random(f"{category}{i}"), category, held_out) for i in range(count)]


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_caption_is_true_of_its_scene_and_false_of_the_other(category):
    for pair in pairs(category):
        first, second = (caption.text() for caption in pair.captions)
        assert first != second
        check_true(first, pair.scenes[0])
        check_true(second, pair.scenes[1])
        for text, scene in ((second, pair.scenes[0]), (first, pair.scenes[1])):
            with pytest.raises(AssertionError):
                check_true(text, scene)


@pytest.mark.parametrize("category", CATEGORIES)
def test_both_captions_are_equally_long(category):
    for pair in pairs(category):
        a, b = (re.sub(r"left of|right of", "above", c.text()).split() for c in pair.captions)
        assert len(a) == len(b)


@pytest.mark.parametrize("category", ["swap_object", "swap_attribute"])
def test_oracle_bag_of_words_ties_on_swaps(category):
    for held_out in (False, True):
        for pair in pairs(category, held_out=held_out):
            scene = pair.scenes[0].to_json()
            first, second = (caption.text() for caption in pair.captions)
            assert bag_of_words_score(first, scene) == bag_of_words_score(second, scene)


@pytest.mark.parametrize("category", ["replace_object", "replace_attribute", "add_object"])
def test_oracle_bag_of_words_solves_new_words(category):
    for pair in pairs(category):
        for side in (0, 1):
            scene = pair.scenes[side].to_json()
            right, wrong = pair.captions[side].text(), pair.captions[1 - side].text()
            assert bag_of_words_score(right, scene) > bag_of_words_score(wrong, scene)


@pytest.mark.parametrize("category", SYSTEMATIC_CATEGORIES)
def test_systematic_items_name_held_out_pairs_in_both_captions(category):
    pattern = re.compile(f"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")
    for pair in pairs(category, held_out=True):
        changed = [set(pattern.findall(caption.text())) for caption in pair.captions]
        if category.startswith("replace") or category == "swap_attribute":
            changed = [changed[0] - changed[1], changed[1] - changed[0]]
        else:
            changed = [set(list(pattern.findall(caption.text()))[:2]) for caption in pair.captions]
        for found in changed:
            assert found and all(is_held_out(noun, colour) for colour, noun in found)


@pytest.mark.parametrize("category", CATEGORIES)
def test_ordinary_items_name_no_held_out_pair(category):
    for pair in pairs(category):
        for scene in pair.scenes:
            assert not any(is_held_out(o.shape, o.colour) for o in scene.objects)


def test_relations_change_to_the_opposite_and_to_the_other_axis():
    axis = {"left of": "x", "right of": "x", "above": "y", "below": "y"}
    kinds = Counter(
        axis[pair.captions[0].relation] == axis[pair.captions[1].relation] for pair in pairs("replace_relation", 400)
    )
    assert kinds[True] > 140 and kinds[False] > 140


def test_relation_order_items_show_both_orders_equally_often():
    names = Counter(pair.captions[0].relation for pair in pairs("swap_object", 400))
    assert len(names) == 4 and min(names.values()) > 60
