"""Splitting a captioned data set without letting one image, or variants of one caption, into both parts."""

from __future__ import annotations

import random
import re
from collections.abc import Hashable, Sequence
from typing import Any

import datasets

from ..errors import ArgumentError, DataError


def split_captioned(
    dataset: datasets.Dataset,
    *,
    test_fraction: float,
    seed: int = 0,
    group_by: str | None = None,
    pattern: str | None = None,
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split rows at random into training and test rows, whole groups at a time.

    Rows of one image always stay together. With `group_by`, so do rows that have the same value there; with
    `pattern`, rows whose values have the same match. Both rules hold at once: rows that are linked through a chain of
    images and values form one group.

    Args:
        dataset (`datasets.Dataset`):
            With `image_id` (as from [`load_captioned`]); without that column each row is an image of its own.
        test_fraction (`float`):
            Part of the rows for testing, between 0 and 1. Met as closely as whole groups allow.
        seed (`int`, defaults to 0):
            Seed of the choice of groups.
        group_by (`str`, *optional*):
            Column whose equal values stay together; `"caption"` if only `pattern` is given.
        pattern (`str`, *optional*):
            Regular expression searched in the column `group_by`; the match is compared in place of the value.
            `r"^[^:]*"` takes what stands before the first colon. A value without a match, or with an empty one,
            counts as a whole.

    Returns:
        `tuple[datasets.Dataset, datasets.Dataset]`: training rows and test rows, in their order of before.

    Raises:
        ArgumentError: if an argument is out of range, the column is absent or the expression broken.
        DataError: if there are fewer than two groups.

    Example:
        >>> import datasets
        >>> from vlcomp.data import split_captioned
        >>> captions = ["wave", "wave: light skin tone", "star", "cup"]
        >>> rows = datasets.Dataset.from_dict({"caption": captions, "image_id": [1, 2, 3, 4]})
        >>> train, test = split_captioned(rows, test_fraction=0.5, pattern=r"^[^:]*", seed=1)
        >>> len(train), len(test)
        (2, 2)
    """
    if isinstance(dataset, datasets.IterableDataset):
        raise ArgumentError("a streamed data set cannot be split; load it with streaming=False or name a test split")
    if isinstance(test_fraction, bool) or not 0 < test_fraction < 1:
        raise ArgumentError(f"test_fraction={test_fraction!r} must lie between 0 and 1, both excluded")
    expression = None
    if pattern is not None:
        group_by = group_by or "caption"
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ArgumentError(f"pattern={pattern!r} is not a regular expression: {error}") from error
    if group_by is not None and group_by not in dataset.column_names:
        raise ArgumentError(f"group_by={group_by!r} is not a column; columns: {', '.join(dataset.column_names)}")
    keys: list[Sequence[Hashable]] = []
    if "image_id" in dataset.column_names:
        keys.append(dataset["image_id"][:])
    if group_by is not None:
        keys.append([_group_key(value, expression) for value in dataset[group_by][:]])
    groups = _components(len(dataset), keys)
    if len(groups) < 2:
        raise DataError(
            f"cannot split {len(dataset):,} rows: they form {'one group' if groups else 'no group'}; at least two are "
            "needed, one for each part" + (f" (group_by={group_by!r}, pattern={pattern!r})" if group_by else "")
        )
    test = set(_choose(groups, test_fraction * len(dataset), seed))
    parts: tuple[list[int], list[int]] = ([], [])
    for number, rows in enumerate(groups):
        parts[number in test].extend(rows)
    return dataset.select(sorted(parts[0])), dataset.select(sorted(parts[1]))


def _group_key(value: Any, expression: re.Pattern[str] | None) -> Hashable:
    text = value if isinstance(value, str) else repr(value)
    if expression is None:
        return text
    match = expression.search(text)
    return match.group(0) if match and match.group(0) else text


def _components(count: int, keys: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Rows linked by an equal key of any kind, as lists in order of their first row (union-find)."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for values in keys:
        first: dict[Hashable, int] = {}
        for row, value in enumerate(values):
            a, b = root(row), root(first.setdefault(value, row))
            parent[max(a, b)] = min(a, b)
    groups: dict[int, list[int]] = {}
    for row in range(count):
        groups.setdefault(root(row), []).append(row)
    return list(groups.values())


def _choose(groups: Sequence[Sequence[int]], target: float, seed: int) -> list[int]:
    """Numbers of the groups for testing: at random while they fit, then one more if that comes closer to `target`."""
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    chosen: list[int] = []
    rows = 0
    for number in order:
        if rows + len(groups[number]) <= target:
            chosen.append(number)
            rows += len(groups[number])
    taken = set(chosen)
    left = [number for number in order if number not in taken]
    if len(left) > 1:  # one group stays for training
        best = min(left, key=lambda number: abs(rows + len(groups[number]) - target))
        if not chosen or abs(rows + len(groups[best]) - target) < abs(rows - target):
            chosen.append(best)
    return chosen
