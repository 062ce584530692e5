"""The world of Scenes: what there is, and how a picture's contents are drawn at random."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace

# The version is part of every cache key and result: change it whenever the same seed gives another world.
WORLD_VERSION = "1"

SHAPES = (
    "ball", "box", "cone", "star",
    "cross", "heart", "moon", "ring",
    "diamond", "arrow", "house", "tree",
    "cup", "fish", "boat", "key",
    "bolt", "bell", "flower", "mushroom",
)  # fmt: skip
COLOURS = {
    "red": (214, 28, 32),
    "orange": (255, 140, 0),
    "yellow": (250, 228, 32),
    "green": (16, 140, 44),
    "blue": (28, 64, 222),
    "purple": (132, 30, 170),
    "pink": (255, 130, 192),
    "brown": (118, 64, 24),
    "black": (16, 16, 18),
    "grey": (132, 132, 134),
    "teal": (0, 176, 176),
    "lime": (160, 244, 40),
}
# Pale: a ground as strong as the objects' own colours drowns the outlines, and no noun is learned for a long time.
BACKGROUNDS = {"sand": (250, 238, 212), "sky": (214, 234, 252), "mint": (218, 244, 218), "rose": (250, 222, 226)}
TEXTURES = ("plain", "striped", "dotted")
# The box of an object starts at a multiple of this share of the side: eight pixels of a picture of 40. Where objects
# stand anywhere, a small vision transformer learns colours in 200 to 400 steps and hardly
# any noun in 700, where those trials were stopped (README.md beside this file).
LATTICE = 0.2
TEXTURE_SHARES = (0.7, 0.15, 0.15)
SIZES = ("small", "medium", "big")
# Diameter as a share of the picture's side.
DIAMETERS = {"small": 0.27, "medium": 0.33, "big": 0.39}
# Scenes of one object among the training scenes: they are what nouns are learned from.
TRAINING_OBJECTS = {1: 0.3, 2: 0.35, 3: 0.35}
RELATIONS = ("left of", "right of", "above", "below")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

_SHAPE_GROUP, _COLOUR_GROUP = 4, 3
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class SceneObject:
    """One object: its words, and its centre (`x` to the right, `y` downwards) in shares of the picture's side."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float


@dataclass(frozen=True)
class Scene:
    """What a picture shows.

    Shapes are distinct within a scene and so are colours: every attribute word then belongs to one object, and a
    caption that gives it to another is false.
    """

    background: str
    objects: tuple[SceneObject, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Scene:
        data = json.loads(text)
        return cls(data["background"], tuple(SceneObject(**item) for item in data["objects"]))

    def with_object(self, index: int, **changes: object) -> Scene:
        """The same scene with fields of one object changed."""
        objects = list(self.objects)
        objects[index] = replace(objects[index], **changes)
        return Scene(self.background, tuple(objects))


def is_held_out(shape: str, colour: str) -> bool:
    """Whether a colour-noun pair is kept out of all training scenes and captions (the systematic split).

    Shapes come in five groups of four and colours in four groups of three; group g of the shapes never has a colour
    of group g mod 4. Every shape is seen in nine colours and every colour on twelve shapes or more, and the colours of
    two held-out pairs of one block can be exchanged with all four pairs held out.
    """
    return SHAPES.index(shape) // _SHAPE_GROUP % 4 == _COLOUR_NAMES.index(colour) // _COLOUR_GROUP


ALLOWED_COLOURS = {s: tuple(c for c in _COLOUR_NAMES if not is_held_out(s, c)) for s in SHAPES}
HELD_OUT_COLOURS = {s: tuple(c for c in _COLOUR_NAMES if is_held_out(s, c)) for s in SHAPES}


def shape_group(shape: str) -> tuple[str, ...]:
    """The shapes with which `shape` shares its held-out colours."""
    start = SHAPES.index(shape) // _SHAPE_GROUP * _SHAPE_GROUP
    return SHAPES[start : start + _SHAPE_GROUP]


def relation_between(first: SceneObject, second: SceneObject) -> str | None:
    """How `first` lies to `second`: one of :data:`RELATIONS`, or `None` where neither axis clearly dominates."""
    dx, dy = second.x - first.x, second.y - first.y
    if abs(dx) >= 1.5 * abs(dy) and dx:
        return "left of" if dx > 0 else "right of"
    if abs(dy) >= 1.5 * abs(dx) and dy:
        return "above" if dy > 0 else "below"
    return None


def _place(rng: random.Random, sizes: list[str]) -> list[tuple[float, float]]:
    """Centres such that objects neither overlap nor leave the picture, and the first two stand in a clear relation."""
    radii = [DIAMETERS[size] / 2 for size in sizes]
    while True:
        centres: list[tuple[float, float]] = []
        for radius in radii:
            for _ in range(12):
                x, y = (rng.randint(0, int((1 - 2 * radius) / LATTICE + 1e-9)) * LATTICE + radius for _ in range(2))
                # Squares of the objects' boxes may not touch: shapes differ in how they fill their box.
                if all(
                    max(abs(x - cx), abs(y - cy)) > radius + other
                    for (cx, cy), other in zip(centres, radii, strict=False)
                ):
                    centres.append((round(x, 4), round(y, 4)))
                    break
            else:
                break
        if len(centres) == len(radii) == 1:
            return centres
        if len(centres) == len(radii):
            dx, dy = abs(centres[0][0] - centres[1][0]), abs(centres[0][1] - centres[1][1])
            if max(dx, dy) >= 1.5 * min(dx, dy):
                return centres


def sample_scene(
    rng: random.Random, *, num_objects: int | None = None, held_out: bool = False, shape: str | None = None
) -> Scene:
    """Draw a scene.

    Args:
        rng (`random.Random`):
            Source of randomness; the same state gives the same scene.
        num_objects (`int`, *optional*):
            1, 2 or 3; two or three, equally often, if not given.
        held_out (`bool`, defaults to `False`):
            The first two objects are held-out colour-noun pairs of one block (see :func:`is_held_out`), so that their
            colours can be exchanged within the held-out pairs. Otherwise every pair is one that training shows.
        shape (`str`, *optional*):
            Shape of the first object.

    Returns:
        `Scene`: the first two of its objects, if it has so many, stand in a clear relation to each other.
    """
    count = num_objects or rng.choice((2, 3))
    shapes: list[str]
    colours: list[str]
    if held_out:
        first = shape or rng.choice(SHAPES)
        shapes = [first, rng.choice([s for s in shape_group(first) if s != first])]
        colours = rng.sample(HELD_OUT_COLOURS[first], 2)
    else:
        shapes, colours = [], []
    while len(shapes) < count:
        candidate = rng.choice(SHAPES) if shapes or shape is None else shape
        if candidate in shapes:
            continue
        colour = rng.choice(ALLOWED_COLOURS[candidate])
        if colour in colours:
            continue
        shapes.append(candidate)
        colours.append(colour)
    sizes = rng.choices(SIZES, (0.3, 0.4, 0.3), k=count)
    textures = rng.choices(TEXTURES, TEXTURE_SHARES, k=count)
    centres = _place(rng, sizes)
    objects = tuple(
        SceneObject(name, colour, size, texture, x, y)
        for name, colour, size, texture, (x, y) in zip(shapes, colours, sizes, textures, centres, strict=True)
    )
    return Scene(rng.choice(tuple(BACKGROUNDS)), objects)
