"""Zero-shot classification on ImageNet and its variants, with the usual class names and templates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...data.folders import load_image_classes
from ...errors import ArgumentError, DataError
from ..task import TaskResult
from ..tasks.classification import LabelledImages, ZeroShotClassification
from ..tasks.retrieval import image_name, undecoded
from .facts import Benchmark, ImageSource, OfficialFile
from .files import DATA_VARIABLE, find_data, read_json

_KEY = "imagenet1k"
_CLASSES = 1000
_FILES = (
    OfficialFile(
        "en_classnames.json", None, "73d279021a4bc88059884d01fae66c35ec33793ede8bc9ae54c46632625c4993", 39429
    ),
    OfficialFile(
        "en_zeroshot_classification_templates.json",
        None,
        "b78cc883ce1d6aefd304f180046ee25e778d627e099222fbcc57f01657c53c31",
        8905,
    ),
)


class ImageNetTask(ZeroShotClassification):
    """Base of zero-shot classification on ImageNet and its variants.

    The class names and the 80 templates are OpenAI's, as CLIP_benchmark keeps them. Two of the names, "missile" and
    "sunglasses", stand for two classes each: such classes cannot be told apart, and since ties are wrong their images
    are too (at most 0.4 points of the 1,000 classes; by `argmax`, one class of each two would count as right).

    Args:
        data (`str` or `os.PathLike`, *optional*):
            Folder of the two JSON files, or a folder that holds it as `class_names`; `$VLCOMP_DATA` if not given.
        images (`str` or `os.PathLike`, *optional*):
            Folder with a subfolder of images for each class; looked for in `$VLCOMP_DATA` if not given.
        synsets (`str` or `os.PathLike`, *optional*):
            For sets of fewer classes: a folder with the 1,000 class folders of ImageNet, or a text file with the 1,000
            WordNet ids, one on each line. Beside the images and in `$VLCOMP_DATA/imagenet/val` if not given.
        templates (`str` or `Sequence[str]`, *optional*):
            Other templates than the 80.
        allow_partial (`bool`, defaults to `False`):
            Measure on a set with another number of images; the result says so.
        limit (`int`, *optional*):
            Number of images, drawn at random with a fixed seed.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        DataError: if files or images are missing or incomplete.
    """

    facts: ClassVar[Benchmark]
    version = "1"
    convention = "strictly highest class; mean of 80 normalised template embeddings; top-1 is the headline"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        facts = cls.facts
        cls.name, cls.source, cls.citation = facts.name, facts.images.url, facts.citation
        cls.licence = f"{facts.licence}; images: {facts.images.licence}; {facts.gated}".rstrip("; ")

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        images: str | os.PathLike[str] | None = None,
        synsets: str | os.PathLike[str] | None = None,
        templates: str | Sequence[str] | None = None,
        allow_partial: bool = False,
        limit: int | None = None,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        folder = find_data(self.facts, data)
        names, prompts = (self._entry(folder / file.name) for file in self.facts.files)
        if len(names) != _CLASSES:
            raise DataError(f"{folder / _FILES[0].name} names {len(names)} classes; expected {_CLASSES}")
        tops = [folder.parent, *([Path(os.environ[DATA_VARIABLE])] if os.environ.get(DATA_VARIABLE) else [])]
        places = [Path(images)] if images is not None else [t / f for t in tops for f in self.facts.images.folders]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            source = self.facts.images
            raise DataError(
                f"task {self.facts.name!r}: there are no images; looked in {', '.join(map(str, places))}. They are "
                f"{source.what} ({source.url}; licence: {source.licence}). Put them there, a subfolder a class, "
                "or pass their folder with images=FOLDER (--images FOLDER)"
            )
        super().__init__(
            found,
            templates=prompts if templates is None else templates,
            name=self.facts.name,
            limit=limit,
            skip_bad_images=skip_bad_images,
            gallery=gallery,
        )
        usual = [found.parent / "val", *(top / "imagenet/val" for top in tops)]
        self.synsets = [Path(synsets)] if synsets is not None else usual
        self.all_names = [str(name) for name in names]
        self.allow_partial = allow_partial
        self.partial: list[str] = []
        # What is missing is told now, before a model is loaded.
        _ = self.labelled

    def _entry(self, path: Path) -> list[str]:
        if not path.is_file():
            raise DataError(f"task {self.facts.name!r}: {path} does not exist; it is from {self.facts.url}")
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get(_KEY), list):
            raise DataError(f"{path} has no list {_KEY!r}; get the official file from {self.facts.url}")
        return content[_KEY]

    def load(self) -> LabelledImages:
        """Read all images; see [`~vlcomp.evaluation.tasks.ZeroShotClassification`]."""
        classes = load_image_classes(self.data, skip_bad_images=self.skip_bad_images)
        names = [self.all_names[i] for i in self._positions(classes.class_names)]
        dataset = undecoded(classes.dataset, "image")
        expected = self.facts.items
        if expected is not None and len(dataset) != expected:
            problem = f"{self.data} holds {len(dataset):,} images, the official set {expected:,}"
            if not self.allow_partial and self.limit is None and not self.skip_bad_images:
                raise DataError(
                    f"task {self.name!r} is incomplete: {problem}. Get the official set from {self.facts.images.url}, "
                    "or measure on what is there with allow_partial=True"
                )
            self.partial = [problem]
        sources = list(dataset["image"])
        image_names = [image_name(source, f"image {i}") for i, source in enumerate(sources)]
        return LabelledImages(sources, image_names, np.array(dataset["label"], dtype=np.int64), names)

    def _positions(self, folders: Sequence[str]) -> list[int]:
        """Class number of each folder."""
        if all(folder.isdigit() and int(folder) < _CLASSES for folder in folders):
            return [int(folder) for folder in folders]
        if len(folders) == _CLASSES:
            return list(range(_CLASSES))  # WordNet ids in order
        known: list[str] = []
        for place in self.synsets:
            if place.is_dir():
                known = sorted(path.name for path in place.iterdir() if path.is_dir())
            elif place.is_file():
                known = place.read_text(encoding="utf-8").split()
            if len(known) == _CLASSES:
                break
        lacking = [folder for folder in folders if folder not in known]
        if len(known) != _CLASSES or lacking:
            what = f"{lacking[0]!r} is not among them" if len(known) == _CLASSES else "they are not to be found"
            raise ArgumentError(
                f"{self.data} has {len(folders)} classes; which of the {_CLASSES} they are is told by the WordNet "
                f"ids of all, and {what} (looked in {', '.join(map(str, self.synsets))}). Pass synsets=, a folder "
                "with the class folders of ImageNet or a text file with their names, sorted"
            )
        return [sorted(known).index(folder) for folder in folders]

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {**super().config(), "official": not self.partial and self.limit is None}

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`~vlcomp.evaluation.Task.run`]."""
        result = super().run(model, progress=progress)
        result.warnings += [f"incomplete: {problem}" for problem in self.partial]
        return result


