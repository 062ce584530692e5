"""The outcome of an evaluation: one JSON file of numbers, one parquet file of items."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ArgumentError, DataError
from ..files import check_output, write_atomic
from .task import ITEM_COLUMNS, Score

SCHEMA = "vlcomp-results/1"
RESULTS_FILE, ITEMS_FILE, GALLERY_FILE = "results.json", "items.parquet", "gallery.json"
# Columns of tables, in order, with their headings.
REFERENCE_NAMES = {
    "text_only": "text only (n-gram)",
    "text_only_classifier": "text only (classifier)",
    "language_model": "text only (language model)",
    "bag_of_words": "bag of words",
    "majority": "majority",
    "shuffled_words": "words shuffled",
    "shuffled_images": "images shuffled",
}

# The warning that a barely trained model gives for every task; those of a kind are said in one line.
_COLLAPSED = re.compile(r"the embeddings of \d+ different (\w+) are nearly the same")

_ITEM_TYPES = {
    "correct": pa.bool_(),
    "tie": pa.bool_(),
    "rank": pa.int64(),
    "margin": pa.float64(),
    "true_score": pa.float64(),
    "false_score": pa.float64(),
}
_ITEM_SCHEMA = pa.schema([(name, _ITEM_TYPES.get(name, pa.string())) for name in ITEM_COLUMNS])


class Report:
    """Scores of one model on several tasks.

    Args:
        results (`dict`):
            JSON-able results of schema `vlcomp-results/1`.
        items (`list[dict]`, *optional*):
            One row for each item of each task.
        gallery (`dict[str, list[dict]]`, *optional*):
            Example items with thumbnails, by task.

    Example:
        >>> from vlcomp import evaluate
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> report = evaluate(tiny_clip(), tiny_processor(), tasks="scenes/swap_object", size=20, progress=False)
        >>> sorted(report.metrics)
        ['scenes/swap_object/accuracy']
    """

    def __init__(
        self,
        results: dict[str, Any],
        items: Iterable[dict[str, Any]] | None = None,
        gallery: dict[str, list[dict[str, Any]]] | None = None,
    ) -> None:
        self.results = results
        self._items: list[dict[str, Any]] | None = None if items is None else list(items)
        self._read_items: Callable[[], list[dict[str, Any]]] = list
        self.gallery = gallery or {}

    @property
    def items(self) -> list[dict[str, Any]]:
        """One row for each item; read from disk when first asked for."""
        if self._items is None:
            self._items = self._read_items()
        return self._items

    @property
    def name(self) -> str:
        """Name of the model."""
        return str(self.results["model"]["name"])

    @property
    def metrics(self) -> dict[str, float]:
        """Values by full name, `<task>/<subset>/<metric>`."""
        return {
            f"{task}/{metric}": score["value"]
            for task, result in self.results["tasks"].items()
            for metric, score in result["scores"].items()
        }

    def score(self, name: str) -> Score:
        """A score by its full name.

        Args:
            name (`str`):
                `<task>/<metric>`, for instance `"scenes/swap_attribute/accuracy"`.

        Returns:
            [`~vlcomp.evaluation.Score`]

        Raises:
            ArgumentError: if there is no such score.
        """
        for task, result in self.results["tasks"].items():
            metric = name.removeprefix(f"{task}/")
            if metric != name and metric in result["scores"]:
                return Score(**result["scores"][metric])
        raise ArgumentError(f"there is no score {name!r}; there are {', '.join(list(self.metrics)[:10])} ...")

    def to_markdown(self, *, headlines: bool = False) -> str:
        """The scores as a table that reads well as plain text too.

        Args:
            headlines (`bool`, defaults to `False`):
                One row for each task instead of all metrics.

        Returns:
            `str`: every model score with its 95 % interval, and the reference scorers and chance in the same row.
        """
        used = {scorer for result in self.results["tasks"].values() for scorer in result["references"]}
        scorers = [scorer for scorer in REFERENCE_NAMES if scorer in used] + sorted(used - set(REFERENCE_NAMES))
        header = ["task", "score", "95 % interval", "n", "ties"]
        header += [REFERENCE_NAMES.get(scorer, scorer) for scorer in scorers] + ["chance"]
        rows = []
        for task, result in self.results["tasks"].items():
            for metric, score in result["scores"].items():
                if headlines and metric != result["headline"]:
                    continue
                references = [result["references"].get(scorer, {}).get(metric) for scorer in scorers]
                rows.append(
                    [
                        f"{task}/{metric}",
                        _number(score["value"]),
                        "" if score["low"] is None else f"{_number(score['low'])} - {_number(score['high'])}",
                        str(score["n"]),
                        "" if score["ties"] is None else str(score["ties"]),
                        *("" if r is None else _number(r["value"]) for r in references),
                        "" if score["chance"] is None else _small(score["chance"]),
                    ]
                )
        table = markdown_table(header, rows)
        return table + "".join(f"\nwarning: {note}" for note in task_warnings(self.results["tasks"]))

    def breakdown(self) -> str:
        """Scores by the length of the captions and by how many words they share, as a table.

        Returns:
            `str`: Markdown; empty if no task compares captions.
        """
        rows = [
            [f"{task}/{part['metric']}", part["by"], part["group"], _number(part["value"]), str(part["n"])]
            for task, result in self.results["tasks"].items()
            for part in result.get("breakdown", [])
        ]
        return markdown_table(["task", "by", "group", "score", "n"], rows) if rows else ""

    def to_html(self, path: str | os.PathLike[str], *, others: Sequence[Report] = (), gallery: bool = True) -> Path:
        """Write one self-contained HTML page.

        Args:
            path (`str` or `os.PathLike`):
                The file.
            others (`Sequence[Report]`):
                Reports of other models to show beside this one.
            gallery (`bool`, defaults to `True`):
                Show the example items.

        Returns:
            `Path`
        """
        from .html import write_html

        return write_html([self, *others], path, gallery=gallery)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `results.json`, `items.parquet` and `gallery.json`, each at once or not at all.

        Args:
            folder (`str` or `os.PathLike`):
                Where to; made if missing.

        Returns:
            `Path`: the folder.

        Raises:
            ArgumentError: if the folder cannot be written.
        """
        place = check_output(folder)
        write_items(place / ITEMS_FILE, self.items)
        gallery = json.dumps(self.gallery, ensure_ascii=False)
        write_atomic(place / GALLERY_FILE, lambda path: path.write_text(gallery, encoding="utf-8"))
        # Last: where there is a results file, the others are complete.
        text = json.dumps(self.results, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(place / RESULTS_FILE, lambda path: path.write_text(text, encoding="utf-8"))
        return place

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Report:
        """Read a report that [`Report.save`] wrote.

        Args:
            folder (`str` or `os.PathLike`):
                The folder, or its `results.json`.

        Returns:
            [`Report`]

        Raises:
            DataError: if there is none, or it is of another schema.
        """
        place = Path(folder)
        place = place.parent if place.name == RESULTS_FILE else place
        file = place / RESULTS_FILE
        if not file.is_file():
            raise DataError(f"{file} does not exist; pass a folder that `vlcomp evaluate --output` wrote")
        try:
            results = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is not valid JSON: {error}") from error
        schema = results.get("schema") if isinstance(results, dict) else None
        if schema != SCHEMA:
            raise DataError(f"{file} has schema {schema!r}; this version reads {SCHEMA!r}")
        gallery_file = place / GALLERY_FILE
        gallery = json.loads(gallery_file.read_text(encoding="utf-8")) if gallery_file.is_file() else {}
        report = cls(results, gallery=gallery)
        items_file = place / ITEMS_FILE
        report._read_items = lambda: pq.read_table(items_file).to_pylist() if items_file.is_file() else []
        return report

    def __repr__(self) -> str:
        return f"Report(model={self.name!r}, tasks={list(self.results['tasks'])!r})"


def write_items(path: Path, items: Iterable[dict[str, Any]]) -> None:
    """Write a table of items as parquet, at once or not at all.

    Args:
        path (`Path`):
            The file.
        items (`Iterable[dict]`):
            Rows with some or all of the columns `ITEM_COLUMNS`.
    """
    table = pa.Table.from_pylist([{k: i.get(k) for k in ITEM_COLUMNS} for i in items], schema=_ITEM_SCHEMA)
    write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def plain(value: Any) -> Any:
    """JSON-able copy: no NaN, no tuples, paths as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    item = getattr(value, "item", None)
    return plain(item()) if callable(item) else str(value)


def _number(value: float) -> str:
    return f"{value:.3f}"


def _small(value: float) -> str:
    """Chance in a large gallery needs more digits."""
    return f"{value:.5f}" if 0 < value < 0.01 else _number(value)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right.

    Args:
        header (`Sequence[str]`):
            Headings.
        rows (`Sequence[Sequence[str]]`):
            Cells.

    Returns:
        `str`
    """
    widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def source_commit() -> str | None:
    """Commit of the source tree that vlcomp is imported from.

    Returns:
        `str` or `None`: the hash, with `-dirty` if the package's files were changed since; `None` if vlcomp is not
        imported from a checkout of its own repository.
    """
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(package), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A virtual environment may lie within another project's repository: the file itself must be tracked.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--", ".") else commit


def task_warnings(tasks: Mapping[str, Mapping[str, Any]], name: Callable[[str], str] = str) -> list[str]:
    """The warnings of tasks as lines: one for each, but those of collapsed embeddings together.

    A barely trained model would else fill a page with the same sentence about each task.

    Args:
        tasks (`Mapping`):
            Results by name of task, as in the result file.
        name (`Callable`, defaults to `str`):
            How a task is called in the lines.

    Returns:
        `list[str]`: in the order of the tasks.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for task, result in tasks.items():
        for warning in result.get("warnings", []):
            collapsed = _COLLAPSED.match(warning)
            found.setdefault(collapsed[1] if collapsed else f"{task}: {warning}", []).append((name(task), warning))
    return [
        entries[0][0]
        + (f" and {others} more task{'s' * (others > 1)}" if (others := len(dict(entries)) - 1) else "")
        + f": {entries[0][1]}"
        for entries in found.values()
    ]
