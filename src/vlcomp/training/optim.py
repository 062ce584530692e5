"""Which parameters train, with which weight decay and learning rate."""

from __future__ import annotations

import re
from collections import defaultdict

import torch
from torch import nn

from ..errors import ArgumentError

_TOWERS = {"vision": ("vision_model", "visual_projection"), "text": ("text_model", "text_projection")}
_NO_DECAY = re.compile(r"(^|[._])(bias|class_embedding|position_embedding|logit_scale|logit_bias|probe)([._]|$)")
_BLOCK = re.compile(r"^(.*\.)?layers?\.(\d+)\.")


def freeze_tower(model: nn.Module, tower: str) -> list[nn.Module]:
    """Exclude one tower of a dual encoder and its projection from training.

    Args:
        model (`nn.Module`):
            CLIP, SigLIP or a model built like them (`vision_model`, `text_model`, `visual_projection`,
            `text_projection`).
        tower (`str`):
            `"vision"` or `"text"`.

    Returns:
        `list[nn.Module]`: the frozen modules, to be kept in evaluation mode.

    Raises:
        ArgumentError: if the model has no such tower.

    Example:
        >>> from vlcomp.testing import tiny_clip
        >>> from vlcomp.training.optim import freeze_tower
        >>> model = tiny_clip()
        >>> modules = freeze_tower(model, "vision")
        >>> model.visual_projection.weight.requires_grad, model.text_projection.weight.requires_grad
        (False, True)
    """
    if tower not in _TOWERS:
        raise ArgumentError(f"freeze={tower!r} is not one of 'vision', 'text'")
    modules = [getattr(model, name) for name in _TOWERS[tower] if hasattr(model, name)]
    if not modules:
        raise ArgumentError(
            f"freeze={tower!r}: {type(model).__name__} has no module named {' or '.join(_TOWERS[tower])}"
        )
    for module in modules:
        module.requires_grad_(False)
    return modules


def decay_parameter_names(model: nn.Module) -> list[str]:
    """Names of the parameters that take weight decay.

    All but norms, biases, the logit scale and bias, class and position embeddings, pooling probes and any other
    parameter with fewer than two dimensions.

    Args:
        model (`nn.Module`):
            Any model.

    Returns:
        `list[str]`
    """
    norms = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)
    in_norms = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, norms)
        for name, _ in module.named_parameters(recurse=False)
    }
    return [
        name
        for name, parameter in model.named_parameters()
        if name not in in_norms and parameter.ndim >= 2 and not _NO_DECAY.search(name)
    ]


def layer_scales(model: nn.Module, decay: float) -> dict[str, float]:
    """Learning-rate factor of each parameter under layer-wise decay.

    In each stack of `n` blocks, block `i` (0 at the input) has `decay ** (n - i)`, the embeddings below it
    `decay ** (n + 1)`; everything else (final norms, projections, logit scale) has 1.

    Args:
        model (`nn.Module`):
            A model whose blocks are called `layers.<number>` (or `layer.<number>`).
        decay (`float`):
            Factor from each block to the one below, in (0, 1].

    Returns:
        `dict[str, float]`: parameter name to factor.

    Raises:
        ArgumentError: if the model has no numbered blocks.

    Example:
        >>> from vlcomp.testing import tiny_clip
        >>> from vlcomp.training.optim import layer_scales
        >>> scales = layer_scales(tiny_clip(), 0.5)
        >>> scales["text_model.encoder.layers.1.mlp.fc1.weight"], scales["text_projection.weight"]
        (0.5, 1.0)
    """
    names = [name for name, _ in model.named_parameters()]
    depth: dict[str, int] = defaultdict(int)
    for name in names:
        if match := _BLOCK.match(name):
            depth[match[1] or ""] = max(depth[match[1] or ""], int(match[2]) + 1)
    if not depth:
        raise ArgumentError(f"layer_decay: {type(model).__name__} has no numbered blocks (layers.0, layers.1, ...)")
    scales = {}
    for name in names:
        scales[name] = 1.0
        if match := _BLOCK.match(name):
            scales[name] = decay ** (depth[match[1] or ""] - int(match[2]))
        elif "embedding" in name or "pre_layrnorm" in name or "pre_layernorm" in name:
            # The stack that these embeddings feed shares the longest prefix with them.
            stack = max(depth, key=lambda prefix: _common_prefix(prefix, name))
            scales[name] = decay ** (depth[stack] + 1)
    return scales


def scale_learning_rates(optimizer: torch.optim.Optimizer, model: nn.Module, scales: dict[str, float]) -> None:
    """Split the parameter groups of a new optimiser so that each parameter has its own factor of the learning rate.

    Args:
        optimizer (`torch.optim.Optimizer`):
            An optimiser that has made no step yet; changed in place.
        model (`nn.Module`):
            The model it trains.
        scales (`dict[str, float]`):
            Parameter name to factor, as [`layer_scales`] gives it.
    """
    factor = {id(parameter): scales[name] for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        buckets: dict[float, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            buckets[factor[id(parameter)]].append(parameter)
        for scale, parameters in buckets.items():
            groups.append((scale, {**group, "params": parameters, "lr": group["lr"] * scale}))
    # The first group's rate is what is logged: let it be the full one.
    groups.sort(key=lambda item: -item[0])
    optimizer.param_groups[:] = [group for _, group in groups]


def _common_prefix(first: str, second: str) -> int:
    count = 0
    for a, b in zip(first, second, strict=False):
        if a != b:
            break
        count += 1
    return count
