"""Charts of the report as inline HTML and SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

RUN_COLOURS = 6


@dataclass(frozen=True)
class Bar:
    """One bar: a score with its interval."""

    value: float
    low: float | None
    high: float | None
    title: str


@dataclass(frozen=True)
class BarGroup:
    """A category: one bar for each run, and marks of the reference scorers.

    Args:
        label (`str`):
            Name of the category.
        bars (`list[Bar | None]`):
            One for each run; `None` where a run lacks the category.
        marks (`dict[str, float]`):
            Value of each reference scorer.
        chance (`float`, *optional*):
            Score of a random guess.
    """

    label: str
    bars: list[Bar | None]
    marks: dict[str, float] = field(default_factory=dict)
    chance: float | None = None


@dataclass(frozen=True)
class Point:
    """A model in a plane of two scores.

    Args:
        label (`str`):
            Its name.
        run (`int`):
            Its number, for the colour.
        x (`float`):
            Score to the right.
        y (`float`):
            Score upwards.
    """

    label: str
    run: int
    x: float
    y: float


def _percent(value: float) -> str:
    return f"{100 * min(max(value, 0.0), 1.0):.2f}%"


def bar_chart(groups: Sequence[BarGroup], *, title: str) -> str:
    """Horizontal bars from 0 to 1 with intervals, reference marks and chance lines.

    Made of boxes with lengths in per cent, so that type keeps its size on a narrow screen.

    Args:
        groups (`Sequence[BarGroup]`):
            The categories.
        title (`str`):
            What the chart shows, for screen readers.

    Returns:
        `str`: a `<div>` element.
    """
    out = [f'<div class="bars" role="img" aria-label="{escape(title, quote=True)}; the table below has the numbers">']
    for group in groups:
        out.append(f'<div class="row"><div class="name">{escape(group.label)}</div><div class="track">')
        for run, bar in enumerate(group.bars):
            if bar is None:
                continue
            whisker = ""
            if bar.low is not None and bar.high is not None and bar.high > bar.low:
                low, high = max(bar.low, 0.0), min(bar.high, 1.0)
                whisker = f'<i class="whisker" style="left:{_percent(low)};width:{_percent(high - low)}"></i>'
            out.append(
                f'<div class="bar" title="{escape(bar.title, quote=True)}"><i class="fill run{run % RUN_COLOURS}" '
                f'style="width:{_percent(bar.value)}"></i>{whisker}<b>{bar.value:.3f}</b></div>'
            )
        if group.chance is not None:
            out.append(
                f'<i class="chance" style="left:{_percent(group.chance)}" title="chance {group.chance:.3f}"></i>'
            )
        for scorer, value in group.marks.items():
            out.append(
                f'<svg class="at" viewBox="-8 -8 16 16" style="left:{_percent(value)}"><g class="mark {scorer}">'
                f"<title>{escape(scorer.replace('_', ' '))} {value:.3f}</title>{mark_shape(scorer)}</g></svg>"
            )
        out.append("</div></div>")
    ticks = "".join(f'<span style="left:{_percent(tick)}">{tick:g}</span>' for tick in (0, 0.25, 0.5, 0.75, 1))
    out.append(f'<div class="row axis"><div class="name"></div><div class="track">{ticks}</div></div></div>')
    return "".join(out)


def mark_shape(scorer: str) -> str:
    """The SVG shape that stands for a reference scorer, around the origin."""
    shapes = {
        "bag_of_words": '<path d="M0 -6L6 0L0 6L-6 0Z"/>',
        "text_only": '<circle r="4.6"/>',
        "text_only_classifier": '<path d="M0 -5.5L5 4H-5Z"/>',
        "majority": '<path d="M0 5.5L5 -4H-5Z"/>',
        "shuffled_words": '<path d="M-2 -6h4v4h4v4h-4v4h-4v-4h-4v-4h4Z"/>',
        "language_model": '<path d="M-5.2 3V-3L0 -6L5.2 -3V3L0 6Z"/>',
    }
    return shapes.get(scorer, '<rect x="-4.5" y="-4.5" width="9" height="9"/>')


def difference_mark(value: float, low: float, high: float, reach: float) -> str:
    """A difference with its interval on a line from `-reach` to `reach`, to stand in a table.

    Args:
        value (`float`):
            The difference.
        low (`float`):
            Lower end of its interval; NaN if there is none.
        high (`float`):
            Upper end of its interval; NaN if there is none.
        reach (`float`):
            The largest absolute value of the column.

    Returns:
        `str`: an `<svg>` element.
    """

    def x(number: float) -> float:
        return round(60 + 56 * min(max(number / reach, -1.0), 1.0), 1)

    sure = "sure" if low > 0 or high < 0 else "unsure"
    line = "" if math.isnan(low) else f'<path d="M{x(low)} 8H{x(high)}M{x(low)} 5v6M{x(high)} 5v6"/>'
    return (
        f'<svg class="difference {sure}" viewBox="0 0 120 16" aria-hidden="true"><path class="zero" d="M60 0V16"/>'
        f'{line}<circle cx="{x(value)}" cy="8" r="3.4"/></svg>'
    )


# Drawn around the origin; a shape for each colour, so that a print without colour can be read.
_POINT_SHAPES = (
    '<circle r="6"/>',
    '<rect x="-5.5" y="-5.5" width="11" height="11"/>',
    '<path d="M0 -7L7 5H-7Z"/>',
    '<path d="M0 -7.5L7.5 0L0 7.5L-7.5 0Z"/>',
    '<path d="M0 7L7 -5H-7Z"/>',
    '<path d="M-6 -2H-2V-6H2V-2H6V2H2V6H-2V2H-6Z"/>',
)
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 460, 330, 58, 50, 14, 16


def scatter_chart(points: Sequence[Point], *, title: str, x_label: str, y_label: str) -> str:
    """Models in a plane of two scores, the axes cut to where they lie.

    Args:
        points (`Sequence[Point]`):
            The models.
        title (`str`):
            What the chart shows, for screen readers.
        x_label (`str`):
            What is to the right.
        y_label (`str`):
            What is upwards.

    Returns:
        `str`: an `<svg>` element.
    """
    x_ticks, y_ticks = _ticks([p.x for p in points]), _ticks([p.y for p in points])
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(value: float) -> float:
        return round(_LEFT + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (right - _LEFT), 1)

    def y(value: float) -> float:
        return round(bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - _TOP), 1)

    said = "; ".join(f"{p.label}: {p.x:.3f} and {p.y:.3f}" for p in points)
    label = escape(f"{title}. {said}", quote=True)
    out = [f'<svg class="scatter" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for tick in x_ticks:
        out.append(f'<path class="grid" d="M{x(tick)} {_TOP}V{bottom}"/>')
        out.append(f'<text class="tick" x="{x(tick)}" y="{bottom + 17}">{tick:.3g}</text>')
    for tick in y_ticks:
        out.append(f'<path class="grid" d="M{_LEFT} {y(tick)}H{right}"/>')
        out.append(f'<text class="tick end" x="{_LEFT - 7}" y="{y(tick) + 4}">{tick:.3g}</text>')
    out.append(f'<text class="axis" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 10}">{escape(x_label)} →</text>')
    out.append(
        f'<text class="axis" transform="translate(15 {(_TOP + bottom) / 2}) rotate(-90)">{escape(y_label)} →</text>'
    )
    for point in points:
        out.append(
            f'<g class="point run{point.run % RUN_COLOURS}" transform="translate({x(point.x)} {y(point.y)})">'
            f"<title>{escape(point.label)}: {point.x:.3f}, {point.y:.3f}</title>"
            f"{_POINT_SHAPES[point.run % RUN_COLOURS]}</g>"
        )
    out.append("</svg>")
    return "".join(out)


def point_sign(run: int) -> str:
    """The sign of a model for a legend."""
    return (
        f'<svg class="sign" viewBox="-8 -8 16 16"><g class="point run{run % RUN_COLOURS}">'
        f"{_POINT_SHAPES[run % RUN_COLOURS]}</g></svg>"
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers around the values, between 0 and 1."""
    low, high = min(values), max(values)
    # Never so near that a difference of a tenth of a point looks like a gulf.
    room = max(0.12 * (high - low), (0.04 - (high - low)) / 2, 0.005)
    low, high = max(0.0, low - room), min(1.0, high + room)
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 4) for i in range(first, last + 1)]
