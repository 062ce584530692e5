"""A few images of each class, drawn by seed, and the division of classes into base and novel ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import datasets

from ..errors import ArgumentError, DataError, check_count
from .classification_sets import ClassificationSet

# Images of each class to choose a checkpoint on: no more of them than one trains on (CoOp).
VALIDATION_SHOTS = 4


def few_shot(rows: datasets.Dataset, shots: int, *, seed: int = 0, name: str = "the data set") -> datasets.Dataset:
    """Draw some images of each class.

    The draw depends on the seed and the order of the rows of a class alone: it is the same in every process and on
    every machine, fewer shots are a part of more, and other classes do not change it.

    Args:
        rows (`datasets.Dataset`):
            With the column `label` (`ClassLabel`).
        shots (`int`):
            Images of each class.
        seed (`int`, defaults to 0):
            Seed of the draw.
        name (`str`, defaults to `"the data set"`):
            What to call the data in messages.

    Returns:
        `datasets.Dataset`: `shots` rows of each class, by class and then as in `rows`.

    Raises:
        DataError: if a class has fewer images; names it.

    Example:
        >>> from vlcomp.data.fewshot import few_shot
        >>> from vlcomp.data.scenes.classes import load_scenes_classes
        >>> rows = few_shot(load_scenes_classes("texture", size=20), 3, seed=1)
        >>> rows["label"][:]
        [0, 0, 0, 1, 1, 1]
    """
    check_count("shots", shots)
    check_count("seed", seed, 0)
    names = rows.features["label"].names
    by_class: list[list[int]] = [[] for _ in names]
    for row, label in enumerate(rows["label"]):
        by_class[label].append(row)
    chosen: list[int] = []
    for label, own in enumerate(by_class):
        if len(own) < shots:
            raise DataError(
                f"class {names[label]!r} of {name} has {len(own)} image{'s' * (len(own) != 1)}, fewer than the "
                f"{shots} shots; add images, leave the class out, or use at most {len(own)} shots"
            )
        # All of them are put in order and the first taken: four shots are then a part of sixteen.
        order = random.Random(f"few-shot/{seed}/{names[label]}").sample(own, len(own))
        chosen += sorted(order[:shots])
    return rows.select(chosen)


def few_shot_splits(
    data: ClassificationSet, shots: int, *, seed: int = 0
) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Draw images to train on, and a few to choose a checkpoint on.

    Args:
        data ([`~vlcomp.data.classification_sets.ClassificationSet`]):
            With a training split.
        shots (`int`):
            Training images of each class; of the validation split no more than 4 (CoOp's convention).
        seed (`int`, defaults to 0):
            Seed of the draw.

    Returns:
        `tuple[datasets.Dataset, datasets.Dataset | None]`: training and validation rows; no validation rows if the set
        has no such split.

    Raises:
        DataError: if a class has too few images; names it.
    """
    train = few_shot(data.split("train"), shots, seed=seed, name=f"the training split of {data.name!r}")
    if "validation" not in data.splits:
        return train, None
    count = min(VALIDATION_SHOTS, shots)
    where = f"the validation split of {data.name!r}"
    return train, few_shot(data.split("validation"), count, seed=seed, name=where)


def base_novel_labels(count: int) -> tuple[list[int], list[int]]:
    """Divide classes in halves, in the order of their labels; with an odd number the base half has one more (CoOp).

    Args:
        count (`int`):
            Number of classes, at least 4, so that both halves can be told wrong.

    Returns:
        `tuple[list[int], list[int]]`: labels of the base and of the novel classes.

    Raises:
        ArgumentError: if there are too few classes.

    Example:
        >>> from vlcomp.data.fewshot import base_novel_labels
        >>> base_novel_labels(5)
        ([0, 1, 2], [3, 4])
    """
    if count < 4:
        raise ArgumentError(f"count={count}: base and novel classes need at least two each, so four classes or more")
    middle = (count + 1) // 2
    return list(range(middle)), list(range(middle, count))


def select_classes(data: ClassificationSet, labels: Sequence[int], *, name: str | None = None) -> ClassificationSet:
    """Keep some classes of a set; they are numbered from 0 in the order given.

    Args:
        data ([`~vlcomp.data.classification_sets.ClassificationSet`]):
            The set.
        labels (`Sequence[int]`):
            Labels to keep.
        name (`str`, *optional*):
            What to call the result; as the set if not given.

    Returns:
        [`~vlcomp.data.classification_sets.ClassificationSet`]

    Raises:
        ArgumentError: if a label is none of the set, or comes twice.
    """
    count = len(data.class_names)
    bad = [label for label in labels if not 0 <= label < count]
    if bad or len(set(labels)) != len(labels) or not labels:
        what = f"{bad[0]} is not" if bad else "each must be given once and be"
        raise ArgumentError(f"labels={list(labels)!r}: {what} one of the {count} classes of {data.name!r}")
    new = {old: place for place, old in enumerate(labels)}
    names = [data.class_names[label] for label in labels]
    splits = {}
    for split, rows in data.splits.items():
        old = rows["label"][:]
        kept = rows.select([row for row, label in enumerate(old) if label in new]).remove_columns("label")
        column = [new[label] for label in old if label in new]
        with _no_bars():
            splits[split] = kept.add_column("label", column, feature=datasets.ClassLabel(names=names))
    return replace(data, name=name or data.name, class_names=tuple(names), splits=splits)


def base_and_novel(data: ClassificationSet) -> tuple[ClassificationSet, ClassificationSet]:
    """Divide a set into its base and its novel classes.

    Args:
        data ([`~vlcomp.data.classification_sets.ClassificationSet`]):
            The set.

    Returns:
        `tuple[ClassificationSet, ClassificationSet]`: see [`base_novel_labels`].

    Raises:
        ArgumentError: if there are fewer than four classes.

    Example:
        >>> from vlcomp.data.classification_sets import load_classification_set
        >>> from vlcomp.data.fewshot import base_and_novel
        >>> base, novel = base_and_novel(load_classification_set("scenes/colour"))
        >>> len(base.class_names), len(novel.class_names)
        (6, 5)
    """
    halves = base_novel_labels(len(data.class_names))
    base, novel = (select_classes(data, labels) for labels in halves)
    return base, novel


@contextmanager
def _no_bars() -> Iterator[None]:
    """Leave out the bar of a copy that takes no time."""
    disabled = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            datasets.enable_progress_bars()
