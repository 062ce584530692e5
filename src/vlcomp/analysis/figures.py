"""Line charts as SVG files that need nothing else."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ..errors import ArgumentError
from ..files import check_output, write_atomic

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 400, 64, 16, 44, 52
_COLOURS = ("#3b6ea5", "#c8763c", "#5a8f69", "#8d6aa8", "#a3873a", "#7a7f85")
_DASHES = ("", "6 3", "2 3")


def line_chart(series: Mapping[str, Sequence[tuple[float, float]]], *, title: str, x_label: str, y_label: str) -> str:
    """Draw lines in one plane.

    Args:
        series (`Mapping[str, Sequence[tuple[float, float]]]`):
            Points of each line by its name, from left to right.
        title (`str`):
            What the chart shows.
        x_label (`str`):
            What is to the right.
        y_label (`str`):
            What is upwards.

    Returns:
        `str`: an SVG document.

    Raises:
        ArgumentError: if there is no finite point.

    Example:
        >>> from vlcomp.analysis import line_chart
        >>> line_chart({"a": [(0, 1), (1, 2)]}, title="t", x_label="x", y_label="y").startswith("<svg")
        True
    """
    points = [(x, y) for line in series.values() for x, y in line if math.isfinite(x) and math.isfinite(y)]
    if not points:
        raise ArgumentError("series holds no finite point, so there is nothing to draw")
    x_ticks, y_ticks = (_ticks([point[axis] for point in points]) for axis in (0, 1))
    legend = 16 * ((len(series) + 1) // 2)
    height = _HEIGHT + legend

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return (
            _LEFT + right * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13"><title>{escape(title)}</title>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fdfdfb"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="600" fill="#1d2125">{escape(title)}</text>',
    ]
    for tick in y_ticks:
        x, y = place(x_ticks[0], tick)
        parts.append(f'<path d="M{x:.1f} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#e6e6e0"/>')
        parts.append(f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end" fill="#646c73">{tick:g}</text>')
    for tick in x_ticks:
        x, y = place(tick, y_ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle" fill="#646c73">{tick:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle" fill="#1d2125">{escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(16 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" text-anchor="middle" '
        f'fill="#1d2125">{escape(y_label)}</text>'
    )
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
        style = f'stroke="{colour}" stroke-width="2" fill="none" stroke-dasharray="{dash}"'
        places = [place(x, y) for x, y in line if math.isfinite(x) and math.isfinite(y)]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        if path:
            parts.append(f'<path d="M{path}" {style}/>')
        if len(places) <= 12:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>' for x, y in places]
        left, low = _LEFT + (number % 2) * 290, _HEIGHT + 4 + 16 * (number // 2)
        parts.append(f'<path d="M{left} {low}h22" {style}/>')
        parts.append(f'<text x="{left + 28}" y="{low + 4}" fill="#1d2125">{escape(name)}</text>')
    return "".join(parts) + "</svg>\n"


def write_figure(figure: str, path: str | os.PathLike[str]) -> Path:
    """Write an SVG document to a file.

    Args:
        figure (`str`):
            From [`line_chart`].
        path (`str` or `os.PathLike`):
            The file, ending in .svg.

    Returns:
        `Path`

    Raises:
        ArgumentError: for another ending, or if the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() != ".svg" or target.is_dir():
        raise ArgumentError(f"path={str(path)!r} must name a file that ends in .svg")
    check_output(target.parent)
    write_atomic(target, lambda temporary: temporary.write_text(figure, encoding="utf-8"))
    return target


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers that enclose all values, five or so."""
    low, high = min(values), max(values)
    # Values that only rounding tells apart are equal: ticks between them would be too.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        reach = max(0.5, 1e-3 * abs(low))
        low, high = low - reach, high + reach
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12 - math.floor(math.log10(step))) for number in range(first, last + 1)]


__all__: list[str] = ["line_chart", "write_figure"]
