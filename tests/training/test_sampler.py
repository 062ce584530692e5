"""An image at most once in a batch, all rows used, the same order for the same seed and epoch."""

import time
from collections import Counter

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler

from vlcomp.errors import ArgumentError
from vlcomp.training import UniqueImageBatchSampler


def _global_batches(sampler, processes):
    batches = list(sampler)
    return [sum(batches[i : i + processes], []) for i in range(0, len(batches), processes)]


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(
    ("images", "captions", "batch"), [(100, 1, 8), (60, 5, 8), (13, 5, 4), (8, 5, 4), (5, 5, 2), (40, 3, 7)]
)
def test_no_image_twice_in_a_batch(images, captions, batch, drop_last, processes):
    ids = np.repeat(np.arange(images) * 17 + 3, captions)
    sampler = UniqueImageBatchSampler(ids, batch, num_processes=processes, drop_last=drop_last, seed=1)
    assert len(list(sampler)) == len(sampler)
    batches = _global_batches(sampler, processes)
    for rows in batches:
        assert len(set(ids[rows])) == len(rows)
    rows = sum(batches, [])
    assert len(set(rows)) == len(rows)
    full = images * captions // (batch * processes) >= captions
    if full and not drop_last and images * captions // (batch * processes) > captions:
        assert len(rows) == len(ids)
    if full and drop_last:
        assert len(rows) == len(ids) // (batch * processes) * batch * processes
        assert all(len(b) == batch for b in sampler)


def test_uneven_numbers_of_captions():
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat(np.arange(300), rng.integers(1, 12, 300)))
    sampler = UniqueImageBatchSampler(ids, 64, drop_last=False)
    seen = Counter()
    for rows in sampler:
        assert len(set(ids[rows])) == len(rows)
        seen.update(rows)
    assert set(seen.values()) == {1}
    assert len(seen) == len(ids)


def test_order_depends_on_seed_and_epoch_only():
    ids = np.repeat(np.arange(30), 4)
    first = list(UniqueImageBatchSampler(ids, 8, seed=5))
    assert first == list(UniqueImageBatchSampler(ids, 8, seed=5))
    assert first != list(UniqueImageBatchSampler(ids, 8, seed=6))
    sampler = UniqueImageBatchSampler(ids, 8, seed=5)
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_left_out_rows_differ_between_epochs():
    sampler, seen = UniqueImageBatchSampler(np.arange(10), 4), Counter()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        rows = sum(sampler, [])
        assert len(rows) == 8
        seen.update(rows)
    assert set(seen) == set(range(10))


def test_order_is_random():
    """Each row meets each other one about equally often, also where the dealing has to step in."""
    for images, captions, batch in ((40, 2, 10), (12, 5, 10)):
        ids = np.repeat(np.arange(images), captions)
        met = np.zeros((images, images))
        sampler = UniqueImageBatchSampler(ids, batch)
        for epoch in range(300):
            sampler.set_epoch(epoch)
            for rows in sampler:
                met[np.ix_(ids[rows], ids[rows])] += 1
        off = met[~np.eye(images, dtype=bool)]
        assert off.min() > 0.7 * off.mean()
        assert off.max() < 1.3 * off.mean()


def test_an_image_with_too_many_captions(caplog):
    ids = np.array([0] * 50 + list(range(1, 31)))
    sampler = UniqueImageBatchSampler(ids, 8)
    assert "left out of each epoch" in caplog.text
    seen = set()
    for epoch in range(200):
        sampler.set_epoch(epoch)
        for rows in sampler:
            assert len(set(ids[rows])) == len(rows)
            seen.update(rows)
    assert len(seen) == len(ids)


def test_fewer_rows_than_a_batch():
    assert [sorted(rows) for rows in UniqueImageBatchSampler(np.arange(3), 8)] == [[0, 1, 2]]
    only = UniqueImageBatchSampler(np.zeros(5, dtype=int), 8)
    assert [len(rows) for rows in only] == [1]
    with pytest.raises(ArgumentError, match="no rows"):
        UniqueImageBatchSampler([], 8)
    with pytest.raises(ArgumentError, match="batch_size=0"):
        UniqueImageBatchSampler([1], 0)


def test_accelerate_shards_and_skips_it():
    ids = np.repeat(np.arange(33), 3)
    sampler = UniqueImageBatchSampler(ids, 4, num_processes=2)
    shards = [BatchSamplerShard(sampler, 2, index) for index in range(2)]
    parts = [list(shard) for shard in shards]
    assert len(parts[0]) == len(parts[1]) == len(shards[0]) > 0
    for first, second in zip(*parts, strict=True):
        assert len(set(ids[first + second])) == 8
    assert list(SkipBatchSampler(shards[0], 3)) == parts[0][3:]


def test_a_million_rows_take_seconds():
    ids = np.repeat(np.arange(200_000), 5)
    sampler = UniqueImageBatchSampler(ids, 1024)
    start = time.perf_counter()
    iterator = iter(sampler)
    first = next(iterator)
    assert time.perf_counter() - start < 6
    assert len(set(ids[first])) == 1024
