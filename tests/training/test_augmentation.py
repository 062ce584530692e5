"""Random crops depend on seed, epoch and row, and on nothing else."""

import numpy as np
import pytest
from torch.utils.data import DataLoader

from vlcomp.errors import ArgumentError
from vlcomp.testing import tiny_images
from vlcomp.training.augmentation import RandomCrops, random_crop

from .common import rows


def _pixels(dataset, indices):
    return [np.asarray(row["image"]).tobytes() for row in dataset.__getitems__(indices)]


def test_crops_are_repeatable_and_change_with_the_epoch():
    first, second = RandomCrops(rows(8), 0.3, seed=1), RandomCrops(rows(8), 0.3, seed=1)
    start = _pixels(first, [0, 5, 3])
    assert start == _pixels(second, [0, 5, 3])
    assert np.asarray(first[5]["image"]).tobytes() == start[1]
    first.set_epoch(1)
    assert start != _pixels(first, [0, 5, 3])
    first.set_epoch(0)
    assert start == _pixels(first, [0, 5, 3])
    assert start != _pixels(RandomCrops(rows(8), 0.3, seed=2), [0, 5, 3])


def test_long_lived_workers_see_the_epoch():
    crops = RandomCrops(rows(4), 0.3)
    loader = DataLoader(crops, batch_size=4, num_workers=1, persistent_workers=True, collate_fn=lambda batch: batch)
    seen = []
    for epoch in range(2):
        crops.set_epoch(epoch)
        (batch,) = loader
        seen.append([np.asarray(row["image"]).tobytes() for row in batch])
        assert seen[-1] == _pixels(crops, range(4))
    assert seen[0] != seen[1]


def test_crops_cover_what_they_should():
    image, rng = tiny_images(1, (60, 40))[0], np.random.default_rng(0)
    areas = [np.prod(random_crop(image, 0.5, rng).size) / 2400 for _ in range(300)]
    assert 0.42 < min(areas) < 0.6
    assert max(areas) > 0.9
    assert random_crop(tiny_images(1, (1, 1))[0], 0.5, rng).size == (1, 1)


@pytest.mark.parametrize("smallest", [0.8, 0.95, 1.0])
def test_large_crops_keep_their_area(smallest):
    image, rng = tiny_images(1, (600, 400))[0], np.random.default_rng(0)
    areas = [np.prod(random_crop(image, smallest, rng).size) / 240_000 for _ in range(300)]
    assert min(areas) >= smallest - 0.003  # sides are whole pixels


@pytest.mark.parametrize("smallest", [0, 1.5])
def test_bad_areas(smallest):
    with pytest.raises(ArgumentError, match="random_crop"):
        RandomCrops(rows(4), smallest)
