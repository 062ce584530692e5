"""WiSE-FT: after fine-tuning, go part of the way back to the starting weights."""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import nn

from ..errors import ArgumentError


class StartingWeights:
    """The trainable weights of a model as they were before training, to mix the trained ones with.

    With `interpolate = a` each trained weight becomes `(1 - a) * start + a * trained`. Fine-tuning on hard negatives
    costs zero-shot accuracy, and a point in between often keeps most of the gain at a part of the price.

    For a LoRA adapter the start is the model without it, so the adapter's effect is scaled by `a`. That is exact,
    because the effect is linear in the factor B.

    Args:
        model (`nn.Module`):
            The model before training. A copy of its trainable parameters is kept in CPU memory.
        weight (`float`):
            `a`, between 0 (the starting weights) and 1 (the trained ones).

    Raises:
        ArgumentError: if `weight` lies outside, or the model carries an adapter other than LoRA.

    Reference:
        Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (CVPR, arXiv 2109.01903), equation 1.

    Example:
        >>> import torch
        >>> from vlcomp.training.interpolation import StartingWeights
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.constant_(layer.weight, 1.0)
        >>> start = StartingWeights(layer, 0.25)
        >>> _ = torch.nn.init.constant_(layer.weight, 5.0)
        >>> start.mix_into(layer)
        >>> layer.weight.item()
        2.0
    """

    def __init__(self, model: nn.Module, weight: float) -> None:
        if not 0 <= weight <= 1:
            raise ArgumentError(f"interpolate={weight} must lie between 0 (starting weights) and 1 (trained weights)")
        self.weight = weight
        self._adapter = isinstance(model, PeftModel)
        if self._adapter:
            other = {str(config.peft_type.value) for config in model.peft_config.values()} - {"LORA"}
            if other or any(config.use_dora or config.bias != "none" for config in model.peft_config.values()):
                raise ArgumentError(
                    "interpolate with an adapter needs plain LoRA (no DoRA, bias='none'), whose effect can be scaled; "
                    f"got {', '.join(sorted(other)) or 'another variant of LoRA'}"
                )
        trained = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
        kept = (name for name in trained if not self._adapter or self._trained_whole(name))
        self._start = {name: model.get_parameter(name).detach().to("cpu", copy=True) for name in kept}

    @staticmethod
    def _trained_whole(name: str) -> bool:
        return "modules_to_save" in name

    @torch.no_grad()
    def mix_into(self, model: nn.Module) -> None:
        """Replace the trained weights by the mixture.

        Args:
            model (`nn.Module`):
                The model after training; changed in place.
        """
        for name, parameter in model.named_parameters():
            if name in self._start:
                start = self._start[name].to(device=parameter.device, dtype=parameter.dtype)
                parameter.copy_(torch.lerp(start, parameter, self.weight))
            elif self._adapter and parameter.requires_grad and (".lora_B." in name or ".lora_embedding_B" in name):
                parameter.mul_(self.weight)
