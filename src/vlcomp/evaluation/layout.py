"""What a report of one or more models shows, before it becomes HTML or Markdown."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ArgumentError
from .comparison import Column, Difference, TaskComparison, compare
from .results import Report, task_warnings
from .statistics import Interval

_TITLES = {
    "scenes": "Scenes: choosing the true caption",
    "scenes/systematic": "Scenes: unseen colour-noun pairs",
    "scenes/retrieval": "Scenes: retrieval",
    "scenes/winoground": "Scenes: two pictures, two captions",
    "scenes/classification": "Scenes: classification by drawing style",
    "retrieval": "Retrieval",
    "caption_choice": "Choosing the true caption",
    "image_choice": "Choosing the true image",
    "zero_shot_classification": "Zero-shot classification",
    "aro": "ARO",
    "whatsup": "What'sUp",
    "crepe": "CREPE",
    "negbench": "NegBench",
    "spec": "SPEC",
}
# Label and meaning of the reference scorers, in the order of tables.
SCORERS = {
    "text_only": ("text only, n-gram", "sees the caption but no picture; learned from true captions"),
    "text_only_classifier": (
        "text only, classifier",
        "sees no picture; learned to tell true captions from false ones",
    ),
    "bag_of_words": ("bag of words", "knows which words are true of the picture, not how they belong together"),
    "majority": ("majority", "gives every item the more frequent answer"),
}


def make_columns(
    reports: Sequence[Report],
    *,
    names: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[Report]] | None = None,
) -> list[Column]:
    """The models of a report: single runs first, then groups of runs.

    Args:
        reports (`Sequence[Report]`):
            Single runs.
        names (`Sequence[str]`, *optional*):
            What to call them; the last part of the model's name if not given.
        groups (`Mapping[str, Sequence[Report]]`, *optional*):
            Runs that differ in nothing but the seed, by the name of the group.

    Returns:
        `list[Column]`

    Raises:
        ArgumentError: if there is nothing, or names do not fit.
    """
    if not reports and not groups:
        raise ArgumentError("there is no report to write; pass at least one")
    if names is not None and len(names) != len(reports):
        raise ArgumentError(f"names has {len(names)} entries for {len(reports)} reports; give one for each")
    labels = _distinct_names(reports) if names is None else list(names)
    columns = [Column(name, [report]) for name, report in zip(labels, reports, strict=True)]
    columns += [Column(name, members) for name, members in (groups or {}).items()]
    labels = [column.name for column in columns]
    twice = next((name for name in labels if labels.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(f"the name {twice!r} is given twice; give each run or group another one")
    return columns


def short_name(name: str) -> str:
    """The last part of a path or hub name; a name with blanks ("CLIP ViT-B/32") is neither."""
    return name if " " in name else os.path.basename(name.rstrip("/")) or name


def _distinct_names(reports: Sequence[Report]) -> list[str]:
    short = [short_name(report.name) for report in reports]
    names: list[str] = []
    for report, name in zip(reports, short, strict=True):
        candidate = report.name if short.count(name) > 1 else name
        number = 2
        while candidate in names:
            candidate, number = f"{report.name} ({number})", number + 1
        names.append(candidate)
    return names


# -- sections and rows -------------------------------------------------------------------------------------


def all_tasks(columns: Sequence[Column]) -> list[str]:
    """Tasks that any of the models has, in order."""
    return list(dict.fromkeys(task for column in columns for task in column.report.results["tasks"]))


def make_sections(columns: Sequence[Column]) -> dict[str, list[str]]:
    """Tasks by section."""
    found: dict[str, list[str]] = {}
    for task in all_tasks(columns):
        found.setdefault(_section_of(task), []).append(task)
    order = list(_TITLES)
    return dict(sorted(found.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)))


def _section_of(task: str) -> str:
    return task if task in _TITLES else task.rpartition("/")[0] or task


def section_title(key: str) -> str:
    """Heading of a section."""
    facts = facts_of(key)
    return _TITLES.get(key) or (facts.title if facts else words(key).capitalize())


def words(text: str) -> str:
    """A name as people write it."""
    return text.replace("_", " ").replace("@", " @ ")


def facts_of(task: str) -> Any:
    """Facts of a benchmark, or `None` if the task has none."""
    from .registry import list_tasks

    return next((info.facts for info in list_tasks() if info.name == task), None)


def row_label(task: str, metric: str, section: str) -> str:
    """What to call a score within a section."""
    name = words(task.removeprefix(f"{section}/")) if task != section else ""
    short = words(metric).replace("recall @ ", "R@").replace("/", ", ")
    short = short.replace("image to text, ", "image → text ").replace("text to image, ", "text → image ")
    short = short.removesuffix(", accuracy")
    if not name:
        return short
    return name if metric == "accuracy" else f"{name}: {short}"


@dataclass(frozen=True)
class ScoreRow:
    """A score of all models.

    Args:
        label (`str`):
            What to call it.
        task (`str`):
            Its task.
        metric (`str`):
            Its name within the task.
        scores (`list[dict | None]`):
            The score of each model.
        references (`dict[str, dict]`):
            Scores of the reference scorers.
        chance (`float`, *optional*):
            Score of a random guess.
        headline (`bool`):
            Whether it is the number to quote.
    """

    label: str
    task: str
    metric: str
    scores: list[dict[str, Any] | None]
    references: dict[str, dict[str, Any]]
    chance: float | None
    headline: bool


def score_rows(section: str, tasks: Sequence[str], columns: Sequence[Column]) -> list[ScoreRow]:
    """All scores of a section."""
    rows = []
    for task in tasks:
        results = [column.report.results["tasks"].get(task) for column in columns]
        headline = next(result["headline"] for result in results if result)
        for metric in dict.fromkeys(m for result in results if result for m in result["scores"]):
            scores = [(result or {"scores": {}})["scores"].get(metric) for result in results]
            references: dict[str, dict[str, Any]] = {}
            for result in results:
                for scorer, values in (result or {"references": {}})["references"].items():
                    if metric in values:
                        references.setdefault(scorer, values[metric])
            chance = next(score["chance"] for score in scores if score is not None)
            label = row_label(task, metric, section)
            rows.append(ScoreRow(label, task, metric, scores, references, chance, metric == headline))
    return rows


def used_scorers(rows: Sequence[ScoreRow]) -> list[str]:
    """Reference scorers that any of the rows has, in order."""
    used = {scorer for row in rows for scorer in row.references}
    return [s for s in SCORERS if s in used] + sorted(used - set(SCORERS))


def scorer_label(scorer: str) -> str:
    """Name of a reference scorer for people."""
    return SCORERS.get(scorer, (words(scorer), ""))[0]


def number(value: float | None) -> str:
    """A score with three digits; chance in a large gallery needs more."""
    return "" if value is None else f"{value:.5f}" if 0 < value < 0.001 else f"{value:.3f}"


def interval_text(score: Mapping[str, Any]) -> str:
    """Ends of the interval of a score."""
    return "" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}"


def signed(value: float) -> str:
    """A difference with its sign; a zero has none."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def between(interval: Interval | None) -> str:
    """Ends of the interval of a difference; nothing if there is none."""
    return "" if interval is None or math.isnan(interval.low) else f"{signed(interval.low)} to {signed(interval.high)}"


