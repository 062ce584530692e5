"""`vlcomp evaluate`: measure a model on benchmark tasks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

HELP = "Measure a model on benchmark tasks: strict scores with intervals, beside reference scorers and chance."

_EPILOG = """examples:
  vlcomp evaluate runs/clip --task scenes
  vlcomp evaluate runs/clip --task retrieval --data path/to/captioned_images
  vlcomp evaluate openai/clip-vit-base-patch32 --task caption_choice \\
      --data sugarcrepe/ --images coco/val2017 --output results/clip --html
  vlcomp evaluate runs/clip --task image_choice --data nlvr1/dev_pairs.jsonl --fit squash

`vlcomp tasks` lists the tasks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="checkpoint folder or hub name")
    parser.add_argument(
        "--task",
        action="append",
        metavar="NAME",
        help="task, group (scenes) or pattern ('scenes/swap_*'); may be given several times (default: scenes)",
    )
    parser.add_argument("--data", metavar="PATH", help="what tasks on your own data read")
    parser.add_argument("--images", metavar="DIR", help="folder of the images, where the data names files elsewhere")
    parser.add_argument("--split", help="split of the data to read")
    parser.add_argument("--image-column", metavar="NAME", help="column of the images (retrieval)")
    parser.add_argument("--caption-column", metavar="NAME", help="column of the captions (retrieval)")
    parser.add_argument(
        "--template",
        nargs="+",
        action="extend",
        metavar="TEXT",
        help="prompts with {} for the class, or a file of them",
    )
    parser.add_argument("--class-names", metavar="FILE", help="names of the classes, in the order of the folders")
    parser.add_argument("--batch-size", type=int, default=64, help="inputs in one forward pass (default: 64)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps ... (default: cuda if there is one, else cpu)")
    parser.add_argument("--dtype", help="type of the weights: float32, bfloat16, float16 (default: as saved)")
    parser.add_argument("--num-workers", type=int, default=0, help="threads that read images (default: 0)")
    parser.add_argument(
        "--fit",
        choices=("crop", "squash", "pad"),
        help="how pictures are brought to the model's shape (default: as its processor is configured)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="about how many items a task, drawn at random")
    parser.add_argument("--size", type=int, metavar="N", help="items of each Scenes set to make (default: all)")
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out unreadable images and count them")
    parser.add_argument("--no-references", action="store_true", help="leave out the reference scorers")
    parser.add_argument("--name", help="what to call the model in the results")
    parser.add_argument("--output", metavar="DIR", help="folder for results.json, items.parquet and gallery.json")
    parser.add_argument(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="also write a report page: FILE, or report.html in the output folder",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Run the verb.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0.
    """
    from vlcomp.errors import ArgumentError
    from vlcomp.evaluation import evaluate, resolve_tasks
    from vlcomp.evaluation.results import check_output

    # Everything that can be told to be wrong is told before the model is loaded.
    tasks = resolve_tasks(args.task or ["scenes"])
    page = None
    if args.html is not None:
        if not args.html and not args.output:
            raise ArgumentError("--html without a file name needs --output; pass --html report.html or --output DIR")
        page = Path(args.html) if args.html else Path(args.output) / "report.html"
        if page.is_dir():
            raise ArgumentError(f"--html {page} is a folder; name a file")
        check_output(page.parent)
    options: dict[str, Any] = {
        "split": args.split,
        "image_column": args.image_column,
        "caption_column": args.caption_column,
        "templates": _templates(args.template),
        "class_names": args.class_names,
        "size": args.size,
    }
    report = evaluate(
        args.model,
        tasks=tasks,
        data=args.data,
        images=args.images,
        batch_size=args.batch_size,
        device=args.device or _default_device(),
        dtype=args.dtype,
        fit=args.fit,
        num_workers=args.num_workers,
        limit=args.limit,
        skip_bad_images=args.skip_bad_images,
        references=not args.no_references,
        output=args.output,
        name=args.name,
        progress=not args.quiet and sys.stderr.isatty(),
        **{key: value for key, value in options.items() if value is not None},
    )
    print(report.to_markdown())
    if args.output:
        print(f"\nresults: {args.output}")
    if page is not None:
        print(f"report: {report.to_html(page)}")
    return 0


def _templates(given: list[str] | None) -> str | list[str] | None:
    """A single entry may be a text or a file, several are texts."""
    if not given:
        return None
    return given[0] if len(given) == 1 else given


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
