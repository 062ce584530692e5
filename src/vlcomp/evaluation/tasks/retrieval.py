"""Image-text retrieval on any captioned images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import datasets
import numpy as np

from ...data.loading import load_captioned
from ...data.rows import require_captions
from ...errors import ArgumentError, DataError
from ..choice import Indexer, check_limit, sample_clusters
from ..encoding import check_model, embed_images, embed_texts, rank_embeddings
from ..gallery import build_gallery
from ..ranking import ranking_rows, recall_scores
from ..task import Score, Task, TaskResult


@dataclass
class Gallery:
    """Distinct images and captions to retrieve.

    Args:
        images (`list`):
            Distinct image sources.
        image_names (`list[str]`):
            Name of each image.
        captions (`list[str]`):
            All captions; a text may occur several times.
        image_of (`np.ndarray` of shape [captions], int):
            Position of each caption's image.
        scenes (`list[str]`, *optional*):
            Annotation of each image, where the data has one.
    """

    images: list[Any]
    image_names: list[str]
    captions: list[str]
    image_of: np.ndarray
    scenes: list[str] | None = None


class Retrieval(Task):
    """Find the caption of an image among all captions, and the image of a caption among all images.

    *Source*: anything that `vlcomp.load_captioned` reads.

    *Licence*: that of the data.

    *Convention*: the rank is 1 plus the number of foreign candidates that score *at least* as high, so ties are wrong.
    An image with several captions is right if any of them comes first; its captions do not compete with each other.
    Two images with the same caption text do compete: the tie cannot be broken by any model. Intervals are clustered
    by image.

    Args:
        data (`str`, `os.PathLike` or `datasets.Dataset`):
            Captioned images.
        split (`str`, *optional*):
            Split to read, if there are several.
        image_column (`str`, defaults to `"image"`):
            Column of the images.
        caption_column (`str`, defaults to `"caption"`):
            Column of the captions; text or list of texts.
        ks (`Sequence[int]`, defaults to `(1, 5, 10)`):
            Cut-offs.
        name (`str`, defaults to `"retrieval"`):
            Name in results.
        limit (`int`, *optional*):
            Number of images, drawn at random with a fixed seed. A smaller gallery is an easier task.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        DataError: if the data cannot be read.

    Example:
        >>> from vlcomp import Embedder, load_scenes
        >>> from vlcomp.evaluation.tasks import Retrieval
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> task = Retrieval(load_scenes("retrieval", size=20))
        >>> sorted(task.run(Embedder(tiny_clip(), tiny_processor())).metrics)[0]
        'retrieval/image_to_text/recall@1'
    """

    name = "retrieval"
    version = "1"
    description = "image-to-text and text-to-image retrieval, R@1/5/10"
    source = "your captioned images"
    licence = "that of the data"
    citation = ""
    convention = "R@k both ways, ties wrong; several captions an image: any of them counts"
    headline = "image_to_text/recall@1"

    def __init__(
        self,
        data: str | os.PathLike[str] | datasets.Dataset,
        *,
        split: str | None = None,
        image_column: str = "image",
        caption_column: str = "caption",
        ks: Sequence[int] = (1, 5, 10),
        name: str = "retrieval",
        limit: int | None = None,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        if not ks or min(ks) < 1:
            raise ArgumentError(f"ks={tuple(ks)!r} must be cut-offs of at least 1")
        self.data = data
        self.split = split
        self.image_column, self.caption_column = image_column, caption_column
        self.ks = tuple(sorted(set(ks)))
        self.name = name
        self.limit = check_limit(limit)
        self.skip_bad_images = skip_bad_images
        self.gallery = gallery

    def load(self) -> datasets.Dataset:
        """Read the rows: columns `image`, `caption`, `image_id`, perhaps `scene`.

        Returns:
            `datasets.Dataset`
        """
        split = {} if self.split is None else {"split": self.split}
        return load_captioned(
            self.data,
            image_column=self.image_column,
            caption_column=self.caption_column,
            skip_bad_images=self.skip_bad_images,
            **split,
        )

    @cached_property
    def pairs(self) -> Gallery:
        """Images and captions that are measured: loaded once, limited."""
        dataset = undecoded(self.load(), "image")
        require_captions(dataset, f"the data of task {self.name!r}")
        ids, captions = list(dataset["image_id"]), list(dataset["caption"])
        if not ids:
            raise DataError(f"task {self.name!r}: the data has no rows")
        rows = range(len(ids))
        if self.limit is not None:
            distinct = list(dict.fromkeys(ids))
            kept = {distinct[i] for i in sample_clusters(distinct, self.limit)}
            rows = [i for i in rows if ids[i] in kept]
        index = Indexer()
        image_of = [index(ids[i], i) for i in rows]
        if len(index.values) < 2:
            raise DataError(
                f"task {self.name!r}: there is only one image to choose from, so every answer is right; measure on at "
                "least two" + ("" if self.limit is None else f" (limit={self.limit})")
            )
        first_rows = dataset.select(index.values)
        sources = list(first_rows["image"])
        names = [image_name(source, f"image {key}") for source, key in zip(sources, index.keys, strict=True)]
        scenes = list(first_rows["scene"]) if "scene" in dataset.column_names else None
        return Gallery(sources, names, [captions[i] for i in rows], np.array(image_of), scenes)

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        data = self.data if isinstance(self.data, (str, os.PathLike)) else "datasets.Dataset"
        return {"data": os.path.basename(str(data).rstrip("/")) or str(data), "split": self.split, "limit": self.limit}

    def reference_scores(self, pairs: Gallery) -> dict[str, dict[str, Score]]:
        """Scores of reference scorers; none unless a subclass has some."""
        return {}

    def both_ways(self, ranks: dict[str, Any], pairs: Gallery, *, expected: bool = False) -> dict[str, Score]:
        """Recall in both directions from `ranks`, by direction."""
        captions_of = np.bincount(pairs.image_of, minlength=len(pairs.images))
        image_clusters = list(range(len(pairs.images)))
        scores = recall_scores(
            ranks["image_to_text"],
            image_clusters,
            captions_of,
            len(pairs.captions),
            self.ks,
            prefix="image_to_text/",
            expected=expected,
        )
        scores |= recall_scores(
            ranks["text_to_image"],
            pairs.image_of.tolist(),
            np.ones(len(pairs.captions), dtype=np.int64),
            len(pairs.images),
            self.ks,
            prefix="text_to_image/",
            expected=expected,
        )
        return scores

    @cached_property
    def _references(self) -> dict[str, dict[str, Score]]:
        return self.reference_scores(self.pairs)

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`Task.run`]."""
        check_model(model)
        pairs = self.pairs
        warnings: list[str] = []
        texts = Indexer()
        text_of = np.array([texts(caption) for caption in pairs.captions])
        images = embed_images(model, pairs.images, pairs.image_names, warnings, progress=progress)
        captions = embed_texts(model, texts.values, warnings, progress=progress)[text_of]
        image_index = np.arange(len(pairs.images))
        ranks = {
            "image_to_text": rank_embeddings(
                images, captions, image_index, pairs.image_of, query_ids=pairs.image_names
            ),
            "text_to_image": rank_embeddings(captions, images, pairs.image_of, image_index, query_ids=pairs.captions),
        }
        rows = ranking_rows(
            self.name,
            ranks["image_to_text"],
            item_ids=[f"image_to_text/{i}" for i in image_index],
            clusters=pairs.image_names,
            subset="image_to_text",
            query=pairs.image_names,
            candidates=pairs.captions,
            query_is_image=True,
        ) + ranking_rows(
            self.name,
            ranks["text_to_image"],
            item_ids=[f"text_to_image/{i}" for i in range(len(pairs.captions))],
            clusters=[pairs.image_names[i] for i in pairs.image_of],
            subset="text_to_image",
            query=pairs.captions,
            candidates=pairs.image_names,
            query_is_image=False,
        )

        def pictures(position: int) -> list[Any]:
            if position < len(pairs.images):
                return [pairs.images[position]]
            caption = position - len(pairs.images)
            other = int(ranks["text_to_image"].other[caption])
            return [pairs.images[pairs.image_of[caption]], *([pairs.images[other]] if other >= 0 else [])]

        return TaskResult(
            task=self.name,
            version=self.version,
            scores=self.both_ways(ranks, pairs),
            references=self._references,
            items=rows,
            config={**self.config(), "images": len(pairs.images), "captions": len(pairs.captions)},
            headline=f"image_to_text/recall@{self.ks[0]}",
            gallery=build_gallery(rows, pictures, seed=self.name) if self.gallery else [],
            warnings=warnings,
        )


def undecoded(dataset: datasets.Dataset, *columns: str) -> datasets.Dataset:
    """The same data set with image columns that give bytes and path, not pictures."""
    for column in columns:
        if isinstance(dataset.features[column], datasets.Image):
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return dataset


def image_name(source: Any, fallback: str) -> str:
    """Name of an image source: its path if it has one."""
    path = source.get("path") if isinstance(source, dict) else source
    return str(path) if isinstance(path, (str, os.PathLike)) and str(path) else fallback
