"""The built-in benchmark on Scenes, with its reference scorers."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import datasets
import numpy as np

from ...data.scenes import bag_of_words_score, load_scenes
from ...data.scenes.captions import Mention, sample_caption
from ...data.scenes.items import sample_pair
from ...data.scenes.oracle import content_words, true_words
from ...data.scenes.world import WORLD_VERSION, sample_scene
from ..choice import Choice, ChoiceItems, ChoiceTask, Indexer, check_limit, sample_clusters
from ..encoding import check_model, embed_images, embed_texts, pair_scores
from ..gallery import build_gallery
from ..reference import NGramScorer, TextClassifier
from ..scoring import compare_pairs, rank_candidates, winoground_scores
from ..task import Score, Task, TaskResult
from .classification import LabelledImages, ZeroShotClassification
from .retrieval import Gallery, Retrieval, undecoded

_SOURCE = "built in (vlcomp.load_scenes)"
_LICENCE = "Apache-2.0"
_NGRAM_CAPTIONS = 10_000
_CLASSIFIER_PAIRS = 1_000


class _ScenesData:
    """Which Scenes data a task reads."""

    def __init__(self, subset: str, *, size: int | None, image_size: int, split: str, seed: int) -> None:
        self.subset = subset
        self.arguments: dict[str, Any] = {"size": size, "image_size": image_size, "split": split, "seed": seed}

    def load(self, *columns: str) -> datasets.Dataset:
        return undecoded(load_scenes(self.subset, **self.arguments), *columns)

    def config(self) -> dict[str, Any]:
        return {"data": f"scenes:{self.subset}", "world": WORLD_VERSION, **self.arguments}


class ScenesChoice(ChoiceTask):
    """Choose the true caption of a Scenes picture, in one of SugarCrepe's seven categories.

    *Source*: built in. Items come in mirrored pairs: two pictures and two captions, each caption once true and once
    false, so a scorer that does not see the picture is right exactly half of the time.

    *Licence*: Apache-2.0.

    *Convention*: right only if the true caption scores strictly higher; interval clustered by mirrored pair.

    Args:
        subset (`str`):
            A category (`"swap_attribute"`) or `"systematic/<category>"`, whose colour-noun pairs training never shows.
        size (`int`, *optional*):
            Number of items, 4,000 if not given.
        image_size (`int`, defaults to 64):
            Side of the pictures in pixels.
        split (`str`, defaults to `"test"`):
            `"test"`, or `"validation"` to choose settings on.
        seed (`int`, defaults to 0):
            Seed of the items.
        limit (`int`, *optional*):
            About how many items to measure on.
        references (`bool`, defaults to `True`):
            Score the text-only n-gram model, the text-only classifier and the oracle bag of words.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Example:
        >>> from vlcomp import Embedder
        >>> from vlcomp.evaluation.tasks import ScenesChoice
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> result = ScenesChoice("swap_attribute", size=20).run(Embedder(tiny_clip(), tiny_processor()))
        >>> result.references["text_only"]["accuracy"].value
        0.5
    """

    version = "1"
    source = _SOURCE
    licence = _LICENCE
    convention = "strictly higher score; interval clustered by mirrored pair"

    def __init__(
        self,
        subset: str,
        *,
        size: int | None = None,
        image_size: int = 64,
        split: str = "test",
        seed: int = 0,
        limit: int | None = None,
        references: bool = True,
        gallery: bool = True,
    ) -> None:
        super().__init__(limit=limit, references=references, gallery=gallery)
        self.name = f"scenes/{subset}"
        self.description = f"choose the true caption: {subset.replace('systematic/', 'unseen colour-noun pairs, ')}"
        self.data = _ScenesData(subset, size=size, image_size=image_size, split=split, seed=seed)

    def load(self) -> ChoiceItems:
        """Read all items; see [`ChoiceTask.load`]."""
        rows = self.data.load("image")
        images, texts, choices = Indexer(), Indexer(), []
        columns = (rows[name] for name in ("image", "image_id", "caption", "negative_caption", "pair_id"))
        for number, (source, image_id, caption, negative, pair) in enumerate(zip(*columns, strict=True)):
            image = images(image_id, source)
            choices.append(Choice(str(number), image, texts(caption), image, texts(negative), pair))
        names = [f"{self.data.subset}:{key}" for key in images.keys]
        return ChoiceItems(images.values, names, texts.values, choices, extras={"scene": list(rows["scene"])})

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {**super().config(), **self.data.config(), "cluster": "pair_id"}

    def reference_scores(self, items: ChoiceItems, *, progress: bool = False) -> dict[str, dict[str, Score]]:
        """Text-only scorers and the oracle bag of words."""
        true, false = items.true_texts(), items.false_texts()
        clusters = [c.cluster for c in items.choices]

        def expected(true_scores: Any, false_scores: Any) -> dict[str, Score]:
            outcome = compare_pairs(true_scores, false_scores)
            score = Score.from_values(outcome.expected, clusters, ties=int(outcome.tie.sum()), chance=self.chance)
            return {"accuracy": score}

        ngram, classifier = _training_ngram(), _pair_classifier(self.data.subset)
        scenes = items.extras["scene"]
        return {
            "text_only": expected(ngram(true), ngram(false)),
            "text_only_classifier": expected(classifier(true), classifier(false)),
            "bag_of_words": expected(
                [bag_of_words_score(t, s) for t, s in zip(true, scenes, strict=True)],
                [bag_of_words_score(t, s) for t, s in zip(false, scenes, strict=True)],
            ),
        }


@lru_cache(maxsize=1)
def _training_ngram() -> NGramScorer:
    """Learned from captions drawn as those of the training set are; no picture is rendered for it."""
    rng = random.Random("vlcomp text-only n-gram")
    return NGramScorer([sample_caption(rng, sample_scene(rng)).text() for _ in range(_NGRAM_CAPTIONS)])


@lru_cache(maxsize=32)
def _pair_classifier(subset: str) -> TextClassifier:
    """Learned from items drawn as those of the test set are.

    Of each mirrored pair only one side is shown: with both, every caption is once true and once false, and there would
    be nothing to learn.
    """
    rng = random.Random(f"vlcomp text-only classifier {subset}")
    held_out = subset.startswith("systematic/")
    pairs = [sample_pair(rng, subset.removeprefix("systematic/"), held_out=held_out) for _ in range(_CLASSIFIER_PAIRS)]
    return TextClassifier([p.captions[0].text() for p in pairs], [p.captions[1].text() for p in pairs])


class ScenesRetrieval(Retrieval):
    """Retrieval among Scenes pictures, with the ceiling of the oracle bag of words.

    *Source*: built in; captions name and colour every object.

    *Licence*: Apache-2.0.

    *Convention*: as in [`Retrieval`]. `bag_of_words` is the recall of a scorer that knows which words are true of each
    picture, with ties broken at random: what a model without composition can reach.

    Args:
        size (`int`, *optional*):
            Number of pictures, 1,000 if not given.
        image_size (`int`, defaults to 64):
            Side of the pictures in pixels.
        split (`str`, defaults to `"test"`):
            `"test"`, or `"validation"` to choose settings on.
        seed (`int`, defaults to 0):
            Seed of the pictures.
        ks (`Sequence[int]`, defaults to `(1, 5, 10)`):
            Cut-offs.
        limit (`int`, *optional*):
            Number of pictures, drawn at random.
        references (`bool`, defaults to `True`):
            Score the oracle bag of words.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.
    """

    version = "1"
    description = "image-to-text and text-to-image retrieval among 1,000 Scenes pictures"
    source = _SOURCE
    licence = _LICENCE

    def __init__(
        self,
        *,
        size: int | None = None,
        image_size: int = 64,
        split: str = "test",
        seed: int = 0,
        ks: tuple[int, ...] = (1, 5, 10),
        limit: int | None = None,
        references: bool = True,
        gallery: bool = True,
    ) -> None:
        super().__init__("scenes:retrieval", ks=ks, name="scenes/retrieval", limit=limit, gallery=gallery)
        self.references = references
        self.scenes = _ScenesData("retrieval", size=size, image_size=image_size, split=split, seed=seed)

    def load(self) -> datasets.Dataset:
        """Read the rows."""
        return self.scenes.load("image")

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {**self.scenes.config(), "limit": self.limit}

    def reference_scores(self, pairs: Gallery) -> dict[str, dict[str, Score]]:
        """The ceiling of the oracle bag of words."""
        if not self.references or pairs.scenes is None:
            return {}
        scores = bag_of_words_matrix(pairs.scenes, pairs.captions)
        images = np.arange(len(pairs.images))
        ranks = {
            "image_to_text": rank_candidates(scores, images, pairs.image_of),
            "text_to_image": rank_candidates(scores.T, pairs.image_of, images),
        }
        return {"bag_of_words": self.both_ways(ranks, pairs, expected=True)}


def bag_of_words_matrix(scenes: list[str], captions: list[str]) -> np.ndarray:
    """`bag_of_words_score` of every caption with every scene.

    Args:
        scenes (`list[str]`):
            Scenes as JSON.
        captions (`list[str]`):
            Captions.

    Returns:
        `np.ndarray` of shape [scenes, captions]
    """
    said, true = [content_words(c) for c in captions], [true_words(s) for s in scenes]
    column = {word: i for i, word in enumerate(sorted({w for words in said for w in words}))}
    caption_words = np.zeros((len(captions), len(column)))
    scene_words = np.zeros((len(scenes), len(column)))
    for matrix, bags in ((caption_words, said), (scene_words, true)):
        for row, bag in enumerate(bags):
            matrix[row, [column[word] for word in bag if word in column]] = 1.0
    hits = scene_words @ caption_words.T
    return hits - 100.0 * (caption_words.sum(axis=1)[None, :] - hits)


class ScenesWinoground(Task):
    """Two pictures and two captions with the same words: match both, as in Winoground.

    *Source*: built in; colours exchanged or places exchanged.

    *Licence*: Apache-2.0.

    *Convention*: text score (each picture prefers its caption), image score (each caption prefers its picture), group
    score (both, the headline); all comparisons strict. Chance is 1/4, 1/4 and 1/6.

    Args:
        size (`int`, *optional*):
            Number of items, 1,000 if not given.
        image_size (`int`, defaults to 64):
            Side of the pictures in pixels.
        split (`str`, defaults to `"test"`):
            `"test"`, or `"validation"` to choose settings on.
        seed (`int`, defaults to 0):
            Seed of the items.
        limit (`int`, *optional*):
            Number of items, drawn at random.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.
    """

    name = "scenes/winoground"
    version = "1"
    description = "two pictures and two captions with the same words: text, image and group score"
    source = _SOURCE
    licence = _LICENCE
    citation = "Thrush et al., Winoground, CVPR 2022, arXiv:2204.03162 (the form of the items)"
    convention = "text, image and group score, strictly; group is the headline"
    headline = "group_score"
    chances = {"text_score": 0.25, "image_score": 0.25, "group_score": 1 / 6}

    def __init__(
        self,
        *,
        size: int | None = None,
        image_size: int = 64,
        split: str = "test",
        seed: int = 0,
        limit: int | None = None,
        gallery: bool = True,
    ) -> None:
        self.data = _ScenesData("winoground", size=size, image_size=image_size, split=split, seed=seed)
        self.limit = check_limit(limit)
        self.gallery = gallery

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`Task.run`]."""
        check_model(model)
        rows = self.data.load("image_0", "image_1")
        if self.limit is not None:
            rows = rows.select(sample_clusters(range(len(rows)), self.limit))
        warnings: list[str] = []
        sources = [source for pair in zip(rows["image_0"], rows["image_1"], strict=True) for source in pair]
        names = [f"winoground:{i}/{side}" for i in range(len(rows)) for side in (0, 1)]
        texts = Indexer()
        text_of = np.array([[texts(a), texts(b)] for a, b in zip(rows["caption_0"], rows["caption_1"], strict=True)])
        images = embed_images(model, sources, names, warnings, progress=progress)
        captions = embed_texts(model, texts.values, warnings, progress=progress)
        image_of = np.arange(2 * len(rows)).reshape(-1, 2)
        grid_images, grid_texts = np.repeat(image_of, 2, axis=1), np.tile(text_of, (1, 2))
        scores = pair_scores(images, captions, grid_images.ravel(), grid_texts.ravel()).reshape(-1, 2, 2)
        outcome = winoground_scores(scores, item_ids=[str(i) for i in range(len(rows))])
        clusters = list(range(len(rows)))
        kinds = list(rows["kind"])
        ties = {
            "text_score": outcome.text_tie,
            "image_score": outcome.image_tie,
            "group_score": outcome.text_tie | outcome.image_tie,
        }
        values = {"text_score": outcome.text, "image_score": outcome.image, "group_score": outcome.group}
        items = [
            {
                "task": self.name,
                "item_id": str(i),
                "subset": kinds[i],
                "cluster": str(i),
                "correct": bool(outcome.group[i]),
                "tie": bool(ties["group_score"][i]),
                "margin": float(min(outcome.text_margin[i], outcome.image_margin[i])),
                "true_score": float(scores[i, 0, 0]),
                "false_score": float(scores[i, 0, 1]),
                "text": texts.values[text_of[i, 0]],
                "false_text": texts.values[text_of[i, 1]],
                "image": names[2 * i],
                "false_image": names[2 * i + 1],
            }
            for i in range(len(rows))
        ]
        return TaskResult(
            task=self.name,
            version=self.version,
            scores={
                name: Score.from_values(value, clusters, ties=int(ties[name].sum()), chance=self.chances[name])
                for name, value in values.items()
            },
            items=items,
            config={**self.data.config(), "limit": self.limit, "scoring": "strict"},
            headline=self.headline,
            gallery=build_gallery(items, lambda i: sources[2 * i : 2 * i + 2], seed=self.name) if self.gallery else [],
            warnings=warnings,
        )


