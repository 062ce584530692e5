"""What a report says about shortcuts, training pictures in benchmarks and tasks left out, as plain tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .comparison import Column
from .layout import all_tasks, interval_text, words


@dataclass(frozen=True)
class PlainTable:
    """A table of texts; the first cell of a row is its name.

    Args:
        header (`list[str]`):
            Heading of each column.
        rows (`list[list[str]]`):
            Cells.
    """

    header: list[str]
    rows: list[list[str]]


def breakdown_table(task: str, columns: Sequence[Column]) -> PlainTable | None:
    """Accuracy by which caption is longer and by the words in common, for each model.

    Args:
        task (`str`):
            The task.
        columns (`Sequence[Column]`):
            The models.

    Returns:
        `PlainTable`, *optional*: `None` if no model was measured on pairs of captions there.
    """
    cells: dict[tuple[str, str], dict[int, str]] = {}
    counts: dict[tuple[str, str], int] = {}
    for run, column in enumerate(columns):
        for part in column.report.results["tasks"].get(task, {}).get("breakdown", []):
            key = (part["by"], part["group"])
            ends = interval_text(part)
            cells.setdefault(key, {})[run] = f"{part['value']:.3f}" + (f" ({ends})" if ends else "")
            counts[key] = max(counts.get(key, 0), part["n"])
    if not cells:
        return None
    names = ["score"] if len(columns) == 1 else [column.name for column in columns]
    rows = [
        [f"{by}: {group}", *(cells[by, group].get(run, "") for run in range(len(columns))), str(counts[by, group])]
        for by, group in cells
    ]
    return PlainTable(["", *names, "n"], rows)


def leakage_table(columns: Sequence[Column]) -> PlainTable | None:
    """How many of each benchmark's pictures are among those that a model was trained on.

    Args:
        columns (`Sequence[Column]`):
            The models.

    Returns:
        `PlainTable`, *optional*: `None` if no run was given its training pictures.
    """
    rows = []
    for task in all_tasks(columns):
        for column in columns:
            found = column.report.results["tasks"].get(task, {}).get("leakage")
            if found is not None:
                name = words(task) if len(columns) == 1 else f"{words(task)}, {column.name}"
                numbers = (found[key] for key in ("images", "same_pictures", "only_same_names", "training_images"))
                rows.append([name, *map(str, numbers)])
    header = ["", "pictures", "also in training", "only the same name", "training pictures"]
    return PlainTable(header, rows) if rows else None


def left_out_lines(columns: Sequence[Column]) -> list[str]:
    """Tasks of a suite that were not measured, with the reason.

    Args:
        columns (`Sequence[Column]`):
            The models.

    Returns:
        `list[str]`: one line for each task and reason, with the models that it concerns.
    """
    found: dict[str, list[str]] = {}
    for column in columns:
        for member in column.members:
            for task, reason in member.results.get("left_out", {}).items():
                names = found.setdefault(f"{task}: {reason}", [])
                if column.name not in names:
                    names.append(column.name)
    return [line if len(names) == len(columns) else f"{line} ({', '.join(names)})" for line, names in found.items()]
