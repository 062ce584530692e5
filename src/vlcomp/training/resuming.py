"""What a run can be resumed from, and where one over a stream stands."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open
from tokenizers import Tokenizer
from torch import nn
from transformers import TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import SAFE_WEIGHTS_NAME

from ..errors import CheckpointError


def find_checkpoint(wanted: str | os.PathLike[str] | bool, output: str | os.PathLike[str], tokenizer: Any) -> Path:
    """The checkpoint that a run is to be resumed from, of which it is known that it is one of this data.

    Args:
        wanted (`str`, `Path` or `True`):
            Its folder; `True` for the last one in the output folder.
        output (`str` or `Path`):
            The output folder.
        tokenizer (`PreTrainedTokenizerBase`):
            That of the run.

    Returns:
        `Path`

    Raises:
        CheckpointError: if there is none, it lacks what a run goes on from, or its vocabulary is another one.
    """
    if wanted is True:
        wanted = get_last_checkpoint(os.fspath(output))
        if wanted is None:
            raise CheckpointError(f"{os.fspath(output)} has no checkpoint to resume from; leave it out")
    folder = Path(wanted)
    if not (folder / TRAINER_STATE_NAME).is_file():
        raise CheckpointError(
            f"{folder} has no {TRAINER_STATE_NAME}, so it is not a checkpoint to resume from; give a "
            "checkpoint-<step> folder of a run, or start a new run from its weights with model="
        )
    file = folder / "tokenizer.json"
    if not file.is_file():
        return folder  # of a kind that keeps its vocabulary in another way
    try:
        vocabulary = Tokenizer.from_file(str(file)).get_vocab()
    # It raises Exception itself.
    except Exception as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if vocabulary != tokenizer.get_vocab():
        raise CheckpointError(
            f"{folder} was written with another vocabulary, so its embeddings belong to other words; a run from "
            "scratch learns its vocabulary from the rows it trains on: resume with the data and options of the first "
            "run, or start a new run from it with model="
        )
    return folder


def require_same_weights(folder: str | os.PathLike[str], model: nn.Module) -> None:
    """Refuse the checkpoint of another model.

    Args:
        folder (`str` or `os.PathLike`):
            The checkpoint; what is not in one safetensors file is not checked.
        model (`nn.Module`):
            The model of the run.

    Raises:
        CheckpointError: if it holds a tensor that the model has not, or has in another shape.
    """
    file = Path(folder, SAFE_WEIGHTS_NAME)
    if not file.is_file():
        return
    ours = {name: list(value.shape) for name, value in model.state_dict().items()}
    with safe_open(file, "pt") as content:
        for name in content.keys():  # noqa: SIM118 - not a mapping
            shape = list(content.get_slice(name).get_shape())
            if ours.get(name) != shape:
                found = f"this run has {ours[name]}" if name in ours else "this run has no such tensor"
                raise CheckpointError(
                    f"{folder} is of another model: it holds {name} of shape {shape}, and {found}; resume with the "
                    "model of the first run"
                )


def stream_position(folder: str | os.PathLike[str], args: TrainingArguments) -> tuple[int, int]:
    """The pass over a stream that a checkpoint was written in, and the batches taken from that pass.

    A stream has no length, so that transformers would skip all batches of a run in its first pass, and go on with the
    second. The state of a checkpoint tells more: its `epoch` is the number of full passes plus the share of *all*
    batches of the run that were taken from the present one.

    Args:
        folder (`str` or `os.PathLike`):
            The checkpoint.
        args (`TrainingArguments`):
            Settings of the run that goes on.

    Returns:
        `tuple[int, int]`: passes before, counted from 0, and batches; `(sys.maxsize, 0)` if nothing is left to do.
    """
    state = TrainerState.load_from_json(str(Path(folder, TRAINER_STATE_NAME)))
    if state.global_step >= args.max_steps:
        return sys.maxsize, 0
    total, epoch = state.max_steps * args.gradient_accumulation_steps, state.epoch or 0.0
    passes = math.floor(epoch)
    batches = round((epoch - passes) * total)
    if batches == 0 and passes > 0:
        # At least one batch of a pass comes before its checkpoints: this is all of a run that fitted one pass.
        passes, batches = passes - 1, total
    return passes, 0 if args.ignore_data_skip else batches