class ScenesClassification(ZeroShotClassification):
    """Name the one object of a Scenes picture, in one of five drawing styles.

    *Source*: built in; `clean` is drawn as the training pictures are, the other styles are a shift of domain.

    *Licence*: Apache-2.0.

    *Convention*: as in [`ZeroShotClassification`]; the text of a class is its noun with an article.

    Args:
        style (`str`):
            `"clean"`, `"outline"`, `"noise"`, `"palette"` or `"sketch"`.
        size (`int`, *optional*):
            Number of pictures, 2,000 if not given.
        image_size (`int`, defaults to 64):
            Side of the pictures in pixels.
        split (`str`, defaults to `"test"`):
            `"test"`, or `"validation"` to choose settings on.
        seed (`int`, defaults to 0):
            Seed of the pictures.
        templates (`str` or `Sequence[str]`, defaults to `"{}"`):
            Texts with `{}` for the noun with its article.
        limit (`int`, *optional*):
            Number of pictures, drawn at random.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.
    """

    version = "1"
    source = _SOURCE
    licence = _LICENCE
    citation = ""

    def __init__(
        self,
        style: str,
        *,
        size: int | None = None,
        image_size: int = 64,
        split: str = "test",
        seed: int = 0,
        templates: str | tuple[str, ...] = "{}",
        limit: int | None = None,
        gallery: bool = True,
    ) -> None:
        name = f"scenes/classification/{style}"
        super().__init__(templates=templates, name=name, limit=limit, gallery=gallery)
        self.description = f"name the object of a picture among 20, style {style}"
        self.scenes = _ScenesData(f"classification/{style}", size=size, image_size=image_size, split=split, seed=seed)

    def load(self) -> LabelledImages:
        """Read all pictures."""
        rows = self.scenes.load("image")
        names = rows.features["label"].names
        image_names = [f"{self.scenes.subset}:{i}" for i in range(len(rows))]
        return LabelledImages(list(rows["image"]), image_names, np.array(rows["label"]), list(names))

    def texts_of(self, class_name: str) -> list[str]:
        """The descriptions of a class."""
        return super().texts_of(Mention(0, class_name).phrase())

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {**self.scenes.config(), "templates": list(self.templates), "limit": self.limit}
