import io
import random

import numpy as np
import pytest
from PIL import Image

from vlcomp.data.scenes.render import STYLES, encode_png, render
from vlcomp.data.scenes.world import COLOURS, SHAPES, Scene, SceneObject, sample_scene


def one(shape, colour="red", texture="plain", size="big", background="mint"):
    return Scene(background, (SceneObject(shape, colour, size, texture, 0.5, 0.5),))


@pytest.mark.parametrize("style", STYLES)
def test_size_type_and_determinism(style):
    scene = sample_scene(random.Random(0))
    first, second = render(scene, 48, style, "a"), render(scene, 48, style, "a")
    assert first.shape == (48, 48, 3) and first.dtype == np.uint8
    assert (first == second).all()


def test_png_round_trip():
    pixels = render(sample_scene(random.Random(1)), 64)
    assert (np.asarray(Image.open(io.BytesIO(encode_png(pixels)))) == pixels).all()


def test_object_has_its_colour_at_its_place():
    for colour, value in COLOURS.items():
        pixels = render(one("box", colour), 64).astype(int)
        assert np.abs(pixels[32, 32] - value).max() <= 11, colour
        assert np.abs(pixels[2, 2] - value).max() > 11, colour


@pytest.mark.parametrize("style", STYLES)
def test_all_shapes_differ_in_every_style(style):
    pictures = [render(one(shape), 64, style, "x").astype(float) for shape in SHAPES]
    background = np.median(np.stack(pictures), axis=0)
    # The random brightness differs from scene to scene, so contrast with the ground is what is compared.
    masks = [np.abs(p - p[0, 0]).sum(axis=-1) > 60 for p in pictures]
    assert background.shape == (64, 64, 3)
    if style == "noise":
        return  # One noisy picture of each is not enough to compare shapes by pixels.
    for i, a in enumerate(masks):
        assert a.sum() > 15, SHAPES[i]
        for j in range(i):
            assert (a ^ masks[j]).sum() > 12, (SHAPES[i], SHAPES[j])


def test_textures_show():
    plain, striped, dotted = (render(one("ball", texture=t), 64).astype(int) for t in ("plain", "striped", "dotted"))
    for a, b in ((plain, striped), (plain, dotted), (striped, dotted)):
        assert (np.abs(a - b).sum(axis=-1) > 90).sum() > 40


def test_sizes_show():
    areas = []
    for size in ("small", "medium", "big"):
        pixels = render(one("box", size=size), 64).astype(int)
        areas.append((np.abs(pixels - pixels[1, 1]).sum(axis=-1) > 90).sum())
    assert areas[0] * 1.2 < areas[1] and areas[1] * 1.2 < areas[2]
