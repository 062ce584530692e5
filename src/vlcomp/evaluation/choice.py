"""Forced choice between a true and a false pair of image and text: the common part of most benchmarks."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import DataError, check_count
from .encoding import check_model, embed_images, embed_texts, pair_scores, unreadable_images
from .gallery import build_gallery
from .scoring import PairComparison, compare_pairs
from .task import Score, Task, TaskResult


@dataclass(frozen=True)
class Choice:
    """One item: which image and text belong together, and which do not.

    Args:
        item_id (`str`):
            Name of the item, unique within the task.
        image (`int`):
            Position of the true pair's image in [`ChoiceItems.images`].
        text (`int`):
            Position of the true pair's text in [`ChoiceItems.texts`].
        false_image (`int`):
            Position of the false pair's image.
        false_text (`int`):
            Position of the false pair's text.
        cluster (`Hashable`):
            Items of one cluster are not independent (one image, one sentence).
        subset (`str`, *optional*):
            Category of the item.
    """

    item_id: str
    image: int
    text: int
    false_image: int
    false_text: int
    cluster: Hashable
    subset: str | None = None


@dataclass
class ChoiceItems:
    """The items of a task and the distinct images and texts that they use.

    Args:
        images (`list`):
            Distinct image sources.
        image_names (`list[str]`):
            Name of each image, for tables and messages.
        texts (`list[str]`):
            Distinct texts.
        choices (`list[Choice]`):
            The items.
        skipped (`list[str]`):
            Images that could not be read and were skipped because that was asked for.
        extras (`dict[str, list]`):
            Further columns, one entry for each item, for the task's own reference scorers.
    """

    images: list[Any]
    image_names: list[str]
    texts: list[str]
    choices: list[Choice]
    skipped: list[str] = field(default_factory=list)
    extras: dict[str, list] = field(default_factory=dict)

    def keep(self, positions: Sequence[int]) -> ChoiceItems:
        """The same items with only those at `positions`, and only the images and texts that they use."""
        choices = [self.choices[i] for i in positions]
        images = sorted({i for c in choices for i in (c.image, c.false_image)})
        texts = sorted({t for c in choices for t in (c.text, c.false_text)})
        image_at, text_at = ({old: new for new, old in enumerate(used)} for used in (images, texts))
        return ChoiceItems(
            [self.images[i] for i in images],
            [self.image_names[i] for i in images],
            [self.texts[t] for t in texts],
            [
                replace(
                    c,
                    image=image_at[c.image],
                    false_image=image_at[c.false_image],
                    text=text_at[c.text],
                    false_text=text_at[c.false_text],
                )
                for c in choices
            ],
            self.skipped,
            {name: [column[i] for i in positions] for name, column in self.extras.items()},
        )

    def true_texts(self) -> list[str]:
        """The true text of each item."""
        return [self.texts[c.text] for c in self.choices]

    def false_texts(self) -> list[str]:
        """The false text of each item."""
        return [self.texts[c.false_text] for c in self.choices]


class Indexer:
    """Gives each distinct value its position in a list."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[Hashable, int] = {}

    def __call__(self, key: Hashable, value: Any = None) -> int:
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(key if value is None else value)
        return self._known[key]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._known

    @property
    def keys(self) -> list[Hashable]:
        """The keys, in the order of their positions."""
        return list(self._known)


