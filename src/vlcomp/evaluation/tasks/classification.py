"""Zero-shot classification on a folder of images by class."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...data.folders import load_image_classes
from ...errors import ArgumentError, DataError
from ..choice import Indexer, check_limit, sample_clusters
from ..encoding import check_model, embed_images, embed_texts, rank_embeddings
from ..gallery import build_gallery
from ..ranking import ranking_rows, recall_scores
from ..task import Score, Task, TaskResult
from .retrieval import image_name, undecoded

DEFAULT_TEMPLATES = ("a photo of a {}.",)


@dataclass
class LabelledImages:
    """Images with labels, and what to call the classes.

    Args:
        images (`list`):
            Image sources.
        image_names (`list[str]`):
            Name of each image.
        labels (`np.ndarray` of shape [images], int):
            Class of each image.
        class_names (`list[str]`):
            Name of each class.
    """

    images: list[Any]
    image_names: list[str]
    labels: np.ndarray
    class_names: list[str]


class ZeroShotClassification(Task):
    """Name the class of an image by the similarity with a description of each class.

    *Source*: a folder with one subfolder of images for each class.

    *Licence*: that of the data.

    *Convention*: an image is right if its class scores strictly higher than every other. `accuracy` is the headline;
    `accuracy@5` and `mean_class_accuracy` (every class with equal weight) are printed too. With several templates, the
    normalised embeddings of a class's texts are averaged.

    Args:
        data (`str` or `os.PathLike`):
            The folder.
        split (`str`, *optional*):
            Split to read, if there are several.
        templates (`str` or `Sequence[str]`, defaults to `"a photo of a {}."`):
            Texts with `{}` (or `{c}`) for the class name; or a file with one on each line, a JSON list, or
            `file.json:key` for a list within a JSON object.
        class_names (`str`, `os.PathLike` or `Sequence[str]`, *optional*):
            Names in the order of the sorted folders, or a JSON object from folder to name; or a file as for
            `templates`. The folders' names with blanks for underscores if not given.
        name (`str`, defaults to `"zero_shot_classification"`):
            Name in results.
        limit (`int`, *optional*):
            Number of images, drawn at random with a fixed seed.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        DataError: if the data cannot be read.
        ArgumentError: if a template has no place for the class name, or the names do not fit the folders.

    Example:
        >>> import tempfile
        >>> from vlcomp import Embedder
        >>> from vlcomp.evaluation.tasks import ZeroShotClassification
        >>> from vlcomp.testing import make_class_folder, tiny_clip, tiny_processor
        >>> task = ZeroShotClassification(make_class_folder(tempfile.mkdtemp(), ("cup", "star")), templates="a {}")
        >>> sorted(task.run(Embedder(tiny_clip(), tiny_processor())).scores)
        ['accuracy', 'mean_class_accuracy']
    """

    name = "zero_shot_classification"
    version = "1"
    description = "name the class of an image, top-1, top-5 and mean per class"
    source = "your folder of images by class"
    licence = "that of the data"
    citation = "Radford et al., CLIP, ICML 2021, arXiv:2103.00020"
    convention = "strictly highest class; templates averaged as normalised embeddings"
    headline = "accuracy"

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        split: str | None = None,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        class_names: str | os.PathLike[str] | Sequence[str] | None = None,
        name: str = "zero_shot_classification",
        limit: int | None = None,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        self.data = data
        self.split = split
        self.templates = read_templates(templates)
        self.class_names = class_names
        self.name = name
        self.limit = check_limit(limit)
        self.skip_bad_images = skip_bad_images
        self.gallery = gallery

    def load(self) -> LabelledImages:
        """Read all images.

        Returns:
            [`LabelledImages`]
        """
        if self.data is None:
            raise ArgumentError(
                f"task {self.name!r} needs data=, a folder with one subfolder of images for each class"
            )
        classes = load_image_classes(self.data, split=self.split, skip_bad_images=self.skip_bad_images)
        names = read_class_names(self.class_names, classes.class_names)
        dataset = undecoded(classes.dataset, "image")
        sources = list(dataset["image"])
        image_names = [image_name(source, f"image {i}") for i, source in enumerate(sources)]
        return LabelledImages(sources, image_names, np.array(dataset["label"], dtype=np.int64), names)

    def texts_of(self, class_name: str) -> list[str]:
        """The descriptions of a class."""
        return [template.replace("{c}", "{}").replace("{}", class_name) for template in self.templates]

    @cached_property
    def labelled(self) -> LabelledImages:
        """The images that are measured: loaded once, limited."""
        data = self.load()
        if self.limit is not None:
            kept = sample_clusters(range(len(data.images)), self.limit)
            data = LabelledImages(
                [data.images[i] for i in kept],
                [data.image_names[i] for i in kept],
                data.labels[kept],
                data.class_names,
            )
        return data

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {
            "data": None if self.data is None else Path(self.data).name,
            "split": self.split,
            "templates": list(self.templates),
            "limit": self.limit,
        }

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`Task.run`]."""
        check_model(model)
        data = self.labelled
        warnings: list[str] = []
        same = repeated_names(data.class_names)
        if same:
            warnings.append(f"{', '.join(same)}: the name of several classes each; their images tie, and are wrong")
        texts = Indexer()
        text_of = np.array([[texts(text) for text in self.texts_of(name)] for name in data.class_names])
        images = embed_images(model, data.images, data.image_names, warnings, progress=progress)
        classes = embed_texts(model, texts.values, warnings, progress=progress)[text_of].mean(axis=1)
        norms = np.linalg.norm(classes, axis=1, keepdims=True)
        classes = classes / np.where(norms > 0, norms, 1.0)
        count = len(data.class_names)
        ranks = rank_embeddings(images, classes, data.labels, np.arange(count), query_ids=data.image_names)
        clusters = list(range(len(data.images)))
        own = np.ones(len(data.images), dtype=np.int64)
        scores = recall_scores(ranks, clusters, own, count, (1,), metric="accuracy")
        if count > 5:
            scores |= recall_scores(ranks, clusters, own, count, (5,), metric="accuracy@{k}")
        scores["mean_class_accuracy"] = Score.from_values(
            ranks.hits(1), clusters, strata=data.labels.tolist(), ties=scores["accuracy"].ties, chance=1 / count
        )
        rows = ranking_rows(
            self.name,
            ranks,
            item_ids=[str(i) for i in clusters],
            clusters=data.image_names,
            query=data.image_names,
            candidates=data.class_names,
            query_is_image=True,
        )
        return TaskResult(
            task=self.name,
            version=self.version,
            scores=scores,
            items=rows,
            config={**self.config(), "images": len(data.images), "classes": count},
            headline="accuracy",
            gallery=build_gallery(rows, lambda i: [data.images[i]], seed=self.name) if self.gallery else [],
            warnings=warnings,
        )


