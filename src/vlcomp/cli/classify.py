"""`vlcomp classify`: zero-shot classification of pictures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HELP = "Classify pictures into labels given as text, with a CLIP-like checkpoint."

_EPILOG = """examples:
  vlcomp classify runs/clip photo.jpg --labels "a cat" "a dog"
  vlcomp classify runs/clip photos/ --labels-file labels.txt --top-k 3 --json out.json
  vlcomp classify runs/clip photo.jpg --labels cat dog --template "a photo of a {}." "a drawing of a {}."
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder or Hub repository")
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", help="picture, http(s) URL, or folder (all pictures in it and below)"
    )
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", nargs="+", metavar="LABEL", help="the labels")
    labels.add_argument("--labels-file", type=Path, metavar="FILE", help="text file with one label a line")
    parser.add_argument(
        "--template",
        nargs="+",
        default=["This is a photo of {}."],
        metavar="TEXT",
        help='prompt with {} for the label; several are averaged (default: "This is a photo of {}.")',
    )
    parser.add_argument("--top-k", type=int, default=5, metavar="N", help="labels to show a picture (default: 5)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="pictures a step (default: 64)")
    parser.add_argument("--device", help="for instance cuda:0 (default: cpu)")
    parser.add_argument(
        "--fit",
        choices=("crop", "squash", "pad"),
        help="how pictures are brought to the model's shape (default: as the checkpoint says)",
    )
    parser.add_argument(
        "--skip-bad-images", action="store_true", help="leave out pictures that cannot be read, and list them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")


def run(args: argparse.Namespace) -> int:
    """Classify the pictures and print a table.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0.

    Raises:
        VlcompError: if an argument, the checkpoint or (without `--skip-bad-images`) a picture cannot be used.
    """
    from tqdm.auto import tqdm

    from ..data.checks import check_images
    from ..errors import ArgumentError, DataError
    from ..pipelines import ZeroShotPipeline
    from ..pipelines.zero_shot import checked_labels, checked_templates

    # Whatever can be wrong with the arguments is found before a model is loaded.
    labels = args.labels if args.labels_file is None else _read_labels(args.labels_file)
    if args.batch_size < 1:
        raise ArgumentError(f"--batch-size {args.batch_size} must be at least 1")
    if args.top_k < 1:
        raise ArgumentError(f"--top-k {args.top_k} must be at least 1")
    option = "--labels" if args.labels_file is None else f"--labels-file {args.labels_file}: labels"
    checked_labels(labels, option)
    checked_templates(args.template, "--template")
    paths = _find_images(args.images, args.skip_bad_images)
    if not args.skip_bad_images:
        check_images(paths, "those to classify")
    if args.json is not None:
        _require_writable(args.json)
    classify = ZeroShotPipeline(args.model, device=args.device, batch_size=args.batch_size, fit=args.fit)
    if len(labels) == 1 and not classify.embedder.uses_sigmoid:
        raise ArgumentError(
            f"there is one label, {labels[0]!r}, and the scores of a picture add up to 1: give at least two labels"
        )
    options = {"hypothesis_template": args.template, "top_k": args.top_k}

    results: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    # disable=None: a bar where a person watches, nothing in a log file.
    with tqdm(total=len(paths), desc="Classifying", unit="image", leave=False, disable=None) as bar:
        for start in range(0, len(paths), args.batch_size):
            batch = paths[start : start + args.batch_size]
            images = _readable(batch, skipped) if args.skip_bad_images else dict.fromkeys(batch)
            if images:
                sources = [path if image is None else image for path, image in images.items()]
                scores = classify(sources, labels, **options)
                results += [{"image": path, "labels": row} for path, row in zip(images, scores, strict=True)]
            bar.update(len(batch))
    if args.json is not None:
        record = {"model": args.model, "template": args.template, "results": results, "skipped": skipped}
        try:
            args.json.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise ArgumentError(f"--json {args.json} cannot be written: {error.strerror}") from error
    print(_table(results))
    if skipped:
        print(f"\nskipped {len(skipped)} of {len(paths)} pictures:", file=sys.stderr)
        for entry in skipped:
            print(f"  {entry['image']}: {entry['error']}", file=sys.stderr)
    if not results:
        raise DataError(f"none of the {len(paths)} pictures can be read")
    return 0


def _read_labels(file: Path) -> list[str]:
    from ..errors import ArgumentError

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ArgumentError(f"--labels-file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ArgumentError(f"--labels-file {file} is not UTF-8 text (byte {error.start})") from error
    labels = [line.strip() for line in lines if line.strip()]
    if not labels:
        raise ArgumentError(f"--labels-file {file} holds no label; write one a line")
    return labels


def _find_images(sources: list[str], skip_missing: bool) -> list[str]:
    from PIL import Image

    from ..errors import DataError

    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found: list[str] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in endings and p.is_file())
            if not inside:
                raise DataError(f"{source}: there is no picture in this folder")
            found += inside
        elif skip_missing or path.is_file() or source.startswith(("http://", "https://")):
            found.append(source)
        else:
            raise DataError(f"{source}: there is no such picture or folder")
    return list(dict.fromkeys(found))


def _readable(paths: list[str], skipped: list[dict[str, str]]) -> dict[str, Any]:
    from ..data.images import load_image
    from ..errors import DataError

    images = {}
    for path in paths:
        try:
            images[path] = load_image(path)
        except DataError as error:
            skipped.append({"image": path, "error": str(error)})
    return images


def _require_writable(file: Path) -> None:
    from ..errors import ArgumentError

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ArgumentError(f"--json {file} cannot be written: {error.strerror}") from error


def _table(results: list[dict[str, Any]]) -> str:
    """One block a picture: its name, then a line a label with score and bar."""
    names = [entry["label"] for row in results for entry in row["labels"]]
    width = min(60, max(map(len, names), default=0))
    blocks = []
    for row in results:
        lines = [row["image"]]
        for entry in row["labels"]:
            label = entry["label"] if len(entry["label"]) <= width else entry["label"][: width - 3] + "..."
            lines.append(f"  {label:{width}}  {entry['score']:.4f}  {'#' * round(20 * entry['score'])}".rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)
