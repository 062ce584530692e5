"""Charts of the report as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

_WIDTH, _VALUE = 720, 72
_BAR, _GAP, _HEAD, _AXIS = 14, 14, 8, 26


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


def bar_chart(groups: Sequence[BarGroup], *, title: str) -> str:
    """Horizontal bars from 0 to 1 with intervals, reference marks and chance lines.

    Args:
        groups (`Sequence[BarGroup]`):
            The categories.
        title (`str`):
            What the chart shows, for screen readers.

    Returns:
        `str`: an `<svg>` element.
    """
    runs = max(len(group.bars) for group in groups)
    height_of_group = runs * _BAR + _GAP
    height = _HEAD + len(groups) * height_of_group + _AXIS
    # Room for labels in the larger type of narrow screens.
    longest = max(len(group.label) for group in groups)
    left, right = round(min(300, max(120, 11.6 * longest + 16))), _WIDTH - _VALUE
    value_class = "value" if runs == 1 else "value dense"

    def x(value: float) -> float:
        return round(left + min(max(value, 0.0), 1.0) * (right - left), 1)

    bottom = height - _AXIS
    out = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title, quote=True)}">']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        out.append(f'<line class="grid" x1="{x(tick)}" y1="{_HEAD - 4}" x2="{x(tick)}" y2="{bottom}"/>')
        out.append(f'<text class="tick" x="{x(tick)}" y="{bottom + 16}">{tick:g}</text>')
    for row, group in enumerate(groups):
        top = _HEAD + row * height_of_group + _GAP / 2
        middle = top + runs * _BAR / 2
        out.append(f'<text class="label" x="{left - 10}" y="{middle + 4:.1f}">{escape(group.label)}</text>')
        whiskers = []
        for run, bar in enumerate(group.bars):
            if bar is None:
                continue
            y = top + run * _BAR
            centre = y + _BAR / 2
            out.append(
                f'<g><title>{escape(bar.title)}</title><rect class="run{run % 6}" x="{left}" y="{y + 1.5:.1f}" '
                f'width="{x(bar.value) - left:.1f}" height="{_BAR - 3}" rx="1.5"/>'
                f'<text class="{value_class}" x="{right + 15}" y="{centre + 4:.1f}">{bar.value:.3f}</text></g>'
            )
            if bar.low is not None and bar.high is not None and bar.high > bar.low:
                whiskers.append(
                    f'<path class="whisker" d="M{x(bar.low)} {centre:.1f}H{x(bar.high)}'
                    f'M{x(bar.low)} {centre - 3:.1f}v6M{x(bar.high)} {centre - 3:.1f}v6"/>'
                )
        if group.chance is not None:
            out.append(
                f'<line class="chance" x1="{x(group.chance)}" y1="{top - 3:.1f}" x2="{x(group.chance)}" '
                f'y2="{top + runs * _BAR + 3:.1f}"><title>chance {group.chance:.3f}</title></line>'
            )
        for scorer, value in group.marks.items():
            out.append(
                f'<g class="mark {scorer}" transform="translate({x(value)} {middle:.1f})">'
                f"<title>{escape(scorer.replace('_', ' '))} {value:.3f}</title>{mark_shape(scorer)}</g>"
            )
        # Last, so that no mark hides an interval.
        out += whiskers
    out.append("</svg>")
    return "".join(out)


def mark_shape(scorer: str) -> str:
    """The SVG shape that stands for a reference scorer, around the origin."""
    shapes = {
        "bag_of_words": '<path d="M0 -6L6 0L0 6L-6 0Z"/>',
        "text_only": '<circle r="4.6"/>',
        "text_only_classifier": '<path d="M0 -5.5L5 4H-5Z"/>',
    }
    return shapes.get(scorer, '<rect x="-4.5" y="-4.5" width="9" height="9"/>')
