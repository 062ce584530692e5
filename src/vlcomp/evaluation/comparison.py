"""Runs side by side: paired differences item by item, and several seeds of one model as one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..data.rows import plural
from ..errors import ArgumentError
from .results import Report
from .statistics import Interval, PairedDifference, cluster_bootstrap, mean_interval, paired_difference, t_quantile

# Settings of a task that two runs may differ in and still have the same items.
_NO_MATTER = {"skipped_images", "references", "gallery"}
# Items that share an id but not their text are other items. A benchmark with several true texts names the closest
# one, which depends on the model; that never happens for nearly all of the items.
_OTHER_TEXTS = 0.9


class Column:
    """One model of a report: a run, or several runs that differ in nothing but the seed.

    Args:
        name (`str`):
            What to call it.
        members (`Sequence[Report]`):
            Its runs.

    Raises:
        ArgumentError: if there is no run, the runs have no task in common, or versions of a task differ.

    Example:
        >>> from vlcomp import evaluate
        >>> from vlcomp.evaluation.comparison import Column
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> settings = {"tasks": "scenes/swap_object", "size": 20, "progress": False}
        >>> runs = [evaluate(tiny_clip(seed=seed), tiny_processor(), **settings) for seed in (0, 1)]
        >>> Column("tiny", runs).report.results["runs"]
        2
    """

    def __init__(self, name: str, members: Sequence[Report]) -> None:
        if not members:
            raise ArgumentError(f"group {name!r} has no runs; name at least one")
        self.name, self.members = name, tuple(members)
        self.left_out: list[str] = []
        self.report = self.members[0] if len(members) == 1 else self._aggregate()

    def seeds(self, task: str, metric: str) -> list[float]:
        """The score of each run."""
        return [member.results["tasks"][task]["scores"][metric]["value"] for member in self.members]

    @cached_property
    def _rows(self) -> list[dict[str, list[dict[str, Any]]]]:
        found = []
        for member in self.members:
            tasks: dict[str, list[dict[str, Any]]] = {}
            for item in member.items:
                tasks.setdefault(item["task"], []).append(item)
            found.append(tasks)
        return found

    def items(self, task: str) -> dict[tuple[str | None, str], Item]:
        """Items of a task that all runs have, by subset and id.

        Args:
            task (`str`):
                Its name.

        Returns:
            `dict[tuple, Item]`
        """
        members = [{(r["subset"], r["item_id"]): r for r in rows.get(task, ())} for rows in self._rows]
        return {
            key: Item(row, float(np.mean([bool(member[key]["correct"]) for member in members])))
            for key, row in members[0].items()
            if all(key in member for member in members)
        }

    def _aggregate(self) -> Report:
        results = [member.results for member in self.members]
        common = [t for t in results[0]["tasks"] if all(t in r["tasks"] for r in results)]
        if not common:
            raise ArgumentError(f"the runs of group {self.name!r} have no task in common; leave one of them out")
        others = dict.fromkeys(t for r in results for t in r["tasks"] if t not in common)
        self.left_out = [f"{task}: not all {len(results)} runs have it" for task in others]
        tasks = {}
        for task in common:
            entries = [r["tasks"][task] for r in results]
            versions = sorted({entry["version"] for entry in entries})
            if len(versions) > 1:
                raise ArgumentError(
                    f"the runs of group {self.name!r} have task {task!r} in versions {' and '.join(versions)}, which "
                    "cannot be compared; evaluate them with one version of vlcomp"
                )
            metrics = [m for m in entries[0]["scores"] if all(m in entry["scores"] for entry in entries)]
            parts = [{(p["metric"], p["by"], p["group"]): p for p in e.get("breakdown", [])} for e in entries]
            shared = [key for key in parts[0] if all(key in found for found in parts)]
            tasks[task] = {
                # What runs may have been trained on differs; it stays with each of them.
                **{name: value for name, value in entries[0].items() if name != "leakage"},
                "breakdown": [_mean_score([found[key] for found in parts]) for key in shared],
                "scores": {m: _mean_score([entry["scores"][m] for entry in entries]) for m in metrics},
                "warnings": list(dict.fromkeys(w for entry in entries for w in entry.get("warnings", []))),
            }
        model = {**results[0]["model"], "name": self.name}
        return Report({**results[0], "model": model, "tasks": tasks, "runs": len(results)}, items=[])


def _mean_score(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over seeds; the interval is that of the mean over seeds, not over items."""
    interval = mean_interval([score["value"] for score in scores])
    ties = [score["ties"] for score in scores]
    return {
        **scores[0],
        "value": interval.value,
        "standard_error": interval.standard_error,
        # Student's interval knows nothing of the bounds of a proportion.
        "low": max(0.0, interval.low),
        "high": min(1.0, interval.high),
        "ties": None if None in ties else sum(ties),
    }