def p_text(difference: Difference) -> str:
    """The p-value of a difference, where McNemar's test applies."""
    if not difference.exact:
        return ""
    value = difference.paired.p_value
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# -- published scores --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PublishedTable:
    """Scores of a benchmark beside those that others published.

    Args:
        task (`str`):
            Name of the benchmark.
        header (`list[str]`):
            Models: those of the report, then the published ones.
        rows (`list[tuple[str, list[float | None]]]`):
            A score and its value for each model.
        sources (`list[str]`):
            Where the numbers are published.
        notes (`list[str]`):
            What limits the comparison.
    """

    task: str
    header: list[str]
    rows: list[tuple[str, list[float | None]]]
    sources: list[str]
    notes: list[str] = field(default_factory=list)


def published_table(task: str, columns: Sequence[Column]) -> PublishedTable | None:
    """Published scores of a task beside those of the models, or `None` if there are none.

    Args:
        task (`str`):
            Name of the task.
        columns (`Sequence[Column]`):
            The models.

    Returns:
        [`PublishedTable`] or `None`
    """
    facts = facts_of(task)
    published = [] if facts is None else [*facts.published, *([facts.human] if facts.human else [])]
    measured = [column for column in columns if task in column.report.results["tasks"]]
    if not published or not measured:
        return None
    tasks = [column.report.results["tasks"][task] for column in measured]
    order = list(dict.fromkeys(m for result in tasks for m in result["scores"]))
    wanted = dict.fromkeys(m for entry in published for m in entry.scores)
    metrics = sorted(wanted, key=lambda m: order.index(m) if m in order else len(order))
    rows = [
        (
            row_label(task, metric, task),
            [result["scores"].get(metric, {}).get("value") for result in tasks]
            + [entry.scores.get(metric) for entry in published],
        )
        for metric in metrics
    ]
    sources = [f"{entry.model}: {entry.source}" for entry in published]
    notes = [facts.notes] if facts.notes else []
    partly = [c.name for c, r in zip(measured, tasks, strict=True) if r["config"].get("official") is False]
    if partly:
        notes.append(
            f"Not measured on the whole official benchmark, so published scores do not compare: {', '.join(partly)}."
        )
    # A model of the report may have the name of a published one.
    header = [column.name for column in measured]
    header += [entry.model if entry is facts.human else f"{entry.model}, published" for entry in published]
    return PublishedTable(task, header, rows, sources, notes)


