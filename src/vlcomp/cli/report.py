"""`vlcomp report`: one page from the results of one or more evaluations."""

from __future__ import annotations

import argparse
import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlcomp.evaluation import Report

HELP = "Write one self-contained page from the results of one or more evaluations, with paired comparisons."

_EPILOG = """Models after the first are compared with the first, item by item. A page ending in .md is Markdown.

examples:
  vlcomp report results/clip --output report.html
  vlcomp report CLIP=results/clip CE-CLIP=results/ce-clip --output comparison.html
  vlcomp report results/clip results/ce-clip --output comparison.md
  vlcomp report --group CLIP='results/clip-seed*' --group CE-CLIP=results/ce-0,results/ce-1 --output seeds.html"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="folder that `vlcomp evaluate --output` wrote, or NAME=FOLDER to call it something else",
    )
    parser.add_argument(
        "--group",
        action="append",
        default=[],
        metavar="NAME=RUN,RUN,...",
        help="runs that differ in nothing but the seed, shown as one model by their mean; patterns with * work too",
    )
    parser.add_argument("--output", default="report.html", metavar="FILE", help="the page (default: report.html)")
    parser.add_argument("--no-gallery", action="store_true", help="leave out the example pictures")


def run(args: argparse.Namespace) -> int:
    """Run the verb.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0.
    """
    from vlcomp.errors import ArgumentError
    from vlcomp.evaluation import Report
    from vlcomp.evaluation.html import write_html
    from vlcomp.evaluation.markdown import write_markdown

    if not args.runs and not args.group:
        raise ArgumentError("no RUN is given; pass a folder that `vlcomp evaluate --output` wrote")
    suffix = Path(args.output).suffix.lower()
    if suffix not in (".html", ".htm", ".md", ".markdown"):
        raise ArgumentError(f"--output {args.output!r} must end in .html or .md, which tells what to write")
    named = [_named(run) for run in args.runs]
    reports = [Report.load(folder) for _, folder in named]
    names = _names(named, reports)
    groups = {}
    for group in args.group:
        name, folders = _group(group)
        if name in groups:
            raise ArgumentError(f"--group {name!r} is given twice; name all of its runs at once")
        groups[name] = [Report.load(folder) for folder in folders]
    if suffix in (".md", ".markdown"):
        print(write_markdown(reports, args.output, names=names, groups=groups))
    else:
        print(write_html(reports, args.output, gallery=not args.no_gallery, names=names, groups=groups))
    return 0


def _named(run: str) -> tuple[str | None, str]:
    """Name, if one is given, and folder."""
    name, sign, folder = run.partition("=")
    # A folder whose own name has a `=` in it is meant as it is.
    return (name, folder) if sign and name and folder and not os.path.exists(run) else (None, run)


def _names(named: list[tuple[str | None, str]], reports: list[Report]) -> list[str]:
    """What to call the runs: as given, or the model's name, or the folder where models share a name."""
    from vlcomp.evaluation.layout import short_name

    own = [short_name(report.name) for report in reports]
    found: list[str] = []
    for (name, folder), model in zip(named, own, strict=True):
        label = name or (model if own.count(model) == 1 else folder.rstrip("/"))
        number, candidate = 2, label
        while candidate in found and name is None:
            candidate, number = f"{label} ({number})", number + 1
        found.append(candidate)
    return found


def _group(text: str) -> tuple[str, list[str]]:
    from vlcomp.errors import ArgumentError

    name, sign, rest = text.partition("=")
    runs = [part for part in rest.split(",") if part]
    if not sign or not name or not runs:
        raise ArgumentError(
            f"--group {text!r} must be NAME=RUN,RUN,..., for instance CLIP=results/seed0,results/seed1"
        )
    folders: list[str] = []
    for pattern in runs:
        found = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        if not found:
            raise ArgumentError(f"--group {name}: no folder matches {pattern!r}")
        folders += found
    places = [os.path.realpath(folder) for folder in folders]
    twice = next((folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise ArgumentError(f"--group {name}: run {twice!r} is named twice; it would make the interval too narrow")
    return name, folders
