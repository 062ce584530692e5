"""`vlcomp analyze WHAT MODEL`: how a model came to be, beyond its scores."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HELP = "Ease of learning, smoothness, use of the codebook and topographic similarity, over the checkpoints of a run."

_EPILOG = """examples:
  vlcomp analyze ease runs/iterated --data photos/ --figure ease.svg
  vlcomp analyze smoothness runs/iterated --data photos/ --json smoothness.json
  vlcomp analyze codebook runs/iterated --data photos/ --output codebook.html
  vlcomp analyze topography openai/clip-vit-base-patch32

MODEL is a model's folder, a run's folder with checkpoint-<step> folders (all of them are measured, in order), or a
name on the Hub. Give the --data that it was trained on, or others like them; without, it is measured on Scenes, the
built-in world. `vlcomp analyze WHAT --help` shows the options of an analysis."""

_EXAMPLES = {
    "ease": """examples:
  vlcomp analyze ease runs/iterated --data photos/ --figure ease.svg
  vlcomp analyze ease runs/clip --data photos/ --steps 200 --batch-size 64 --json ease.json""",
    "smoothness": """examples:
  vlcomp analyze smoothness runs/iterated --data photos/ --figure bound.svg
  vlcomp analyze smoothness openai/clip-vit-base-patch32 --data photos/ --size 16""",
    "codebook": """examples:
  vlcomp analyze codebook runs/iterated --data photos/ --output codebook.html
  vlcomp analyze codebook runs/iterated/checkpoint-400 --data photos/ --top 50 --output codebook.html""",
    "topography": """examples:
  vlcomp analyze topography runs/iterated
  vlcomp analyze topography google/siglip-base-patch16-224 --image-size 224 --size 300""",
}
_TITLES = {
    "ease": "how fast a new language agent learns to understand the frozen vision agent",
    "smoothness": "an upper bound of the vision agent's Lipschitz constant, and the steepest slope found",
    "codebook": "the images and words that use each of the top codes, as a page with pictures",
    "topography": "correlation of scene structure with embedding distance, on Scenes",
}
_SIZES = {"smoothness": 32, "codebook": 1000, "topography": 500}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT", title="analyses")
    for what, title in _TITLES.items():
        one = kinds.add_parser(
            what,
            help=title,
            description=f"Measure {title}.",
            epilog=_EXAMPLES[what],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        one.set_defaults(own=one)
        one.add_argument("model", metavar="MODEL", help="model folder, run folder with checkpoints, or Hub name")
        if what == "topography":
            one.add_argument("--image-size", type=int, metavar="N", help="pixels of a side (default: the model's)")
        else:
            one.add_argument(
                "--data", default="scenes", help="images with captions (default: scenes, the built-in world)"
            )
            one.add_argument("--split", help="split of the data (default: train)")
            one.add_argument("--image-column", default="image", metavar="NAME", help="its images (default: image)")
            one.add_argument("--caption-column", default="caption", metavar="NAME", help="its captions (caption)")
            one.add_argument("--skip-bad-images", action="store_true", help="leave out rows whose image is no image")
        if what in _SIZES:
            one.add_argument("--size", type=int, default=_SIZES[what], metavar="N", help="rows (default: %(default)s)")
        if what == "ease":
            one.add_argument("--steps", type=int, default=100, metavar="N", help="steps of each new agent (100)")
            one.add_argument("--batch-size", type=int, default=128, metavar="N", help="pairs in a batch (128)")
            one.add_argument("--learning-rate", type=float, default=1e-3, metavar="RATE", help="its rate (0.001)")
            one.add_argument("--logit-scale", type=float, metavar="X", help="one for all (default: the checkpoint's)")
            one.add_argument("--seed", type=int, default=0, metavar="N", help="seed of its weights and rows (0)")
        if what == "codebook":
            one.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, ending in .html")
            one.add_argument("--top", type=int, default=24, metavar="N", help="how many codes (default: 24)")
            one.add_argument("--examples", type=int, default=6, metavar="N", help="images and words of each (6)")
        else:
            one.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to this file")
        if what in ("ease", "smoothness"):
            one.add_argument("--figure", type=Path, metavar="FILE", help="also draw them, as FILE.svg")


def parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Parse the command line; what is not known is told with the options of the analysis that was named.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
        arguments (`list[str]`):
            The command line after the verb.

    Returns:
        `argparse.Namespace`
    """
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        args.own.parse_args(arguments[arguments.index(args.what) + 1 :])
    return args