@dataclass(frozen=True)
class Item:
    """An item as a model answered it.

    Args:
        row (`dict`):
            Its row in the table of items; of the first run, if there are several.
        correct (`float`):
            1 if right, 0 if wrong; the share of runs that are right, if there are several.
    """

    row: dict[str, Any]
    correct: float


@dataclass(frozen=True)
class Difference:
    """One score of one model minus that of another.

    Args:
        metric (`str`):
            Name of the score within the task.
        paired ([`~vlcomp.evaluation.statistics.PairedDifference`]):
            Difference on the items that both have, with an interval over items.
        seeds ([`~vlcomp.evaluation.Interval`], *optional*):
            Difference of the means over seeds with Welch's interval, if both have at least two.
        exact (`bool`):
            Whether the McNemar test applies: each model is one run.
    """

    metric: str
    paired: PairedDifference
    seeds: Interval | None
    exact: bool

    @property
    def widest(self) -> Interval:
        """The interval over items or over seeds that leaves more open."""
        over = self.seeds
        items = self.paired.interval
        return items if over is None or not over.high - over.low > items.high - items.low else over


@dataclass(frozen=True)
class TaskComparison:
    """Two models on one task.

    Args:
        task (`str`):
            Its name.
        differences (`list[Difference]`):
            All items first, then each category; empty if they cannot be compared.
        matched (`int`):
            Number of items that both have.
        notes (`list[str]`):
            Why the comparison is not what it seems, or cannot be made.
    """

    task: str
    differences: list[Difference] = field(default_factory=list)
    matched: int = 0
    notes: list[str] = field(default_factory=list)


def compare(a: Column, b: Column, tasks: Sequence[str] | None = None) -> list[TaskComparison]:
    """Compare two models item by item: `a` minus `b`.

    Items are matched by task, category and id. The interval is a bootstrap over clusters of items; the p-value is
    McNemar's exact test, which takes items as independent.

    Args:
        a ([`Column`]):
            The one.
        b ([`Column`]):
            The other.
        tasks (`Sequence[str]`, *optional*):
            Names; all that both have if not given.

    Returns:
        `list[TaskComparison]`: one for each task that both have.

    Example:
        >>> from vlcomp import evaluate
        >>> from vlcomp.evaluation.comparison import Column, compare
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> settings = {"tasks": "scenes/swap_object", "size": 20, "progress": False}
        >>> a, b = (Column(str(s), [evaluate(tiny_clip(seed=s), tiny_processor(), **settings)]) for s in (0, 1))
        >>> compare(a, b)[0].matched
        20
    """
    ours, theirs = a.report.results["tasks"], b.report.results["tasks"]
    wanted = [task for task in ours if task in theirs and (tasks is None or task in tasks)]
    return [_compare_task(a, b, task) for task in wanted]


def _compare_task(a: Column, b: Column, task: str) -> TaskComparison:
    entries = [column.report.results["tasks"][task] for column in (a, b)]
    if "over" in entries[0]["config"]:
        return TaskComparison(task)  # a mean over other tasks, which are compared themselves
    versions = [entry["version"] for entry in entries]
    if versions[0] != versions[1]:
        return TaskComparison(
            task, notes=[f"versions {versions[0]} and {versions[1]} of the task differ; scores cannot be compared"]
        )
    first, second = a.items(task), b.items(task)
    lacking = [column.name for column, items in ((a, first), (b, second)) if not items]
    if lacking:
        return TaskComparison(task, notes=[f"no items are saved with {' and '.join(lacking)}"])
    keys = [key for key in first if key in second]
    notes = _config_notes(a, b, task, *(entry["config"] for entry in entries))
    if not keys:
        return TaskComparison(task, notes=[*notes, "items differ: no item id is in both"])
    if not same_items([(first[key].row["text"], second[key].row["text"]) for key in keys]):
        note = "items differ: those of the same id have another text; no comparison is made"
        return TaskComparison(task, notes=[*notes, note])
    for column, items in ((a, first), (b, second)):
        if len(items) > len(keys):
            notes.append(f"items differ: {plural(len(items) - len(keys), 'item')} only with {column.name}, left out")
    differences = []
    for metric, chosen in _parts(entries[0], keys).items():
        values = [np.array([items[key].correct for key in chosen]) for items in (first, second)]
        clusters = [first[key].row["cluster"] for key in chosen]
        differences.append(_difference(a, b, task, metric, values, clusters))
        if metric.startswith("micro/"):
            macro = _macro(a, b, task, metric.replace("micro/", "macro/"), values, chosen, clusters)
            differences += [macro] if macro else []
    return TaskComparison(task, differences, len(keys), notes)


def same_items(texts: Sequence[tuple[str, str]]) -> bool:
    """Whether items of the same ids are the same items, by their texts in two runs.

    Args:
        texts (`Sequence[tuple[str, str]]`):
            Text of each item in the one run and in the other.

    Returns:
        `bool`
    """
    return sum(first != second for first, second in texts) <= _OTHER_TEXTS * len(texts)


