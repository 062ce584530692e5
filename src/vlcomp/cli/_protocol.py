"""`vlcomp train METHOD --protocol NAME`: a few-shot protocol over seeds, and its table."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

PROTOCOLS = ("base-to-novel", "cross-dataset", "domain-generalization")
_ALL = "eleven"
# Fields of the training arguments that a protocol sets for each run, or that say nothing about a result.
_NOT_PASSED = (
    "output_dir", "seed", "disable_tqdm", "logging_dir", "run_name", "logging_steps", "save_steps", "save_total_limit",
)  # fmt: skip

EPILOG = """few-shot protocols:
  base and novel classes of a set in CoOp's folder layout ($VLCOMP_DATA/oxford_pets), three seeds:
    vlcomp train comma --protocol base-to-novel --data oxford_pets --model openai/clip-vit-base-patch16 \\
        --shots 16 --seeds 1 2 3 --output runs/comma-pets
  all eleven sets of the literature: --data eleven; a baseline: --prompt_variant maple (coop, zero-shot, ...)
  your own folder with a subfolder of images a class: --data flowers/ --knowledge_template 'a photo of a {}, a flower.'
  offline, with a small CLIP of Scenes (whole pictures: their objects are small):
    vlcomp train comma --protocol cross-dataset --data scenes/attribute-noun --model MODEL --output runs/cross \\
        --image-size 40 --random-crop 1 --random_flip false

A run that has its file is not repeated: start the same command again to continue."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a protocol.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of `vlcomp train METHOD`.
    """
    group = parser.add_argument_group("few-shot protocol")
    group.add_argument("--protocol", metavar="NAME", help=f"run a protocol over seeds: {', '.join(PROTOCOLS)}")
    group.add_argument(
        "--shots", type=int, metavar="N", help="training images of each class (protocol: 16; otherwise all)"
    )
    group.add_argument("--seeds", nargs="+", metavar="N", help="seeds, each a run of its own (default: 1 2 3)")
    group.add_argument("--targets", nargs="+", metavar="SET", help="transfer: sets or folders to measure")
    group.add_argument("--data-root", metavar="FOLDER", help="folder of the sets (default: $VLCOMP_DATA)")
    group.add_argument("--measure", metavar="SPLIT", help="test (default), or validation to choose settings on")


def wanted(options: Mapping[str, Any]) -> bool:
    """Whether a protocol was asked for.

    Args:
        options (`Mapping[str, Any]`):
            Options of the command.

    Returns:
        `bool`

    Raises:
        ArgumentError: if options of a protocol are given without one.
    """
    from ..errors import ArgumentError

    if options.get("protocol") is not None:
        return True
    lost = [name for name in ("seeds", "targets", "measure") if options.get(name) is not None]
    if lost:
        raise ArgumentError(f"--{lost[0].replace('_', '-')} belongs to a few-shot protocol; give --protocol too")
    return False


def run(method: str, options: Mapping[str, Any], settings: Any) -> int:
    """Run a protocol, print its table and keep it.

    Args:
        method (`str`):
            Name of the method.
        options (`Mapping[str, Any]`):
            Options of the command, by name.
        settings (`TrainingArguments`):
            The training arguments as they were parsed.

    Returns:
        `int`: 0.

    Raises:
        VlcompError: if options, data or checkpoint cannot be used.
    """
    from ..errors import ArgumentError

    name = options["protocol"]
    if name not in PROTOCOLS:
        close = get_close_matches(str(name), PROTOCOLS, 1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else f"protocols: {', '.join(PROTOCOLS)}"
        raise ArgumentError(f"--protocol {name!r} is not known; {hint}")
    for key, what in (("data", "the set to train on"), ("model", "the CLIP"), ("output", "the folder to write to")):
        if options.get(key) is None:
            raise ArgumentError(f"--{key} is missing: {what}")
    if options.get("seed") is not None:
        raise ArgumentError("--seed does not go with --protocol, which has several: use --seeds")
    if options.get("targets") is not None and name == "base-to-novel":
        raise ArgumentError("--targets goes with --protocol cross-dataset or domain-generalization")

    from transformers.utils.logging import disable_progress_bar

    from .. import protocols
    from ..files import check_output

    disable_progress_bar()
    output = Path(options["output"])
    check_output(output)
    common = {
        "shots": 16 if options.get("shots") is None else options["shots"],
        "seeds": _seeds(options.get("seeds") or [1, 2, 3]),
        "output": output,
        "arguments": changed(settings),
        "split": options.get("measure") or "test",
        "data_root": options.get("data_root"),
        "progress": not settings.disable_tqdm,
        **({"image_size": options["image_size"]} if options.get("image_size") else {}),
    }
    functions: dict[str, Callable[..., Any]] = {
        "base-to-novel": protocols.base_to_novel,
        "cross-dataset": protocols.cross_dataset,
        "domain-generalization": protocols.domain_generalization,
    }
    if name == "base-to-novel":
        result = protocols.base_to_novel(options["model"], _sets(options["data"]), **common)
    else:
        result = functions[name](options["model"], options["data"], options.get("targets"), **common)
    table = result.to_markdown()
    print(f"\n{table}")
    if os.environ.get("RANK", "0") == "0":
        variant = settings.prompt_variant or method
        title = f"# {name}: {variant}" + ("" if variant == "zero-shot" else f", {common['shots']} shots")
        note = "Mean over seeds with the 95 % t-interval, in percent; an image is right if its class scores highest."
        (output / "README.md").write_text(f"{title}\n\n{table}\n\n{note}\n", encoding="utf-8")
    print(f"results in {output}")
    return 0


def changed(settings: Any) -> dict[str, Any]:
    """Training arguments that differ from their defaults, as plain values.

    Args:
        settings (`TrainingArguments`):
            The arguments.

    Returns:
        `dict[str, Any]`
    """
    plain = type(settings)(output_dir=settings.output_dir)
    found = {}
    for field in fields(settings):
        value, usual = (getattr(one, field.name) for one in (settings, plain))
        if field.init and field.name not in _NOT_PASSED and not field.name.startswith("_") and value != usual:
            found[field.name] = getattr(value, "value", value)
    return found


def _seeds(values: Any) -> list[int]:
    from ..errors import ArgumentError

    seeds = []
    for value in values if isinstance(values, (list, tuple)) else [values]:
        if not str(value).isdecimal():
            raise ArgumentError(f"--seeds {value!r} is not a whole number of 0 or more")
        seeds.append(int(value))
    return seeds


def _sets(data: str) -> list[str]:
    from ..data.classification_facts import ELEVEN

    if data == _ALL:
        return list(ELEVEN)
    # A folder whose name has a comma is one folder.
    return [data] if Path(data).is_dir() else [name.strip() for name in data.split(",") if name.strip()]
