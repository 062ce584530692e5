"""Results as cards show them: the model index, tables, and what got worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult

from .._version import __version__
from ..evaluation.comparison import Column, Difference, compare
from ..evaluation.layout import facts_of, signed
from ..evaluation.results import Report, markdown_table
from ..evaluation.statistics import mean_interval

# Rows of a table beyond which a card shows one score a task.
_LONG = 60
_TASK_TYPES = {
    "retrieval": ("image-text-retrieval", "Image-text retrieval"),
    "classification": ("zero-shot-image-classification", "Zero-shot image classification"),
    "choice": ("image-text-matching", "Choosing the true caption or image"),
}


@dataclass(frozen=True)
class StudyFacts:
    """What a card needs of a method's study.

    Args:
        title (`str`):
            Heading.
        table (`str`):
            Configurations and scores, as Markdown.
        notes (`str`):
            What stands under it.
        runs (`Sequence[Mapping]`):
            Result files.
        columns (`Mapping[str, str]`):
            Metric to heading.
        percent (`bool`):
            Whether the table shows metrics times 100.
        command (`str`):
            Command that recreates it.
        parts (`Sequence[StudyFacts]`):
            Further studies of the method that have results.
        task (`str`, defaults to `""`):
            Task of all metrics, where their names do not begin with it.
    """

    title: str
    table: str
    notes: str
    runs: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str]
    percent: bool
    command: str
    parts: Sequence[StudyFacts] = field(default_factory=tuple)
    task: str = ""


def bullets(lines: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def _task_type(task: str, metric: str) -> tuple[str, str]:
    if "recall" in metric or "retrieval" in task:
        return _TASK_TYPES["retrieval"]
    if "classification" in task or "linear_probe" in task or "imagenet" in task:
        return _TASK_TYPES["classification"]
    return _TASK_TYPES["choice"]


def report_results(report: Report) -> list[EvalResult]:
    """Every score of a report, for the model index; the interval and the number of items are arguments of it."""
    found = []
    for task, result in report.results["tasks"].items():
        facts = facts_of(task)
        for metric, score in result["scores"].items():
            kind, title = _task_type(task, metric)
            args = {"n": score["n"]}
            if score["low"] is not None:
                args |= {"low": round(score["low"], 4), "high": round(score["high"], 4)}
            found.append(
                EvalResult(
                    task_type=kind,
                    task_name=title,
                    dataset_type=task.split("/")[0],
                    dataset_name=facts.title if facts else task,
                    dataset_config=task,
                    dataset_revision=str(result["version"]),
                    metric_type=metric.rpartition("/")[2],
                    metric_name=f"{task}/{metric}",
                    metric_value=round(score["value"], 4),
                    metric_args=args,
                )
            )
    return found


def study_results(study: StudyFacts) -> list[EvalResult]:
    """Every cell of a study's table, for the model index."""
    found = []
    for name in dict.fromkeys(run["configuration"] for run in study.runs):
        for metric, heading in study.columns.items():
            values = [
                run["metrics"][metric]
                for run in study.runs
                if run["configuration"] == name and metric in run["metrics"]
            ]
            if not values:
                continue
            interval = mean_interval(values)
            args: dict[str, Any] = {"configuration": name, "seeds": len(values)}
            if len(values) > 1:
                args |= {"low": round(interval.low, 4), "high": round(interval.high, 4)}
            full = f"{study.task}/{metric}" if study.task else metric
            kind, title = _task_type(full, full)
            found.append(
                EvalResult(
                    task_type=kind,
                    task_name=title,
                    dataset_type=full.split("/")[0],
                    dataset_name=full.rpartition("/")[0],
                    dataset_config=full.rpartition("/")[0],  # entries of one configuration are put together
                    metric_type=full.rpartition("/")[2],
                    metric_name=f"{heading} ({name})",
                    metric_value=round(interval.value, 4),
                    metric_args=args,
                )
            )
    return found


def scores_text(report: Report | None) -> str:
    """The table of scores, and how to read it; says so if nothing was measured."""
    if report is None:
        return "Nothing was measured on this model before it was pushed."
    count = sum(len(result["scores"]) for result in report.results["tasks"].values())
    table = report.to_markdown(headlines=count > _LONG).partition("\nwarning: ")[0]  # warnings stand under limits
    more = (
        "" if count <= _LONG else f" One score a task of {count} in all; the others are in `evaluation/results.json`."
    )
    return (
        f"{table}\n\nScores are strict: a tie is wrong. Intervals are over items (bootstrap); columns after "
        f"`ties` are scorers without the picture, where there are any, and chance.{more} Measured with "
        f"vlcomp {report.results.get('vlcomp_version', __version__)}."
    )