def run(args: argparse.Namespace) -> int:
    """Measure and print a table.

    Args:
        args (`argparse.Namespace`):
            From the parser of [`add_arguments`].

    Returns:
        `int`: 0.

    Raises:
        VlcompError: if an option, the data or the model cannot be used.
    """
    from ..analysis import list_checkpoints
    from ..errors import ArgumentError
    from ..files import check_output

    for name in ("size", "steps", "batch_size", "top", "examples", "image_size"):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            raise ArgumentError(f"--{name.replace('_', '-')} {value} must be at least 1")
    # What is to be written is checked before anything is computed.
    for name, endings in (("figure", (".svg",)), ("output", (".html", ".htm")), ("json", (".json",))):
        path = getattr(args, name, None)
        if path is not None:
            if path.is_dir() or path.suffix.lower() not in endings:
                raise ArgumentError(f"--{name} {path} must name a file that ends in {endings[0]}")
            check_output(path.parent)
    checkpoints = list_checkpoints(args.model)
    measure = {"ease": _ease, "smoothness": _smoothness, "codebook": _codebook, "topography": _topography}
    return measure[args.what](args, checkpoints)


def _ease(args: argparse.Namespace, checkpoints: Sequence[Any]) -> int:
    from ..analysis.ease import check_ease_settings, ease_of_learning

    check_ease_settings(
        steps=args.steps,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        logit_scale=args.logit_scale,
        seed=args.seed,
    )
    rows = _rows(args, args.steps * args.batch_size, checkpoints[0].where)
    images, captions = rows["image"][:], rows["caption"][:]
    found = _each(
        checkpoints,
        lambda model, processor: ease_of_learning(
            model,
            processor,
            images,
            captions,
            steps=args.steps,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            logit_scale=args.logit_scale,
            seed=args.seed,
        ),
    )
    table = [
        (checkpoint, [f"{each.mean:.3f}", f"{each.final:.3f}"])
        for checkpoint, each in zip(checkpoints, found, strict=True)
    ]
    _print(table, ["mean accuracy", "last tenth"])
    print(
        f"\nIn-batch matching by a new language agent in {args.steps} steps of {args.batch_size} pairs, on "
        f"{len(rows):,} rows of {args.data} (chance {1 / args.batch_size:.4f}). The larger the mean, the faster it "
        "was learned."
    )
    curves = {c.label: each.accuracy for c, each in zip(checkpoints, found, strict=True)}
    settings = {
        name: getattr(args, name) for name in ("data", "steps", "batch_size", "learning_rate", "logit_scale", "seed")
    }
    _write(args, {"settings": settings, "accuracy": curves})
    lines = {label: list(enumerate(_smoothed(curve))) for label, curve in curves.items()}
    _draw(args, lines, "Ease of learning", "step of the new language agent", "in-batch accuracy")
    return 0


def _smoothness(args: argparse.Namespace, checkpoints: Sequence[Any]) -> int:
    from ..analysis import smoothness
    from ..data.images import process_images

    rows = _rows(args, args.size, checkpoints[0].where)
    images = rows["image"][:]

    def measure(model: Any, processor: Any) -> Any:
        return smoothness(model, process_images(processor.image_processor, images)["pixel_values"])

    found = _each(checkpoints, measure)
    names = ["log10_bound", "log10_bound_here", "slope"]
    table = [(c, [f"{getattr(each, name):.2f}" for name in names]) for c, each in zip(checkpoints, found, strict=True)]
    _print(table, ["log10 of bound", "log10 of bound here", "steepest slope found"])
    print(
        "\nThe first is an upper bound of the Lipschitz constant of pixels -> embedding before normalisation, for all "
        f"pixels; the second bounds the Jacobian of pixels -> normalised embedding at {len(images)} pictures of "
        f"{args.data}; the third is a lower bound, found there. Compare them between checkpoints of one architecture."
    )
    numbers = {c.label: {n: getattr(e, n) for n in names} for c, e in zip(checkpoints, found, strict=True)}
    _write(args, {"settings": {"data": args.data, "size": len(images)}, "smoothness": numbers})
    steps = [c.step if c.step is not None else _last(checkpoints) for c in checkpoints]
    lines = {
        "bound": [(step, each.log10_bound) for step, each in zip(steps, found, strict=True)],
        "bound at the pictures": [(step, each.log10_bound_here) for step, each in zip(steps, found, strict=True)],
    }
    _draw(args, lines, "Lipschitz bound of the vision agent", "training step", "log10 of the bound")
    return 0


def _codebook(args: argparse.Namespace, checkpoints: Sequence[Any]) -> int:
    from ..analysis.codebook import codebook_report, require_codebook, write_codebook_page
    from ..checkpoints import load_dual_encoder

    last = checkpoints[-1]
    if len(checkpoints) > 1:
        print(f"of {len(checkpoints)} checkpoints the last one is reported, {last.label}", file=sys.stderr)
    model, processor = load_dual_encoder(last.where)
    require_codebook(model)
    rows = _rows(args, args.size, last.where, model=model)
    report = codebook_report(
        model, processor, rows["image"][:], rows["caption"][:], top=args.top, examples=args.examples
    )
    title = args.model if last.label == args.model else f"{args.model}, {last.label}"
    page = write_codebook_page(report, args.output, title=f"{title} on {args.data}")
    print(
        f"{report.used['image']} of {report.codebook_size} codes are used by images, {report.used['text']} by texts, "
        f"{report.used['both']} by both; {report.active['image']:.1f} an image, {report.active['text']:.1f} a text; "
        f"{len(rows):,} rows of {args.data}"
    )
    for use in report.codes[:8]:
        print(f"code {use.code}: {', '.join(word for word, _, _ in use.words) or 'no text uses it'}")
    print(f"page: {page}")
    return 0


