"""Classification sets of the Scenes world, for learning from a few pictures of each class."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from typing import Any

import datasets

from ...errors import ArgumentError, check_count
from .loading import SPLITS, _cache_root, _image, _write
from .render import STYLES
from .world import ALLOWED_COLOURS, BACKGROUNDS, COLOURS, SHAPES, WORLD_VERSION, Scene, sample_scene

# Part of every cache key, beside that of the world: change it whenever the same seed gives other pictures or classes.
CLASSES_VERSION = "1"
# Text of a class, with the article that the captions of the world have.
CLASS_TEMPLATE = "a {}"
COLOURS_PER_NOUN = 4
# With "a" before it, a class that begins with a vowel would be read in a text that no caption has.
_VOWELS = ("arrow", "orange")
_NOUNS = tuple(shape for shape in SHAPES if shape not in _VOWELS)
_COLOURS = tuple(colour for colour in COLOURS if colour not in _VOWELS)
_TEXTURES = ("striped", "dotted")
_SIZES = ("small", "big")
_PER_CLASS = 32
_SIZE = {"validation": 1_000, "test": 2_000}


def _pairs() -> tuple[tuple[str, str], ...]:
    """Colour and noun of each attribute-noun class; nouns in order, each in four of the colours training shows it in.

    Which four rotates with the noun, so that all colours come in both halves of the classes.
    """
    chosen = []
    for place, shape in enumerate(SHAPES):
        known = [colour for colour in ALLOWED_COLOURS[shape] if colour in _COLOURS]
        chosen += [(known[(place + 2 * k) % len(known)], shape) for k in range(COLOURS_PER_NOUN)]
    return tuple(chosen)


ATTRIBUTE_NOUNS = _pairs()
_CLASSES: dict[str, tuple[str, ...]] = {
    "attribute-noun": tuple(f"{colour} {shape}" for colour, shape in ATTRIBUTE_NOUNS),
    "noun": _NOUNS,
    "colour": tuple(f"{colour} thing" for colour in _COLOURS),
    "texture": tuple(f"{texture} thing" for texture in _TEXTURES),
    "size": tuple(f"{size} thing" for size in _SIZES),
    "background": tuple(f"thing on {name}" for name in BACKGROUNDS),
}
# What a style takes away (palette: colours, sketch: colours and textures) must not be what a class is told by.
_STYLED = {
    "attribute-noun": ("outline", "noise"),
    "noun": tuple(style for style in STYLES if style != "clean"),
}


def list_scenes_classes() -> list[str]:
    """Names that [`load_scenes_classes`] takes.

    Returns:
        `list[str]`

    Example:
        >>> from vlcomp.data.scenes.classes import list_scenes_classes
        >>> list_scenes_classes()[:3]
        ['attribute-noun', 'attribute-noun/outline', 'attribute-noun/noise']
    """
    names = []
    for kind in _CLASSES:
        names.append(kind)
        names += [f"{kind}/{style}" for style in _STYLED.get(kind, ())]
    return names


def load_scenes_classes(
    name: str,
    *,
    split: str = "test",
    size: int | None = None,
    image_size: int = 64,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> datasets.Dataset:
    """Make (or read from the cache) a classification set: pictures of one object, and what it is called.

    The pictures are draws of their own, none of which a training set has. Every class comes equally often; a larger
    `size` begins with the rows of a smaller one.

    Args:
        name (`str`):
            One of [`list_scenes_classes`]:

            - `"attribute-noun"`: 80 classes such as "red cup", four colours for each of 20 nouns, all of them pairs
              that the training set of Scenes shows. In label order, so that the two halves have other nouns (and the
              same colours): base and novel classes.
            - `"noun"` (19 classes), `"colour"` ("red thing", 11), `"texture"` (2), `"size"` (2), `"background"`
              ("thing on sand", 4).
            - `"noun/<style>"`: the nouns drawn in the styles `outline`, `noise`, `palette` and `sketch`;
              `"attribute-noun/<style>"`: in `outline` and `noise`, which leave colours as they are.
        split (`str`, defaults to `"test"`):
            `"train"`, `"validation"` (to choose settings on) or `"test"`: disjoint draws.
        size (`int`, *optional*):
            Number of pictures; 32 of each class in `"train"`, 1,000 in `"validation"`, 2,000 in `"test"` if not given.
        image_size (`int`, defaults to 64):
            Side of the pictures in pixels, at least 24.
        seed (`int`, defaults to 0):
            Seed of the pictures.
        cache_dir (`str` or `os.PathLike`, *optional*):
            As in [`~vlcomp.data.scenes.load_scenes`].

    Returns:
        `datasets.Dataset`: columns `image`, `label` (`ClassLabel`) and `scene`.

    Raises:
        ArgumentError: for an unknown name or split, or a size out of range.

    Example:
        >>> from vlcomp.data.scenes.classes import load_scenes_classes
        >>> rows = load_scenes_classes("attribute-noun", size=2)
        >>> rows.features["label"].names[0]
        'green ball'
    """
    known = list_scenes_classes()
    if name not in known:
        close = get_close_matches(name, known, 3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; known: {', '.join(known)}"
        raise ArgumentError(f"name={name!r} is not a classification set of Scenes{hint}")
    if split not in SPLITS:
        raise ArgumentError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    kind, _, style = name.partition("/")
    classes = _CLASSES[kind]
    if size is None:
        size = _SIZE.get(split, _PER_CLASS * len(classes))
    check_count("size", size)
    check_count("image_size", image_size, 24, ": below 24 pixels the shapes cannot be told apart")
    check_count("seed", seed, 0)
    key = f"classes{CLASSES_VERSION}-{name.replace('/', '-')}-{split}-{size}-{image_size}px-{seed}"
    folder = _cache_root(cache_dir) / f"v{WORLD_VERSION}" / key
    if not (folder / "dataset_info.json").exists():
        features = {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=list(classes)),
            "scene": datasets.Value("string"),
        }
        rows = _rows(kind, style or "clean", partial(_stream, seed, split, name), size, image_size)
        _write(folder, rows, datasets.Features(features))
    return datasets.load_from_disk(str(folder))


def _stream(seed: int, split: str, name: str, index: int) -> random.Random:
    return random.Random(f"scenes-classes/{seed}/{split}/{name}/{index}")


def _rows(
    kind: str, style: str, stream: Callable[[int], random.Random], size: int, image_size: int
) -> Iterator[dict[str, Any]]:
    for index in range(size):
        rng = stream(index)
        label = index % len(_CLASSES[kind])
        scene = _scene(rng, kind, label)
        # The seed keeps two styles of one scene apart.
        image = _image(scene, image_size, style, f"{kind}/{style}")
        yield {"image": image, "label": label, "scene": scene.to_json()}


def _scene(rng: random.Random, kind: str, label: int) -> Scene:
    """A scene of one object of the class; pairs of colour and noun are those that training shows."""
    if kind == "attribute-noun":
        colour, shape = ATTRIBUTE_NOUNS[label]
        return sample_scene(rng, num_objects=1, shape=shape).with_object(0, colour=colour)
    if kind == "noun":
        return sample_scene(rng, num_objects=1, shape=_NOUNS[label])
    if kind == "colour":
        colour = _COLOURS[label]
        shape = rng.choice([shape for shape in SHAPES if colour in ALLOWED_COLOURS[shape]])
        return sample_scene(rng, num_objects=1, shape=shape).with_object(0, colour=colour)
    if kind == "background":
        return Scene(tuple(BACKGROUNDS)[label], sample_scene(rng, num_objects=1).objects)
    field, words = ("texture", _TEXTURES) if kind == "texture" else ("size", _SIZES)
    while True:  # drawn until it fits: a bigger object would leave the picture if only its size were changed
        scene = sample_scene(rng, num_objects=1)
        if getattr(scene.objects[0], field) == words[label]:
            return scene
