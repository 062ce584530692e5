"""Knowledge term: hidden states of a prompted text tower stay near those of the frozen one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from ..errors import ArgumentError


def knowledge_loss(
    hidden: torch.Tensor | Sequence[torch.Tensor],
    target_hidden: torch.Tensor | Sequence[torch.Tensor],
    mask: torch.Tensor,
    target_mask: torch.Tensor,
) -> torch.Tensor:
    """Mean of `1 - cosine` between the hidden states of two readings of the same classes.

    Of each class, positions are compared that both texts have: one by one from the start token, but for the last, the
    end tokens, which are compared with each other wherever they stand. So a text of 7 tokens and one of 9 are compared
    in positions 0 to 5, and position 6 of the first with position 8 of the second. The mean is over the compared
    positions of a class, then over classes and layers: a class with a long name counts as much as any other.

    Args:
        hidden (`torch.Tensor` of shape `(layers, classes, length, width)`, or a sequence of layers):
            Hidden states of the prompted tower.
        target_hidden (`torch.Tensor` of shape `(layers, classes, target_length, width)`, or a sequence of layers):
            Those of the frozen tower on the hand-crafted template.
        mask (`torch.Tensor` of shape `(classes, length)`):
            1 (or `True`) for the tokens and prompts of a text, then 0 for padding, which has no influence.
        target_mask (`torch.Tensor` of shape `(classes, target_length)`):
            The same for `target_hidden`.

    Returns:
        `torch.Tensor`: scalar between 0 and 2, float32 (float64 if the hidden states are float64).

    Raises:
        ArgumentError: if shapes do not fit, or a mask is not 1 for two tokens or more, then 0.

    Reference:
        Hu et al. 2024 (COMMA, AAAI, arXiv 2401.00268), the knowledge term.

    Deviations:
        The authors' code compares all 77 positions, padding included, of the last block only, and repeats one block
        when asked for more.

    Example:
        >>> import torch
        >>> from vlcomp.losses import knowledge_loss
        >>> hidden, mask = torch.randn(2, 3, 6, 8), torch.ones(3, 6)
        >>> bool(knowledge_loss(hidden, 2 * hidden, mask, mask) < 1e-6)
        True
    """
    ours = _layers("hidden", hidden, mask, "mask")
    theirs = _layers("target_hidden", target_hidden, target_mask, "target_mask")
    if len(ours) != len(theirs) or ours[0].shape[::2] != theirs[0].shape[::2]:
        raise ArgumentError(
            f"hidden has {len(ours)} layers of shape {tuple(ours[0].shape)}, but target_hidden {len(theirs)} of shape "
            f"{tuple(theirs[0].shape)}; layers, classes and width must be equal"
        )
    lengths, target_lengths = _lengths("mask", mask), _lengths("target_mask", target_mask)
    shared = torch.minimum(lengths, target_lengths.to(lengths.device))
    counted = torch.arange(int(shared.max()), device=lengths.device)
    present = counted < shared[:, None]
    last = counted == shared[:, None] - 1
    total = 0.0
    with torch.autocast(ours[0].device.type, enabled=False):
        for own, target in zip(ours, theirs, strict=True):
            own = _gathered(own, counted, last, present, lengths)
            target = _gathered(target.to(own.device), counted, last, present, target_lengths.to(lengths.device))
            apart = (1 - functional.cosine_similarity(own, target.to(own.dtype), dim=-1)).masked_fill(~present, 0.0)
            total = total + (apart.sum(dim=1) / shared).mean()
    return total / len(ours)


def _gathered(
    layer: torch.Tensor, counted: torch.Tensor, last: torch.Tensor, present: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """The states at the compared positions; of what is padding, those of the start token, which do not count."""
    places = torch.where(last, lengths[:, None] - 1, counted).masked_fill(~present, 0)
    found = layer.gather(1, places[..., None].expand(-1, -1, layer.shape[-1]))
    return found if found.dtype == torch.float64 else found.float()


def _layers(
    name: str, hidden: torch.Tensor | Sequence[torch.Tensor], mask: torch.Tensor, mask_name: str
) -> list[torch.Tensor]:
    layers = list(hidden)
    if not layers or any(layer.ndim != 3 or layer.shape != layers[0].shape for layer in layers):
        shapes = [tuple(layer.shape) for layer in layers]
        raise ArgumentError(f"{name} must be layers of one shape (classes, length, width), got {shapes}")
    if mask.shape != layers[0].shape[:2]:
        raise ArgumentError(
            f"{mask_name} of shape {tuple(mask.shape)} does not fit {name}, whose layers have shape "
            f"{tuple(layers[0].shape)}"
        )
    return layers


def _lengths(name: str, mask: torch.Tensor) -> torch.Tensor:
    lengths = mask.bool().sum(dim=1)
    right = torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]
    if not len(mask) or not torch.equal(right, mask.bool()) or lengths.min() < 2:
        raise ArgumentError(f"{name} must be 1 for two tokens or more, then 0 for padding on the right, in every row")
    return lengths
