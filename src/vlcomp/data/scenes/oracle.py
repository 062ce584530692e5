"""The oracle bag of words: it knows which words are true of a scene, and nothing of how they belong together."""

from __future__ import annotations

import re
from functools import lru_cache

from .world import BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Scene, relation_between

_RELATION_WORDS = {"left of": "left", "right of": "right", "above": "above", "below": "below"}
CONTENT_WORDS = frozenset({*SHAPES, *COLOURS, *BACKGROUNDS, *SIZES, *TEXTURES, *_RELATION_WORDS.values()})


@lru_cache(maxsize=100_000)
def true_words(scene: str) -> frozenset[str]:
    """Content words that are true of something in a scene.

    A relation word is true if any two objects stand in that relation, in whatever order; "left" is thus true wherever
    "right" is.

    Args:
        scene (`str`):
            The scene's JSON, the `scene` column of every Scenes data set.

    Returns:
        `frozenset[str]`
    """
    world = Scene.from_json(scene)
    words = {world.background}
    for item in world.objects:
        words |= {item.shape, item.colour, item.size, item.texture}
    for a in world.objects:
        for b in world.objects:
            name = relation_between(a, b) if a is not b else None
            if name:
                words.add(_RELATION_WORDS[name])
    return frozenset(words)


def content_words(caption: str) -> frozenset[str]:
    """The words of a caption that say something about a scene."""
    return frozenset(re.findall(r"[a-z]+", caption.lower())) & CONTENT_WORDS


def bag_of_words_score(caption: str, scene: str) -> float:
    """Score a caption by its words alone: no false word first, then as many true words as possible.

    This is the best that a model without composition can do: it marks a ceiling, and is at chance wherever true and
    false caption have the same words. Count its ties as one half.

    Args:
        caption (`str`):
            Any caption in the words of Scenes.
        scene (`str`):
            The scene's JSON.

    Returns:
        `float`: higher is better.

    Example:
        >>> from vlcomp.data.scenes import bag_of_words_score, load_scenes
        >>> item = load_scenes("swap_attribute", size=2)[0]
        >>> bag_of_words_score(item["caption"], item["scene"]) == bag_of_words_score(
        ...     item["negative_caption"], item["scene"]
        ... )
        True
    """
    words = content_words(caption)
    true = len(words & true_words(scene))
    return float(true - 100 * (len(words) - true))
