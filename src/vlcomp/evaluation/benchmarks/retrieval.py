"""Image-text retrieval on official files: COCO and Flickr30k in Karpathy's splits, NegBench's negated captions."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.rows import plural
from ...errors import DataError
from ..choice import sample_clusters
from ..encoding import unreadable_images
from ..task import TaskResult
from ..tasks.retrieval import Gallery, Retrieval
from .comparisons import Picture
from .facts import COCO_2014, COCO_VAL2017, FLICKR30K, Benchmark, OfficialFile
from .files import (
    ImageFinder,
    check_count_of,
    file_name,
    find_data,
    image_source,
    literal_list,
    read_csv,
    read_rows,
    required_text,
)


class OfficialRetrieval(Retrieval):
    """Retrieval on an official file of images and their captions.

    Scores are those of [`~vlcomp.evaluation.tasks.Retrieval`]; files and images are looked for as in
    [`~vlcomp.evaluation.benchmarks.BenchmarkTask`]. `items` of the facts counts captions.

    Args:
        data (`str` or `os.PathLike`, *optional*):
            Folder of the official file, or a folder that holds it under its usual name; `$VLCOMP_DATA` if not given.
        images (`str` or `os.PathLike`, *optional*):
            Folder of the images.
        allow_partial (`bool`, defaults to `False`):
            Measure on a file that is incomplete; the result says so. A smaller gallery is an easier task.
        ks (`Sequence[int]`, defaults to `(1, 5, 10)`):
            Cut-offs.
        limit (`int`, *optional*):
            Number of images, drawn at random with a fixed seed. A smaller gallery is an easier task.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out images that are missing or damaged, and count them.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        DataError: if files or images are missing, incomplete or malformed.
    """

    facts: ClassVar[Benchmark]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        facts = cls.__dict__.get("facts")
        if facts is not None:
            cls.name, cls.source, cls.citation = facts.name, facts.url, facts.citation
            cls.licence = f"{facts.licence}; images: {facts.images.licence}"

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        images: str | os.PathLike[str] | None = None,
        allow_partial: bool = False,
        ks: Sequence[int] = (1, 5, 10),
        limit: int | None = None,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        folder = find_data(self.facts, data)
        super().__init__(
            folder, ks=ks, name=self.facts.name, limit=limit, skip_bad_images=skip_bad_images, gallery=gallery
        )
        self.allow_partial = allow_partial
        self.find_image = ImageFinder(self.facts, folder, images)
        self.partial: list[str] = []
        self.skipped: list[str] = []
        # What is missing is told now, before a model is loaded.
        _ = self.pairs

    @abstractmethod
    def read(self, path: Path) -> Iterable[tuple[str, list[str]]]:
        """Image name and captions of each image of the official file.

        Args:
            path (`Path`):
                The file.

        Returns:
            `Iterable[tuple[str, list[str]]]`
        """

    @cached_property
    def pairs(self) -> Gallery:
        """Images and captions that are measured: loaded once, checked, limited."""
        (file,) = self.facts.files
        path = Path(self.data) / file.name
        captions_of: dict[str, list[str]] = {}
        for name, captions in self.read(path):
            if name in captions_of:
                raise DataError(f"{path} names the image {name!r} twice; each must stand once, with all its captions")
            captions_of[name] = captions
        problem = check_count_of(file, path, sum(map(len, captions_of.values())))
        if problem and not self.allow_partial and self.limit is None:
            raise DataError(
                f"task {self.name!r} is incomplete: {problem}. Get the official file from {self.facts.url}, or "
                "measure on what is there with allow_partial=True"
            )
        self.partial = [problem] if problem else []
        names = list(captions_of)
        if self.limit is not None:
            names = [names[i] for i in sample_clusters(names, self.limit)]
        places = {name: self.find_image(name) for name in names}
        absent = [name for name in names if places[name] is None]
        if absent and (not self.skip_bad_images or len(absent) == len(names)):
            raise DataError(self.find_image.missing(absent, len(names)))
        self.skipped = [f"{name}: there is no such file" for name in absent]
        names = [name for name in names if places[name] is not None]
        sources = [image_source(Picture(name), Path(str(places[name]))) for name in names]
        if self.skip_bad_images:
            bad = unreadable_images(sources, names)
            self.skipped += bad.values()
            good = [i for i in range(len(names)) if i not in bad]
            names, sources = [names[i] for i in good], [sources[i] for i in good]
        if len(names) < 2:
            raise DataError(
                f"task {self.name!r}: there are {len(names)} images to choose from; measure on at least two"
            )
        captions = [(i, caption) for i, name in enumerate(names) for caption in captions_of[name]]
        return Gallery(sources, names, [caption for _, caption in captions], np.array([i for i, _ in captions]))

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        official = not self.partial and not self.skipped and self.limit is None
        skipped = {"skipped": len(self.skipped), "skipped_images": self.skipped} if self.skip_bad_images else {}
        return {"data": Path(self.data).name, "limit": self.limit, "official": official, **skipped}

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`~vlcomp.evaluation.Task.run`]."""
        result = super().run(model, progress=progress)
        result.warnings += [f"incomplete: {problem}" for problem in self.partial]
        if self.skipped:
            result.warnings.append(
                f"{plural(len(self.skipped), 'image')} could not be read; they and their captions are left out"
            )
        result.headline = self.headline
        return result


