"""Topographic similarity: whether what is built alike is embedded alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from ..data.scenes import load_scenes
from ..data.scenes.world import RELATIONS, Scene, relation_between
from ..errors import ArgumentError, check_count

# Words of an object that a caption can name.
_ATTRIBUTES = ("shape", "colour", "size", "texture")


@dataclass(frozen=True)
class TopographicSimilarity:
    """Spearman correlations between distances of scenes and of their embeddings, over all pairs of scenes.

    They are 0 for a model whose embeddings are all equal.

    Args:
        image (`float`):
            For pictures, with the distance of bound structure ([`scene_distances`]).
        text (`float`):
            For captions that name all objects and colours, with the same distance.
        image_words (`float`):
            For pictures, with the distance of bags of words: binding makes no difference to it.
        text_words (`float`):
            For captions, with that distance.
        scenes (`int`):
            Number of scenes.
    """

    image: float
    text: float
    image_words: float
    text_words: float
    scenes: int


def topographic_similarity(
    model: Any, *, scenes: int = 500, image_size: int = 64, split: str = "test"
) -> TopographicSimilarity:
    """Correlate distances between scenes with distances between embeddings, on the retrieval set of Scenes.

    Args:
        model ([`~vlcomp.Embedder`] or any object):
            With `encode_images` and `encode_texts`.
        scenes (`int`, defaults to 500):
            How many scenes, at least 3; all pairs of them are compared.
        image_size (`int`, defaults to 64):
            Side of the pictures in pixels.
        split (`str`, defaults to `"test"`):
            `"validation"` or `"test"`.

    Returns:
        [`TopographicSimilarity`]

    Raises:
        ArgumentError: for fewer than three scenes, or an unknown split.

    Reference:
        Brighton, Kirby 2006, Understanding Linguistic Evolution by Visualizing the Emergence of Topographic Mappings
        (Artificial Life 12).

    Example:
        >>> from vlcomp import Embedder
        >>> from vlcomp.analysis import topographic_similarity
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> found = topographic_similarity(Embedder(tiny_clip(), tiny_processor()), scenes=8)
        >>> -1 <= found.image <= 1
        True
    """
    check_count("scenes", scenes, 3)
    rows = load_scenes("retrieval", size=scenes, image_size=image_size, split=split)
    worlds = [Scene.from_json(text) for text in rows["scene"]]
    bound, words = (scene_distances(worlds, bound=each) for each in (True, False))
    values = []
    for embeds in (model.encode_images(rows["image"]), model.encode_texts(rows["caption"][:])):
        embeds = np.asarray(embeds, dtype=np.float64)
        # What differs by less is float noise, which has ranks too.
        cosines = np.round((embeds @ embeds.T)[np.triu_indices(scenes, 1)], 6)
        dead = np.ptp(cosines) == 0
        values.append([0.0 if dead else spearman(distances, -cosines) for distances in (bound, words)])
    (image, image_words), (text, text_words) = values
    return TopographicSimilarity(image, text, image_words, text_words, scenes)


def scene_distances(scenes: Sequence[Scene], *, bound: bool = True) -> np.ndarray:
    """Distances between scenes, in facts that differ.

    *Bound*: objects are paired so that the total is least; a pair costs one for each of shape, colour, size and
    texture that differs, an object without partner four. Added are one for another background, and the relations
    between objects (shape, relation, shape) that one scene has and the other has not, a half each as every relation is
    there twice. *Words*: the words of all objects, relations and the background as one bag; what is in one bag and not
    in the other counts.

    Args:
        scenes (`Sequence[Scene]`):
            The scenes, of at most three objects each.
        bound (`bool`, defaults to `True`):
            Which of the two.

    Returns:
        `np.ndarray`: one distance for each pair, in the order of `np.triu_indices(len(scenes), 1)`.
    """
    first, second = np.triu_indices(len(scenes), 1)
    if not bound:
        return _different([_bag(scene) for scene in scenes])[first, second]
    most = max(len(scene.objects) for scene in scenes)
    facts = np.full((len(scenes), most, len(_ATTRIBUTES)), -1)
    names: dict[str, int] = {}
    for row, scene in enumerate(scenes):
        for place, item in enumerate(scene.objects):
            facts[row, place] = [names.setdefault(getattr(item, name), len(names)) for name in _ATTRIBUTES]
    left, right = facts[first], facts[second]
    best = np.full(len(first), np.inf)
    for order in permutations(range(most)):
        # Two places that are both empty do not differ, an object and an empty place do in all four.
        best = np.minimum(best, (left != right[:, order]).sum(axis=(1, 2)))
    grounds = np.array([scene.background for scene in scenes])
    relations = _different([_relations(scene) for scene in scenes])[first, second]
    return best + (grounds[first] != grounds[second]) + relations / 2


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; equal values share their mean rank.

    Args:
        a (`np.ndarray` of shape `(N,)`):
            Values.
        b (`np.ndarray` of shape `(N,)`):
            Other values.

    Returns:
        `float`: between -1 and 1.

    Raises:
        ArgumentError: if one of them does not vary, so that there is no correlation.
    """
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (a, b)]
    for name, values in zip(("a", "b"), ranks, strict=True):
        if values.std() == 0:
            raise ArgumentError(f"all values of {name} are equal, so they correlate with nothing")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]


def _bag(scene: Scene) -> dict[str, int]:
    words = [getattr(item, name) for item in scene.objects for name in _ATTRIBUTES]
    words += [relation for _, relation, _ in _relations(scene)]
    return {word: words.count(word) for word in words} | {scene.background: 1}


def _relations(scene: Scene) -> dict[tuple[str, str, str], int]:
    found = {}
    for a in scene.objects:
        for b in scene.objects:
            relation = relation_between(a, b) if a is not b else None
            if relation in RELATIONS:
                found[a.shape, relation, b.shape] = 1
    return found


def _different(bags: Sequence[dict[Any, int]]) -> np.ndarray:
    """Size of the symmetric difference of bags, for all pairs."""
    place = {key: column for column, key in enumerate(dict.fromkeys(key for bag in bags for key in bag))}
    counts = np.zeros((len(bags), len(place)), dtype=np.float32)
    for row, bag in enumerate(bags):
        for key, count in bag.items():
            counts[row, place[key]] = count
    total = np.zeros((len(bags), len(bags)))
    for row in range(len(bags)):
        total[row] = np.abs(counts - counts[row]).sum(axis=1)
    return total


__all__: list[str] = ["TopographicSimilarity", "scene_distances", "spearman", "topographic_similarity"]
