"""What is checked and loaded before a run, so that mistakes show at once and not after hours."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from datasets import IterableDataset
from transformers import AutoProcessor, PreTrainedModel, get_scheduler
from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import has_length

from ..checkpoints import load_dual_encoder, require_dual_encoder, require_matching, require_processor
from ..data.negatives import NegativeGenerator
from ..data.rows import require_captions
from ..errors import ArgumentError, CheckpointError, DataError
from ..files import check_output
from .adapters import base_model
from .arguments import ContrastiveTrainingArguments

# Where the function that tells whether a package is there does not have the name of the integration.
_PACKAGE_CHECKS = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}

logger = logging.getLogger(__name__)


def check_arguments(
    model: Any,
    args: Any,
    kind: type[ContrastiveTrainingArguments] = ContrastiveTrainingArguments,
    *,
    suffix: str = "contrastive",
    contrastive: bool = True,
) -> ContrastiveTrainingArguments:
    """Check the settings of a run, or make the default ones.

    Args:
        model (`str` or `PreTrainedModel`):
            Gives the default output folder its name.
        args (`ContrastiveTrainingArguments`, *optional*):
            The settings.
        kind (`type`, defaults to `ContrastiveTrainingArguments`):
            Their class.
        suffix (`str`, defaults to `"contrastive"`):
            End of the default output folder's name.
        contrastive (`bool`, defaults to `True`):
            Whether the pairs of a batch are contrasted with each other, so that one pair is too few.

    Returns:
        `ContrastiveTrainingArguments`

    Raises:
        ArgumentError: if `args` is of another class, its schedule of the learning rate lacks a setting, or its output
            folder cannot be written.
    """
    if args is None:
        args = kind(f"{Path(model_name(model)).name or 'clip'}-{suffix}")
    if not isinstance(args, kind):
        raise ArgumentError(f"args is a {type(args).__name__}; pass {kind.__name__}(...), it takes the same settings")
    _check_reporting(args.report_to)
    _check_schedule(args)
    if args.n_gpu > 1:
        logger.warning(
            "using one of %d GPUs: launch with `torchrun` or `accelerate launch` to use all of them", args.n_gpu
        )
        args._n_gpu = 1
    if contrastive and args.per_device_train_batch_size * args.world_size == 1:
        logger.warning(
            "a contrastive batch of 1 has nothing to contrast with and its loss is 0; raise "
            "per_device_train_batch_size"
        )
    if args.should_save:
        check_output(args.output_dir, "output_dir")
    return args


def _check_reporting(names: str | list[str]) -> None:
    known = [*INTEGRATION_TO_CALLBACK, "all", "none"]
    for name in [names] if isinstance(names, str) else names:
        if name not in known:
            close = get_close_matches(name, known, 2) or sorted(known)
            raise ArgumentError(f"report_to={name!r} is not known; did you mean {' or '.join(close)}?")
        check = getattr(integration_utils, f"is_{_PACKAGE_CHECKS.get(name, name)}_available", None)
        if check is not None and not check():
            raise ArgumentError(
                f"report_to={name!r} needs a package that is not installed: `pip install {name}`, or leave it out"
            )


def _check_schedule(args: ContrastiveTrainingArguments) -> None:
    """Make the schedule of the learning rate once: some need settings that have no default."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    try:
        get_scheduler(
            name,
            optimizer,
            num_warmup_steps=0,
            num_training_steps=max(args.max_steps, 1),
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"lr_scheduler_type={name!r} with lr_scheduler_kwargs={args.lr_scheduler_kwargs!r}: {first_cause(error)}"
        ) from error


def load_model(
    model: Any, processor: Any = None, *, classes: Mapping[str, type[PreTrainedModel]] | None = None
) -> tuple[PreTrainedModel, Any]:
    """Load what was given by name, and check that model and processor fit each other.

    Args:
        model (`str`, `Path` or `PreTrainedModel`):
            A checkpoint, loaded in float32, or a model.
        processor (`ProcessorMixin`, *optional*):
            By default that of the checkpoint that the model was loaded from.
        classes (`Mapping[str, type[PreTrainedModel]]`, *optional*):
            Model class for a `model_type`, where a checkpoint is given by name.

    Returns:
        `tuple[PreTrainedModel, ProcessorMixin]`

    Raises:
        ArgumentError: if there is no way to find the processor.
        CheckpointError: if the model or processor cannot be used.
    """
    name = model_name(model)
    if isinstance(model, (str, os.PathLike)):
        # Half-precision weights lose small updates; bf16=True or fp16=True computes in half precision all the same.
        return load_dual_encoder(model, processor=processor, dtype=torch.float32, classes=classes)
    require_dual_encoder(base_model(model), name or type(model).__name__)
    if processor is None:
        if not name:
            raise ArgumentError(
                f"the {type(model).__name__} was not loaded from a checkpoint, so its processor is not known; pass "
                "processing_class"
            )
        try:
            processor = AutoProcessor.from_pretrained(name)
        # Loaders raise OSError, ValueError, KeyError and others; all mean that there is no usable processor.
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            raise CheckpointError(
                f"{name}: cannot load the processor of the model ({' '.join(first)}); pass processing_class"
            ) from error
    require_processor(processor, name or type(model).__name__)
    require_matching(base_model(model), processor, name or type(model).__name__)
    return model, processor


