"""`vlcomp cards`: write one card for each method from the result files of its study."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any

HELP = "Write a model card for each method from the result files of its study."

_EPILOG = """examples:
  vlcomp cards
  vlcomp cards --check
  vlcomp cards --results runs/studies --output runs/cards

RESULTS holds a folder for each method, as `vlcomp reproduce METHOD --output RESULTS/METHOD` writes it. The same
results give the same cards."""

_LONG = 40  # lines of details that a card shows; longer ones (curves) stay in the README of the results


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("model_cards/results"),
        help="folder with one folder of result files for each method (default: model_cards/results)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("model_cards"), help="folder of the cards (default: model_cards)"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a card is missing or stale")


def run(args: argparse.Namespace) -> int:
    """Write the cards, or check them.

    Args:
        args (`argparse.Namespace`):
            From the parser of [`add_arguments`].

    Returns:
        `int`: 0.

    Raises:
        VlcompError: if there are no results, a file cannot be read, or (with `--check`) a card is not up to date.
    """
    from ..errors import DataError
    from ..files import check_output, write_atomic

    if not args.results.is_dir():
        raise DataError(f"--results {args.results}: there is no such folder; start this in the repository, or name it")
    stale = []
    if not args.check:
        check_output(args.output)
    for name, text in cards(args.results, args.output).items():
        file = args.output / name
        same = file.is_file() and file.read_text(encoding="utf-8") == text
        if args.check:
            stale += [] if same else [name]
        else:
            if not same:
                write_atomic(file, lambda path, text=text: path.write_text(text, encoding="utf-8"))
            print(f"{file}{' is up to date' if same else ''}")
    if stale:
        raise DataError(f"{', '.join(stale)} in {args.output} not up to date; run `vlcomp cards`")
    return 0


def cards(results: Path, output: Path) -> dict[str, str]:
    """The cards of all methods.

    Args:
        results (`Path`):
            Folder with one folder of result files for each method.
        output (`Path`):
            Where the cards will lie, for their links to the result files.

    Returns:
        `dict[str, str]`: text by file name, `<method>.md`.
    """
    from ..hub.cards import method_card
    from ..methods import METHODS

    found = {}
    for name, method in METHODS.items():
        study = None if method.study is None else _facts(method.load("study"), results / name, f"reproduce {name}")
        link = Path(os.path.relpath(results / name, output)).as_posix()
        found[f"{name}.md"] = method_card(method, study, link=link)
    return found


def _facts(study: Any, folder: Path, command: str) -> Any:
    """What the card shows of a study; `None` if neither it nor a part of it has results."""
    from ..hub.card_results import StudyFacts
    from ..studies.frame import load_runs, study_table

    parts = [
        found
        for name, part in study.parts.items()
        if (found := _facts(part, folder / name, f"{command} --part {name}")) is not None
    ]
    runs = load_runs(study, folder)
    if not runs and not parts:
        return None
    notes = study.notes
    details = study.details(runs).strip() if runs and study.details is not None else ""
    if details and len(details.splitlines()) <= _LONG:
        # Its headings go below those of the card.
        notes += "\n\n" + re.sub(r"^#", "###", details, flags=re.M)
    return StudyFacts(
        title=study.title,
        table=study_table(study, runs) if runs else "No results yet.",
        notes=notes,
        runs=runs,
        columns=study.columns,
        percent=study.percent,
        command=f"vlcomp {command}",
        parts=parts,
        task=study.task,
    )
