"""`vlcomp demo`: the whole path in minutes, without a network."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import ArgumentError
from ..methods import METHODS, Method, get_method

HELP = "Make the built-in world, train a small CLIP on it, measure it, reload it and write a report page."

_EPILOG = """examples:
  vlcomp demo
  vlcomp demo --quick --output demo-output
  vlcomp demo --methods all

Leaves in the output folder: a model that `from_pretrained` and `pipeline` load (clip/), the measurements (results/),
pictures (pictures/) and one page to look at (report.html)."""

_DEFAULT = ("clip", "imc-cmr")
# What the reloaded model is shown, in a process of its own that knows only the folder.
_CLASSIFY = """
import json, sys
from transformers import pipeline
import vlcomp
classifier = pipeline("zero-shot-image-classification", model=sys.argv[1])
labels, files = json.loads(sys.argv[2]), sys.argv[3:]
outputs = classifier(files, candidate_labels=labels, hypothesis_template="a {}")
model = type(classifier.model).__name__
print(json.dumps({"model": model, "labels": [output[0] for output in outputs]}))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder to write to")
    parser.add_argument("--quick", action="store_true", help="under three minutes: a model that has hardly learned")
    parser.add_argument(
        "--methods",
        nargs="+",
        metavar="METHOD",
        default=list(_DEFAULT),
        help=f"rows to train, or all; each more takes minutes (default: {' '.join(_DEFAULT)})",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo.

    Args:
        args (`argparse.Namespace`):
            From the parser of [`add_arguments`].

    Returns:
        `int`: 0.

    Raises:
        VlcompError: if the output folder cannot be written, or a method is not known or has no demo.
    """
    from ..evaluation.html import write_html
    from ..files import check_output

    methods = _methods(args.methods)
    begun = time.time()
    output = check_output(args.output)
    print("Scenes: pictures of coloured objects with captions, rendered here from a seed.")
    reports = []
    start = None
    for method in methods:
        print(f"\n{method.title}: training and measuring ({'quick' if args.quick else 'minutes'})", flush=True)
        report = method.load("demo")(output, quick=args.quick, start=start)
        report.save(output / "results" / method.name)
        reports.append((method, report))
        if method.name == "clip":
            start = output / method.name
    for method, report in reports:
        print(f"\n{method.title}\n{report.to_markdown(headlines=True)}")
    _explain(reports, args.quick)
    _reload(output / reports[0][0].name, output / "pictures")
    page = write_html(
        [report for _, report in reports], output / "report.html", names=[method.title for method, _ in reports]
    )
    print(f"\n{(time.time() - begun) / 60:.1f} minutes. Open {page} in a browser.")
    return 0


def _methods(names: Sequence[str]) -> list[Method]:
    """Methods by name, in the order of the table."""
    known = {name: method for name, method in METHODS.items() if method.demo is not None}
    if "all" in names:
        return list(known.values())
    for name in names:
        if get_method(name).name not in known:
            raise ArgumentError(f"--methods {name}: there is no demo of it; choose from {', '.join(known)}")
    return [method for name, method in known.items() if name in names]


def _explain(reports, quick: bool) -> None:
    """Say in words what the tables show, from their numbers."""
    for method, report in reports:

        def score(name: str, report=report) -> str:
            return f"{100 * report.score(f'scenes/{name}/accuracy').value:.0f} %"

        print(
            f"\n{method.title} notices a wrong noun or colour in {score('replace_object')} and "
            f"{score('replace_attribute')} of the items, colours exchanged between two objects in "
            f"{score('swap_attribute')}, places exchanged in {score('swap_object')} (a coin: 50 %)."
        )
    if quick:
        print("The quick demo trains too briefly for these numbers to mean anything: run `vlcomp demo` for that.")


def _reload(model: Path, pictures: Path) -> None:
    """Load the saved model in a new process by the stock pipeline, and classify pictures."""
    from ..data.scenes import load_scenes
    from ..errors import VlcompError
    from ..studies.clip import IMAGE_SIZE

    rows = load_scenes("classification/clean", size=8, image_size=IMAGE_SIZE)
    names = rows.features["label"].names
    pictures.mkdir(parents=True, exist_ok=True)
    files = []
    for number, row in enumerate(rows):
        path = pictures / f"{number}-{names[row['label']]}.png"
        row["image"].save(path)
        files.append(str(path))
    print(f"\nReloading {model} in a new process: pipeline('zero-shot-image-classification', model=...)")
    done = subprocess.run(
        [sys.executable, "-c", _CLASSIFY, str(model), json.dumps(names), *files], capture_output=True, text=True
    )
    if done.returncode:
        raise VlcompError(f"the saved model {model} could not be loaded in a new process:\n{done.stderr.strip()}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"loaded as {answer['model']}")
    for path, best in zip(files, answer["labels"], strict=True):
        print(f"  {path}: {best['label']} ({100 * best['score']:.0f} %)")