def _topography(args: argparse.Namespace, checkpoints: Sequence[Any]) -> int:
    from ..analysis import topographic_similarity
    from ..embeddings import Embedder
    from ..errors import ArgumentError

    if args.size < 3:
        raise ArgumentError(f"--size {args.size} must be at least 3: two scenes have one distance")

    def measure(model: Any, processor: Any) -> Any:
        side = args.image_size or _side(model.config)
        return topographic_similarity(Embedder(model, processor), scenes=args.size, image_size=side)

    found = _each(checkpoints, measure)
    names = ["image", "text", "image_words", "text_words"]
    table = [(c, [f"{getattr(each, name):.3f}" for name in names]) for c, each in zip(checkpoints, found, strict=True)]
    _print(table, ["images", "texts", "images, words", "texts, words"])
    print(
        f"\nSpearman correlation of distances between {args.size} scenes and between their embeddings; the last two "
        "with scenes as bags of words, for which binding makes no difference."
    )
    numbers = {c.label: {n: getattr(e, n) for n in names} for c, e in zip(checkpoints, found, strict=True)}
    _write(args, {"settings": {"scenes": args.size}, "topographic_similarity": numbers})
    return 0


def _each(checkpoints: Sequence[Any], measure: Callable[[Any, Any], Any]) -> list[Any]:
    from ..checkpoints import load_dual_encoder

    found = []
    for number, checkpoint in enumerate(checkpoints, 1):
        if len(checkpoints) > 1:
            print(f"[{number}/{len(checkpoints)}] {checkpoint.label}", file=sys.stderr)
        found.append(measure(*load_dual_encoder(checkpoint.where)))
    return found


def _rows(args: argparse.Namespace, size: int, where: str, *, model: Any = None) -> Any:
    """At most `size` rows of the data; those of Scenes are made in the size that the model reads."""
    from transformers import AutoConfig

    from ..checkpoints import load_dual_encoder
    from ..data import check_images, load_captioned
    from ..data.rows import require_captions
    from ..data.scenes import load_scenes

    if args.data == "scenes":
        config = model.config if model is not None else None
        if config is None and Path(where).is_dir():
            config = AutoConfig.from_pretrained(where)
        config = config or load_dual_encoder(where)[0].config
        return load_captioned(load_scenes("train", size=size, image_size=_side(config), split=args.split))
    rows = load_captioned(
        args.data,
        split=args.split or "train",
        image_column=args.image_column,
        caption_column=args.caption_column,
        skip_bad_images=args.skip_bad_images,
    )
    rows = rows.select(range(min(size, len(rows))))
    require_captions(rows, args.data)
    if not args.skip_bad_images:
        check_images(rows, args.data)
    return rows


def _side(config: Any) -> int:
    return max(24, int(getattr(getattr(config, "vision_config", None), "image_size", None) or 224))


def _last(checkpoints: Sequence[Any]) -> int:
    """Where a final model stands on the axis of steps: behind the last checkpoint."""
    return max((c.step for c in checkpoints if c.step is not None), default=0) + 1


def _smoothed(curve: Sequence[float], reach: int = 3) -> list[float]:
    """Means over the neighbouring steps: accuracies of single batches are noisy."""
    return [
        sum(part) / len(part)
        for part in (curve[max(0, step - reach) : step + reach + 1] for step in range(len(curve)))
    ]


def _print(table: Sequence[tuple[Any, Sequence[str]]], columns: Sequence[str]) -> None:
    from ..evaluation.results import markdown_table

    by_generation = any(checkpoint.generation is not None for checkpoint, _ in table)
    head = ["model", *(["generation"] if by_generation else []), *columns]
    rows = []
    for checkpoint, cells in table:
        generation = "" if checkpoint.generation is None else str(checkpoint.generation)
        rows.append([checkpoint.label, *([generation] if by_generation else []), *cells])
    print(markdown_table(head, rows))


def _write(args: argparse.Namespace, numbers: dict[str, Any]) -> None:
    if args.json is not None:
        args.json.write_text(json.dumps({"model": args.model, **numbers}, indent=1) + "\n", encoding="utf-8")
        print(f"numbers: {args.json}")


def _draw(args: argparse.Namespace, lines: dict[str, Any], title: str, x_label: str, y_label: str) -> None:
    from ..analysis import line_chart, write_figure

    if args.figure is not None:
        print(f"figure: {write_figure(line_chart(lines, title=title, x_label=x_label, y_label=y_label), args.figure)}")