class ChoiceTask(Task):
    """Base of tasks that compare a true with a false pair.

    A subclass loads its items; encoding, strict scoring, intervals, the table of items and the gallery are here.

    Args:
        limit (`int`, *optional*):
            Measure on about this many items: whole clusters, drawn at random with a fixed seed.
        references (`bool`, defaults to `True`):
            Also score the reference scorers.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out items whose image cannot be read, and count them, instead of raising.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.
    """

    chance = 0.5

    def __init__(
        self,
        *,
        limit: int | None = None,
        references: bool = True,
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        self.limit = check_limit(limit)
        self.references = references
        self.skip_bad_images = skip_bad_images
        self.gallery = gallery

    @abstractmethod
    def load(self) -> ChoiceItems:
        """Read all items.

        Returns:
            [`ChoiceItems`]

        Raises:
            DataError: if files are missing or malformed.
        """

    @cached_property
    def items(self) -> ChoiceItems:
        """The items that are measured: loaded once, limited, bad images left out if asked."""
        items = self.load()
        if not items.choices:
            raise DataError(f"task {self.name!r} has no items")
        if self.limit is not None:
            items = items.keep(sample_clusters([c.cluster for c in items.choices], self.limit))
        if self.skip_bad_images:
            bad = unreadable_images(items.images, items.image_names)
            good = [i for i, c in enumerate(items.choices) if c.image not in bad and c.false_image not in bad]
            if not good:
                raise DataError(
                    f"task {self.name!r}: none of its images can be read, first {next(iter(bad.values()))}"
                )
            if bad:
                items = items.keep(good)
                items.skipped = [*items.skipped, *bad.values()]
        return items

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model; subclasses add their data."""
        return {"limit": self.limit, "scoring": "strict"}

    def scores(self, items: ChoiceItems, outcome: PairComparison) -> dict[str, Score]:
        """The task's numbers; more than one if it has subsets or several averages."""
        return {
            "accuracy": Score.from_values(
                outcome.correct, [c.cluster for c in items.choices], ties=int(outcome.tie.sum()), chance=self.chance
            )
        }

    def reference_scores(self, items: ChoiceItems, *, progress: bool = False) -> dict[str, dict[str, Score]]:
        """Scores of scorers that lack what the task is about; none unless a subclass has some."""
        return {}

    @cached_property
    def _references(self) -> dict[str, dict[str, Score]]:
        return self.reference_scores(self.items) if self.references else {}

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`Task.run`]."""
        check_model(model)
        items = self.items
        warnings: list[str] = []
        images = embed_images(model, items.images, items.image_names, warnings, progress=progress)
        texts = embed_texts(model, items.texts, warnings, progress=progress)
        index = {
            name: np.array([getattr(c, name) for c in items.choices], dtype=np.int64)
            for name in ("image", "text", "false_image", "false_text")
        }
        # In one call, so that a pair scorer can read each image once for all of its texts.
        scores = pair_scores(
            images,
            texts,
            np.concatenate([index["image"], index["false_image"]]),
            np.concatenate([index["text"], index["false_text"]]),
        )
        true_scores, false_scores = np.split(scores, 2)
        outcome = compare_pairs(true_scores, false_scores, item_ids=[c.item_id for c in items.choices])
        rows = self._rows(items, outcome, true_scores, false_scores)
        config = {**self.config(), "images": len(items.images), "texts": len(items.texts)}
        if self.skip_bad_images:
            config |= {"skip_bad_images": True, "skipped": len(items.skipped), "skipped_images": items.skipped}
        if items.skipped:
            warnings.append(f"{len(items.skipped)} images could not be read; their items are left out")
        return TaskResult(
            task=self.name,
            version=self.version,
            scores=self.scores(items, outcome),
            references=self._references,
            items=rows,
            config=config,
            headline=self.headline,
            gallery=build_gallery(rows, self._pictures, seed=self.name) if self.gallery else [],
            warnings=warnings,
        )

    def _pictures(self, position: int) -> list[Any]:
        choice = self.items.choices[position]
        different = [] if choice.false_image == choice.image else [choice.false_image]
        return [self.items.images[i] for i in (choice.image, *different)]

    def _rows(
        self, items: ChoiceItems, outcome: PairComparison, true_scores: np.ndarray, false_scores: np.ndarray
    ) -> list[dict[str, Any]]:
        return [
            {
                "task": self.name,
                "item_id": c.item_id,
                "subset": c.subset,
                "cluster": str(c.cluster),
                "correct": bool(outcome.correct[i]),
                "tie": bool(outcome.tie[i]),
                "margin": float(outcome.margin[i]),
                "true_score": float(true_scores[i]),
                "false_score": float(false_scores[i]),
                "text": items.texts[c.text],
                "false_text": items.texts[c.false_text] if c.false_text != c.text else None,
                "image": items.image_names[c.image],
                "false_image": items.image_names[c.false_image] if c.false_image != c.image else None,
            }
            for i, c in enumerate(items.choices)
        ]


def check_limit(limit: int | None) -> int | None:
    """Refuse a limit below one."""
    if limit is not None:
        check_count("limit", limit, note=", or None for all items")
    return limit


def sample_clusters(clusters: Sequence[Hashable], limit: int) -> list[int]:
    """Draw whole clusters, with a fixed seed, until there are at least `limit` items.

    Args:
        clusters (`Sequence` of shape [items]):
            Cluster of each item.
        limit (`int`):
            Number of items wanted.

    Returns:
        `list[int]`: positions in order.
    """
    if limit >= len(clusters):
        return list(range(len(clusters)))
    members: dict[Hashable, list[int]] = {}
    for position, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(position)
    order = list(members)
    random.Random("vlcomp limit").shuffle(order)
    chosen: list[int] = []
    for cluster in order:
        if len(chosen) >= limit:
            break
        chosen += members[cluster]
    return sorted(chosen)


def averaged_scores(
    subsets: Sequence[str],
    outcome: PairComparison,
    clusters: Sequence[Hashable],
    *,
    groups: Mapping[str, str] | None = None,
    chance: float = 0.5,
    expected: bool = False,
) -> dict[str, Score]:
    """The averages in use for a benchmark of several categories, each by its name.

    Args:
        subsets (`Sequence[str]` of shape [items]):
            Category of each item.
        outcome ([`~vlcomp.evaluation.scoring.PairComparison`]):
            Right or wrong.
        clusters (`Sequence` of shape [items]):
            Cluster of each item.
        groups (`Mapping[str, str]`, *optional*):
            Group of each category, for the mean over groups of the mean over categories.
        chance (`float`, defaults to 0.5):
            Score of a random guess.
        expected (`bool`, defaults to `False`):
            Count a tie one half (reference scorers).

    Returns:
        `dict[str, Score]`: `micro/accuracy` (over items), `macro/accuracy` (over categories), `macro_groups/accuracy`
        if there are groups, and `<category>/accuracy`.
    """
    values = outcome.expected if expected else outcome.correct.astype(float)
    names = list(dict.fromkeys(subsets))
    ties = int(outcome.tie.sum())
    scores = {
        "micro/accuracy": Score.from_values(values, clusters, ties=ties, chance=chance),
        "macro/accuracy": Score.from_values(values, clusters, strata=subsets, ties=ties, chance=chance),
    }
    if groups is not None:
        sizes: dict[str, int] = {}
        for name in names:
            sizes[groups[name]] = sizes.get(groups[name], 0) + 1
        weights: dict[Hashable, float] = {name: 1.0 / (len(sizes) * sizes[groups[name]]) for name in names}
        scores["macro_groups/accuracy"] = Score.from_values(
            values, clusters, strata=subsets, weights=weights, ties=ties, chance=chance
        )
    labels = np.array(subsets, dtype=object)
    for name in names:
        rows = np.flatnonzero(labels == name)
        scores[f"{name}/accuracy"] = Score.from_values(
            values[rows], [clusters[i] for i in rows], ties=int(outcome.tie[rows].sum()), chance=chance
        )
    return scores