class _Karpathy(OfficialRetrieval):
    version = "1"
    convention = "R@k both ways among all images and captions of the split, ties wrong; any own caption counts"
    headline = "image_to_text/recall@1"

    def read(self, path: Path) -> Iterable[tuple[str, list[str]]]:
        """See [`OfficialRetrieval.read`]."""
        for _, where, row in read_rows(path):
            captions = row.get("caption")
            if not isinstance(captions, list) or not captions:
                raise DataError(f"{where} has caption={captions!r}; expected a list of captions")
            yield (
                required_text(row, "image", where),
                [required_text({"caption": c}, "caption", where) for c in captions],
            )


class CocoRetrieval(_Karpathy):
    """Find the captions of an image among 25,010, and the image of a caption among 5,000.

    *Source*: Karpathy's test split of COCO as `coco_karpathy_test.json`, a list of `{"image": "val2014/...",
    "caption": [...]}`; images are COCO val2014.

    *Licence*: CC-BY-4.0; images see `facts.images`.

    *Convention*: R@1, R@5, R@10 both ways, ties wrong; an image is right if any of its captions comes first.

    Args are those of [`OfficialRetrieval`].
    """

    facts = Benchmark(
        name="coco_retrieval",
        title="COCO retrieval (Karpathy test split)",
        folder="coco",
        url="https://storage.googleapis.com/sfr-vision-language-research/datasets/coco_karpathy_test.json",
        licence="CC-BY-4.0 (COCO annotations)",
        citation="Lin et al., Microsoft COCO, ECCV 2014; split: Karpathy and Fei-Fei, CVPR 2015",
        images=COCO_2014,
        files=(OfficialFile("coco_karpathy_test.json", 25010),),
        items=25010,
    )
    description = "image-text retrieval on COCO, Karpathy's test split: 5,000 images, 25,010 captions"


class Flickr30kRetrieval(_Karpathy):
    """Find the captions of an image among 5,000, and the image of a caption among 1,000.

    *Source*: Karpathy's test split of Flickr30k as `flickr30k_test.json`, as [`CocoRetrieval`].

    *Licence*: that of Flickr30k (research and education); images by request.

    *Convention*: as [`CocoRetrieval`].

    Args are those of [`OfficialRetrieval`].
    """

    facts = Benchmark(
        name="flickr30k_retrieval",
        title="Flickr30k retrieval (Karpathy test split)",
        folder="flickr30k",
        url="https://storage.googleapis.com/sfr-vision-language-research/datasets/flickr30k_test.json",
        licence="that of Flickr30k (research and education)",
        citation="Young et al., TACL 2014; split: Karpathy and Fei-Fei, CVPR 2015",
        images=FLICKR30K,
        files=(OfficialFile("flickr30k_test.json", 5000),),
        items=5000,
        gated="images by request to the University of Illinois",
    )
    description = "image-text retrieval on Flickr30k, Karpathy's test split: 1,000 images, 5,000 captions"


class _NegBenchRetrieval(OfficialRetrieval):
    version = "1"
    convention = "R@k both ways, ties wrong; text-to-image R@5 is the headline, as in the paper"
    headline = "text_to_image/recall@5"

    def read(self, path: Path) -> Iterable[tuple[str, list[str]]]:
        """See [`OfficialRetrieval.read`]."""
        for _, where, row in read_csv(path, ("filepath", "captions")):
            yield file_name(required_text(row, "filepath", where)), literal_list(row, "captions", where)


def negbench_facts(name: str, title: str, file: str) -> Benchmark:
    """Facts of a part of NegBench on COCO."""
    return Benchmark(
        name=f"negbench/{name}",
        title=f"NegBench, {title}",
        folder="negbench",
        url="https://github.com/m1k2zoo/negbench/blob/main/datasets.md",
        licence="MIT; captions derived from COCO (CC-BY-4.0)",
        citation="Alhamoud et al., Vision-Language Models Do Not Understand Negation, CVPR 2025, arXiv:2501.09425",
        images=COCO_VAL2017,
        files=(OfficialFile(f"images/{file}"),),
        notes="The number of items is not checked. The paths of images in the file are the authors'; only their last "
        "part is used.",
    )


class NegBenchRetrieval(_NegBenchRetrieval):
    """Retrieval on COCO with the captions from which NegBench's negated ones are made.

    *Source*: https://github.com/m1k2zoo/negbench, `images/COCO_val_retrieval.csv` with `filepath` and `captions` (a
    list as a Python literal).

    *Licence*: see `facts`.

    *Convention*: text-to-image R@5 is the headline, as in the paper; ties are wrong.

    Args are those of [`OfficialRetrieval`].
    """

    facts = negbench_facts("retrieval_coco", "retrieval, COCO", "COCO_val_retrieval.csv")
    description = "retrieval on COCO val2017 with the plain captions of NegBench"


class NegBenchNegatedRetrieval(_NegBenchRetrieval):
    """Retrieval on COCO with captions that also say what is not in the picture.

    *Source*: as [`NegBenchRetrieval`], `COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv`.

    *Licence*: see `facts`.

    *Convention*: as [`NegBenchRetrieval`].

    Args are those of [`OfficialRetrieval`].
    """

    facts = negbench_facts(
        "retrieval_coco_negated",
        "negated retrieval, COCO",
        "COCO_val_negated_retrieval_llama3.1_rephrased_affneg_true.csv",
    )
    description = "retrieval on COCO val2017 with captions that also say what is absent (NegBench)"


RETRIEVAL_TASKS = (CocoRetrieval, Flickr30kRetrieval, NegBenchRetrieval, NegBenchNegatedRetrieval)