def _facts(name: str, title: str, images: ImageSource, items: int, citation: str) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        folder="class_names",
        url="https://github.com/LAION-AI/CLIP_benchmark/tree/main/clip_benchmark/datasets",
        licence="MIT (class names and templates)",
        citation=citation,
        images=images,
        files=_FILES,
        items=items,
        gated="images after registration" if name == "imagenet" else "",
        notes="items counts images.",
    )


class ImageNet(ImageNetTask):
    """Name the class of an ImageNet validation image among 1,000.

    *Source*: the 50,000 validation images of ILSVRC 2012, sorted into 1,000 folders named by WordNet id; class names
    and templates from https://github.com/LAION-AI/CLIP_benchmark.

    *Licence*: see `facts`.

    *Convention*: as [`ImageNetTask`].
    """

    facts = _facts(
        "imagenet",
        "ImageNet-1k, validation",
        ImageSource(
            "the ImageNet validation images in a folder for each class",
            "https://www.image-net.org/download.php",
            "research and education only, on registration",
            folders=("imagenet/val", "imagenet"),
            size="6 GB",
        ),
        50_000,
        "Deng et al., ImageNet, CVPR 2009; prompts: Radford et al., CLIP, ICML 2021, arXiv:2103.00020",
    )
    description = "zero-shot classification on ImageNet, 1,000 classes, 80 templates"


