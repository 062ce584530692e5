"""Example items of the report as HTML: pictures, captions and how each model did."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import permutations
from typing import Any

from PIL import Image

from .charts import RUN_COLOURS
from .comparison import Column, same_items
from .layout import all_tasks, words

# Filters for each two of so many models; more would be a list that nobody reads.
_MAX_PAIRS = 6


@dataclass
class _Example:
    """An item with pictures.

    Args:
        row (`dict`):
            Row of the table of items, with `images`.
        run (`int`):
            Number of the model whose gallery it is from.
        correct (`dict[int, float]`):
            Share of a model's runs that are right, by number of the model.
        rows (`dict[int, dict]`):
            The item as each model answered it.
    """

    row: dict[str, Any]
    run: int
    correct: dict[int, float] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)


def examples_section(columns: Sequence[Column]) -> str:
    """The section of examples with its filters.

    Args:
        columns (`Sequence[Column]`):
            The models.

    Returns:
        `str`: empty if no model has example items.
    """
    by_task = {task: _collect(task, columns) for task in all_tasks(columns)}
    by_task = {task: examples for task, examples in by_task.items() if examples}
    if not by_task:
        return ""
    # One task at a time, or the page has hundreds of pictures; colour binding is what most readers come for.
    first = "scenes/swap_attribute" if "scenes/swap_attribute" in by_task else next(iter(by_task))
    options = ['<option value="">all</option>']
    for task, examples in by_task.items():
        chosen = " selected" if task == first else ""
        options.append(f'<option value="{escape(task, quote=True)}"{chosen}>{escape(words(task))}</option>')
        subsets = list(dict.fromkeys(str(example.row["subset"]) for example in examples if example.row.get("subset")))
        if len(subsets) > 1:
            options += [
                f'<option value="{escape(f"{task}|{subset}", quote=True)}">'
                f"&nbsp;&nbsp;{escape(words(task))}: {escape(words(subset))}</option>"
                for subset in sorted(subsets)
            ]
    figures = []
    for task, examples in by_task.items():
        # Beyond two alternatives the false one that is shown is that which came nearest.
        ranked = any((example.row.get("rank") or 0) > 2 for example in examples)
        figures += [_figure(example, task, columns, ranked=ranked) for example in examples]
    several = len(columns) > 1
    drawn = (
        "Items from the galleries of all models: for each task up to six that a model got wrong and six that it got "
        "right, drawn at random with a fixed seed, and how every model did on them."
        if several
        else "Up to six items that the model got wrong and six that it got right in each task, drawn at random with a "
        "fixed seed; they are not picked by hand."
    )
    return (
        f'<section id="gallery"><h2>Examples</h2><p>{drawn} The number with a sign is the margin, the score of the '
        "true pair minus that of the best false one.</p>"
        '<form class="filters" autocomplete="off"><label>Category '
        f'<select id="f-task">{"".join(options)}</select></label>'
        f'<label>Outcome <select id="f-outcome">{_outcomes(columns)}</select></label>'
        f'<output id="f-count"></output></form><div class="grid">{"".join(figures)}</div>'
        '<p id="f-none" hidden>No example is of this kind; choose another outcome or category.</p></section>\n'
    )


def _outcomes(columns: Sequence[Column]) -> str:
    """Options of the filter by outcome; a value lists what models must be, `0+1-` for A right, B wrong."""
    if len(columns) == 1:
        kinds = {"": "right and wrong", "0-": "wrong", "0+": "right"}
        return "".join(f'<option value="{value}">{label}</option>' for value, label in kinds.items())
    names = [escape(column.name) for column in columns]
    options = ['<option value="">any</option>']
    every = range(len(columns))
    if len(columns) <= _MAX_PAIRS:
        pairs = "".join(
            f'<option value="{a}+{b}-">{names[a]} right, {names[b]} wrong</option>' for a, b in permutations(every, 2)
        )
        options.append(f'<optgroup label="Two models">{pairs}</optgroup>')
    singles = "".join(
        f'<option value="{i}-">{name} wrong</option><option value="{i}+">{name} right</option>'
        for i, name in enumerate(names)
    )
    options.append(f'<optgroup label="One model">{singles}</optgroup>')
    wrong, right = ("".join(f"{i}{sign}" for i in every) for sign in "-+")
    options.append(
        f'<optgroup label="All models"><option value="{wrong}">all wrong</option>'
        f'<option value="{right}">all right</option></optgroup>'
    )
    return "".join(options)


def _collect(task: str, columns: Sequence[Column]) -> list[_Example]:
    """Items with pictures of any model's gallery, those that go wrong first."""
    found: dict[tuple[Any, str], _Example] = {}
    measured = [(run, column) for run, column in enumerate(columns) if task in column.report.results["tasks"]]
    for run, column in measured:
        for member in column.members:
            for row in member.gallery.get(task, ()):
                found.setdefault((row.get("subset"), row["item_id"]), _Example(row, run))
    if not found:
        return []
    single = len(columns) == 1 and len(columns[0].members) == 1
    for run, column in measured:
        # The gallery of a single run knows all there is to show; the table of items may be large.
        items = {} if single else column.items(task)
        shared = [(items[key].row["text"], example.row["text"]) for key, example in found.items() if key in items]
        if shared and not same_items(shared):
            items = {}
        # Where no items are saved, the model's own gallery still tells how it did on what it shows.
        own = {(row.get("subset"), row["item_id"]): row for row in column.members[0].gallery.get(task, ())}
        for key, example in found.items():
            if key in items:
                example.correct[run], example.rows[run] = items[key].correct, items[key].row
            elif key in own and len(column.members) == 1 and own[key]["text"] == example.row["text"]:
                example.correct[run], example.rows[run] = float(bool(own[key]["correct"])), own[key]
    return sorted(found.values(), key=lambda example: min(example.correct.values(), default=0.0) == 1.0)


