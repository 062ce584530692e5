"""Items of several images and texts, and the comparisons of scores that make an answer right.

An item holds a few images and a few texts, true ones first. A *rule* lists comparisons "this score must be higher than
that one"; an item is right if all of them hold strictly. One pair of captions is a rule of one comparison, a choice
among K a rule of K - 1, Winoground's group score a rule of four.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np

from ..scoring import check_scores, settle

# ("it", i, t): image i with text t; ("tt", t, u): text t with text u.
Cell = tuple[str, int, int]
Comparison = tuple[Cell, Cell]
Rule = Callable[[int, int], tuple[Comparison, ...]]


@dataclass(frozen=True)
class Picture:
    """An image of an item.

    Args:
        name (`str`):
            File name, as the official file has it.
        box (`tuple[int, int, int, int]`, *optional*):
            Part of the picture to use: left, top, width, height.
        content (`bytes`, *optional*):
            The image file, where the official file holds it.
    """

    name: str
    box: tuple[int, int, int, int] | None = None
    content: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Item:
    """One item of a benchmark.

    Args:
        item_id (`str`):
            Unique name.
        images (`tuple[Picture, ...]`):
            Its images, the true one first.
        texts (`tuple[str, ...]`):
            Its texts, the true one first.
        subset (`str`, *optional*):
            Category.
        cluster (`Hashable`, *optional*):
            Items of one cluster are not independent; the first image if not given.
        tags (`frozenset[str]`):
            What else the official file says about it.
        group (`Hashable`, *optional*):
            Items that a benchmark scores together.
    """

    item_id: str
    images: tuple[Picture, ...]
    texts: tuple[str, ...]
    subset: str | None = None
    cluster: Hashable = None
    tags: frozenset[str] = frozenset()
    group: Hashable = None

    @property
    def independent(self) -> Hashable:
        """The unit that is drawn for intervals and limits."""
        return self.images[0].name if self.cluster is None else self.cluster


@dataclass
class Prepared:
    """Items that are measured, with the distinct images and texts that they use.

    Args:
        items (`list[Item]`):
            The items.
        sources (`list`):
            Distinct image sources.
        image_names (`list[str]`):
            Name of each image.
        texts (`list[str]`):
            Distinct texts.
        image_at (`list[tuple[int, ...]]`):
            Positions of each item's images.
        text_at (`list[tuple[int, ...]]`):
            Positions of each item's texts.
        skipped (`list[str]`):
            Images that were left out because that was asked for.
        partial (`list[str]`):
            What is missing or changed, against the official files.
    """

    items: list[Item]
    sources: list[Any] = field(default_factory=list)
    image_names: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    image_at: list[tuple[int, ...]] = field(default_factory=list)
    text_at: list[tuple[int, ...]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)


def choose_text(images: int, texts: int) -> tuple[Comparison, ...]:
    """The first text fits the first image better than each other text does."""
    return tuple((("it", 0, 0), ("it", 0, t)) for t in range(1, texts))


def choose_image(images: int, texts: int) -> tuple[Comparison, ...]:
    """The first text fits the first image better than it fits each other image."""
    return tuple((("it", 0, 0), ("it", i, 0)) for i in range(1, images))


def text_score(images: int, texts: int) -> tuple[Comparison, ...]:
    """Both images prefer their own text (Winoground's text score)."""
    return (("it", 0, 0), ("it", 0, 1)), (("it", 1, 1), ("it", 1, 0))


def image_score(images: int, texts: int) -> tuple[Comparison, ...]:
    """Both texts prefer their own image (Winoground's image score)."""
    return (("it", 0, 0), ("it", 1, 0)), (("it", 1, 1), ("it", 0, 1))


def group_score(images: int, texts: int) -> tuple[Comparison, ...]:
    """Text and image score are both right."""
    return text_score(images, texts) + image_score(images, texts)


@lru_cache(maxsize=4096)
def chance_of(comparisons: tuple[Comparison, ...]) -> float:
    """Probability that all comparisons hold when all scores are drawn at random.

    Args:
        comparisons (`tuple[Comparison, ...]`):
            What must be higher than what.

    Returns:
        `float`

    Example:
        >>> from vlcomp.evaluation.benchmarks.comparisons import chance_of, choose_text, group_score
        >>> chance_of(choose_text(1, 4)), chance_of(group_score(2, 2))
        (0.25, 0.16666666666666666)
    """
    if not comparisons:
        return 1.0
    if len({high for high, _ in comparisons}) == 1:
        return 1.0 / (1 + len({low for _, low in comparisons}))
    cells = sorted({cell for pair in comparisons for cell in pair})
    orders = list(permutations(range(len(cells))))
    rank = [dict(zip(cells, order, strict=True)) for order in orders]
    return sum(all(r[high] > r[low] for high, low in comparisons) for r in rank) / len(orders)


@dataclass
class Outcome:
    """Right or wrong by one rule, for each item.

    Args:
        correct (`np.ndarray` of shape [items], bool):
            All comparisons hold strictly.
        tie (`np.ndarray` of shape [items], bool):
            No comparison is lost and at least one is tied.
        margin (`np.ndarray` of shape [items]):
            The smallest difference.
        expected (`np.ndarray` of shape [items]):
            Probability of being right if ties are broken at random.
        chance (`np.ndarray` of shape [items]):
            Probability of being right by guessing.
        true_score (`np.ndarray` of shape [items]):
            The score that should be higher in the closest comparison.
        false_score (`np.ndarray` of shape [items]):
            The score that should be lower in the closest comparison.
        rank (`list[int | None]`):
            1 plus the number of wrong answers at least as high, where all comparisons share the right answer.
        closest (`list[Comparison]`):
            The closest comparison.
    """

    correct: np.ndarray
    tie: np.ndarray
    margin: np.ndarray
    expected: np.ndarray
    chance: np.ndarray
    true_score: np.ndarray
    false_score: np.ndarray
    rank: list[int | None]
    closest: list[Comparison]


Scorer = Callable[[list[int], Cell], np.ndarray]


def judge(items: Sequence[Item], rule: Rule, score: Scorer) -> Outcome:
    """Apply a rule to items.

    Args:
        items (`Sequence[Item]`):
            The items.
        rule (`Rule`):
            From numbers of images and texts to comparisons.
        score (`Callable`):
            `score(positions, cell)` gives the scores of a cell for the items at `positions`.

    Returns:
        [`Outcome`]

    Raises:
        EvaluationError: naming the first item with a score that is not finite.
    """
    count = len(items)
    outcome = Outcome(
        *(np.zeros(count, dtype=bool) for _ in range(2)),
        *(np.zeros(count) for _ in range(5)),
        rank=[None] * count,
        closest=[(("it", 0, 0), ("it", 0, 0))] * count,
    )
    shapes: dict[tuple[int, int], list[int]] = {}
    for position, item in enumerate(items):
        shapes.setdefault((len(item.images), len(item.texts)), []).append(position)
    for shape, positions in shapes.items():
        comparisons = rule(*shape)
        cells = {cell: score(positions, cell) for cell in dict.fromkeys(c for pair in comparisons for c in pair)}
        check_scores(np.stack(list(cells.values()), axis=1), [items[p].item_id for p in positions])
        margins = settle(np.stack([cells[high] - cells[low] for high, low in comparisons], axis=1))
        closest = margins.argmin(axis=1)
        at = np.array(positions)
        outcome.correct[at] = (margins > 0).all(axis=1)
        outcome.margin[at] = margins.min(axis=1)
        outcome.tie[at] = outcome.margin[at] == 0
        outcome.chance[at] = chance_of(comparisons)
        outcome.expected[at] = _expected(margins, comparisons)
        shared = len({high for high, _ in comparisons}) == 1
        for row, position in enumerate(positions):
            high, low = outcome.closest[position] = comparisons[closest[row]]
            outcome.true_score[position], outcome.false_score[position] = cells[high][row], cells[low][row]
            outcome.rank[position] = int(1 + (margins[row] <= 0).sum()) if shared else None
    return outcome


def _expected(margins: np.ndarray, comparisons: tuple[Comparison, ...]) -> np.ndarray:
    expected = (margins > 0).all(axis=1).astype(float)
    for row in np.flatnonzero(margins.min(axis=1) == 0):
        expected[row] = chance_of(tuple(c for c, m in zip(comparisons, margins[row], strict=True) if m == 0))
    return expected
