"""The LVLM inside: loading it, what it must be like, and telling it from others."""

import hashlib
import inspect
import os
from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

_SAMPLED_TENSORS = 16
_SAMPLED_WEIGHTS = 6
HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
# What tokenizers and pipelines pass along, and an LVLM does not read.
_IGNORED = ("token_type_ids", "return_dict", "output_attentions", "output_hidden_states", "mm_token_type_ids")


def hub_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments of `from_pretrained` that say where files are.

    Args:
        kwargs (`Mapping[str, Any]`):
            Arguments of `from_pretrained`.

    Returns:
        `dict[str, Any]`
    """
    return {name: kwargs[name] for name in HUB_ARGUMENTS if name in kwargs}


def load_lvlm(name_or_path: str | PathLike, **kwargs: Any) -> tuple[PreTrainedModel, str, str | None]:
    """Load an LVLM.

    Args:
        name_or_path (`str` or `PathLike`):
            Folder or Hub repository.
        **kwargs:
            Arguments of `from_pretrained`.

    Returns:
        `tuple[PreTrainedModel, str, str | None]`: the LVLM, where it is, and its commit on the Hub.

    Raises:
        ValueError: if it is missing, or no image-text-to-text model.
    """
    place, hub = os.fspath(name_or_path), hub_arguments(kwargs)
    # Anything but "name" or "owner/name" can only have been meant as a folder.
    if not os.path.exists(place) and (place.startswith((".", "/", "~")) or place.count("/") > 1):
        raise ValueError(f"{place!r} cannot be loaded as an LVLM: there is no such folder")
    try:
        config = AutoConfig.from_pretrained(place, **hub)
    except Exception as error:  # loaders raise many kinds for missing and damaged files
        raise ValueError(f"{place!r} cannot be loaded as an LVLM: {_first_line(error)}") from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        hint = ""
        if config.model_type == "discriminative_lvlm":
            hint = "; it is a discriminative LVLM already: load it with from_pretrained"
        raise ValueError(
            f"{place!r} holds a model of type {config.model_type!r}, not an image-text-to-text model such as LLaVA or "
            f"Qwen2-VL{hint}"
        )
    try:
        lvlm = AutoModelForImageTextToText.from_pretrained(place, **kwargs)
    except OSError as error:
        raise ValueError(f"{place!r} cannot be loaded as an LVLM: {_first_line(error)}") from error
    if os.path.isdir(place):
        return lvlm, os.path.abspath(place), None
    commit = extract_commit_hash(cached_file(place, "config.json", **hub), None)
    return lvlm, place, commit or hub.get("revision")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def where_from(lvlm: PreTrainedModel) -> tuple[str | None, str | None]:
    """Where a loaded LVLM came from.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM.

    Returns:
        `tuple[str | None, str | None]`: folder or repository, and commit; `None` for an LVLM that was made in memory.
    """
    place = lvlm.name_or_path
    if not place:
        return None, None
    if os.path.isdir(place):
        return os.path.abspath(place), None
    return place, getattr(lvlm.config, "_commit_hash", None)


def require_causal(lvlm: Any) -> None:
    """Refuse a model whose readings could not be built from a language model's own embeddings.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM.

    Raises:
        ValueError: names what is missing, or what would be left out silently.
    """
    inner, name = getattr(lvlm, "model", None), type(lvlm).__name__
    for part in ("language_model", "get_image_features"):
        if not hasattr(inner, part):
            raise ValueError(f"{name} has no model.{part}; it is no LVLM of a vision tower and a language model")
    if lvlm.get_output_embeddings() is None:
        raise ValueError(f"{name} has no language head, so it does not generate")
    if "token_type_ids" in inspect.signature(inner.forward).parameters:
        raise ValueError(f"{name} looks at an image in both directions, and not causally; it is not supported")
    vision = getattr(lvlm.config, "vision_config", None)
    if hasattr(vision, "deepstack_visual_indexes") or hasattr(lvlm.config.get_text_config(), "cross_attention_layers"):
        raise ValueError(
            f"{name} shows images to deeper layers of its language model too; it is not supported. LLaVA, LLaVA-NeXT, "
            "LLaVA-OneVision, Qwen2-VL and Qwen2.5-VL are"
        )


def image_arguments(lvlm: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of the arguments of a call, those that describe images.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM.
        given (`Mapping[str, Any]`):
            What was passed beside the pixels.

    Returns:
        `dict[str, Any]`

    Raises:
        ValueError: for an argument that the LVLM does not know, or without one that it needs.
    """
    parameters = inspect.signature(lvlm.model.get_image_features).parameters
    known = [name for name in parameters if name not in ("self", "pixel_values", "kwargs")]
    for name in given:
        if name not in known and name not in _IGNORED:
            raise ValueError(f"{name}: {type(lvlm).__name__} takes no such argument; it takes {', '.join(known)}")
    found = {name: value for name, value in given.items() if name in known and value is not None}
    for name in known:
        # Qwen2-VL says that it can do without, and cannot.
        needed = parameters[name].default is inspect.Parameter.empty or name == "image_grid_thw"
        if needed and name not in found:
            raise ValueError(f"{name} is missing; pass all that the processor gives for the images")
    return found