def _figure(example: _Example, task: str, columns: Sequence[Column], *, ranked: bool) -> str:
    row = example.row
    pictures = "".join(
        f'<img alt="{"the true" if i == 0 else "the other"} picture" decoding="async" src="{picture_url(data)}">'
        for i, data in enumerate(row["images"])
    )
    two = len(row["images"]) > 1
    # Two wide pictures are larger one above the other than side by side.
    shape = "" if not two else " two stack" if all(_is_wide(data) for data in row["images"]) else " two"
    facts = [words(task)]
    if row.get("subset"):
        facts.append(words(str(row["subset"])))
    single = len(columns) == 1
    if single and len(columns[0].members) == 1:
        said, sign = _outcome(example.correct[0], row)
        facts += _measures(row)
        verdict = f'<span class="badge">{sign} {said}</span>'
        kind = " right" if row["correct"] else " wrong"
    else:
        verdict = f'<ul class="verdicts">{_verdicts(example, columns)}</ul>'
        kind = ""
    data = "".join(f' data-c{run}="{_data(share)}"' for run, share in example.correct.items())
    return (
        f'<figure class="example{kind}" data-task="{escape(task, quote=True)}" '
        f'data-subset="{escape(str(row.get("subset") or ""), quote=True)}"{data}>'
        f'<div class="pictures{shape}">{pictures}</div>'
        f"<figcaption>{verdict}{_captions(example, columns, two=two, ranked=ranked)}"
        f'<p class="quiet">{escape(" · ".join(facts))}</p></figcaption></figure>'
    )


def _data(share: float) -> str:
    return "1" if share == 1.0 else "0" if share == 0.0 else "mixed"


def _outcome(share: float, row: dict[str, Any]) -> tuple[str, str]:
    if share == 1.0:
        return "right", "✓"
    return ("tie", "=") if row["tie"] else ("wrong", "✗")


def _measures(row: dict[str, Any]) -> list[str]:
    found = [f"{row['margin']:+.4f}"] if row.get("margin") is not None else []
    # With two alternatives the rank says no more than right or wrong.
    return found + ([f"rank {row['rank']}"] if (row.get("rank") or 0) > 2 else [])


def _verdicts(example: _Example, columns: Sequence[Column]) -> str:
    lines = []
    for run, column in enumerate(columns):
        if run not in example.correct:
            continue
        share, row, count = example.correct[run], example.rows[run], len(column.members)
        if count > 1:
            kind = "good" if share == 1.0 else "bad" if share == 0.0 else ""
            text = f"{round(share * count)} of {count} runs right"
        else:
            said, sign = _outcome(share, row)
            kind, text = ("good" if share == 1.0 else "bad"), f"{sign} {said}"
        measures = "" if count > 1 else f' <span class="quiet">{escape(", ".join(_measures(row)))}</span>'
        lines.append(
            f'<li><span class="key run{run % RUN_COLOURS}"></span>{escape(column.name)} '
            f'<b class="{kind}">{text}</b>{measures}</li>'
        )
    return "".join(lines)


def _captions(example: _Example, columns: Sequence[Column], *, two: bool, ranked: bool) -> str:
    row = example.row
    if two and not row.get("false_text"):
        where = "first picture is the true one"
        if _rivals_differ(example, "false_image"):
            where += f", second the best other of {columns[example.run].name}"
        return f'<p class="true">{escape(str(row["text"]))}</p><p class="quiet">{escape(where)}</p>'
    lines = [f'<p class="true"><i>true</i>{escape(str(row["text"]))}</p>']
    if row.get("false_text"):
        word = "second" if two else "best other" if ranked else "false"
        if ranked and not two and _rivals_differ(example, "false_text"):
            word += f" of {columns[example.run].name}"
        lines.append(f'<p class="false"><i>{escape(word)}</i>{escape(str(row["false_text"]))}</p>')
    return "".join(lines)


def _rivals_differ(example: _Example, name: str) -> bool:
    return len({row.get(name) for row in example.rows.values()}) > 1


def picture_url(data: str) -> str:
    """A `data:` address of a thumbnail.

    Args:
        data (`str`):
            PNG or JPEG in base64.

    Returns:
        `str`
    """
    # JPEG begins with FF D8 FF, and PNG with 89 50 4E.
    return f"data:image/{'jpeg' if data.startswith('/9j/') else 'png'};base64,{data}"


def _is_wide(data: str) -> bool:
    """Whether a picture is more than 1.6 times as wide as high."""
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return image.width > 1.6 * image.height
