"""Tables of the study of Iterated-CLIP: differences between configurations, and what changes over generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..analysis import line_chart
from .clip import SELECTION_METRIC
from .frame import interval

# What is compared, from the method to its parts.
PAIRS = (
    ("Iterated-CLIP", "CLIP"),
    ("Iterated-CLIP", "Codebook-CLIP"),
    ("Codebook-CLIP", "CLIP"),
    ("Iterated-CLIP, four generations", "Iterated-CLIP"),
    ("Iterated-CLIP, four generations", "Codebook-CLIP"),
)
_DRAWN = ("CLIP", "Codebook-CLIP", "Iterated-CLIP", "Iterated-CLIP, four generations")
COMPARED = {
    "scenes/mean/accuracy": "mean of seven",
    "scenes/swap_object/accuracy": "swap-object",
    "scenes/swap_attribute/accuracy": "swap-attribute",
    "scenes/systematic/mean/accuracy": "unseen pairs",
    "scenes/retrieval/image_to_text/recall@1": "R@1 image to text",
    "scenes/retrieval/text_to_image/recall@1": "R@1 text to image",
}


def over_generations(runs: Sequence[Mapping[str, Any]]) -> str:
    """Ease of learning, smoothness and validation scores at each checkpoint, mean over seeds, as a Markdown table.

    Args:
        runs (`Sequence[Mapping]`):
            Result files of the study.

    Returns:
        `str`
    """
    columns = {
        "ease of learning": (lambda each: 100 * each["ease_mean"], ".1f"),
        "at the first scale": (lambda each: 100 * each["ease_at_first_scale_mean"], ".1f"),
        "logit scale": (lambda each: each["logit_scale"], ".1f"),
        "log10 of bound": (lambda each: each["log10_bound"], ".2f"),
        "log10 of bound here": (lambda each: each["log10_bound_here"], ".2f"),
        "steepest slope": (lambda each: each["slope"], ".2f"),
        "R@1": (lambda each: 100 * each["validation"][SELECTION_METRIC], ".1f"),
        "mean of seven": (lambda each: 100 * each["validation"]["scenes/mean/accuracy"], ".1f"),
        "swap-attribute": (lambda each: 100 * each["validation"]["scenes/swap_attribute/accuracy"], ".1f"),
    }
    lines = ["| configuration | step | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for name in dict.fromkeys(run["configuration"] for run in runs):
        for step, entries in _by_step(runs, name).items():
            cells = [interval([value(each) for each in entries], style) for value, style in columns.values()]
            lines.append(f"| {name} | {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Ease of learning and smoothness over the checkpoints, means over seeds, as line charts.

    Args:
        runs (`Sequence[Mapping]`):
            Result files of the study.

    Returns:
        `dict[str, str]`: SVG documents by file name.
    """
    present = {run["configuration"] for run in runs}
    names = [name for name in _DRAWN if name in present]
    if not names:
        return {}
    at_steps = {name: _by_step(runs, name) for name in names}
    ends = {name: steps[max(steps)] for name, steps in at_steps.items()}
    curves = {
        name: list(enumerate(_mean_curve(entries, "ease_at_first_scale_curve"), 1)) for name, entries in ends.items()
    }
    charts = {
        "ease.svg": ("ease_mean", "A new language agent at each checkpoint's scale", "in-batch accuracy (%)", 100),
        "ease-at-first-scale.svg": (
            "ease_at_first_scale_mean",
            "A new language agent at the first scale",
            "in-batch accuracy (%)",
            100,
        ),
        "slope.svg": ("slope", "Steepest slope of the vision agent", "steepest slope", 1),
        "bound.svg": ("log10_bound_here", "Bound of the vision agent's Lipschitz constant", "log10 of the bound", 1),
    }
    found = {}
    for file, (key, title, label, scale) in charts.items():
        lines = {
            name: [
                (step, scale * sum(each[key] for each in entries) / len(entries)) for step, entries in steps.items()
            ]
            for name, steps in at_steps.items()
        }
        found[file] = line_chart(lines, title=title, x_label="optimiser steps", y_label=label)
    found["ease-curves.svg"] = line_chart(
        curves,
        title="New language agents beside the final vision agents",
        x_label="its steps",
        y_label="in-batch accuracy (%)",
    )
    return found


def _by_step(runs: Sequence[Mapping[str, Any]], name: str) -> dict[int, list[Mapping[str, Any]]]:
    """Entries of all seeds by checkpoint, in the order of steps."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run["configuration"] == name:
            for each in run["checkpoints"]:
                found.setdefault(each["step"], []).append(each)
    return dict(sorted(found.items()))


def _mean_curve(entries: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    columns = zip(*(each[key] for each in entries), strict=True)
    return [100 * sum(column) / len(column) for column in columns]


def codes_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Active codes and topographic similarity of the final models, mean over seeds, as a Markdown table.

    Args:
        runs (`Sequence[Mapping]`):
            Result files of the study or of its selection.

    Returns:
        `str`
    """
    columns = {
        "active_codes/image": ("codes of an image", ".1f"),
        "active_codes/text": ("codes of a text", ".1f"),
        "used_codes/both": ("codes used by both", ".0f"),
        "topography/image": ("topography, images", ".3f"),
        "topography/text": ("texts", ".3f"),
        "topography/image_words": ("images, words", ".3f"),
        "topography/text_words": ("texts, words", ".3f"),
    }
    heads = [head for head, _ in columns.values()]
    lines = ["| configuration | " + " | ".join(heads) + " |", "|---|" + "---|" * len(columns)]
    for name in dict.fromkeys(run["configuration"] for run in runs):
        metrics = [run["metrics"] for run in runs if run["configuration"] == name]
        cells = []
        for metric, (_, style) in columns.items():
            values = [each[metric] for each in metrics if metric in each]
            cells.append(interval(values, style) if values else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
