"""`vlcomp train` for methods that learn from images with classes: their data, their trainer and what is measured."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _protocol

if TYPE_CHECKING:
    from ..data.classification_sets import ClassificationSet
    from ..methods import Method

EPILOG = (
    """examples:
  prompts from 16 images of each class of a folder (flowers/daisy/1.jpg, or flowers/train/daisy/1.jpg and test/):
    vlcomp train {name} --data flowers/ --shots 16 --model openai/clip-vit-base-patch16 --output runs/flowers
  a baseline, a template of your own, and what the frozen CLIP reads beside it:
    vlcomp train {name} --data flowers/ --shots 16 --model MODEL --output runs/coop --prompt_variant coop \\
        --template 'a photo of a {{}}.' --knowledge_template 'a photo of a {{}}, a type of flower.'

"""
    + _protocol.EPILOG.replace("{", "{{").replace("}", "}}")
    + """

Any other field of the training arguments is an option too (--n_ctx 4, --prompt_depth 3, --kd_weight 0, --save_steps
100, --resume_from_checkpoint last). A config file holds the same names."""
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of such a method.

    Args:
        parser (`argparse.ArgumentParser`):
            Parser of `vlcomp train METHOD`.
    """
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="DATA", help="folder of images by class, or a set such as oxford_pets")
    data.add_argument("--fit", help="how test pictures become square: crop, squash or pad (as the checkpoint)")
    data.add_argument("--random-crop", type=float, metavar="AREA", help="train on crops of at least this area (0.08)")
    data.add_argument("--image-size", type=int, metavar="N", help="for the sets of Scenes: pixels of a side (64)")
    model = parser.add_argument_group("model")
    model.add_argument("--model", metavar="MODEL", help="CLIP to put prompts into, or a model with prompts")
    run = parser.add_argument_group("training")
    run.add_argument("--output", metavar="FOLDER", help="where checkpoints, the model and its evaluation go")
    run.add_argument("--batch-size", type=int, metavar="N", help="images per device in a step (default: 4)")
    run.add_argument("--epochs", type=float, metavar="N", help="passes over the data (default: 5)")
    run.add_argument("--max-steps", type=int, metavar="N", help="optimiser steps, instead of --epochs")
    run.add_argument("--learning-rate", type=float, metavar="RATE", help="learning rate (default: 0.0035)")
    run.add_argument("--seed", type=int, metavar="N", help="seed of images, prompts and order (default: 42)")
    run.add_argument("--config", type=Path, metavar="FILE", help="YAML file with any of these options")
    _protocol.add_arguments(parser)


def make_trainer(method: Method, options: Mapping[str, Any], settings: Any) -> tuple[Any, list[Any]]:
    """Read the data and make the trainer.

    Args:
        method ([`Method`]):
            The method.
        options (`Mapping[str, Any]`):
            Options of the command.
        settings (`TrainingArguments`):
            The training arguments.

    Returns:
        `tuple[Trainer, list[Task]]`: the trainer, and what to measure afterwards.

    Raises:
        VlcompError: if data or checkpoint cannot be used.
    """
    from ..data.checks import check_images
    from ..data.classification_sets import load_classification_set
    from ..data.fewshot import few_shot, few_shot_splits
    from ..errors import ArgumentError

    if options.get("model") is None:
        raise ArgumentError("--model is missing: the CLIP to put prompts into")
    size = {} if options.get("image_size") is None else {"image_size": options["image_size"]}
    data = load_classification_set(options["data"], options.get("data_root"), **size)
    shots, evaluates = options.get("shots"), settings.eval_strategy != "no"
    train, validation = data.split("train"), data.split("validation") if evaluates else None
    if shots is not None and evaluates:
        train, validation = few_shot_splits(data, shots, seed=settings.seed)
    elif shots is not None:
        train = few_shot(train, shots, seed=settings.seed, name=f"the training split of {data.name!r}")
    if not settings.skip_bad_images:
        for rows in (train, validation, data.split("test") if "test" in data.splits else None):
            if rows is not None:
                check_images(rows, options["data"])
    _set_templates(settings, data, options["model"])
    trainer = method.load("trainer")(
        options["model"], settings, train, eval_dataset=validation, class_names=data.class_names
    )
    print(f"{len(train):,} images of {len(data.class_names)} classes to train on")
    return trainer, [
        _test_split(data, trainer.model.config.learned_template, settings.skip_bad_images)
    ] if "test" in data.splits else []


def _set_templates(settings: Any, data: ClassificationSet, model: str) -> None:
    """The templates of the set, where none are given; a model with prompts has its own."""
    from transformers import AutoConfig

    try:
        plain = AutoConfig.from_pretrained(model).model_type == "clip"
    except (OSError, ValueError):
        return  # loading the model says what is wrong with it
    if plain and settings.template is None:
        settings.template = data.prompt_template
    if plain and settings.knowledge_template is None:
        settings.knowledge_template = data.template


def _test_split(data: ClassificationSet, template: str, skip_bad_images: bool) -> Any:
    import numpy as np

    from ..data.rows import readable_rows
    from ..evaluation.tasks import ZeroShotClassification
    from ..evaluation.tasks.classification import LabelledImages
    from ..evaluation.tasks.retrieval import image_name

    class TestSplit(ZeroShotClassification):
        """The test split of a classification set."""

        def load(self) -> LabelledImages:
            rows = data.split("test")
            if skip_bad_images:
                rows = readable_rows(rows, data.name)
            sources = list(rows["image"])
            names = [image_name(source, f"image {i}") for i, source in enumerate(sources)]
            return LabelledImages(sources, names, np.array(rows["label"], dtype=np.int64), list(data.class_names))

    return TestSplit(data.name, split="test", templates=template)
