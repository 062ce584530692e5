"""`vlcomp evaluate`: measure a model on benchmark tasks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HELP = "Measure a model on benchmark tasks: strict scores with intervals, beside reference scorers and chance."

_EPILOG = """examples:
  vlcomp evaluate runs/clip --task scenes
  vlcomp evaluate runs/clip --task retrieval --data path/to/captioned_images
  vlcomp evaluate openai/clip-vit-base-patch32 --task caption_choice \\
      --data sugarcrepe/ --images coco/val2017 --output results/clip --html
  vlcomp evaluate runs/clip --task image_choice --data nlvr1/dev_pairs.jsonl --fit squash
  vlcomp evaluate runs/clip --suite full --data benchmarks/ --output results/clip --cache embeddings/
  vlcomp evaluate llava-hf/llava-1.5-7b-hf --task sugarcrepe --data sugarcrepe/ --scorer yes
  vlcomp evaluate llava-hf/llava-1.5-7b-hf --task winoground --data winoground/ --scorer likelihood
  vlcomp evaluate runs/clip --task linear_probe --data flowers/ --shots 16 --option seed=1

`vlcomp tasks` lists the tasks. With --output an evaluation that was killed goes on where it stopped when the same
command is given again."""


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
    parser.add_argument(
        "--suite",
        choices=("full",),
        help="full: compositional tasks, retrieval and zero-shot classification together, all whose data are found",
    )
    parser.add_argument(
        "--scorer",
        choices=("yes", "likelihood"),
        help="for a generative model. yes: ask about each pair of image and caption, and score by the probability of "
        "Yes against No; likelihood: that of the caption as the description of the image (default: cosine "
        "of embeddings)",
    )
    parser.add_argument(
        "--question",
        metavar="TEXT",
        help="what the scorer asks: with yes a question with {} for the caption, with likelihood an instruction",
    )
    parser.add_argument(
        "--data",
        action="append",
        metavar="[TASK=]PATH",
        help="what tasks on your own data read, or the folder of the benchmarks; with TASK= for one task, repeatable",
    )
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
    parser.add_argument("--synsets", metavar="PATH", help="the 1,000 WordNet ids, for variants of ImageNet")
    parser.add_argument("--shots", type=int, metavar="N", help="images of each class to learn from (linear_probe)")
    parser.add_argument(
        "--option",
        action="append",
        metavar="NAME=VALUE",
        help="any other option of the tasks (`vlcomp tasks NAME --long` lists them), repeatable",
    )
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
    parser.add_argument(
        "--allow-partial", action="store_true", help="measure benchmarks whose official files are incomplete"
    )
    parser.add_argument(
        "--no-references", action="store_true", help="leave out the reference scorers and the shuffled captions"
    )
    parser.add_argument(
        "--no-shuffle", action="store_true", help="leave out the scores on shuffled captions and exchanged images"
    )
    parser.add_argument(
        "--text-scorer", metavar="MODEL", help="causal language model to score the captions with, without the pictures"
    )
    parser.add_argument(
        "--reference-captions", metavar="FILE", help="captions, one on each line, for the n-gram reference scorer"
    )
    parser.add_argument(
        "--training-images", metavar="DIR", help="look for the tasks' pictures in this folder of training pictures"
    )
    parser.add_argument(
        "--breakdown", action="store_true", help="also print the scores by caption length and words in common"
    )
    parser.add_argument("--cache", metavar="DIR", help="keep embeddings here for later evaluations")
    parser.add_argument("--name", help="what to call the model in the results")
    parser.add_argument("--output", metavar="DIR", help="folder for results.json, items.parquet and gallery.json")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="throw away what the output folder holds of another model, of other tasks or unfinished",
    )
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
    from vlcomp.files import check_output

    # Everything that can be told to be wrong is told before the model is loaded.
    if args.suite and args.task:
        raise ArgumentError("--suite chooses the tasks; leave --task out, or give only --task")
    tasks = None if args.suite else resolve_tasks(args.task or ["scenes"])
    if args.question is not None:
        if args.scorer is None:
            raise ArgumentError("--question is asked only with --scorer; give both")
        places = args.question.count("{}")
        if args.scorer == "yes" and places != 1:
            raise ArgumentError(f"--question {args.question!r} must hold {{}} once, where the caption goes")
        if args.scorer == "likelihood" and places:
            raise ArgumentError(
                f"--question {args.question!r} holds {{}}, but with --scorer likelihood the caption is the answer"
            )
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
        "synsets": args.synsets,
        "shots": args.shots,
        "reference_captions": _lines(args.reference_captions),
    }
    options = {key: value for key, value in options.items() if value is not None}
    for name, value in _named_options(args.option or ()).items():
        if name in options:
            raise ArgumentError(f"--option {name}=... and --{name.replace('_', '-')} are the same; give one of them")
        options[name] = value
    report = evaluate(
        args.model,
        tasks=tasks,
        suite=args.suite,
        scorer=args.scorer,
        question=args.question,
        data=_data(args.data or (), tasks),
        images=args.images,
        batch_size=args.batch_size,
        device=args.device or _default_device(),
        dtype=args.dtype,
        fit=args.fit,
        num_workers=args.num_workers,
        limit=args.limit,
        skip_bad_images=args.skip_bad_images,
        references=not args.no_references,
        allow_partial=args.allow_partial,
        diagnostics=not (args.no_references or args.no_shuffle),
        text_scorer=args.text_scorer,
        training_images=args.training_images,
        cache=args.cache,
        output=args.output,
        overwrite=args.overwrite,
        name=args.name,
        progress=not args.quiet and sys.stderr.isatty(),
        **options,
    )
    print(report.to_markdown())
    if args.breakdown:
        print(f"\n{report.breakdown()}")
    if args.training_images:
        print(f"\n{_leakage(report.results['tasks'])}")
    left_out = report.results.get("left_out", {})
    if left_out:
        print(f"\nleft out, {len(left_out)} tasks:")
        for name, reason in left_out.items():
            print(f"- {name}: {reason}")
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


def _data(given: Sequence[str], tasks: Sequence[str] | None) -> Any:
    """One path for all tasks, or a dict by task name; `tasks` is `None` for a suite."""
    from vlcomp.errors import ArgumentError
    from vlcomp.evaluation import list_tasks, resolve_tasks

    known = {info.name for info in list_tasks()}
    named: dict[str, str] = {}
    plain: list[str] = []
    for entry in given:
        name, equals, path = entry.partition("=")
        if not equals or Path(entry).exists():
            plain.append(entry)
            continue
        if name not in known:
            (name, *others) = resolve_tasks([name])  # tells which name was likely meant
            if others:
                raise ArgumentError(f"--data {entry}: there are {1 + len(others)} tasks of that name; name one")
        if name in named:
            raise ArgumentError(f"--data names {name!r} twice")
        if tasks is not None and name not in tasks:
            raise ArgumentError(f"--data {entry}: {name!r} is none of the tasks to run ({', '.join(tasks[:5])})")
        named[name] = path
    if len(plain) > 1 or (plain and named and tasks is not None):
        raise ArgumentError(f"--data {plain[-1]}: for which task? With several --data, write TASK=PATH")
    if named:
        return named | ({"benchmarks": plain[0]} if plain else {})
    return plain[0] if plain else None


def _named_options(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` with numbers, `true`, `false` and JSON lists as such, and everything else as text."""
    from vlcomp.errors import ArgumentError

    own = {"data", "images", "limit", "references", "skip_bad_images", "allow_partial"}
    found: dict[str, Any] = {}
    for entry in given:
        name, equals, value = entry.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise ArgumentError(f"--option {entry!r} is not of the form NAME=VALUE")
        if name in own:
            raise ArgumentError(f"--option {name}=... has an argument of its own; see `vlcomp evaluate --help`")
        if name in found:
            raise ArgumentError(f"--option {name} is given twice")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _lines(path: str | None) -> list[str] | None:
    from vlcomp.errors import ArgumentError

    if path is None:
        return None
    if not Path(path).is_file():
        raise ArgumentError(f"--reference-captions {path} is not a file; give a text file with a caption on each line")
    found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise ArgumentError(f"--reference-captions {path} holds no caption")
    return found


def _leakage(tasks: dict[str, Any]) -> str:
    """Which pictures of the tasks are among those of training, as a table."""
    from vlcomp.evaluation.results import markdown_table

    rows = [
        [name, *(str(entry["leakage"][key]) for key in ("images", "same_pictures", "only_same_names"))]
        for name, entry in tasks.items()
        if "leakage" in entry
    ]
    return markdown_table(["task", "pictures", "same picture in training", "same name only"], rows)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
