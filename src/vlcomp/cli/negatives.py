"""`vlcomp negatives`: hard-negative captions for a data set."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HELP = "Make hard-negative captions: false captions that differ from a true one by a word or by the order of words."

_EPILOG = """examples:
  vlcomp negatives --data photos --output photos-negatives
  vlcomp negatives --data photos --output out --types relation attribute object action --per-caption 2
  vlcomp negatives --data photos --output out --types sugarcrepe --num-proc 8 --copy-images
  vlcomp train clip --model openai/clip-vit-base-patch32 --data photos-negatives

types: replace_object replace_attribute replace_relation swap_object swap_attribute add_object add_attribute
       relation attribute object action negation; or the sets default, paper, sugarcrepe, all

The output is a folder with metadata.jsonl, which has the columns negative_captions, negative_types and
negative_sources (rule, seed, version and the word changed). An interrupted run continues where it stopped.
"""

_ROWS_PER_CHUNK = 10_000
_SETTINGS = "negatives.json"
_CHUNKS = ".negatives"
_OURS = ("negative_captions", "negative_types", "negative_sources")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verb.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of the verb.
    """
    parser.epilog = _EPILOG
    parser.add_argument("--data", required=True, metavar="DATA", help="folder, shards or hub data set with captions")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER", help="folder to write")
    parser.add_argument("--split", default="train", metavar="NAME", help="split of the data (default: train)")
    parser.add_argument("--image-column", default="image", metavar="NAME", help="column of images (default: image)")
    parser.add_argument(
        "--caption-column", default="caption", metavar="NAME", help="column of captions (default: caption)"
    )
    parser.add_argument(
        "--types", nargs="+", default=["default"], metavar="TYPE", help="types or sets of types (default: default)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed (default: 0)")
    parser.add_argument(
        "--per-caption", type=int, metavar="N", help="at most this many negatives a caption (default: one a type)"
    )
    parser.add_argument("--num-proc", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument(
        "--tagger", default="textblob", metavar="NAME", help="textblob, spacy or spacy:<model> (default: textblob)"
    )
    parser.add_argument("--fill-mask", metavar="MODEL", help="fill-mask model that proposes the words")
    parser.add_argument("--skip-bad-images", action="store_true", help="leave out rows whose image is no image")
    parser.add_argument(
        "--copy-images", action="store_true", help="copy the images into the output instead of referring to them"
    )


def run(args: argparse.Namespace) -> int:
    """Make the negatives and write the folder.

    Args:
        args (`argparse.Namespace`):
            Parsed arguments.

    Returns:
        `int`: 0.

    Raises:
        VlcompError: if an argument or the data cannot be used, or the output holds something else.
    """
    from tqdm.auto import tqdm

    from ..data import load_captioned
    from ..data.negatives import RULES_VERSION, NegativeGenerator, run, to_columns
    from ..data.rows import require_captions
    from ..errors import ArgumentError, DataError

    if args.num_proc < 1:
        raise ArgumentError(f"--num-proc {args.num_proc} must be at least 1")
    if args.fill_mask is not None and args.num_proc > 1:
        raise ArgumentError(f"--num-proc {args.num_proc} with --fill-mask would load the model in each; leave it out")
    generator = NegativeGenerator(
        args.types, seed=args.seed, tagger=args.tagger, fill_mask=args.fill_mask, per_caption=args.per_caption
    )
    output = args.output
    if os.path.abspath(output) == os.path.abspath(args.data):
        raise ArgumentError(f"--output {output} is the folder of the data itself; give another")
    dataset = load_captioned(
        args.data,
        split=args.split,
        image_column=args.image_column,
        caption_column=args.caption_column,
        skip_bad_images=args.skip_bad_images,
    )
    present = [column for column in _OURS if column in dataset.column_names]
    if present:
        raise DataError(f"{args.data} has the column {present[0]!r} already; remove it from the data to make others")
    require_captions(dataset, str(args.data))
    captions = list(dataset["caption"])
    settings = {
        "data": args.data.rstrip("/"),
        "split": args.split,
        "types": list(generator.types),
        "seed": args.seed,
        "per_caption": args.per_caption,
        "tagger": args.tagger,
        "fill_mask": args.fill_mask,
        "copy_images": args.copy_images,
        "rules_version": RULES_VERSION,
        "captions": len(captions),
        "captions_sha256": hashlib.sha256("\0".join(captions).encode("utf-8", "surrogatepass")).hexdigest(),
    }
    if _finished(output, settings):
        print(f"{output} is complete already: {len(captions):,} captions, same settings")
        return 0
    chunks = output / _CHUNKS
    chunks.mkdir(parents=True, exist_ok=True)
    _write(output / _SETTINGS, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    generator.fit(captions, num_proc=args.num_proc)

    groups = list(dataset["image_id"])
    by_image: dict[int, list[str]] = {}
    for group, caption in zip(groups, captions, strict=True):
        by_image.setdefault(group, []).append(caption)
    parts = []
    with tqdm(total=len(captions), desc="Negatives", unit="caption", disable=None) as bar:
        for number, start in enumerate(range(0, len(captions), _ROWS_PER_CHUNK)):
            stop = min(start + _ROWS_PER_CHUNK, len(captions))
            part = chunks / f"{number:06d}.jsonl"
            parts.append(part)
            if not part.is_file():
                others = [by_image[group] for group in groups[start:stop]]
                made = run(generator, captions[start:stop], others=others, num_proc=args.num_proc)
                columns = to_columns(made)
                lines = []
                for offset, index in enumerate(range(start, stop)):
                    row = _plain(dataset[index], output, index, args)
                    row.update({name: values[offset] for name, values in columns.items()})
                    lines.append(json.dumps(row, ensure_ascii=False))
                _write(part, "\n".join(lines) + "\n")
            bar.update(stop - start)
    _join(parts, output / "metadata.jsonl")
    shutil.rmtree(chunks)
    print(_summary(output / "metadata.jsonl", generator.types, output))
    return 0


def _finished(output: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the output holds a finished run with these settings; refuses one with others."""
    from ..errors import ArgumentError

    if output.exists() and not output.is_dir():
        raise ArgumentError(f"--output {output} is a file; give a folder")
    record = output / _SETTINGS
    if not record.is_file():
        if output.is_dir() and any(output.iterdir()):
            raise ArgumentError(f"--output {output} is not empty; give a new folder")
        return False
    try:
        before = json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        before = {}
    before["data"] = str(before.get("data")).rstrip("/")
    differing = [key for key in settings if before.get(key) != settings[key]]
    if differing:
        key = differing[0]
        raise ArgumentError(
            f"--output {output} holds negatives made with another {key} ({before.get(key)!r}, now {settings[key]!r}); "
            "give another folder or remove it"
        )
    return (output / "metadata.jsonl").is_file() and not (output / _CHUNKS).is_dir()


def _plain(row: Mapping[str, Any], output: Path, index: int, args: argparse.Namespace) -> dict[str, Any]:
    """A row with the name of its image, relative to the output, in place of the image."""
    from ..errors import DataError

    image = row["image"]
    path, content = (image.get("path"), image.get("bytes")) if isinstance(image, Mapping) else (None, None)
    rest = {key: value for key, value in row.items() if key != "image"}
    if args.copy_images:
        ending = Path(path).suffix if path else ".png"
        folder = output / "images" / f"{index // _ROWS_PER_CHUNK:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        # Rows of one image share the copy.
        target = folder / f"{row['image_id'] & (2**64 - 1):016x}{ending}"
        if not target.is_file():
            unfinished = target.with_name(target.name + ".part")
            if content is not None:
                unfinished.write_bytes(content)
            else:
                shutil.copyfile(path, unfinished)
            os.replace(unfinished, target)
        name = target.relative_to(output).as_posix()
    elif path and content is None and os.path.isfile(path):
        name = Path(os.path.relpath(path, output)).as_posix()
    else:
        raise DataError(f"row {index} of {args.data} holds its image, no file to refer to; pass --copy-images")
    try:
        json.dumps(rest)
    except TypeError as error:
        raise DataError(f"row {index} of {args.data} has a column that JSON cannot hold: {error}") from error
    return {"file_name": name, **rest}


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def _join(parts: list[Path], target: Path) -> None:
    unfinished = target.with_name(target.name + ".part")
    with unfinished.open("wb") as out:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, out)
    os.replace(unfinished, target)


def _summary(metadata: Path, types: tuple[str, ...], output: Path) -> str:
    """How many captions got negatives, and of which types."""
    counts = dict.fromkeys(types, 0)
    rows = some = 0
    with metadata.open(encoding="utf-8") as stream:
        for line in stream:
            names = json.loads(line)["negative_types"]
            rows += 1
            some += bool(names)
            for name in names:
                counts[name] += 1
    width = max(map(len, counts))
    lines = [f"{rows:,} captions, {some:,} with a negative ({some / rows:.1%}), in {output}"]
    lines += [f"  {name:{width}}  {count:>9,}  {count / rows:6.1%}" for name, count in counts.items()]
    return "\n".join(lines)
