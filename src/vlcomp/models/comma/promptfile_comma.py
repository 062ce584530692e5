"""Prompts in a file of their own, with the settings they belong to."""

import json
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .configuration_comma import PROMPT_FIELDS

_KEY = "comma"
_TEMPLATES = ("template", "knowledge_template")
# Settings that decide which parameters there are and what they mean. The others are for training.
_MUST_MATCH = (
    "prompt_variant",
    "n_ctx",
    "text_prompt_depth",
    "vision_prompt_depth",
    "generator_mlp",
    "share_generator",
)


def write_prompts(path: str | PathLike, model: Any) -> None:
    """Write the prompts of a model.

    Args:
        path (`str` or `PathLike`):
            Safetensors file.
        model ([`CommaModel`]):
            Whose prompts.
    """
    config = model.config
    record = {
        "settings": {name: getattr(config, name) for name in PROMPT_FIELDS},
        "shape": {name: getattr(config, name) for name in _MUST_MATCH},
        "clip": config.name_or_path,
        "probe": _probe(model),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.prompts.state_dict().items()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, fspath(path), metadata={"format": "pt", _KEY: json.dumps(record)})


def read_settings(path: str | PathLike) -> dict[str, Any]:
    """Read what a file of prompts says of itself.

    Args:
        path (`str` or `PathLike`):
            File that [`write_prompts`] wrote.

    Returns:
        `dict`: `settings` (fields of the configuration), `shape`, `clip` (where it came from) and `probe`.

    Raises:
        ValueError: if it is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"path={fspath(path)!r}: there is no such file; write one with model.save_prompts(path)")
    try:
        with safe_open(fspath(path), framework="pt") as file:
            return json.loads((file.metadata() or {})[_KEY])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"path={fspath(path)!r} is not a file of prompts; write one with model.save_prompts(path)"
        ) from error


def read_prompts(path: str | PathLike, model: Any) -> None:
    """Read prompts into a model.

    Args:
        path (`str` or `PathLike`):
            File that [`write_prompts`] wrote.
        model ([`CommaModel`]):
            With the same settings and CLIP.

    Raises:
        ValueError: if it is no such file, or settings, sizes or CLIP differ.
    """
    record, config = read_settings(path), model.config
    for name, saved in record["shape"].items():
        if saved != getattr(config, name):
            raise ValueError(
                f"path={fspath(path)!r} holds prompts with {name}={saved!r}, but the model has "
                f"{getattr(config, name)!r}; build it with CommaModel.from_clip({record['clip']!r}, "
                f"prompts={fspath(path)!r})"
            )
    with safe_open(fspath(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    own = dict(model.prompts.named_parameters())
    if {name: value.shape for name, value in tensors.items()} != {name: value.shape for name, value in own.items()}:
        raise ValueError(f"path={fspath(path)!r} holds prompts for a CLIP of another width, {record['clip']!r}")
    mine = torch.tensor(_probe(model))
    if not torch.allclose(torch.tensor(record["probe"]), mine, rtol=2e-2, atol=1e-4):  # bfloat16 is close enough
        raise ValueError(f"path={fspath(path)!r} holds prompts trained on another CLIP, {record['clip']!r}")
    bad = [name for name, value in tensors.items() if not value.isfinite().all()]
    if bad:
        raise ValueError(f"path={fspath(path)!r}: {bad[0]} is not finite; training diverged, use an earlier file")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(tensors[name])
    for name in _TEMPLATES:
        setattr(config, name, record["settings"][name])


def _probe(model: Any) -> list[float]:
    """A few weights, by which to tell one CLIP from another."""
    weights = (model.text_projection.weight, model.visual_projection.weight)
    return [value for weight in weights for value in weight.detach().flatten()[:8].float().cpu().tolist()]


__all__ = ["read_prompts", "read_settings", "write_prompts"]
