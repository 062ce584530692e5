"""Loading a CLIP with prompts for training, and encoding many classes in little memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import set_seed

from ..errors import ArgumentError
from ..models.comma import CommaClasses, CommaModel
from .setup import first_cause, load_model


def load_prompted(
    model: Any, processor: Any = None, settings: Mapping[str, Any] | None = None, *, seed: int = 42
) -> tuple[CommaModel, Any]:
    """Load a model with prompts, or put new ones into a plain CLIP.

    Args:
        model (`str`, `Path` or `CommaModel`):
            Name of a plain CLIP or of a saved model with prompts, or a model.
        processor (`ProcessorMixin`, *optional*):
            By default that of the checkpoint.
        settings (`Mapping[str, Any]`, *optional*):
            Fields of [`~vlcomp.CommaConfig`] for the prompts that a plain CLIP gets; a model with prompts must have
            them already.
        seed (`int`, defaults to 42):
            Seed of new prompts.

    Returns:
        `tuple[CommaModel, ProcessorMixin]`

    Raises:
        ArgumentError: if the settings do not fit the model, or nothing of it would train.
        CheckpointError: if the model or processor cannot be used.
    """
    loaded, processor = load_model(model, processor)
    if isinstance(model, (str, os.PathLike)) and loaded.config.model_type == "clip":
        set_seed(seed)  # new prompts are random
        try:
            loaded = CommaModel.from_clip(model, tokenizer=processor, dtype=torch.float32, **(settings or {}))
        # transformers wraps what is wrong with a setting into an error of huggingface_hub.
        except Exception as error:
            raise ArgumentError(first_cause(error)) from error
    if not isinstance(loaded, CommaModel):
        raise ArgumentError(
            f"model is a {type(loaded).__name__}, which has no prompts; pass CommaModel.from_clip(...), or the name "
            "of a plain CLIP"
        )
    for name, value in (settings or {}).items():
        if getattr(loaded.config, name) != value:
            raise ArgumentError(
                f"{name}={value!r}, but the model has {getattr(loaded.config, name)!r}; leave it out, or start from "
                "the plain CLIP"
            )
    if loaded.config.prompt_variant == "zero-shot":
        raise ArgumentError("prompt_variant='zero-shot' has no prompts to train; measure it with vlcomp.evaluate")
    return loaded, processor


@contextmanager
def classes_in_chunks(model: CommaModel, size: int) -> Iterator[None]:
    """Encode the classes of a model in parts while it lasts, as far as a gradient is wanted from them.

    A part is encoded again in the backward pass, so that only one of them is in memory at a time. Sets of at most
    `size` classes are encoded as without it.

    Args:
        model ([`~vlcomp.CommaModel`]):
            With classes.
        size (`int`):
            Classes in a part.
    """
    whole = model.encode_classes

    def in_chunks(
        indices: torch.Tensor | None = None, *, output_hidden_states: bool = False, batch_size: int = size
    ) -> CommaClasses:
        rows = torch.arange(len(model.class_names)) if indices is None else indices
        trains = torch.is_grad_enabled() and any(prompt.requires_grad for prompt in model.prompts.text)
        if not trains or len(rows) <= size:
            return whole(indices, output_hidden_states=output_hidden_states, batch_size=batch_size)
        parts = [
            checkpoint(whole, part, output_hidden_states=output_hidden_states, use_reentrant=False)
            for part in rows.split(size)
        ]
        hidden = None
        if output_hidden_states:
            hidden = tuple(torch.cat(layer) for layer in zip(*(p.text_hidden_states for p in parts), strict=True))
        return CommaClasses(
            text_embeds=torch.cat([part.text_embeds for part in parts]),
            text_hidden_states=hidden,
            text_mask=torch.cat([part.text_mask for part in parts]),
        )

    # On the object, so that the model's forward, as wrapped for processes and precision, comes here.
    model.encode_classes = in_chunks
    try:
        yield
    finally:
        del model.encode_classes
