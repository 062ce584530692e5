import random
from collections import Counter

from vlcomp.data.scenes.world import (
    ALLOWED_COLOURS,
    COLOURS,
    DIAMETERS,
    HELD_OUT_COLOURS,
    SHAPES,
    Scene,
    is_held_out,
    relation_between,
    sample_scene,
    shape_group,
)


def scenes(count, **options):
    return [sample_scene(random.Random(i), **options) for i in range(count)]


def test_shapes_and_colours_are_distinct_within_a_scene():
    for scene in scenes(300):
        assert len({o.shape for o in scene.objects}) == len(scene.objects)
        assert len({o.colour for o in scene.objects}) == len(scene.objects)


def test_objects_stay_inside_and_never_overlap():
    for scene in scenes(300):
        for i, a in enumerate(scene.objects):
            radius = DIAMETERS[a.size] / 2
            assert radius - 1e-3 <= a.x <= 1 - radius + 1e-3 and radius - 1e-3 <= a.y <= 1 - radius + 1e-3
            for b in scene.objects[i + 1 :]:
                assert max(abs(a.x - b.x), abs(a.y - b.y)) > radius + DIAMETERS[b.size] / 2


def test_first_two_objects_stand_in_a_clear_relation():
    relations = Counter(relation_between(*scene.objects[:2]) for scene in scenes(400))
    assert set(relations) == {"left of", "right of", "above", "below"}
    assert min(relations.values()) > 60


def test_relation_is_read_as_english():
    scene = scenes(1)[0]
    a = scene.with_object(0, x=0.2, y=0.5).objects[0]
    b = scene.with_object(1, x=0.8, y=0.5).objects[1]
    assert relation_between(a, b) == "left of" and relation_between(b, a) == "right of"
    high = scene.with_object(0, x=0.5, y=0.1).objects[0]
    low = scene.with_object(1, x=0.5, y=0.9).objects[1]
    assert relation_between(high, low) == "above" and relation_between(low, high) == "below"
    assert relation_between(*scene.with_object(0, x=0.2, y=0.2).with_object(1, x=0.7, y=0.7).objects[:2]) is None


def test_training_scenes_hold_no_held_out_pair_and_systematic_ones_do():
    for scene in scenes(300):
        assert not any(is_held_out(o.shape, o.colour) for o in scene.objects)
    for scene in scenes(300, held_out=True):
        a, b = scene.objects[:2]
        # All four pairs of the exchange are held out too.
        assert all(is_held_out(s, c) for s in (a.shape, b.shape) for c in (a.colour, b.colour))


def test_held_out_pairs_leave_every_shape_and_colour_seen():
    for shape in SHAPES:
        assert len(ALLOWED_COLOURS[shape]) == 9 and len(HELD_OUT_COLOURS[shape]) == 3
        assert shape in shape_group(shape) and len(shape_group(shape)) == 4
    for colour in COLOURS:
        assert sum(not is_held_out(shape, colour) for shape in SHAPES) >= 12


def test_json_round_trip():
    for scene in scenes(20):
        assert Scene.from_json(scene.to_json()) == scene