def warning_lines(columns: Sequence[Column]) -> list[str]:
    """What a reader must know, each once with the models that it concerns."""
    found: dict[str, list[str]] = {}
    for column in columns:
        lines = [f"left out {text}" for text in column.left_out]
        lines += task_warnings(column.report.results["tasks"], words)
        for line in dict.fromkeys(lines):
            found.setdefault(line, []).append(column.name)
    several = len(columns) > 1

    def who(names: list[str]) -> str:
        return "" if not several else "all models: " if len(names) == len(columns) else f"{', '.join(names)}: "

    return [who(names) + line for line, names in found.items()]


# -- comparisons -------------------------------------------------------------------------------------------


def comparisons(columns: Sequence[Column]) -> list[tuple[Column, dict[str, TaskComparison]]]:
    """Each model but the first against the first.

    Args:
        columns (`Sequence[Column]`):
            The models; the first is the baseline.

    Returns:
        `list[tuple[Column, dict[str, TaskComparison]]]`
    """
    return [(column, {c.task: c for c in compare(column, columns[0])}) for column in columns[1:]]


def labelled_differences(section: str, compared: Sequence[TaskComparison]) -> Iterator[tuple[str, Difference]]:
    """Label and difference of each part of the comparisons of a section."""
    for comparison in compared:
        for difference in comparison.differences:
            yield row_label(comparison.task, difference.metric, section), difference


# -- trade-offs --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TradeOff:
    """Compositionality against what a model may lose for it.

    Args:
        title (`str`):
            What is drawn.
        x_label (`str`):
            What is to the right.
        values (`list[tuple[int, float, float]]`):
            Number of the model, score to the right, compositionality.
        x_tasks (`list[str]`):
            Tasks behind the score to the right.
        y_tasks (`list[str]`):
            Tasks behind compositionality.
    """

    title: str
    x_label: str
    values: list[tuple[int, float, float]]
    x_tasks: list[str]
    y_tasks: list[str]


def trade_offs(columns: Sequence[Column]) -> list[TradeOff]:
    """Planes of compositionality against zero-shot classification and against retrieval.

    Args:
        columns (`Sequence[Column]`):
            The models.

    Returns:
        `list[TradeOff]`: for each kind of task that at least two models have in common, beside compositional ones.
    """
    kinds = {"zero_shot": "zero-shot classification", "retrieval": "retrieval"}
    found = []
    for kind, label in kinds.items():
        chosen = [
            (i, column)
            for i, column in enumerate(columns)
            if all(any(_kind(t) == k for t in column.report.results["tasks"]) for k in (kind, "compositional"))
        ]
        if len(chosen) < 2:
            continue
        common = [t for t in all_tasks(columns) if all(t in c.report.results["tasks"] for _, c in chosen)]
        if "scenes/mean" in common:
            # The mean stands for what is compositional in Scenes.
            common = [
                t for t in common if t == "scenes/mean" or not t.startswith("scenes/") or _kind(t) != "compositional"
            ]
        x_tasks = [t for t in common if _kind(t) == kind]
        y_tasks = [t for t in common if _kind(t) == "compositional"]
        if not x_tasks or not y_tasks:
            continue
        values = [(i, _mean_headline(column, x_tasks), _mean_headline(column, y_tasks)) for i, column in chosen]
        found.append(TradeOff(f"Compositionality against {label}", label, values, x_tasks, y_tasks))
    return found


def _kind(task: str) -> str | None:
    """What a task is about, as far as trade-offs go."""
    from .benchmarks import BENCHMARKS, ImageNetTask, OfficialRetrieval

    if task.startswith("scenes/"):
        part = task.split("/")[1]
        return {"retrieval": "retrieval", "classification": "zero_shot"}.get(part, "compositional")
    if task in ("retrieval", "zero_shot_classification"):
        return task.removesuffix("_classification")
    if task in ("caption_choice", "image_choice"):
        return "compositional"
    known: Callable[[str], Any] = {benchmark.facts.name: benchmark for benchmark in BENCHMARKS}.get
    benchmark = known(task)
    if benchmark is None:
        return None
    if issubclass(benchmark, ImageNetTask):
        return "zero_shot"
    if issubclass(benchmark, OfficialRetrieval):
        # Retrieval with negated captions measures both, and says nothing of what composition costs.
        return None if "negated" in task else "retrieval"
    return "compositional"


def _mean_headline(column: Column, tasks: Sequence[str]) -> float:
    entries = [column.report.results["tasks"][task] for task in tasks]
    return sum(entry["scores"][entry["headline"]]["value"] for entry in entries) / len(entries)