def read_templates(templates: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Templates from a text, a list or a file, each with `{}` or `{c}` for the class name.

    Args:
        templates (`str`, `os.PathLike` or `Sequence[str]`):
            See [`ZeroShotClassification`].

    Returns:
        `tuple[str, ...]`

    Raises:
        ArgumentError: if there is none, or one has no place for the name.
    """
    if isinstance(templates, str) and ("{}" in templates or "{c}" in templates):
        templates = [templates]
    elif isinstance(templates, (str, os.PathLike)):
        templates = _read_list(templates, "templates")
    found = tuple(templates)
    for template in found:
        if not isinstance(template, str) or template.count("{}") + template.count("{c}") != 1:
            raise ArgumentError(f"template {template!r} must contain {{}} (or {{c}}) once, for the class name")
    if not found:
        raise ArgumentError("templates is empty; pass at least one, for instance 'a photo of a {}.'")
    return found


def read_class_names(names: str | os.PathLike[str] | Sequence[str] | None, folders: Sequence[str]) -> list[str]:
    """Names of the classes in the order of their folders.

    Args:
        names (`str`, `os.PathLike`, `Sequence[str]` or `dict`, *optional*):
            See [`ZeroShotClassification`].
        folders (`Sequence[str]`):
            Names of the folders.

    Returns:
        `list[str]`

    Raises:
        ArgumentError: if the names do not fit the folders.
    """
    if names is None:
        names = [folder.replace("_", " ") for folder in folders]
    if isinstance(names, (str, os.PathLike)):
        names = _read_list(names, "class_names")
    if isinstance(names, dict):
        missing = [folder for folder in folders if folder not in names]
        if missing:
            raise ArgumentError(f"class_names lacks the folders {missing[:5]}")
        names = [names[folder] for folder in folders]
    names = [str(name) for name in names]
    if len(names) != len(folders):
        raise ArgumentError(
            f"class_names has {len(names)} names for {len(folders)} folders ({folders[0]!r} .. {folders[-1]!r}); "
            "give one for each, in the order of the sorted folders, or a JSON object from folder to name"
        )
    return names


def repeated_names(names: Sequence[str]) -> list[str]:
    """Names that several classes share, as two of the official ImageNet list do.

    Args:
        names (`Sequence[str]`):
            Name of each class.

    Returns:
        `list[str]`: each once, in order.

    Example:
        >>> from vlcomp.evaluation.tasks.classification import repeated_names
        >>> repeated_names(["missile", "cup", "missile"])
        ['missile']
    """
    return [name for name, count in Counter(names).items() if count > 1]


def _read_list(source: str | os.PathLike[str], argument: str) -> Any:
    """A text file line by line, a JSON file, or one key of a JSON object (`file.json:key`)."""
    path, key = Path(source), None
    if not path.is_file() and ".json:" in str(source):
        head, _, key = str(source).rpartition(":")
        path = Path(head)
    if not path.is_file():
        if argument == "templates":
            raise ArgumentError(
                f"templates={str(source)!r} is neither a file nor a text with a place for the class name; write for "
                "instance 'a photo of a {}.'"
            )
        raise ArgumentError(
            f"{argument}={str(source)!r} is not a file; give a text file with one name a line, or a JSON file"
        )
    if path.suffix != ".json":
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise ArgumentError(f"{path} has no key {key!r}; it has {', '.join(list(content)[:20])}")
        content = content[key]
    return content
