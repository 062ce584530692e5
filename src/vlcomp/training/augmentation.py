"""Random crops of training images that a resumed run repeats exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..data.images import load_image
from ..errors import ArgumentError


class RandomCrops(Dataset):
    """Rows of a data set with a random part of each image, another one in each epoch.

    The part depends only on the seed, the epoch and the row number: it is the same with any number of workers and
    after resuming. Pictures are not mirrored, since captions may say "left" and "right".

    Args:
        dataset (`datasets.Dataset` or `torch.utils.data.Dataset`):
            Rows with `image`.
        smallest (`float`):
            Area of the smallest crop, as a part of the image, in (0, 1].
        seed (`int`, defaults to 0):
            Seed of the crops.

    Raises:
        ArgumentError: if `smallest` is not in (0, 1].

    Example:
        >>> from datasets import Dataset
        >>> from vlcomp.testing import tiny_captions, tiny_images
        >>> from vlcomp.training.augmentation import RandomCrops
        >>> rows = RandomCrops(Dataset.from_dict({"image": tiny_images(2), "caption": tiny_captions(2)}), 0.5)
        >>> rows[0]["image"].size[0] <= 40
        True
    """

    def __init__(self, dataset: Any, smallest: float, seed: int = 0) -> None:
        if not 0 < smallest <= 1:
            raise ArgumentError(f"random_crop={smallest} must lie in (0, 1]; common values are 0.5 to 0.9")
        self.dataset = dataset
        self.smallest = smallest
        self.seed = seed
        # In shared memory, so that workers that live longer than an epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Choose the crops of the given epoch."""
        self._epoch.fill_(int(epoch))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._cropped(dict(self.dataset[int(index)]), int(index))

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        rows = getattr(self.dataset, "__getitems__", lambda wanted: [self.dataset[i] for i in wanted])(list(indices))
        return [self._cropped(dict(row), int(index)) for row, index in zip(rows, indices, strict=True)]

    def _cropped(self, row: dict[str, Any], index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, int(self._epoch), index])
        row["image"] = random_crop(load_image(row["image"]), self.smallest, rng)
        return row


def random_crop(image: Image.Image, smallest: float, rng: np.random.Generator) -> Image.Image:
    """Cut a random rectangle out of an image: at least `smallest` of its area, stretched by 3:4 to 4:3 at most.

    Args:
        image (`PIL.Image.Image`):
            The image.
        smallest (`float`):
            Smallest area, as a part of the image.
        rng (`numpy.random.Generator`):
            Source of randomness.

    Returns:
        `PIL.Image.Image`
    """
    width, height = image.size
    area, stretch = rng.uniform(smallest, 1.0), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    # A side longer than the image's is cut to it; less stretch where that would leave too small an area.
    stretch = min(max(stretch, smallest**2 / area), area / smallest**2)
    crop_width = max(1, min(width, round(width * math.sqrt(area * stretch))))
    crop_height = max(1, min(height, round(height * math.sqrt(area / stretch))))
    left = int(rng.integers(0, width - crop_width + 1))
    top = int(rng.integers(0, height - crop_height + 1))
    return image.crop((left, top, left + crop_width, top + crop_height))
