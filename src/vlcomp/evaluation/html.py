"""The report as one HTML page that needs nothing else: no network, no fonts, no scripts from elsewhere."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ArgumentError
from .charts import (
    RUN_COLOURS,
    Bar,
    BarGroup,
    Point,
    bar_chart,
    difference_mark,
    mark_shape,
    point_sign,
    scatter_chart,
)
from .comparison import Column, TaskComparison
from .examples import examples_section
from .layout import (
    SCORERS,
    ScoreRow,
    all_tasks,
    between,
    comparisons,
    interval_text,
    labelled_differences,
    make_columns,
    make_sections,
    number,
    p_text,
    published_table,
    row_label,
    score_rows,
    scorer_label,
    section_title,
    signed,
    trade_offs,
    used_scorers,
    warning_lines,
    words,
)
from .page import SCRIPT, STYLE
from .shortcuts import breakdown_table, leakage_table, left_out_lines

if TYPE_CHECKING:
    from .results import Report


def write_html(
    reports: Sequence[Report],
    path: str | os.PathLike[str],
    *,
    gallery: bool = True,
    names: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[Report]] | None = None,
) -> Path:
    """Write one page about one or more reports.

    Args:
        reports (`Sequence[Report]`):
            One for each model; the others are compared with the first, item by item.
        path (`str` or `os.PathLike`):
            The file.
        gallery (`bool`, defaults to `True`):
            Show example items.
        names (`Sequence[str]`, *optional*):
            What to call the models; the last part of each model's name if not given.
        groups (`Mapping[str, Sequence[Report]]`, *optional*):
            Runs that differ in nothing but the seed, by the name of the group; each is shown as one model, by its mean
            over runs.

    Returns:
        `Path`

    Raises:
        ArgumentError: if there are no reports or the file cannot be written.
    """
    from ..files import check_output, write_atomic

    target = Path(path)
    if target.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder; name a file, for instance {target / 'report.html'}")
    check_output(target.parent)
    page = render_html(reports, gallery=gallery, names=names, groups=groups)
    write_atomic(target, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return target


def render_html(
    reports: Sequence[Report],
    *,
    gallery: bool = True,
    names: Sequence[str] | None = None,
    groups: Mapping[str, Sequence[Report]] | None = None,
) -> str:
    """The page as text; arguments as in [`write_html`].

    Returns:
        `str`
    """
    columns = make_columns(reports, names=names, groups=groups)
    title = columns[0].name if len(columns) == 1 else f"{len(columns)} models compared"
    against = comparisons(columns)
    sections = make_sections(columns)
    body = [
        _header(columns, title),
        _warnings(columns),
        _summary(columns),
        _trade_offs(columns),
        _leakage(columns),
        *(_section(key, tasks, columns, against, unfolded=i == 0) for i, (key, tasks) in enumerate(sections.items())),
    ]
    if gallery:
        body.append(examples_section(columns))
    body.append(_notes(columns, compared=any(by_task for _, by_task in against)))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)} - vlcomp report</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(body)}</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _key(run: int) -> str:
    return f'<span class="key run{run % RUN_COLOURS}"></span>'


def _header(columns: Sequence[Column], title: str) -> str:
    rows = []
    for run, column in enumerate(columns):
        results = column.report.results
        model = results["model"]
        parts = [model.get("class")]
        if model.get("parameters"):
            parts.append(f"{_count(model['parameters'])} parameters")
        if len(column.members) > 1:
            parts.append(f"mean of {len(column.members)} runs")
        parts.append(f"{results['created'][:10]}")
        parts.append(f"vlcomp {results['vlcomp_version']}")
        if results.get("commit"):
            parts.append(f"commit {results['commit'][:10]}{'*' if results['commit'].endswith('-dirty') else ''}")
        several = len(columns) > 1
        label = f"{_key(run)}<b>{escape(column.name)}</b> " if several else ""
        rows.append(f"<p>{label}{escape(' · '.join(str(p) for p in parts if p))}</p>")
    return f'<header><p class="kicker">vlcomp evaluation</p><h1>{escape(title)}</h1>{"".join(rows)}</header>\n'


def _count(value: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return str(value)


def _warnings(columns: Sequence[Column]) -> str:
    """What a reader must know before the first number."""
    lines = warning_lines(columns)
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<section class="warnings"><h2>Warnings</h2><ul>{items}</ul></section>\n'


def _summary(columns: Sequence[Column]) -> str:
    """The numbers to quote, a card each."""
    wanted = [
        ("scenes/retrieval", "image_to_text/recall@1", "retrieval R@1"),
        ("scenes/replace_object", "accuracy", "replace object"),
        ("scenes/replace_attribute", "accuracy", "replace attribute"),
        ("scenes/swap_attribute", "accuracy", "swap attribute"),
        ("scenes/swap_object", "accuracy", "swap object"),
        ("scenes/mean", "accuracy", "mean of 7 categories"),
    ]
    reports = [column.report for column in columns]
    for task in all_tasks(columns):
        if task.startswith("scenes/"):
            continue
        headline = next(r.results["tasks"][task]["headline"] for r in reports if task in r.results["tasks"])
        metric = row_label(task, headline, task)
        wanted.append((task, headline, words(task) if metric == "accuracy" else f"{words(task)}, {metric}"))
    cards = []
    for task, metric, label in wanted:
        lines = []
        for run, report in enumerate(reports):
            score = report.results["tasks"].get(task, {}).get("scores", {}).get(metric)
            if score is None:
                continue
            key = f'<span class="key run{run % RUN_COLOURS}" title="{escape(columns[run].name, quote=True)}"></span>'
            lines.append(
                f'<div class="figure">{key if len(reports) > 1 else ""}<b>{score["value"]:.3f}</b>'
                f"<span>{interval_text(score)}</span></div>"
            )
        if lines:
            cards.append(f'<div class="card"><h3>{escape(label)}</h3>{"".join(lines)}</div>')
    return f'<section class="cards">{"".join(cards)}</section>\n' if cards else ""


def _trade_offs(columns: Sequence[Column]) -> str:
    planes = trade_offs(columns)
    figures = []
    for plane in planes:
        points = [Point(columns[run].name, run, x, y) for run, x, y in plane.values]
        legend = "".join(f"<span>{point_sign(run)}{escape(columns[run].name)}</span>" for run, _, _ in plane.values)
        chart = scatter_chart(points, title=plane.title, x_label=plane.x_label, y_label="compositionality")
        figures.append(
            f'<div class="plane"><h3>{escape(plane.title)}</h3><p class="legend">{legend}</p>{chart}'
            f'<p class="quiet">Upwards: {escape(_mean_of(plane.y_tasks))}. To the right: '
            f"{escape(_mean_of(plane.x_tasks))}. The axes do not begin at 0.</p></div>"
        )
    if not figures:
        return ""
    return f'<section class="task"><h2>Trade-offs</h2><div class="planes">{"".join(figures)}</div></section>\n'


def _mean_of(tasks: Sequence[str]) -> str:
    named = ", ".join(words(task) for task in tasks)
    return named if len(tasks) == 1 else f"mean of {len(tasks)} tasks ({named})"


# -- sections ----------------------------------------------------------------------------------------------


def _section(
    key: str,
    tasks: Sequence[str],
    columns: Sequence[Column],
    against: Sequence[tuple[Column, Mapping[str, TaskComparison]]],
    *,
    unfolded: bool = False,
) -> str:
    title = section_title(key)
    rows = score_rows(key, tasks, columns)
    scorers = used_scorers(rows)
    # A chart of many tasks has room for the number to quote of each; the table has the others.
    charted = [row for row in rows if len(tasks) == 1 or row.headline]
    groups = [
        BarGroup(
            row.label,
            [
                None
                if score is None
                else Bar(
                    score["value"],
                    score["low"],
                    score["high"],
                    f"{columns[i].name}: {score['value']:.3f} ({interval_text(score)})",
                )
                for i, score in enumerate(row.scores)
            ],
            {scorer: score["value"] for scorer, score in row.references.items()},
            row.chance,
        )
        for row in charted
    ]
    parts = [
        f'<section class="task"><h2>{escape(title)}</h2>{_legend(columns, scorers)}',
        bar_chart(groups, title=title),
        _fold("Table", _table(rows, columns, scorers), unfolded=unfolded),
    ]
    parts += [_published(task, columns, several=len(tasks) > 1) for task in tasks]
    parts += [_breakdown(task, columns, several=len(tasks) > 1) for task in tasks]
    for column, by_task in against:
        compared = [by_task[task] for task in tasks if task in by_task]
        parts.append(_differences(key, column, columns[0], compared, unfolded=unfolded))
    parts.append("</section>\n")
    return "".join(parts)


def _fold(summary: str, content: str, *, unfolded: bool = False) -> str:
    return f"<details{' open' if unfolded else ''}><summary>{escape(summary)}</summary>{content}</details>"


def _legend(columns: Sequence[Column], scorers: Sequence[str]) -> str:
    entries = []
    if len(columns) > 1:
        entries += [f"<span>{_key(run)}{escape(column.name)}</span>" for run, column in enumerate(columns)]
    grouped = any(len(column.members) > 1 for column in columns)
    entries.append(
        '<span><svg class="sign" viewBox="-14 -7 28 14"><path class="whisker" d="M-11 0H11M-11 -4v8M11 -4v8"/></svg>'
        f"95 % interval{' (over runs, where there are several)' if grouped else ''}</span>"
    )
    for scorer in scorers:
        label, meaning = SCORERS.get(scorer, (words(scorer), ""))
        entries.append(
            f'<span title="{escape(meaning, quote=True)}"><svg class="sign" viewBox="-8 -8 16 16">'
            f'<g class="mark {scorer}">{mark_shape(scorer)}</g></svg>{escape(label)}</span>'
        )
    entries.append(
        '<span><svg class="sign" viewBox="-8 -8 16 16"><line class="chance" y1="-7" y2="7"/></svg>chance</span>'
    )
    return f'<p class="legend">{"".join(entries)}</p>'


def _html_table(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], *, label: str) -> str:
    """A table that can be scrolled sideways, with the keyboard too; cells are HTML, headings and labels are text."""
    out = ["<thead><tr>" + "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head) + "</tr></thead><tbody>"]
    for name, cells in rows:
        out.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label, quote=True)}">'
        f"<table>{''.join(out)}</tbody></table></div>"
    )


def _table(rows: Sequence[ScoreRow], columns: Sequence[Column], scorers: Sequence[str]) -> str:
    single = len(columns) == 1
    head = ["", *(["score"] if single else [column.name for column in columns])]
    head += ["95 % interval", "n", "ties"] if single else []
    head += [scorer_label(scorer) for scorer in scorers] + ["chance"]
    body = []
    for row in rows:
        cells = []
        for score in row.scores:
            if score is None:
                cells += ["", "", "", ""] if single else [""]
            elif single:
                ties = "" if score["ties"] is None else str(score["ties"])
                cells += [f"<b>{score['value']:.3f}</b>", interval_text(score), str(score["n"]), ties]
            else:
                cells.append(f"<b>{score['value']:.3f}</b><small>{interval_text(score)}</small>")
        cells += [number(row.references[s]["value"]) if s in row.references else "" for s in scorers]
        body.append((row.label, [*cells, number(row.chance)]))
    return _html_table(head, body, label="scores")


def _published(task: str, columns: Sequence[Column], *, several: bool) -> str:
    table = published_table(task, columns)
    if table is None:
        return ""
    measured = len([column for column in columns if task in column.report.results["tasks"]])
    rows = [
        (label, [f"<b>{number(value)}</b>" if i < measured else number(value) for i, value in enumerate(values)])
        for label, values in table.rows
    ]
    sources = "".join(f"<li>{escape(source)}</li>" for source in table.sources)
    notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
    content = _html_table(["", *table.header], rows, label="published scores")
    where = f": {words(task)}" if several else ""
    return _fold(f"Beside published scores{where}", f'{content}<div class="sources">{notes}<ul>{sources}</ul></div>')


def _breakdown(task: str, columns: Sequence[Column], *, several: bool) -> str:
    table = breakdown_table(task, columns)
    if table is None:
        return ""
    rows = [(name, [escape(cell) for cell in cells]) for name, *cells in table.rows]
    where = f": {words(task)}" if several else ""
    content = _html_table(table.header, rows, label="scores by caption length and words in common")
    return _fold(f"By caption length and words in common{where}", content)


def _leakage(columns: Sequence[Column]) -> str:
    table = leakage_table(columns)
    if table is None:
        return ""
    rows = [(name, [escape(cell) for cell in cells]) for name, *cells in table.rows]
    return (
        '<section class="task"><h2>Training pictures in the benchmarks</h2><p class="quiet">Pictures of each '
        "benchmark that are also in the training folder, by their look (a perceptual hash) or only by their name.</p>"
        f"{_html_table(table.header, rows, label='pictures of benchmarks in the training folder')}</section>\n"
    )


def _differences(key: str, column: Column, base: Column, compared: Sequence[TaskComparison], *, unfolded: bool) -> str:
    lines = list(labelled_differences(key, compared))
    notes = "".join(
        f"<p>{escape(words(comparison.task))}: {escape(note)}</p>"
        for comparison in compared
        for note in comparison.notes
    )
    if not lines and not notes:
        return ""
    seeds = any(difference.seeds for _, difference in lines)
    exact = any(difference.exact for _, difference in lines)
    # Over items or over seeds, whichever is less sure.
    drawn = [difference.widest for _, difference in lines]
    ends = [abs(end) for interval in drawn for end in (interval.value, interval.low, interval.high)]
    reach = max([*(end for end in ends if not math.isnan(end)), 0.01])
    rows = []
    for (label, difference), widest in zip(lines, drawn, strict=True):
        interval = difference.paired.interval
        cells = [
            f"<b>{signed(interval.value)}</b>",
            between(interval),
            difference_mark(interval.value, widest.low, widest.high, reach),
        ]
        cells += [between(difference.seeds)] if seeds else []
        if exact:
            counts = (difference.paired.a_only, difference.paired.b_only)
            cells += [f"{n:,}" if difference.exact else "" for n in counts] + [escape(p_text(difference))]
        rows.append((label, cells))
    head = ["", "difference", "95 % over items", f"-{reach:.2f} to +{reach:.2f}"]
    head += ["95 % over seeds"] if seeds else []
    head += [f"only {column.name} right", f"only {base.name} right", "p (McNemar)"] if exact else []
    title = f"{column.name} minus {base.name}, item by item"
    content = _html_table(head, rows, label=title) if rows else ""
    return _fold(title, content + (f'<div class="sources">{notes}</div>' if notes else ""), unfolded=unfolded)


# -- notes -------------------------------------------------------------------------------------------------


def _notes(columns: Sequence[Column], *, compared: bool) -> str:
    from .registry import list_tasks

    tasks = all_tasks(columns)
    infos = {info.name: info for info in list_tasks()}
    citations = list(dict.fromkeys(infos[t].citation for t in tasks if t in infos and infos[t].citation))
    used = {s for c in columns for result in c.report.results["tasks"].values() for s in result["references"]}
    scorers = "".join(
        f"<li><b>{escape(label)}</b>: {escape(meaning)}.</li>"
        for scorer, (label, meaning) in SCORERS.items()
        if scorer in used
    )
    parts = [
        '<section class="notes"><h2>How to read this</h2>',
        "<p>Models are scored strictly: an item is right only if the true alternative scores higher than every false "
        "one, so ties are wrong, and a score that is not a number stops the evaluation. Intervals are 95 % bootstrap "
        "intervals over clusters of items that share a picture or a sentence.",
        " Reference scorers tie often by construction; their ties count as if broken at random." if scorers else "",
        f"</p>{f'<ul>{scorers}</ul>' if scorers else ''}",
    ]
    if any(len(column.members) > 1 for column in columns):
        parts.append(
            "<p>Where a model is several runs, its score is their mean and the interval is Student's, over runs: it "
            "tells how much training by another seed would change the score, not how much other items would.</p>"
        )
    if compared:
        parts.append(
            "<p>Differences are taken item by item, on the items that both models were measured on. The interval is a "
            "bootstrap over the same clusters; p is McNemar's exact test of the items that only one of the two has "
            "right, which takes items as independent. Nothing is corrected for the number of comparisons.</p>"
        )
    if citations:
        parts.append(f"<p>Benchmarks: {escape('; '.join(citations))}.</p>")
    left_out = left_out_lines(columns)
    if left_out:
        items = "".join(f"<li>{escape(line)}</li>" for line in left_out)
        parts.append(_fold(f"{len(left_out)} tasks of the suite left out, and why", f"<ul>{items}</ul>"))
    for column in columns:
        for member in column.members:
            settings = {k: v for k, v in member.results["settings"].items() if v is not None and k != "tasks"}
            rows = "".join(
                f'<tr><th scope="row">{escape(str(k))}</th><td>{escape(str(v))}</td></tr>'
                for k, v in {"model": member.name, **settings, **member.results["environment"]}.items()
            )
            label = f"Settings of {column.name}" + (f": {member.name}" if len(column.members) > 1 else "")
            parts.append(_fold(label, f'<div class="scroll"><table class="settings">{rows}</table></div>'))
    parts.append("</section>\n")
    return "".join(parts)