def costs_text(report: Report | None, base: Report | None, *, scratch: bool) -> str:
    """What a model is worse at than the one it was trained from, item by item.

    Args:
        report ([`~vlcomp.evaluation.Report`], *optional*):
            Measurements of the model.
        base ([`~vlcomp.evaluation.Report`], *optional*):
            The same tasks on the model that training started from.
        scratch (`bool`):
            Whether there was none.

    Returns:
        `str`: Markdown; says so where it cannot be told.
    """
    if report is None:
        return ""
    if base is None and scratch:
        return "Trained from random weights: there is no model before it to be worse than."
    if base is None:
        return (
            "The model that training started from was not measured on the same tasks, so this card cannot say what "
            "training cost."
        )
    rows: list[tuple[float, list[str]]] = []
    worse, notes = [], []
    for compared in compare(Column("this model", [report]), Column("start", [base])):
        notes += [f"{compared.task}: {note}" for note in compared.notes]
        if not compared.differences:
            continue
        first: Difference = compared.differences[0]
        interval = first.paired.interval
        if interval.high < 0:
            worse.append(compared.task)
        label = "worse" if interval.high < 0 else "better" if interval.low > 0 else "not told apart"
        cells = [compared.task, signed(interval.value), f"{signed(interval.low)} to {signed(interval.high)}", label]
        rows.append((interval.value, cells))
    if not rows:
        return bullets(["No task was measured on both models.", *notes])
    said = (
        f"Worse than where training started: {', '.join(worse)}."
        if worse
        else ("Nothing that was measured got worse by more than its interval.")
    )
    table = markdown_table(
        ["task", "difference", "95 % interval", ""], [cells for _, cells in sorted(rows, key=lambda row: row[0])]
    )
    return f"{said}\n\n{table}\n\nThis model minus the one training started from, on the same items." + (
        "\n\n" + bullets(notes) if notes else ""
    )


def study_costs(study: StudyFacts) -> str:
    """What each configuration is worse at than the first one, and than plain training, paired by seed."""
    values: dict[str, dict[str, dict[int, float]]] = {}
    for run in study.runs:
        for metric in study.columns:
            if metric in run["metrics"]:
                by_seed = values.setdefault(run["configuration"], {}).setdefault(metric, {})
                by_seed[run["seed"]] = run["metrics"][metric]
    if not values:
        return ""
    if len(values) < 2:
        return f"There are results of one configuration only ({next(iter(values))}), so nothing can be compared."
    # Where it started, and what training without the method gives.
    references = dict.fromkeys([next(iter(values)), *(name for name in ("plain",) if name in values)])
    parts = []
    for reference in references:
        lines = [
            f"{name}: {'; '.join(_losses(values[reference], values[name], study)) or 'nothing in the table'}"
            for name in values
            if name not in (reference, next(iter(values)))
        ]
        if lines:
            unit = "points" if study.percent else "units"
            parts.append(
                f"Columns in which the mean is below that of `{reference}`, in {unit}, paired by seed:\n\n"
                f"{bullets(lines)}"
            )
    return "\n\n".join(parts)


def _losses(
    start: Mapping[str, dict[int, float]], now: Mapping[str, dict[int, float]], study: StudyFacts
) -> list[str]:
    """Columns in which one configuration is below another, with the difference."""
    scale, digits = (100, 1) if study.percent else (1, 3)
    found = []
    for metric, heading in study.columns.items():
        before, after = start.get(metric, {}), now.get(metric, {})
        if len(before) == 1:  # one start for all seeds
            before = dict.fromkeys(after, next(iter(before.values())))
        pairs = [scale * (after[seed] - before[seed]) for seed in after if seed in before]
        if not pairs or sum(pairs) >= 0:
            continue
        interval = mean_interval(pairs)
        spread = f" ± {(interval.high - interval.low) / 2:.{digits}f}" if len(pairs) > 1 else ""
        found.append(f"{heading} {interval.value:+.{digits}f}{spread}")
    return found