def check_dataset(name: str, dataset: Any, columns: tuple[str, ...]) -> None:
    """Check that a data set has rows and columns, as far as it tells.

    Args:
        name (`str`):
            What to call it in messages.
        dataset (`Dataset`, *optional*):
            The data set.
        columns (`tuple[str, ...]`):
            Columns that it needs.

    Raises:
        ArgumentError: if it is a path.
        DataError: if it is empty, lacks a column, or needs captions and has a row without one.
    """
    if dataset is None:
        return
    if isinstance(dataset, (str, os.PathLike)):
        raise ArgumentError(
            f"{name}={os.fspath(dataset)!r} is a name, not data; pass vlcomp.load_captioned({os.fspath(dataset)!r})"
        )
    if has_length(dataset) and len(dataset) == 0:
        raise DataError(f"{name} has no rows")
    present = getattr(dataset, "column_names", None)
    missing = [column for column in columns if present and column not in present]
    if missing:
        raise DataError(
            f"{name} has no column {' and no '.join(map(repr, missing))}, only {', '.join(present)}; use "
            "dataset.rename_column, or load it with vlcomp.load_captioned(..., image_column=..., caption_column=...)"
        )
    if "caption" in columns:
        require_captions(dataset, name)


def check_datasets(train: Any, evaluation: Any, args: ContrastiveTrainingArguments, *, own_collator: bool) -> None:
    """Check the data of a run, as far as they tell.

    Args:
        train (`Dataset`, *optional*):
            Training data.
        evaluation (`Dataset` or `dict` of them, *optional*):
            Evaluation data.
        args (`ContrastiveTrainingArguments`):
            Settings of the run.
        own_collator (`bool`):
            Whether batches are made by a collator of the user's, which may need other columns.

    Raises:
        ArgumentError: if data were given by name.
        DataError: if they are empty or lack a column.
    """
    columns = () if own_collator else ("image", "caption")
    check_dataset("train_dataset", train, columns)
    for name, dataset in evaluation.items() if isinstance(evaluation, dict) else [("", evaluation)]:
        check_dataset(f"eval_dataset {name}".strip(), dataset, columns)
    if args.use_hard_negatives and args.generate_negatives is None and not own_collator:
        present = getattr(train, "column_names", None)
        if present and "negative_captions" not in present:
            raise DataError(
                f"train_dataset has no column 'negative_captions', only {', '.join(present)}; make them with "
                "`vlcomp negatives`, or while training with generate_negatives='default' (--generate_negatives "
                "default)"
            )


def make_generator(args: ContrastiveTrainingArguments, dataset: Any) -> NegativeGenerator | None:
    """The generator of hard negatives that the settings ask for, with the words of the training captions.

    Args:
        args (`ContrastiveTrainingArguments`):
            Settings of the run.
        dataset (`Dataset`):
            Training data.

    Returns:
        [`~vlcomp.data.NegativeGenerator`] or `None`

    Raises:
        ArgumentError: for an unknown type, or data that cannot be read before training.
    """
    if args.generate_negatives is None or dataset is None:
        return None
    if isinstance(dataset, IterableDataset) or "caption" not in (getattr(dataset, "column_names", None) or ()):
        raise ArgumentError(
            f"generate_negatives={args.generate_negatives!r} learns its words from the column 'caption' of the whole "
            f"train_dataset, which {type(dataset).__name__} does not give; make negatives with `vlcomp negatives`"
        )
    types = getattr(args, "negative_types", None) or args.generate_negatives
    return NegativeGenerator(types, seed=args.seed).fit(dataset["caption"][:])


def model_name(model: Any) -> str:
    """Where a model was loaded from; empty if it was not."""
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    return getattr(getattr(base_model(model), "config", None), "_name_or_path", "") or ""


def first_cause(error: Exception) -> str:
    """What an error comes from, in one line.

    Args:
        error (`Exception`):
            The error; transformers and huggingface_hub wrap what is wrong with a setting.

    Returns:
        `str`
    """
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
