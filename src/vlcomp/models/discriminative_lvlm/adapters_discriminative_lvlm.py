"""What is trained beside the frozen LVLM: soft prompts and LoRA."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .configuration_discriminative_lvlm import DiscriminativeLVLMConfig

# LoRA is a name of PEFT's; one model here has one adapter.
ADAPTER = "default"


class SoftPrompts(nn.Module):
    """Trained embeddings in place of those of the prompts' tokens, one set for images and one for texts.

    Args:
        config ([`DiscriminativeLVLMConfig`]):
            Says how many tokens the prompts have.
    """

    def __init__(self, config: DiscriminativeLVLMConfig):
        super().__init__()
        for modality in ("image", "text"):
            size = len(config.reading(modality)["prompt"]), config.hidden_size
            setattr(self, modality, nn.Parameter(torch.empty(size)))


class Switch:
    """Puts the adapters of a model back, at the end of a `with` block, to what they were.

    Args:
        model (`DiscriminativeLVLMModel`):
            The model.
        on (`bool`):
            Whether they were on.
    """

    def __init__(self, model: Any, on: bool):
        self._model = model
        self._on = on

    def __enter__(self) -> Any:
        return self._model

    def __exit__(self, *error: Any) -> None:
        self._model.set_adapters(self._on)


def lora_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of a model that have a LoRA, and their names.

    Args:
        module (`nn.Module`):
            The model.

    Returns:
        `Iterator[tuple[str, nn.Module]]`
    """
    for name, child in module.named_modules():
        if hasattr(child, "lora_A") and hasattr(child, "base_layer"):
            yield name, child


def inject_lora(language_model: nn.Module, config: DiscriminativeLVLMConfig) -> None:
    """Put a LoRA beside linear layers of a language model, in place.

    Args:
        language_model (`nn.Module`):
            Whose layers; the vision tower, which may have layers of the same names, is not in it.
        config ([`DiscriminativeLVLMConfig`]):
            Rank, alpha, dropout, names of the layers.

    Raises:
        ImportError: without `peft`.
        ValueError: if there is no linear layer of such a name, or there is a LoRA already.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ImportError(f"lora_rank={config.lora_rank} needs peft: pip install peft") from error
    if next(lora_layers(language_model), None) is not None:
        raise ValueError("the LVLM has a LoRA already; merge it into the weights first, or load the LVLM anew")
    # A quantised layer is a subclass of nn.Linear.
    names = {name for name, child in language_model.named_modules() if isinstance(child, nn.Linear)}
    kinds = sorted({name.rpartition(".")[2] for name in names})
    for target in config.lora_target_modules:
        if target not in kinds:
            raise ValueError(
                f"lora_target_modules has {target!r}, but the linear layers of the language model are called "
                f"{', '.join(kinds)}"
            )
    settings = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_target_modules),
    )
    inject_adapter_in_model(settings, language_model, ADAPTER)
    for _, layer in lora_layers(language_model):
        for part in (layer.lora_A, layer.lora_B):
            part[ADAPTER].float()  # as PEFT does: an optimiser's small steps vanish in 16 bits


def switch_lora(module: nn.Module, on: bool) -> None:
    """Switch every LoRA on or off; what trains is left as it was.

    Args:
        module (`nn.Module`):
            The model.
        on (`bool`):
            Which.
    """
    for _, layer in lora_layers(module):
        trained = [parameter.requires_grad for parameter in layer.parameters()]
        layer.enable_adapters(on)
        for parameter, flag in zip(layer.parameters(), trained, strict=True):
            parameter.requires_grad_(flag)


def merged_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights of a model with every LoRA added to the layer that it stands beside; the model is not changed.

    Args:
        model (`nn.Module`):
            The model.

    Returns:
        `dict[str, torch.Tensor]`: by the names of a model without LoRA.

    Raises:
        ValueError: if a layer is quantised.
    """
    layers = dict(lora_layers(model))
    merged = {}
    for name, value in model.state_dict().items():
        owner = next((owner for owner in _parents(name) if owner in layers), None)
        if owner is None:
            merged[name] = value
            continue
        inside = name[len(owner) + 1 :]
        if not inside.startswith("base_layer."):
            continue
        kind = inside.removeprefix("base_layer.")
        if kind == "weight":
            if not value.is_floating_point():
                raise ValueError(
                    f"{owner} is quantised ({value.dtype}); load the model with dtype='bfloat16' to merge the LoRA"
                )
            value = (value.float() + layers[owner].get_delta_weight(ADAPTER).float()).to(value.dtype)
        merged[f"{owner}.{kind}"] = value
    return merged


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


__all__ = ["SoftPrompts", "Switch", "inject_lora", "lora_layers", "merged_state_dict", "switch_lora"]
