"""Batches in which an image appears at most once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import BatchSampler

from ..errors import ArgumentError

logger = logging.getLogger(__name__)


class UniqueImageBatchSampler(BatchSampler):
    """Shuffled batches of row numbers in which no image appears twice.

    With several captions per image an ordinary shuffle puts captions of one image into one batch, where they cannot
    be negatives of each other. Here a row appears at most once an epoch and an image at most once in a batch; with
    several processes the batch is the global one, that of all processes together.

    Each epoch is a new order, which depends only on `seed` and the epoch. Rows that do not fill a last batch are left
    out if `drop_last`, different ones each epoch. An image with more captions than there are batches cannot be placed
    completely: a random choice of its captions is used each epoch, and this is logged once.

    Args:
        image_ids (`Sequence[int]`):
            Image of each row.
        batch_size (`int`):
            Rows of a batch on one process.
        num_processes (`int`, defaults to 1):
            Number of processes that take the batches in turns, as `accelerate` does.
        seed (`int`, defaults to 0):
            Seed of the order.
        drop_last (`bool`, defaults to `True`):
            Leave out the last, smaller batch. With fewer rows than a global batch, one smaller batch is made of them.

    Raises:
        ArgumentError: if there are no rows or `batch_size` is below 1.

    Example:
        >>> from vlcomp.training import UniqueImageBatchSampler
        >>> sampler = UniqueImageBatchSampler([0, 0, 1, 1, 2, 2], batch_size=2)
        >>> len(sampler), sorted(row for batch in sampler for row in batch)
        (3, [0, 1, 2, 3, 4, 5])
    """

    def __init__(
        self,
        image_ids: Sequence[int],
        batch_size: int,
        *,
        num_processes: int = 1,
        seed: int = 0,
        drop_last: bool = True,
    ) -> None:
        if batch_size < 1 or num_processes < 1:
            raise ArgumentError(f"batch_size={batch_size} and num_processes={num_processes} must be at least 1")
        if not len(image_ids):
            raise ArgumentError("there are no rows to sample from: `image_ids` is empty")
        _, self._images, counts = np.unique(np.asarray(image_ids), return_inverse=True, return_counts=True)
        self.batch_size = batch_size
        self.num_processes = num_processes
        self.seed = seed
        self.epoch = 0
        self._global_size = batch_size * num_processes
        self._cap, self._sizes, self.drop_last = self._plan(counts, drop_last)
        left_out = int(np.maximum(counts - self._cap, 0).sum())
        if left_out:
            logger.warning(
                "%d of %d rows are left out of each epoch (others each time): an image has up to %d captions, but "
                "only %d batches can take one each. A smaller batch size uses more of them.",
                left_out,
                len(self._images),
                counts.max(),
                self._cap,
            )

    def _plan(self, counts: np.ndarray, drop_last: bool) -> tuple[int, np.ndarray, bool]:
        """The most rows of one image that can be used, the sizes of the global batches, and `drop_last` as used."""
        size = self._global_size
        cap = int(counts.max())
        while True:
            rows = int(np.minimum(counts, cap).sum())
            full, rest = divmod(rows, size)
            partial = rest > 0 and (full == 0 or not drop_last)
            # A smaller last batch is full before the others, so an image can count on one batch less.
            room = max(full, 1) if not partial or full == 0 else full
            if cap <= room:
                break
            cap = room
        return cap, np.array([size] * full + [rest] * partial), drop_last and full > 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the given epoch."""
        self.epoch = int(epoch)

    def __len__(self) -> int:
        return int(np.ceil(self._sizes / self.batch_size).sum())

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = self._capped(rng.permutation(len(self._images)))
        ends = np.cumsum(self._sizes)
        if self._cap > 1:
            rows = self._separate(rows, rng)
        for start, end in zip(ends - self._sizes, ends, strict=True):
            batch = rows[start:end]
            for first in range(0, len(batch), self.batch_size):
                yield batch[first : first + self.batch_size].tolist()

    def _capped(self, rows: np.ndarray) -> np.ndarray:
        """The first `cap` rows of each image, in the given order."""
        images = self._images[rows]
        order = np.argsort(images, kind="stable")
        ordered = images[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
        keep = np.ones(len(rows), dtype=bool)
        keep[order[rank >= self._cap]] = False
        return rows[keep]

    def _separate(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Reorder so that no image is twice in a batch: swap clashing rows at random, deal anew if that fails."""
        total = int(self._sizes.sum())
        batch_of = np.full(len(rows), len(self._sizes))
        batch_of[:total] = np.repeat(np.arange(len(self._sizes)), self._sizes)
        shuffled = rows.copy()
        for _ in range(20):
            clashes = self._clashes(shuffled[:total], batch_of[:total])
            if not len(clashes):
                return shuffled[:total]
            if 2 * len(clashes) > len(rows):
                break
            others = np.setdiff1d(np.arange(len(rows)), clashes, assume_unique=True)
            partners = rng.choice(others, size=len(clashes), replace=False)
            shuffled[clashes], shuffled[partners] = shuffled[partners], shuffled[clashes]
        return self._deal(rows[:total], rng)

    def _clashes(self, rows: np.ndarray, batch_of: np.ndarray) -> np.ndarray:
        keys = batch_of * (int(self._images.max()) + 1) + self._images[rows]
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        return order[1:][ordered[1:] == ordered[:-1]]

    def _deal(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Deal the rows, those of an image one after the other, round the table of batches: exact for any counts."""
        images = self._images[rows]
        shuffled_images = rng.permutation(int(self._images.max()) + 1)[images]
        hand = rows[np.argsort(shuffled_images, kind="stable")]
        # Seat k of each batch that has one, then seat k + 1: consecutive rows fall into different batches.
        seats = np.repeat(np.arange(len(self._sizes)), self._sizes)
        starts = np.cumsum(self._sizes) - self._sizes
        seat_number = np.arange(len(hand)) - np.repeat(starts, self._sizes)
        turn = np.lexsort((seats, seat_number))
        dealt = np.empty_like(hand)
        dealt[turn] = hand
        return dealt
