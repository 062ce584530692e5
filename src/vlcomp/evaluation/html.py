"""The report as one HTML page that needs nothing else: no network, no fonts, no scripts from elsewhere."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArgumentError
from .charts import Bar, BarGroup, bar_chart, mark_shape
from .page import SCRIPT, STYLE

if TYPE_CHECKING:
    from .results import Report

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
}
_SCORERS = {
    "text_only": ("text only, n-gram", "sees the caption but no picture; learned from true captions"),
    "text_only_classifier": (
        "text only, classifier",
        "sees no picture; learned to tell true captions from false ones",
    ),
    "bag_of_words": ("bag of words", "knows which words are true of the picture, not how they belong together"),
}


def write_html(reports: Sequence[Report], path: str | os.PathLike[str], *, gallery: bool = True) -> Path:
    """Write one page about one or more reports.

    Args:
        reports (`Sequence[Report]`):
            One for each model.
        path (`str` or `os.PathLike`):
            The file.
        gallery (`bool`, defaults to `True`):
            Show example items.

    Returns:
        `Path`

    Raises:
        ArgumentError: if there are no reports or the file cannot be written.
    """
    from .results import check_output, write_atomic

    target = Path(path)
    if target.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder; name a file, for instance {target / 'report.html'}")
    check_output(target.parent)
    page = render_html(reports, gallery=gallery)
    write_atomic(target, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return target


def render_html(reports: Sequence[Report], *, gallery: bool = True) -> str:
    """The page as text; arguments as in [`write_html`].

    Returns:
        `str`
    """
    if not reports:
        raise ArgumentError("there is no report to write; pass at least one")
    names = _distinct_names(reports)
    title = names[0] if len(names) == 1 else f"{len(names)} models compared"
    sections = _sections(reports)
    body = [
        _header(reports, names, title),
        _summary(reports, names),
        *(_section(key, tasks, reports, names, unfolded=i == 0) for i, (key, tasks) in enumerate(sections.items())),
    ]
    if gallery and any(report.gallery for report in reports):
        body.append(_gallery(reports, names))
    body.append(_notes(reports, names))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)} - vlcomp report</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(body)}</main>\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _distinct_names(reports: Sequence[Report]) -> list[str]:
    short = [os.path.basename(report.name.rstrip("/")) or report.name for report in reports]
    names: list[str] = []
    for report, name in zip(reports, short, strict=True):
        candidate = report.name if short.count(name) > 1 else name
        number = 2
        while candidate in names:
            candidate, number = f"{report.name} ({number})", number + 1
        names.append(candidate)
    return names


def _sections(reports: Sequence[Report]) -> dict[str, list[str]]:
    """Tasks by section, each in the order of the reports."""
    tasks = list(dict.fromkeys(task for report in reports for task in report.results["tasks"]))
    found: dict[str, list[str]] = {}
    for task in tasks:
        found.setdefault(_section_of(task), []).append(task)
    order = list(_TITLES)
    return dict(sorted(found.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else len(order)))


def _section_of(task: str) -> str:
    if task in _TITLES:
        return task
    parent = task.rpartition("/")[0]
    return parent or task


def _words(text: str) -> str:
    return text.replace("_", " ").replace("@", " @ ")


def _header(reports: Sequence[Report], names: Sequence[str], title: str) -> str:
    rows = []
    for run, (report, name) in enumerate(zip(reports, names, strict=True)):
        results = report.results
        model = results["model"]
        parts = [model.get("class")]
        if model.get("parameters"):
            parts.append(f"{_count(model['parameters'])} parameters")
        parts.append(f"{results['created'][:10]}")
        parts.append(f"vlcomp {results['vlcomp_version']}")
        if results.get("commit"):
            parts.append(f"commit {results['commit'][:10]}{'*' if results['commit'].endswith('-dirty') else ''}")
        key = f'<span class="key run{run % 6}"></span>' if len(reports) > 1 else ""
        label = f"<b>{escape(name)}</b> " if len(reports) > 1 else ""
        rows.append(f"<p>{key}{label}{escape(' · '.join(str(p) for p in parts if p))}</p>")
    return f'<header><p class="kicker">vlcomp evaluation</p><h1>{escape(title)}</h1>{"".join(rows)}</header>\n'


def _count(number: int) -> str:
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def _summary(reports: Sequence[Report], names: Sequence[str]) -> str:
    """The numbers to quote, a card each."""
    wanted = [
        ("scenes/retrieval", "image_to_text/recall@1", "retrieval R@1"),
        ("scenes/replace_object", "accuracy", "replace object"),
        ("scenes/replace_attribute", "accuracy", "replace attribute"),
        ("scenes/swap_attribute", "accuracy", "swap attribute"),
        ("scenes/swap_object", "accuracy", "swap object"),
        ("scenes/mean", "accuracy", "mean of 7 categories"),
    ]
    tasks = list(dict.fromkeys(t for r in reports for t in r.results["tasks"]))
    others = [t for t in tasks if not t.startswith("scenes/")]
    for task in others:
        headline = next(r.results["tasks"][task]["headline"] for r in reports if task in r.results["tasks"])
        metric = _row_label(task, headline, task)
        wanted.append((task, headline, _words(task) if metric == "accuracy" else f"{_words(task)}, {metric}"))
    cards = []
    for task, metric, label in wanted:
        lines = []
        for run, report in enumerate(reports):
            score = report.results["tasks"].get(task, {}).get("scores", {}).get(metric)
            if score is None:
                continue
            key = f'<span class="key run{run % 6}" title="{escape(names[run], quote=True)}"></span>'
            interval = _interval(score)
            lines.append(
                f'<div class="figure">{key if len(reports) > 1 else ""}<b>{score["value"]:.3f}</b>'
                f"<span>{interval}</span></div>"
            )
        if lines:
            cards.append(f'<div class="card"><h3>{escape(label)}</h3>{"".join(lines)}</div>')
    return f'<section class="cards">{"".join(cards)}</section>\n' if cards else ""


def _interval(score: dict[str, Any]) -> str:
    return "" if score["low"] is None else f"{score['low']:.3f} to {score['high']:.3f}"


def _section(
    key: str, tasks: Sequence[str], reports: Sequence[Report], names: Sequence[str], *, unfolded: bool = False
) -> str:
    title = _TITLES.get(key, _words(key).capitalize())
    groups, rows, used = [], [], set()
    for task in tasks:
        result_of = [report.results["tasks"].get(task) for report in reports]
        metrics = list(dict.fromkeys(m for result in result_of if result for m in result["scores"]))
        headline = next(result["headline"] for result in result_of if result)
        for metric in metrics:
            scores = [(result or {"scores": {}})["scores"].get(metric) for result in result_of]
            first = next(score for score in scores if score is not None)
            references: dict[str, dict[str, Any]] = {}
            for result in result_of:
                for scorer, values in (result or {"references": {}})["references"].items():
                    if metric in values:
                        references.setdefault(scorer, values[metric])
            used |= set(references)
            label = _row_label(task, metric, key)
            # A chart of many tasks has room for the number to quote of each; the table has the others.
            if len(tasks) == 1 or metric == headline:
                groups.append(
                    BarGroup(
                        label,
                        [
                            None
                            if s is None
                            else Bar(s["value"], s["low"], s["high"], f"{names[i]}: {s['value']:.3f} ({_interval(s)})")
                            for i, s in enumerate(scores)
                        ],
                        {scorer: score["value"] for scorer, score in references.items()},
                        first["chance"],
                    )
                )
            rows.append((label, scores, references, first))
    scorers = [s for s in _SCORERS if s in used] + sorted(used - set(_SCORERS))
    chart = bar_chart(groups, title=title)
    fold = "<details open>" if unfolded else "<details>"
    return (
        f'<section class="task"><h2>{escape(title)}</h2>{_legend(names, scorers)}'
        f'<div class="scroll">{chart}</div>'
        f"{fold}<summary>Table</summary>{_table(rows, names, scorers)}</details></section>\n"
    )


def _row_label(task: str, metric: str, section: str) -> str:
    name = _words(task.removeprefix(f"{section}/")) if task != section else ""
    short = _words(metric).replace("recall @ ", "R@").replace("/", ", ")
    short = short.replace("image to text, ", "image → text ").replace("text to image, ", "text → image ")
    if not name:
        return short
    return name if metric == "accuracy" else f"{name}: {short}"


def _legend(names: Sequence[str], scorers: Sequence[str]) -> str:
    entries = []
    if len(names) > 1:
        entries += [
            f'<span><span class="key run{run % 6}"></span>{escape(name)}</span>' for run, name in enumerate(names)
        ]
    entries.append(
        '<span><svg class="sign" viewBox="-14 -7 28 14"><path class="whisker" d="M-11 0H11M-11 -4v8M11 -4v8"/></svg>'
        "95 % interval</span>"
    )
    for scorer in scorers:
        label, meaning = _SCORERS.get(scorer, (_words(scorer), ""))
        entries.append(
            f'<span title="{escape(meaning, quote=True)}"><svg class="sign" viewBox="-8 -8 16 16">'
            f'<g class="mark {scorer}">{mark_shape(scorer)}</g></svg>{escape(label)}</span>'
        )
    entries.append(
        '<span><svg class="sign" viewBox="-8 -8 16 16"><line class="chance" y1="-7" y2="7"/></svg>chance</span>'
    )
    return f'<p class="legend">{"".join(entries)}</p>'


def _table(rows: Sequence[tuple], names: Sequence[str], scorers: Sequence[str]) -> str:
    head = ["", *(["score"] if len(names) == 1 else names)]
    if len(names) == 1:
        head += ["95 % interval", "n", "ties"]
    head += [_SCORERS.get(scorer, (_words(scorer), ""))[0] for scorer in scorers] + ["chance"]
    out = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for label, scores, references, first in rows:
        cells = []
        for score in scores:
            if len(names) == 1:
                ties = "" if score["ties"] is None else str(score["ties"])
                cells += [f"<b>{score['value']:.3f}</b>", _interval(score), str(score["n"]), ties]
            else:
                cells.append("" if score is None else f"<b>{score['value']:.3f}</b><small>{_interval(score)}</small>")
        cells += [f"{references[s]['value']:.3f}" if s in references else "" for s in scorers]
        chance = first["chance"]
        cells.append("" if chance is None else f"{chance:.4f}" if 0 < chance < 0.01 else f"{chance:.3f}")
        out.append(f"<tr><th>{escape(label)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return f'<div class="scroll"><table>{"".join(out)}</table></div>'


def _gallery(reports: Sequence[Report], names: Sequence[str]) -> str:
    tasks = list(dict.fromkeys(task for report in reports for task in report.gallery))
    figures = []
    for run, report in enumerate(reports):
        for task, items in report.gallery.items():
            figures += [_figure(item, task, run, names) for item in items]
    # One task at a time, or the page has hundreds of pictures; colour binding is what most readers come for.
    first = "scenes/swap_attribute" if "scenes/swap_attribute" in tasks else tasks[0]
    options = "".join(
        f'<option value="{escape(t, quote=True)}"{" selected" if t == first else ""}>{escape(_words(t))}</option>'
        for t in tasks
    )
    runs = "".join(f'<option value="{i}">{escape(name)}</option>' for i, name in enumerate(names))
    run_filter = (
        f'<label>Model <select id="f-run"><option value="">all</option>{runs}</select></label>'
        if len(names) > 1
        else ""
    )
    return (
        '<section id="gallery"><h2>Examples</h2>'
        "<p>Up to six items that the model got right and six that it got wrong in each task, drawn at random with a "
        "fixed seed; they are not picked by hand. The margin is the score of the true pair minus that of the false "
        "one.</p>"
        '<form class="filters"><label>Task '
        f'<select id="f-task"><option value="">all</option>{options}</select></label>'
        '<label>Outcome <select id="f-outcome"><option value="">right and wrong</option>'
        '<option value="right">right</option><option value="wrong">wrong</option></select></label>'
        f'{run_filter}<output id="f-count"></output></form>'
        f'<div class="grid">{"".join(figures)}</div></section>\n'
    )


def _figure(item: dict[str, Any], task: str, run: int, names: Sequence[str]) -> str:
    outcome = "right" if item["correct"] else "wrong"
    said = "tie" if item["tie"] and not item["correct"] else outcome
    mark = "✓" if item["correct"] else "=" if said == "tie" else "✗"
    pictures = "".join(
        f'<img alt="{"the true" if i == 0 else "the other"} picture" loading="lazy" '
        f'src="data:image/png;base64,{data}">'
        for i, data in enumerate(item["images"])
    )
    two = len(item["images"]) > 1
    # Two wide pictures are larger one above the other than side by side.
    shape = "" if not two else " two stack" if all(_is_wide(data) for data in item["images"]) else " two"
    lines = []
    if two and not item.get("false_text"):
        lines.append(
            f'<p class="true">{escape(str(item["text"]))}</p><p class="quiet">first picture is the true one</p>'
        )
    else:
        lines.append(f'<p class="true"><i>true</i>{escape(str(item["text"]))}</p>')
        if item.get("false_text"):
            word = "second" if two else "false" if item.get("rank") is None else "best other"
            lines.append(f'<p class="false"><i>{word}</i>{escape(str(item["false_text"]))}</p>')
    facts = [_words(task)]
    if item.get("subset"):
        facts.append(_words(str(item["subset"])))
    if item.get("margin") is not None:
        facts.append(f"margin {item['margin']:+.4f}")
    if item.get("rank") is not None:
        facts.append(f"rank {item['rank']}")
    if len(names) > 1:
        facts.append(names[run])
    return (
        f'<figure class="{outcome}" data-task="{escape(task, quote=True)}" data-outcome="{outcome}" data-run="{run}">'
        f'<div class="pictures{shape}">{pictures}</div>'
        f'<figcaption><span class="badge">{mark} {said}</span>'
        f'{"".join(lines)}<p class="quiet">{escape(" · ".join(facts))}</p></figcaption></figure>'
    )


def _is_wide(png: str) -> bool:
    """Whether a PNG in base64 is more than 1.6 times as wide as high; both sizes stand at its start."""
    width, height = struct.unpack(">II", base64.b64decode(png[:32])[16:24])
    return width > 1.6 * height


def _notes(reports: Sequence[Report], names: Sequence[str]) -> str:
    from .registry import list_tasks

    tasks = list(dict.fromkeys(task for report in reports for task in report.results["tasks"]))
    infos = {info.name: info for info in list_tasks()}
    citations = list(dict.fromkeys(infos[t].citation for t in tasks if t in infos and infos[t].citation))
    scorers = "".join(f"<li><b>{escape(label)}</b>: {escape(meaning)}.</li>" for label, meaning in _SCORERS.values())
    warnings = [
        f"{names[i]}, {_words(task)}: {warning}"
        for i, report in enumerate(reports)
        for task, result in report.results["tasks"].items()
        for warning in result.get("warnings", [])
    ]
    parts = ['<section class="notes"><h2>How to read this</h2>']
    if warnings:
        parts.append(f'<ul class="warnings">{"".join(f"<li>{escape(w)}</li>" for w in warnings)}</ul>')
    parts.append(
        "<p>Models are scored strictly: an item is right only if the true alternative scores higher than every false "
        "one, so ties are wrong, and a score that is not a number stops the evaluation. Intervals are 95 % bootstrap "
        "intervals over clusters of items that share a picture or a sentence. Reference scorers tie often by "
        "construction; their ties count as if broken at random.</p>"
        f"<ul>{scorers}</ul>"
    )
    if citations:
        parts.append(f"<p>Benchmarks: {escape('; '.join(citations))}.</p>")
    for report, name in zip(reports, names, strict=True):
        settings = {k: v for k, v in report.results["settings"].items() if v is not None and k != "tasks"}
        environment = report.results["environment"]
        rows = "".join(
            f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>"
            for k, v in {"model": report.name, **settings, **environment}.items()
        )
        parts.append(
            f"<details><summary>Settings of {escape(name)}</summary>"
            f'<div class="scroll"><table class="settings">{rows}</table></div></details>'
        )
    parts.append("</section>\n")
    return "".join(parts)
