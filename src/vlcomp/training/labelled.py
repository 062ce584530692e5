"""Training on rows with a class: names of the classes, random views of the images, and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, ImageOps

from ..data.collator import ContrastiveCollator
from ..data.images import load_image, process_images
from ..errors import ArgumentError, DataError
from .augmentation import RandomCrops

# Not "labels": a key of that name makes transformers count items and multiply losses.
CLASS_INDEX = "class_index"


@dataclass(frozen=True)
class ClassSet:
    """The classes of a data set, and which of them a label means.

    Args:
        names (`tuple[str, ...]`):
            What the classes are called in texts.
        keys (`tuple[str, ...]`, *optional*):
            What the labels call them, where that differs (`"black_dog"` for `"black dog"`).

    Example:
        >>> from vlcomp.training.labelled import ClassSet
        >>> classes = ClassSet(("black dog", "cup"), ("black_dog", "cup"))
        >>> classes.index(1), classes.index("black_dog")
        (1, 0)
    """

    names: tuple[str, ...]
    keys: tuple[str, ...] = ()
    _index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {name: i for i, name in enumerate(self.keys or self.names)})

    @classmethod
    def of(cls, dataset: Any, names: Sequence[str] | None = None) -> ClassSet:
        """Find out the classes of a data set.

        Args:
            dataset (`datasets.Dataset` or any data set):
                With the column `label`: a `ClassLabel`, numbers or names.
            names (`Sequence[str]`, *optional*):
                What to call the classes, in the order of their numbers. By default the names that the column has
                (sorted, if it holds names), with blanks for underscores.

        Returns:
            [`ClassSet`]

        Raises:
            ArgumentError: if no names are given where labels are plain numbers, or not one for each class.
        """
        if isinstance(names, str):
            raise ArgumentError(f"class_names={names!r} is one text; pass a list of names")
        kept = label_names(dataset)
        if names is not None:
            if isinstance(_feature(dataset), datasets.ClassLabel) and len(kept or ()) != len(names):
                raise ArgumentError(
                    f"class_names has {len(names)} names, but the column 'label' has {len(kept or ())} classes; give "
                    "one for each, in their order"
                )
            return cls(tuple(names), kept if isinstance(_feature(dataset), datasets.ClassLabel) else ())
        if kept is None:
            raise ArgumentError(
                "class_names is missing: the labels of the data set are numbers without names; pass class_names=[...] "
                "in the order of the numbers, or make the column a datasets.ClassLabel"
            )
        return cls(tuple(name.replace("_", " ") for name in kept), kept)

    def index(self, label: Any, where: str = "a row") -> int:
        """The number of the class that a label means.

        Args:
            label (`int` or `str`):
                Number or name.
            where (`str`, *optional*):
                Where it stands, for the message.

        Returns:
            `int`

        Raises:
            DataError: if there is no such class.
        """
        if isinstance(label, torch.Tensor) and label.ndim == 0:
            label = label.item()
        if isinstance(label, str) and label in self._index:
            return self._index[label]
        if isinstance(label, Integral) and not isinstance(label, bool) and 0 <= label < len(self.names):
            return int(label)
        known = ", ".join(map(repr, self.names[:3])) + (", ..." if len(self.names) > 3 else "")
        raise DataError(
            f"{where} has the label {label!r}, which is none of the {len(self.names)} classes (0 to "
            f"{len(self.names) - 1}: {known}); leave such rows out, or pass class_names with all classes"
        )

    def check(self, name: str, dataset: Any) -> None:
        """Check all labels of a data set, as far as they can be read before training.

        Args:
            name (`str`):
                What to call the data set in messages.
            dataset (`datasets.Dataset` or any data set):
                The data set; labels of one that is no `datasets.Dataset` are checked as they come.

        Raises:
            DataError: if the data set has other classes, or a row has a label outside them.
        """
        if not isinstance(dataset, datasets.Dataset):
            return
        other = label_names(dataset) if isinstance(_feature(dataset), datasets.ClassLabel) else None
        if other is not None and self.keys and other != self.keys:
            differ = sorted(set(other) ^ set(self.keys))
            what = f"{differ[0]!r} is in only one of them" if differ else "the same ones in another order"
            raise DataError(
                f"{name} has other classes than those that are trained ({what}); give both data sets one ClassLabel"
            )
        seen = set()
        for row, label in enumerate(dataset["label"]):
            if label not in seen:
                self.index(label, f"row {row} of {name}")
                seen.add(label)


def label_names(dataset: Any) -> tuple[str, ...] | None:
    """Names that the column `label` of a data set has.

    Args:
        dataset (`datasets.Dataset` or any data set):
            The data set.

    Returns:
        `tuple[str, ...]` or `None`: those of a `ClassLabel`, or the sorted values of a column of texts.
    """
    feature = _feature(dataset)
    if isinstance(feature, datasets.ClassLabel):
        return tuple(feature.names or ())
    if feature is not None and getattr(feature, "dtype", None) in ("string", "large_string"):
        return tuple(sorted({label for label in dataset["label"] if label is not None}))
    return None


def _feature(dataset: Any) -> Any:
    return (getattr(dataset, "features", None) or {}).get("label")


class LabelledCollator(ContrastiveCollator):
    """Make a batch of rows with `image` and `label`.

    Args:
        processor (`ProcessorMixin`):
            Processor of the model.
        classes ([`ClassSet`]):
            What the labels mean.
        fit (`str`, *optional*):
            `"crop"`, `"squash"` or `"pad"` instead of what the image processor is set to.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out rows whose image is unreadable, with a warning.

    Example:
        >>> from vlcomp.testing import tiny_images, tiny_processor
        >>> from vlcomp.training.labelled import ClassSet, LabelledCollator
        >>> collator = LabelledCollator(tiny_processor(), ClassSet(("cup", "star")))
        >>> collator([{"image": tiny_images(1)[0], "label": 1}])["class_index"]
        tensor([1])
    """

    def __init__(
        self, processor: Any, classes: ClassSet, *, fit: str | None = None, skip_bad_images: bool = False
    ) -> None:
        super().__init__(processor, fit=fit, negatives=False, skip_bad_images=skip_bad_images)
        self.classes = classes

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make the batch.

        Args:
            rows (`Sequence[Mapping]`):
                With `image` (anything that [`~vlcomp.data.load_image`] reads) and `label` (number or name).

        Returns:
            `dict[str, torch.Tensor]`: `pixel_values`, and `class_index` [B] int64.

        Raises:
            DataError: if a row lacks its image or label, or one of them cannot be used.
        """
        if not len(rows):
            raise DataError("cannot make a batch of no rows")
        kept, pictures = self._pictures(rows)
        batch = process_images(self.processor, pictures, fit=self.fit)
        for index, row in enumerate(kept):
            if "label" not in row:
                raise DataError(f"row {index} of a batch has no column 'label'; it has {', '.join(map(repr, row))}")
        found = [self.classes.index(row["label"], f"row {index} of a batch") for index, row in enumerate(kept)]
        return {**batch, CLASS_INDEX: torch.tensor(found, dtype=torch.int64)}


