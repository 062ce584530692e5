"""Reading the trained part of a discriminative LVLM and putting it onto its LVLM."""

from os import PathLike
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from .base_discriminative_lvlm import hub_arguments, load_lvlm, other_base
from .configuration_discriminative_lvlm import DiscriminativeLVLMConfig

# What the auto classes pass along, and what concerns files of the adapters alone.
_NOT_OF_THE_BASE = (
    "_from_auto", "_commit_hash", "adapter_kwargs", "code_revision", "revision", "subfolder", "variant",
    "use_safetensors", "weights_only", "force_download",
)  # fmt: skip


def load_base(
    where: str | PathLike,
    config: DiscriminativeLVLMConfig,
    base: str | PathLike | PreTrainedModel | None,
    check_base: bool,
    kwargs: dict[str, Any],
) -> PreTrainedModel:
    """Load the LVLM that adapters belong to.

    Args:
        where (`str` or `PathLike`):
            The adapters' checkpoint, for errors.
        config ([`DiscriminativeLVLMConfig`]):
            Its configuration.
        base (`str`, `PathLike` or `PreTrainedModel`, *optional*):
            Where the LVLM is now, or the LVLM.
        check_base (`bool`):
            Whether to refuse another LVLM.
        kwargs (`dict[str, Any]`):
            Arguments of `from_pretrained`.

    Returns:
        `PreTrainedModel`

    Raises:
        ValueError: if it cannot be loaded, or is another LVLM.
    """
    if isinstance(base, PreTrainedModel):
        lvlm = base
    else:
        place = config.base_name_or_path if base is None else base
        arguments = {name: value for name, value in kwargs.items() if name not in _NOT_OF_THE_BASE}
        if base is None and config.base_revision is not None:
            arguments["revision"] = config.base_revision
        if arguments.get("dtype") is None and arguments.get("torch_dtype") is None:
            arguments["dtype"] = config.dtype or "auto"
        try:
            lvlm = load_lvlm(place, **arguments)[0]
        except ValueError as error:
            raise ValueError(
                f"the base model of {str(where)!r} is missing: {error}. If it lies elsewhere, say so with "
                "from_pretrained(..., base='<folder or repository>'), or set base_name_or_path in its config.json"
            ) from error
    difference = None
    if check_base and config.base_fingerprint is not None:
        difference = other_base(lvlm, config.base_fingerprint)
    if difference is not None:
        raise ValueError(
            f"{lvlm.name_or_path or type(lvlm).__name__!r} is not the base model that {str(where)!r} was trained on: "
            f"{difference}. Pass that one as base=..., or check_base=False to take this one all the same"
        )
    return lvlm


def read_adapters(where: str | PathLike, kwargs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Read the trained weights.

    Args:
        where (`str` or `PathLike`):
            Folder or Hub repository.
        kwargs (`dict[str, Any]`):
            Arguments of `from_pretrained`.

    Returns:
        `dict[str, torch.Tensor]`: on the CPU.

    Raises:
        ValueError: if there are none.
    """
    file = cached_file(where, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False, **hub_arguments(kwargs))
    if file is None:
        raise ValueError(
            f"{str(where)!r} has no {SAFE_WEIGHTS_NAME} with the adapters; write one with save_pretrained"
        )
    return load_file(file)


def put_adapters(
    where: str | PathLike, model: PreTrainedModel, weights: dict[str, torch.Tensor]
) -> dict[str, list[str]]:
    """Put trained weights into a model.

    Args:
        where (`str` or `PathLike`):
            Where they are from, for errors.
        model (`DiscriminativeLVLMModel`):
            The model.
        weights (`dict[str, torch.Tensor]`):
            By the names of the model's parameters.

    Returns:
        `dict[str, list[str]]`: as transformers reports it: missing, unexpected and mismatched keys.

    Raises:
        ValueError: if some are missing, too many, or of another size.
    """
    own = model.trainable_parameters()
    unexpected, missing = sorted(set(weights) - set(own)), sorted(set(own) - set(weights))
    if unexpected or missing:
        what = f"lacks {_some(missing)}" if missing else f"has {_some(unexpected)}, for which the model has no place"
        raise ValueError(f"{str(where)!r} {what}; its config.json and {SAFE_WEIGHTS_NAME} are not of one training")
    for name, value in weights.items():
        if value.shape == own[name].shape:
            continue
        if name.startswith("soft_prompts."):
            modality = name.rpartition(".")[2]
            raise ValueError(
                f"{str(where)!r} has a soft prompt of {len(value)} tokens for each {modality}, but the {modality} "
                f"prompt in its config.json has {len(own[name])}; they are not of one training"
            )
        raise ValueError(
            f"{str(where)!r} has {name} of shape {tuple(value.shape)}, but the model needs {tuple(own[name].shape)}; "
            "the base model or lora_rank is another than in training"
        )
    with torch.no_grad():
        for name, value in weights.items():
            own[name].data = value.to(own[name].device)
    return {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set(), "error_msgs": []}


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


__all__ = ["load_base", "put_adapters", "read_adapters"]
