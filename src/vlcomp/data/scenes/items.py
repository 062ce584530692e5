"""Test items in SugarCrepe's seven categories, made in mirrored pairs.

Each function draws two scenes and two captions such that caption 0 is true of scene 0 and false of scene 1, and the
other way round. As an item of either scene the pair of captions is the same and the right answer the opposite, so a
scorer that does not see the picture is right exactly half of the time, whatever it knows about captions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from .captions import Caption, Mention, sample_caption, swap_colours, swap_mentions
from .world import (
    ALLOWED_COLOURS,
    HELD_OUT_COLOURS,
    SHAPES,
    TEXTURES,
    Scene,
    is_held_out,
    relation_between,
    sample_scene,
    shape_group,
)


@dataclass(frozen=True)
class MirroredPair:
    """Two scenes with the caption that is true of each; `captions[1]` is false of `scenes[0]` and vice versa."""

    scenes: tuple[Scene, Scene]
    captions: tuple[Caption, Caption]


def _mentioned(rng: random.Random, caption: Caption, need: Callable[[Mention], object]) -> int | None:
    positions = [p for p, mention in enumerate(caption.mentions) if need(mention)]
    return rng.choice(positions) if positions else None


def replace_object(rng: random.Random, held_out: bool = False) -> MirroredPair | None:
    scene = sample_scene(rng, held_out=held_out)
    kind = "attributed" if held_out or rng.random() < 0.5 else "nouns"
    caption = sample_caption(rng, scene, kind=kind, colour_all=held_out, num_mentions=2 if held_out else None)
    position = _mentioned(rng, caption, lambda m: m.noun and (not held_out or m.index < 2))
    if position is None:
        return None
    index = caption.mentions[position].index
    item = scene.objects[index]
    taken = {other.shape for other in scene.objects}
    if held_out:
        choices = [s for s in shape_group(item.shape) if s not in taken]
    else:
        choices = [s for s in SHAPES if s not in taken and not is_held_out(s, item.colour)]
    shape = rng.choice(choices)
    return MirroredPair(
        (scene, scene.with_object(index, shape=shape)), (caption, caption.with_mention(position, noun=shape))
    )


def replace_attribute(rng: random.Random, held_out: bool = False) -> MirroredPair | None:
    scene = sample_scene(rng, held_out=held_out)
    caption = sample_caption(rng, scene, kind="attributed", colour_all=held_out, num_mentions=2 if held_out else None)
    position = _mentioned(rng, caption, lambda m: m.colour and (not held_out or m.index < 2))
    if position is None:
        return None
    index = caption.mentions[position].index
    pool = (HELD_OUT_COLOURS if held_out else ALLOWED_COLOURS)[scene.objects[index].shape]
    choices = [c for c in pool if c not in {other.colour for other in scene.objects}]
    if not choices:
        return None
    colour = rng.choice(choices)
    return MirroredPair(
        (scene, scene.with_object(index, colour=colour)), (caption, caption.with_mention(position, colour=colour))
    )


def _exchange_places(scene: Scene) -> Scene:
    """The first two objects exchange places. Sizes go with the place, so that nothing overlaps."""
    a, b = scene.objects[:2]
    first = replace(a, x=b.x, y=b.y, size=b.size)
    second = replace(b, x=a.x, y=a.y, size=a.size)
    return Scene(scene.background, (first, second, *scene.objects[2:]))


def _transposed(scene: Scene) -> Scene:
    """The scene reflected in its main diagonal: what was left of something is then above it."""
    return Scene(scene.background, tuple(replace(o, x=o.y, y=o.x) for o in scene.objects))


def _without_sizes(caption: Caption) -> Caption:
    return replace(caption, mentions=tuple(replace(m, size=None) for m in caption.mentions))


def _related(rng: random.Random, held_out: bool) -> tuple[Scene, Caption]:
    scene = sample_scene(rng, held_out=held_out)
    kind = "attributed" if held_out or rng.random() < 0.5 else "nouns"
    caption = sample_caption(rng, scene, kind=kind, relation=True, colour_all=held_out)
    return scene, _without_sizes(caption)


def replace_relation(rng: random.Random, held_out: bool = False) -> MirroredPair | None:
    """Half of the pairs go to the opposite relation, half to the other axis."""
    scene, caption = _related(rng, held_out)
    if rng.random() < 0.5:
        other = _exchange_places(scene)
    else:
        other = _transposed(scene if rng.random() < 0.5 else _exchange_places(scene))
    first, second = (mention.index for mention in caption.mentions[:2])
    relation = relation_between(other.objects[first], other.objects[second])
    return MirroredPair((scene, other), (caption, replace(caption, relation=relation)))


def swap_object(rng: random.Random, held_out: bool = False) -> MirroredPair | None:
    """Relation order: "a star left of a cup" against "a cup left of a star"."""
    scene, caption = _related(rng, held_out)
    # Textures stay with their objects and so move with them: the swap exchanges whole mentions.
    return MirroredPair((scene, _exchange_places(scene)), (caption, swap_mentions(caption)))


def swap_attribute(rng: random.Random, held_out: bool = False) -> MirroredPair | None:
    """Colour binding: "a red star and a blue cup" against "a blue star and a red cup"."""
    scene = sample_scene(rng, held_out=held_out)
    caption = sample_caption(rng, scene, kind="attributed", num_mentions=2 if held_out else None)
    positions = [p for p, m in enumerate(caption.mentions) if m.colour and (not held_out or m.index < 2)]
    if len(positions) < 2:
        return None
    first, second = rng.sample(positions, 2)
    i, j = caption.mentions[first].index, caption.mentions[second].index
    a, b = scene.objects[i], scene.objects[j]
    if is_held_out(a.shape, b.colour) != held_out or is_held_out(b.shape, a.colour) != held_out:
        return None
    other = scene.with_object(i, colour=b.colour).with_object(j, colour=a.colour)
    return MirroredPair((scene, other), (caption, swap_colours(caption, first, second)))


def add_object(rng: random.Random, held_out: bool = False) -> MirroredPair | None:
    """A third object is added to a caption of two: truly in one caption, falsely in the other."""
    scene = sample_scene(rng, num_objects=3, held_out=held_out)
    kind = "attributed" if held_out or rng.random() < 0.5 else "nouns"
    caption = sample_caption(rng, scene, kind=kind, num_mentions=3)
    index = caption.mentions[2].index
    taken = {other.shape for other in scene.objects}
    shape = rng.choice([s for s in SHAPES if s not in taken and not is_held_out(s, scene.objects[index].colour)])
    return MirroredPair((scene, scene.with_object(index, shape=shape)), (caption, caption.with_mention(2, noun=shape)))


def add_attribute(rng: random.Random, held_out: bool = False) -> MirroredPair | None:
    """One word is added to a caption of nouns: a colour (half of the pairs), a texture or a size."""
    scene = sample_scene(rng, held_out=held_out)
    caption = sample_caption(rng, scene, kind="nouns")
    bare = tuple(replace(m, texture=None, size=None) for m in caption.mentions)
    caption = replace(caption, mentions=bare)
    position = rng.randrange(len(bare))
    index = bare[position].index
    item = scene.objects[index]
    field = rng.choices(("colour", "texture", "size"), (0.5, 0.25, 0.25))[0]
    value = getattr(item, field)
    used = {getattr(other, field) for other in scene.objects}
    if field == "colour":
        choices = [c for c in ALLOWED_COLOURS[item.shape] if c not in used]
    elif field == "texture":
        choices = [t for t in TEXTURES if t not in used]
    else:
        # Medium is never said, and a smaller object always fits where a bigger one was.
        choices = ["small"] if value == "big" and "small" not in used else []
    if not choices:
        return None
    new = rng.choice(choices)
    scenes = (scene, scene.with_object(index, **{field: new}))
    captions = (caption.with_mention(position, **{field: value}), caption.with_mention(position, **{field: new}))
    return MirroredPair(scenes, captions)


CATEGORIES: dict[str, Callable[..., MirroredPair | None]] = {
    "replace_object": replace_object,
    "replace_attribute": replace_attribute,
    "replace_relation": replace_relation,
    "swap_object": swap_object,
    "swap_attribute": swap_attribute,
    "add_object": add_object,
    "add_attribute": add_attribute,
}
# Categories whose false caption can be made of held-out colour-noun pairs alone.
SYSTEMATIC_CATEGORIES = ("replace_object", "replace_attribute", "swap_attribute", "swap_object")


def sample_pair(rng: random.Random, category: str, held_out: bool = False) -> MirroredPair:
    """Draw a mirrored pair of a category, again until the drawn scene allows one.

    Args:
        rng (`random.Random`):
            Source of randomness.
        category (`str`):
            A key of :data:`CATEGORIES`.
        held_out (`bool`, defaults to `False`):
            Whether the colour-noun pairs of both captions are pairs never seen in training.

    Returns:
        `MirroredPair`
    """
    while True:
        pair = CATEGORIES[category](rng, held_out)
        if pair is not None:
            # Which of the two is drawn first must not matter: a medium size or a rarer word would be more
            # often in the second.
            return pair