def _config_notes(a: Column, b: Column, task: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    names = [n for n in {**first, **second} if n not in _NO_MATTER and first.get(n) != second.get(n)]

    def short(value: Any) -> str:
        text = str(value)
        return text if len(text) <= 40 else f"{text[:37]}..."

    return [f"{n} is {short(first.get(n))} with {a.name}, {short(second.get(n))} with {b.name}" for n in names]


def _parts(
    entry: Mapping[str, Any], keys: Sequence[tuple[str | None, str]]
) -> dict[str, list[tuple[str | None, str]]]:
    """Items behind each score that is a mean over items: all of them, and each category."""
    names = list(entry["scores"])
    tails = {name.rpartition("/")[2] for name in names}
    ends = {key[1].rpartition("/")[2] for key in keys}
    # Where a task asks several questions of an item, the id of the row ends in the question.
    by_metric: dict[str, list[tuple[str | None, str]]] = {}
    for key in keys:
        metric = key[1].rpartition("/")[2] if ends <= tails else entry["headline"].rpartition("/")[2]
        by_metric.setdefault(metric, []).append(key)
    found: dict[str, list[tuple[str | None, str]]] = {}
    for metric, chosen in by_metric.items():
        subsets = list(dict.fromkeys(key[0] for key in chosen))
        parts = {f"{subset}/{metric}": [key for key in chosen if key[0] == subset] for subset in subsets}
        whole = next((name for name in (f"micro/{metric}", metric) if name in names), None)
        # Both directions of retrieval together are no score.
        if whole is not None or not any(name in names for name in parts):
            found[whole or f"all items/{metric}"] = chosen
        if len(subsets) > 1 or whole is None:
            found |= {name: part for name, part in parts.items() if name in names}
    return found


def _difference(
    a: Column, b: Column, task: str, metric: str, values: list[np.ndarray], clusters: list[Any]
) -> Difference:
    exact = len(a.members) == len(b.members) == 1
    return Difference(metric, paired_difference(*values, clusters), _over_seeds(a, b, task, metric), exact)


def _macro(
    a: Column,
    b: Column,
    task: str,
    metric: str,
    values: list[np.ndarray],
    keys: Sequence[tuple[str | None, str]],
    clusters: list[Any],
) -> Difference | None:
    """Difference of the averages over categories, if these are what the items say they are."""
    columns = (a, b)
    scores = [column.report.results["tasks"][task]["scores"].get(metric) for column in columns]
    subsets = np.array([str(key[0]) for key in keys])
    means = [np.mean([value[subsets == name].mean() for name in np.unique(subsets)]) for value in values]
    for score, mean in zip(scores, means, strict=True):
        # Some benchmarks leave small categories out of the average.
        if score is None or not math.isclose(score["value"], mean, abs_tol=1e-9):
            return None
    interval = cluster_bootstrap(values[0] - values[1], clusters, strata=subsets)
    return Difference(metric, PairedDifference(interval, 0, 0, math.nan), _over_seeds(a, b, task, metric), False)


def _over_seeds(a: Column, b: Column, task: str, metric: str) -> Interval | None:
    if len(a.members) < 2 or len(b.members) < 2:
        return None
    if any(metric not in column.report.results["tasks"][task]["scores"] for column in (a, b)):
        return None
    return welch_interval(a.seeds(task, metric), b.seeds(task, metric))


def welch_interval(a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Difference of two means over seeds with Welch's t-interval.

    Args:
        a (`Sequence[float]`):
            Results of the one, at least two.
        b (`Sequence[float]`):
            Results of the other, at least two.
        confidence (`float`, defaults to 0.95):
            Coverage.

    Returns:
        [`~vlcomp.evaluation.Interval`]: degrees of freedom are rounded down, which makes it a little wider.

    Raises:
        ArgumentError: if one has fewer than two results.

    Example:
        >>> from vlcomp.evaluation.comparison import welch_interval
        >>> interval = welch_interval([0.70, 0.72, 0.74], [0.60, 0.62, 0.64])
        >>> round(interval.value, 3), round(interval.low, 3), round(interval.high, 3)
        (0.1, 0.055, 0.145)
    """
    if min(len(a), len(b)) < 2:
        raise ArgumentError(f"welch_interval got {len(a)} and {len(b)} results; each needs at least two")
    squares = [float(np.var(values, ddof=1)) / len(values) for values in (a, b)]
    difference, total = float(np.mean(a) - np.mean(b)), sum(squares)
    if total == 0.0:
        return Interval(difference, 0.0, difference, difference, len(a) + len(b), len(a) + len(b))
    parts = sum(s * s / (len(v) - 1) for s, v in zip(squares, (a, b), strict=True))
    degrees = max(1, math.floor(total * total / parts + 1e-9))
    half = t_quantile((1 + confidence) / 2, degrees) * math.sqrt(total)
    count = len(a) + len(b)
    return Interval(difference, math.sqrt(total), difference - half, difference + half, count, count)
