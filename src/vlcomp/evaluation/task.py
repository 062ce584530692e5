"""What a benchmark is to vlcomp: a task that measures a model and returns a result."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .statistics import Interval, cluster_bootstrap

# Columns of the table of items, in order. Every task fills those that have a meaning for it.
ITEM_COLUMNS = (
    "task",
    "item_id",
    "subset",
    "cluster",
    "correct",
    "tie",
    "rank",
    "margin",
    "true_score",
    "false_score",
    "text",
    "false_text",
    "image",
    "false_image",
)


@dataclass(frozen=True)
class Score:
    """One number of a benchmark with what is needed to judge it.

    Args:
        value (`float`):
            The score, between 0 and 1.
        n (`int`):
            Number of items behind it.
        standard_error (`float`, *optional*):
            Bootstrap standard error.
        low (`float`, *optional*):
            Lower end of the 95 % interval.
        high (`float`, *optional*):
            Upper end of the 95 % interval.
        ties (`int`, *optional*):
            Number of tied items. Strict scores count them as wrong, reference scores as broken at random.
        chance (`float`, *optional*):
            Score of a random guess.
    """

    value: float
    n: int
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    ties: int | None = None
    chance: float | None = None

    @classmethod
    def from_interval(cls, interval: Interval, *, ties: int | None = None, chance: float | None = None) -> Score:
        """Make a score of an interval; what the interval cannot tell (NaN) is `None`."""
        spread = (interval.standard_error, interval.low, interval.high)
        error, low, high = (None if math.isnan(x) else x for x in spread)
        return cls(interval.value, interval.n, error, low, high, ties=ties, chance=chance)

    @classmethod
    def from_values(
        cls,
        values: Sequence[float] | np.ndarray,
        clusters: Sequence[Hashable] | None = None,
        *,
        ties: int | None = None,
        chance: float | None = None,
        strata: Sequence[Hashable] | None = None,
        weights: dict[Hashable, float] | None = None,
    ) -> Score:
        """Make a score of item values; arguments as in [`~vlcomp.evaluation.statistics.cluster_bootstrap`]."""
        interval = cluster_bootstrap(values, clusters, strata=strata, weights=weights)
        return cls.from_interval(interval, ties=ties, chance=chance)

    def to_dict(self) -> dict[str, float | int | None]:
        """The score as plain numbers."""
        return asdict(self)


@dataclass
class TaskResult:
    """What a task found out about a model.

    Args:
        task (`str`):
            Name of the task.
        version (`str`):
            Version of the task; scores of different versions cannot be compared.
        scores (`dict[str, Score]`):
            Scores by metric name (`"accuracy"`, `"image_to_text/recall@1"`).
        references (`dict[str, dict[str, Score]]`):
            Scores of the reference scorers, by scorer and metric name.
        items (`list[dict]`):
            One row for each item, with the columns `ITEM_COLUMNS`.
        config (`dict`):
            Everything that the scores depend on beside the model.
        headline (`str`, *optional*):
            The metric to quote.
        gallery (`list[dict]`):
            Randomly chosen items with thumbnails, for the report.
        warnings (`list[str]`):
            What a reader of the scores should know.
    """

    task: str
    version: str
    scores: dict[str, Score]
    references: dict[str, dict[str, Score]] = field(default_factory=dict)
    items: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    headline: str | None = None
    gallery: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def metrics(self) -> dict[str, float]:
        """Values by full name, `<task>/<subset>/<metric>`."""
        return {f"{self.task}/{name}": score.value for name, score in self.scores.items()}

    def to_dict(self) -> dict[str, Any]:
        """The part of a results file that belongs to the task."""
        headline = self.headline or next(iter(self.scores))
        return {
            "version": self.version,
            "n": self.scores[headline].n,
            "headline": headline,
            "scores": {name: score.to_dict() for name, score in self.scores.items()},
            "references": {
                scorer: {name: score.to_dict() for name, score in scores.items()}
                for scorer, scores in self.references.items()
            },
            "config": self.config,
            "warnings": self.warnings,
        }


class Task(ABC):
    """Base of all tasks.

    A task loads its items, hands each *distinct* image and text to the model once, and scores by the benchmark's own
    convention. A new benchmark is a subclass, most often of [`~vlcomp.evaluation.choice.ChoiceTask`], and an entry in
    `vlcomp.evaluation.registry`.

    Attributes:
        name (`str`):
            Name in result files, `<benchmark>` or `<benchmark>/<subset>`.
        version (`str`):
            Raised whenever a change alters scores.
        description (`str`):
            One line for `vlcomp tasks`.
        source (`str`):
            Where the benchmark comes from.
        licence (`str`):
            Licence of its data.
        citation (`str`):
            What to cite.
        convention (`str`):
            How it is scored and which average is the headline.
        headline (`str`):
            The metric to quote.
    """

    name: str = ""
    version: str = "1"
    description: str = ""
    source: str = ""
    licence: str = ""
    citation: str = ""
    convention: str = ""
    headline: str = "accuracy"

    @abstractmethod
    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model.

        Args:
            model ([`~vlcomp.Embedder`] or any object):
                With `encode_images(list of images)` and `encode_texts(list of str)`, both returning an array or tensor
                of shape [inputs, dimensions].
            progress (`bool`, defaults to `False`):
                Show progress bars.

        Returns:
            [`TaskResult`]

        Raises:
            EvaluationError: if the model's output cannot be scored.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, version={self.version!r})"
