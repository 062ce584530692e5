"""LoRA and other PEFT adapters on dual encoders: adding, saving and restoring them."""

from __future__ import annotations

import copy
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict
from transformers import PreTrainedModel

from ..errors import ArgumentError

ADAPTER_FOLDER = "adapter"
# Attention and MLP layers of CLIP's and SigLIP's blocks. SigLIP's pooling head is left out: its nn.MultiheadAttention
# reads the projection's weight directly and would pass an adapter by.
DUAL_ENCODER_TARGETS = r".*\.layers\.\d+\.(self_attn\.(q_proj|k_proj|v_proj|out_proj)|mlp\.(fc1|fc2))"


def add_adapter(model: PreTrainedModel, peft_config: PeftConfig) -> PeftModel:
    """Put an adapter on a dual encoder; only the adapter trains.

    Args:
        model (`PreTrainedModel`):
            CLIP, SigLIP or a model built like them; changed in place.
        peft_config (`PeftConfig`):
            For instance `LoraConfig(r=16, lora_alpha=16)`. Without `target_modules` the attention and MLP layers of
            all blocks of both towers are adapted.

    Returns:
        `PeftModel`

    Raises:
        ArgumentError: if the configuration does not fit the model.

    Example:
        >>> from peft import LoraConfig
        >>> from vlcomp.testing import tiny_clip
        >>> from vlcomp.training.adapters import add_adapter
        >>> model = add_adapter(tiny_clip(), LoraConfig(r=4))
        >>> all("lora" in name for name, p in model.named_parameters() if p.requires_grad)
        True
    """
    if isinstance(model, PeftModel):
        raise ArgumentError("peft_config was given but the model already is a PeftModel; pass one of the two")
    peft_config = copy.copy(peft_config)
    if getattr(peft_config, "target_modules", None) is None:
        peft_config.target_modules = DUAL_ENCODER_TARGETS
    try:
        with warnings.catch_warnings():
            # peft asks for a property that transformers has renamed.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            return get_peft_model(model, peft_config)
    except ValueError as error:
        raise ArgumentError(f"peft_config does not fit {type(model).__name__}: {error}") from error


def save_merged(model: PeftModel, folder: str | os.PathLike[str]) -> None:
    """Write a full checkpoint with the adapter merged into the weights, and the adapter itself in a subfolder.

    A file `adapter_config.json` beside the weights would send `AutoModel` to the base model, so the adapter goes to
    `adapter/`. The model in memory stays as it is: merging and taking back is not exact.

    Args:
        model (`PeftModel`):
            The model in training.
        folder (`str` or `os.PathLike`):
            Where to write.
    """
    merged = copy.deepcopy(model).merge_and_unload()
    merged.save_pretrained(folder)
    model.save_pretrained(Path(folder, ADAPTER_FOLDER))


def load_adapter_weights(model: PeftModel, folder: str | os.PathLike[str]) -> None:
    """Restore the adapter of a checkpoint written with or without merging.

    Args:
        model (`PeftModel`):
            The model; its adapter is overwritten.
        folder (`str` or `os.PathLike`):
            The checkpoint.

    Raises:
        ArgumentError: if the folder holds no adapter, or one of other layers.
    """
    nested = Path(folder, ADAPTER_FOLDER)
    source = nested if nested.is_dir() else Path(folder)
    if not any(source.glob("adapter_model.*")):
        raise ArgumentError(f"{folder} holds no adapter; it was not written by a run with peft_config")
    weights: dict[str, torch.Tensor] = load_peft_weights(str(source), device="cpu")
    result: Any = set_peft_model_state_dict(model, weights)
    if getattr(result, "unexpected_keys", None):
        raise ArgumentError(
            f"the adapter in {source} has layers that the model lacks ({result.unexpected_keys[0]}, ...); resume with "
            "the peft_config of the first run"
        )


def base_model(model: Any) -> PreTrainedModel:
    """The model without PEFT's wrapper (adapted layers stay in place)."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