class ImageNetV2(ImageNetTask):
    """Name the class of an ImageNet-V2 image among 1,000.

    *Source*: https://github.com/modestyachts/ImageNetV2, matched-frequency, 10,000 images in folders `0` to `999`.

    *Licence*: MIT.

    *Convention*: as [`ImageNetTask`].
    """

    facts = _facts(
        "imagenet_v2",
        "ImageNet-V2, matched frequency",
        ImageSource(
            "ImageNet-V2 (matched-frequency), folders 0 to 999",
            "https://huggingface.co/datasets/vaishaal/ImageNetV2",
            "MIT",
            folders=("imagenet_v2", "imagenetv2-matched-frequency-format-val"),
            size="1 GB",
        ),
        10_000,
        "Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019, arXiv:1902.10811",
    )
    description = "zero-shot classification on ImageNet-V2, 1,000 classes, 80 templates"


class ImageNetSketch(ImageNetTask):
    """Name the class of a sketch among the 1,000 of ImageNet.

    *Source*: https://github.com/HaohanWang/ImageNet-Sketch, 50,889 images in 1,000 folders.

    *Licence*: MIT.

    *Convention*: as [`ImageNetTask`].
    """

    facts = _facts(
        "imagenet_sketch",
        "ImageNet-Sketch",
        ImageSource(
            "ImageNet-Sketch, a folder for each class",
            "https://github.com/HaohanWang/ImageNet-Sketch",
            "MIT (the repository); pictures from the web",
            folders=("imagenet_sketch", "imagenet-sketch", "sketch"),
            size="7 GB",
        ),
        50_889,
        "Wang et al., Learning Robust Global Representations, NeurIPS 2019, arXiv:1905.13549",
    )
    description = "zero-shot classification on ImageNet-Sketch, 1,000 classes, 80 templates"


class ImageNetA(ImageNetTask):
    """Name the class of a natural adversarial image among 200 classes of ImageNet.

    *Source*: https://github.com/hendrycks/natural-adv-examples, 7,500 images in 200 folders.

    *Licence*: MIT.

    *Convention*: as [`ImageNetTask`], among the 200 classes.
    """

    facts = _facts(
        "imagenet_a",
        "ImageNet-A",
        ImageSource(
            "ImageNet-A, 200 class folders",
            "https://github.com/hendrycks/natural-adv-examples",
            "MIT",
            folders=("imagenet_a", "imagenet-a"),
            size="0.7 GB",
        ),
        7_500,
        "Hendrycks et al., Natural Adversarial Examples, CVPR 2021, arXiv:1907.07174",
    )
    description = "zero-shot classification on ImageNet-A, 200 classes, 80 templates"


class ImageNetR(ImageNetTask):
    """Name the class of a rendition (art, toys, sketches) among 200 classes of ImageNet.

    *Source*: https://github.com/hendrycks/imagenet-r, 30,000 images in 200 folders.

    *Licence*: MIT.

    *Convention*: as [`ImageNetTask`], among the 200 classes.
    """

    facts = _facts(
        "imagenet_r",
        "ImageNet-R",
        ImageSource(
            "ImageNet-R, 200 class folders",
            "https://github.com/hendrycks/imagenet-r",
            "MIT",
            folders=("imagenet_r", "imagenet-r"),
            size="2 GB",
        ),
        30_000,
        "Hendrycks et al., The Many Faces of Robustness, ICCV 2021, arXiv:2006.16241",
    )
    description = "zero-shot classification on ImageNet-R, 200 classes, 80 templates"


IMAGENET_TASKS = (ImageNet, ImageNetV2, ImageNetSketch, ImageNetA, ImageNetR)
