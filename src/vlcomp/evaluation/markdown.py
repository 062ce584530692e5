"""The report of one or more models as Markdown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ArgumentError
from ..files import check_output, write_atomic
from .comparison import Column, TaskComparison
from .layout import (
    SCORERS,
    between,
    comparisons,
    interval_text,
    labelled_differences,
    make_columns,
    make_sections,
    number,
    p_text,
    published_table,
    score_rows,
    scorer_label,
    section_title,
    signed,
    trade_offs,
    used_scorers,
    warning_lines,
    words,
)
from .results import Report, markdown_table
from .shortcuts import breakdown_table, leakage_table, left_out_lines


def write_markdown(
    reports: Sequence[Report],
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[Report]] | None = None,
) -> Path:
    """Write one Markdown file about one or more reports.

    Args:
        reports (`Sequence[Report]`):
            One for each model; the others are compared with the first, item by item.
        path (`str` or `os.PathLike`):
            The file.
        names (`Sequence[str]`, *optional*):
            What to call the models.
        groups (`Mapping[str, Sequence[Report]]`, *optional*):
            Runs that differ in nothing but the seed, by the name of the group.

    Returns:
        `Path`

    Raises:
        ArgumentError: if there are no reports or the file cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder; name a file, for instance {target / 'report.md'}")
    check_output(target.parent)
    text = render_markdown(reports, names=names, groups=groups)
    write_atomic(target, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return target


def render_markdown(
    reports: Sequence[Report],
    *,
    names: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[Report]] | None = None,
) -> str:
    """One or more reports as Markdown that reads well as plain text too.

    Args:
        reports (`Sequence[Report]`):
            Single runs.
        names (`Sequence[str]`, *optional*):
            What to call them.
        groups (`Mapping[str, Sequence[Report]]`, *optional*):
            Runs that differ in nothing but the seed, by the name of the group.

    Returns:
        `str`

    Raises:
        ArgumentError: if there is nothing to write.

    Example:
        >>> from vlcomp import evaluate
        >>> from vlcomp.evaluation.markdown import render_markdown
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> report = evaluate(tiny_clip(), tiny_processor(), tasks="scenes/swap_object", size=20, progress=False)
        >>> render_markdown([report], names=["tiny"]).splitlines()[0]
        '# tiny'
    """
    columns = make_columns(reports, names=names, groups=groups)
    against = comparisons(columns)
    title = columns[0].name if len(columns) == 1 else f"{len(columns)} models compared"
    parts = [f"# {_cell(title)}"]
    for key, tasks in make_sections(columns).items():
        parts.append(f"## {section_title(key)}")
        parts.append(_scores(key, tasks, columns))
        parts += [text for task in tasks for text in _published(task, columns)]
        parts += [text for task in tasks for text in _breakdown(task, columns)]
        for column, by_task in against:
            compared = [by_task[task] for task in tasks if task in by_task]
            parts += _differences(column, columns[0], compared, key)
    parts += _trade_offs(columns)
    parts += _leakage(columns)
    parts += _notes(columns)
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _scores(key: str, tasks: Sequence[str], columns: Sequence[Column]) -> str:
    rows = score_rows(key, tasks, columns)
    scorers = used_scorers(rows)
    single = len(columns) == 1
    header = ["score", *(_cell(column.name) for column in columns), *(["n", "ties"] if single else [])]
    header += [*(scorer_label(scorer) for scorer in scorers), "chance"]
    body = []
    for row in rows:
        cells = [_cell(row.label)]
        for score in row.scores:
            between = interval_text(score) if score else ""
            cells.append("" if score is None else f"{score['value']:.3f}" + (f" ({between})" if between else ""))
        if single:
            (score,) = row.scores
            cells += [str(score["n"]), "" if score["ties"] is None else str(score["ties"])] if score else ["", ""]
        cells += [number(row.references[s]["value"]) if s in row.references else "" for s in scorers]
        body.append([*cells, number(row.chance)])
    return markdown_table(header, body)


def _published(task: str, columns: Sequence[Column]) -> list[str]:
    table = published_table(task, columns)
    if table is None:
        return []
    rows = [[_cell(label), *(number(value) for value in values)] for label, values in table.rows]
    lines = [*table.sources, *table.notes]
    return [
        "Beside published scores:",
        markdown_table(["score", *map(_cell, table.header)], rows),
        "\n".join(f"- {_cell(line)}" for line in lines),
    ]


def _breakdown(task: str, columns: Sequence[Column]) -> list[str]:
    table = breakdown_table(task, columns)
    if table is None:
        return []
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    header = [_cell(cell) for cell in table.header]
    return [f"{words(task)}, by caption length and words in common:", markdown_table(header, rows)]


def _leakage(columns: Sequence[Column]) -> list[str]:
    table = leakage_table(columns)
    if table is None:
        return []
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return ["## Training pictures in the benchmarks", markdown_table(table.header, rows)]


def _differences(column: Column, base: Column, compared: Sequence[TaskComparison], key: str) -> list[str]:
    lines = list(labelled_differences(key, compared))
    notes = [f"{comparison.task}: {note}" for comparison in compared for note in comparison.notes]
    seeds = any(difference.seeds for _, difference in lines)
    exact = any(difference.exact for _, difference in lines)
    rows = []
    for label, difference in lines:
        interval = difference.paired.interval
        cells = [_cell(label), signed(interval.value), between(interval)]
        cells += [between(difference.seeds)] if seeds else []
        if exact:
            counts = (difference.paired.a_only, difference.paired.b_only) if difference.exact else ("", "")
            cells += [*map(str, counts), p_text(difference)]
        rows.append(cells)
    if not rows and not notes:
        return []
    found = [f"{_cell(column.name)} minus {_cell(base.name)}, item by item:"]
    if rows:
        header = ["score", "difference", "95 % over items", *(["95 % over seeds"] if seeds else [])]
        if exact:
            header += [f"only {_cell(column.name)} right", f"only {_cell(base.name)} right", "p (McNemar)"]
        found.append(markdown_table(header, rows))
    if notes:
        found.append("\n".join(f"- {_cell(note)}" for note in notes))
    return found


def _trade_offs(columns: Sequence[Column]) -> list[str]:
    found = []
    for plane in trade_offs(columns):
        rows = [[_cell(columns[i].name), f"{y:.3f}", f"{x:.3f}"] for i, x, y in plane.values]
        table = markdown_table(["model", "compositionality", plane.x_label], rows)
        over = f"Means of headline scores: {', '.join(plane.y_tasks)} against {', '.join(plane.x_tasks)}."
        found += [f"## {plane.title}", table, over]
    return found


def _notes(columns: Sequence[Column]) -> list[str]:
    lines = [f"warning: {line}" for line in warning_lines(columns)]
    lines += [
        f"{column.name}: mean of {len(column.members)} runs, interval over runs (Student's t)"
        for column in columns
        if len(column.members) > 1
    ]
    lines.append("Scores are strict: ties are wrong. Intervals are 95 % bootstrap intervals over clusters of items.")
    used = {s for c in columns for result in c.report.results["tasks"].values() for s in result["references"]}
    lines += [f"left out: {line}" for line in left_out_lines(columns)]
    lines += [f"{label}: {meaning}." for scorer, (label, meaning) in SCORERS.items() if scorer in used]
    return ["## Notes", "\n".join(f"- {_cell(line)}" for line in lines)]