# -- which LVLM it is


@torch.no_grad()
def fingerprint(lvlm: nn.Module) -> dict[str, Any]:
    """Shapes and a few weights of an LVLM.

    Args:
        lvlm (`nn.Module`):
            Without a LoRA.

    Returns:
        `dict[str, Any]`: `shapes`, a hash; `dtype`; `weights`, values of some tensors by name.
    """
    tensors = list(lvlm.named_parameters())
    shapes = hashlib.sha256(repr(sorted((name, tuple(value.shape)) for name, value in tensors)).encode())
    matrices = [item for item in tensors if item[1].ndim > 1 and item[1].is_floating_point()]
    step = max(1, (len(matrices) - 1) // (_SAMPLED_TENSORS - 1))
    chosen = dict([*matrices[::step], matrices[-1]])
    return {
        "shapes": shapes.hexdigest()[:16],
        "dtype": str(matrices[0][1].dtype).removeprefix("torch."),
        "weights": {name: _sample(value) for name, value in chosen.items()},
    }


def other_base(lvlm: nn.Module, known: dict[str, Any]) -> str | None:
    """Say how an LVLM differs from the one of a fingerprint; it may be of another type (float32, bfloat16, ...).

    Args:
        lvlm (`nn.Module`):
            Without a LoRA.
        known (`dict[str, Any]`):
            Made by [`fingerprint`].

    Returns:
        `str` or `None`: the first difference found.
    """
    tensors = dict(lvlm.named_parameters())
    # Quantised weights are integers in another shape; what is left in floating point is compared all the same.
    quantised = not all(value.is_floating_point() for value in tensors.values())
    if not quantised and fingerprint(lvlm)["shapes"] != known["shapes"]:
        return "its layers have other names or sizes"
    # bfloat16 keeps 8 bits.
    relative, absolute = (1e-5, 1e-7) if fingerprint(lvlm)["dtype"] == known["dtype"] else (2**-7, 1e-5)
    for name, expected in known["weights"].items():
        value = tensors.get(name)
        if value is None:
            return f"it has no {name}"
        if not value.is_floating_point():
            continue
        found, wanted = torch.tensor(_sample(value)), torch.tensor(expected)
        if not torch.allclose(found, wanted, rtol=relative, atol=absolute):
            return f"its weights differ in {name}"
    return None


def _sample(value: torch.Tensor) -> list[float]:
    flat = value.detach().reshape(-1)
    places = torch.linspace(0, flat.numel() - 1, _SAMPLED_WEIGHTS + 2, device=flat.device).long()[1:-1]
    return [float(f"{number:.6g}") for number in flat[places].float().tolist()]


__all__ = [
    "fingerprint",
    "hub_arguments",
    "image_arguments",
    "load_lvlm",
    "other_base",
    "require_causal",
    "where_from",
]