class RandomViews(RandomCrops):
    """Rows of a data set with a random part of each image, brought to the model's size, and mirrored half of the time.

    What comes depends only on the seed, the epoch and the row number: it is the same with any number of workers and
    after resuming. An image that cannot be read is left for the collator to name or to skip.

    Args:
        dataset (`datasets.Dataset` or `torch.utils.data.Dataset`):
            Rows with `image`.
        smallest (`float`, *optional*):
            Area of the smallest crop, as a part of the image, in (0, 1]; no crops if not given.
        flip (`bool`, defaults to `True`):
            Whether to mirror.
        size (`tuple[int, int]`, *optional*):
            Height and width that a crop is stretched to, as torchvision's RandomResizedCrop does.
        seed (`int`, defaults to 0):
            Seed of crops and mirroring.

    Raises:
        ArgumentError: if `smallest` is not in (0, 1].

    Example:
        >>> from datasets import Dataset
        >>> from vlcomp.testing import tiny_images
        >>> from vlcomp.training.labelled import RandomViews
        >>> views = RandomViews(Dataset.from_dict({"image": tiny_images(2), "label": [0, 1]}), 0.5, size=(32, 32))
        >>> views[0]["image"].size
        (32, 32)
    """

    def __init__(
        self,
        dataset: Any,
        smallest: float | None = None,
        *,
        flip: bool = True,
        size: tuple[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, 1.0 if smallest is None else smallest, seed)
        self.crops, self.flip, self.size = smallest is not None, flip, size

    def _cropped(self, row: dict[str, Any], index: int) -> dict[str, Any]:
        try:
            row = super()._cropped(row, index) if self.crops else {**row, "image": load_image(row["image"])}
        except (DataError, KeyError):
            return row
        if self.crops and self.size is not None:
            row["image"] = row["image"].resize(self.size[::-1], Image.Resampling.BICUBIC)
        # Numbers of its own: the same crops with and without mirroring.
        if self.flip and np.random.default_rng([self.seed, int(self._epoch), index, 1]).random() < 0.5:
            row["image"] = ImageOps.mirror(row["image"])
        return row


__all__ = ["CLASS_INDEX", "ClassSet", "LabelledCollator", "RandomViews", "label_names"]
