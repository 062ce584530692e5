"""Topographic similarity: distances of scenes, ranks, and models whose answer is known."""

import numpy as np
import pytest
import torch

from vlcomp.analysis import topographic_similarity
from vlcomp.analysis.topography import scene_distances, spearman
from vlcomp.data.scenes import load_scenes
from vlcomp.data.scenes.world import Scene, SceneObject
from vlcomp.errors import ArgumentError


def thing(shape, colour, x, y=0.5):
    return SceneObject(shape, colour, "small", "plain", x, y)


def test_scene_distances():
    star, cup = thing("star", "red", 0.2), thing("cup", "blue", 0.8)
    first = Scene("sand", (star, cup))
    reordered = Scene("sand", (cup, star))
    swapped = Scene("sand", (thing("star", "blue", 0.2), thing("cup", "red", 0.8)))
    moved = Scene("sand", (thing("star", "red", 0.8), thing("cup", "blue", 0.2)))
    alone = Scene("sky", (star,))
    bound = scene_distances([first, reordered, swapped, moved, alone])
    words = scene_distances([first, reordered, swapped, moved, alone], bound=False)
    # Pairs: 01 02 03 04 12 13 14 23 24 34. Relations: "star left of cup" and "cup right of star", a half each.
    assert bound[:4].tolist() == [0, 2, 2, 4 + 1 + 1]
    # Colours or places exchanged are the same bag; a lost cup is four words, two relations and the background.
    assert words[:4].tolist() == [0, 0, 0, 4 + 2 + 2]
    assert bound[4:7].tolist() == bound[1:4].tolist()
    # Of the swapped scene against the moved one: two colours and four relations differ.
    assert bound[7] == 4


def test_spearman():
    rng = np.random.default_rng(0)
    a = rng.normal(size=50)
    assert spearman(a, a**3) == pytest.approx(1) and spearman(a, -a) == pytest.approx(-1)
    # Ties share their rank: ranks 0.5 0.5 2 against 0 1 2.
    assert spearman(np.array([1, 1, 2]), np.array([1, 2, 3])) == pytest.approx(0.8660254)
    with pytest.raises(ArgumentError, match="all values of b are equal"):
        spearman(a, np.ones(50))


class KnowsScenes:
    """Embeds a picture as the words of its objects, and texts as noise."""

    def __init__(self, rows):
        self.worlds = [Scene.from_json(text) for text in rows["scene"]]

    def encode_images(self, images):
        facts = [
            [getattr(o, n) for o in w.objects for n in ("shape", "colour", "size", "texture")] for w in self.worlds
        ]
        words = sorted({word for each in facts for word in each})
        rows = np.array([[each.count(word) for word in words] for each in facts], dtype=float)
        return torch.as_tensor(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def encode_texts(self, texts):
        noise = np.random.default_rng(0).normal(size=(len(texts), 32))
        return torch.as_tensor(noise / np.linalg.norm(noise, axis=1, keepdims=True))


def test_a_model_that_knows_the_scenes_correlates(tmp_path, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path))
    model = KnowsScenes(load_scenes("retrieval", size=60, image_size=24, split="validation"))
    found = topographic_similarity(model, scenes=60, image_size=24, split="validation")
    assert found.scenes == 60
    assert found.image_words > 0.4 and found.image > 0.2 and max(abs(found.text), abs(found.text_words)) < 0.1
    model.encode_images = lambda images: torch.ones(60, 4) / 2 + 1e-9 * torch.rand(60, 4)
    dead = topographic_similarity(model, scenes=60, image_size=24, split="validation")
    assert dead.image == dead.image_words == 0 and dead.text == found.text
    with pytest.raises(ArgumentError, match="scenes=2"):
        topographic_similarity(model, scenes=2)
