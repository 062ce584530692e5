"""Cross-modal rank: an image is closer to its caption than to a hard negative, by a margin that grows as it is met."""

from __future__ import annotations

import torch

from ..errors import ArgumentError
from .contrastive import _check, _scalar


def cross_modal_rank_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    negative_text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    thresholds: torch.Tensor,
    *,
    negative_type_ids: torch.Tensor | None = None,
    negative_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hinge loss on the gap between an image's caption and its hard negatives, with a margin per type (CMR).

    The mean over all valid pairs `(i, k)` of `max(0, S(I_i, T_i^k) - S(I_i, T_i) + threshold)`, where
    `S(a, b) = logit_scale * cosine(a, b)` and the threshold is that of the type of `T_i^k`. 0, with a graph, if the
    batch has no hard negative. [`rank_thresholds`] gives the thresholds of the next step.

    The loss serves softmax (CLIP) and sigmoid (SigLIP) models alike: SigLIP's bias is added to both scores of a pair
    and so cancels.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised image embeddings; row `i` belongs to caption `i`.
        text_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised caption embeddings.
        negative_text_embeds (`torch.Tensor` of shape `(batch, negatives, dim)`):
            L2-normalised embeddings of the hard-negative captions of each row; any number, also none.
        logit_scale (`torch.Tensor` or `float`):
            Multiplicative scale of the cosines (`model.logit_scale.exp()`).
        thresholds (`torch.Tensor` of shape `(types,)`):
            Margin of each type of hard negative, in logits; no gradient flows into it. Zeros in the first step.
        negative_type_ids (`torch.Tensor` of shape `(batch, negatives)`, *optional*):
            Integers, the type of each hard negative. If not given, slot `k` holds type `k`.
        negative_mask (`torch.BoolTensor` of shape `(batch, negatives)`, *optional*):
            Which hard negatives exist; all of them if not given. What stands in the other slots has no influence, nor
            does their type.

    Returns:
        `torch.Tensor`: scalar, float32 (float64 if the embeddings are float64).

    Raises:
        ArgumentError: if shapes or types do not fit, or a hard negative has a type without a threshold.

    Reference:
        Zhang, Awal, Agrawal 2024 (CVPR, arXiv 2306.08832), the term `L_cmr`.

    Deviations:
        The mean is over the hard negatives that exist; the authors' code divides by the number of slots. Any number of
        slots and types, in any order; theirs are four, one of each type.

    Example:
        >>> import torch
        >>> from vlcomp.losses import cross_modal_rank_loss
        >>> embeds = torch.eye(2, 3)
        >>> negatives = torch.eye(3)[2].expand(2, 1, 3)
        >>> [float(cross_modal_rank_loss(embeds, embeds, negatives, 10.0, torch.tensor([th]))) for th in (8.0, 12.0)]
        [0.0, 2.0]
    """
    gaps, mask, types = _gaps(
        image_embeds, text_embeds, negative_text_embeds, logit_scale, thresholds, negative_type_ids, negative_mask
    )
    thresholds = thresholds.detach().to(device=gaps.device, dtype=gaps.dtype)
    losses = torch.relu(thresholds[types] - gaps)
    return losses.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)


@torch.no_grad()
def rank_thresholds(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    negative_text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    previous: torch.Tensor,
    *,
    negative_type_ids: torch.Tensor | None = None,
    negative_mask: torch.Tensor | None = None,
    upper_bound: float = 10.0,
) -> torch.Tensor:
    """Thresholds of [`cross_modal_rank_loss`] for the next step, one per type of hard negative.

    The mean over the valid hard negatives of a type of `S(I_i, T_i) - S(I_i, T_i^k)`, between 0 and `upper_bound`. A
    type that the batch does not have keeps its threshold. Call it once per optimiser step, with the embeddings of the
    whole batch.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised image embeddings; row `i` belongs to caption `i`.
        text_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised caption embeddings.
        negative_text_embeds (`torch.Tensor` of shape `(batch, negatives, dim)`):
            L2-normalised embeddings of the hard-negative captions of each row; any number, also none.
        logit_scale (`torch.Tensor` or `float`):
            Multiplicative scale of the cosines (`model.logit_scale.exp()`).
        previous (`torch.Tensor` of shape `(types,)`):
            The thresholds so far, in logits; zeros before the first step. Not changed.
        negative_type_ids (`torch.Tensor` of shape `(batch, negatives)`, *optional*):
            Integers, the type of each hard negative. If not given, slot `k` holds type `k`.
        negative_mask (`torch.BoolTensor` of shape `(batch, negatives)`, *optional*):
            Which hard negatives exist; all of them if not given. What stands in the other slots has no influence, nor
            does their type.
        upper_bound (`float`, defaults to 10.0):
            Largest threshold, in logits. The default is for CLIP's scale of 100; at other scales `0.1 * logit_scale`
            means the same, 0.1 in cosine.

    Returns:
        `torch.Tensor`: of shape `(types,)`, without gradient, float32 (float64 if the embeddings are float64).

    Raises:
        ArgumentError: if shapes or types do not fit, a hard negative has a type without a threshold, or `upper_bound`
            is negative or not a number.

    Reference:
        Zhang, Awal, Agrawal 2024 (CVPR, arXiv 2306.08832), the adaptive threshold of the rank loss (its curriculum).

    Deviations:
        The mean of the gap is over the same pairs for both of its scores; the authors' code takes the caption's score
        from all rows. There a type without a pair gives NaN.

    Example:
        >>> import torch
        >>> from vlcomp.losses import rank_thresholds
        >>> embeds = torch.eye(2, 3)
        >>> negatives = torch.eye(3)[2].expand(2, 1, 3)
        >>> rank_thresholds(embeds, embeds, negatives, 4.0, torch.zeros(2))
        tensor([4., 0.])
    """
    sums, counts = rank_gap_sums(
        image_embeds,
        text_embeds,
        negative_text_embeds,
        logit_scale,
        len(previous) if isinstance(previous, torch.Tensor) and previous.ndim == 1 else 0,
        negative_type_ids=negative_type_ids,
        negative_mask=negative_mask,
    )
    return thresholds_from_gaps(sums, counts, previous, upper_bound=upper_bound)


@torch.no_grad()
def rank_gap_sums(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    negative_text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    num_types: int,
    *,
    negative_type_ids: torch.Tensor | None = None,
    negative_mask: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What [`rank_thresholds`] averages: the gaps of a batch, summed by type, and how many there are.

    The sums of several batches add up, so that one threshold update can cover the accumulated batches of a step.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch, dim)`):
            As in [`rank_thresholds`], and so are the other embeddings and options.
        text_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised caption embeddings.
        negative_text_embeds (`torch.Tensor` of shape `(batch, negatives, dim)`):
            L2-normalised embeddings of the hard negatives.
        logit_scale (`torch.Tensor` or `float`):
            Multiplicative scale of the cosines.
        num_types (`int`):
            Number of types of hard negatives.
        negative_type_ids (`torch.Tensor` of shape `(batch, negatives)`, *optional*):
            The type of each hard negative; slot `k` holds type `k` if not given.
        negative_mask (`torch.BoolTensor` of shape `(batch, negatives)`, *optional*):
            Which hard negatives exist; all of them if not given.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: sums of the gaps in logits (float32 or float64) and counts (int64), each
        of shape `(types,)`.

    Raises:
        ArgumentError: if shapes or types do not fit.

    Example:
        >>> import torch
        >>> from vlcomp.losses.cross_modal_rank import rank_gap_sums
        >>> embeds = torch.eye(2, 3)
        >>> rank_gap_sums(embeds, embeds, torch.eye(3)[2].expand(2, 1, 3), 4.0, 2)
        (tensor([8., 0.]), tensor([2, 0]))
    """
    like = torch.zeros(num_types)
    gaps, mask, types = _gaps(
        image_embeds, text_embeds, negative_text_embeds, logit_scale, like, negative_type_ids, negative_mask
    )
    # Sums over a one-hot axis, since adding into an index is not deterministic on every device.
    members = mask[..., None] & (types[..., None] == torch.arange(num_types, device=types.device))
    return torch.where(members, gaps[..., None], 0.0).sum(dim=(0, 1)), members.sum(dim=(0, 1))


def thresholds_from_gaps(
    sums: torch.Tensor, counts: torch.Tensor, previous: torch.Tensor, *, upper_bound: float = 10.0
) -> torch.Tensor:
    """Thresholds of the next step from the pooled sums of [`rank_gap_sums`]; see [`rank_thresholds`].

    Args:
        sums (`torch.Tensor` of shape `(types,)`):
            Sums of the gaps, in logits.
        counts (`torch.Tensor` of shape `(types,)`):
            How many gaps; a type with none keeps its threshold.
        previous (`torch.Tensor` of shape `(types,)`):
            The thresholds so far. Not changed.
        upper_bound (`float`, defaults to 10.0):
            Largest threshold, in logits.

    Returns:
        `torch.Tensor`: of shape `(types,)`.

    Raises:
        ArgumentError: if `upper_bound` is negative or not a number.
    """
    if not upper_bound >= 0:
        raise ArgumentError(f"upper_bound={upper_bound} must be 0 or more, in logits")
    previous = previous.to(device=sums.device, dtype=sums.dtype)
    return torch.where(counts > 0, (sums / counts.clamp(min=1)).clamp(0.0, upper_bound), previous)


def _gaps(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    negative_text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    thresholds: torch.Tensor,
    negative_type_ids: torch.Tensor | None,
    negative_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`S(I_i, T_i) - S(I_i, T_i^k)`, which of them are valid, and their types or 0, each (batch, negatives)."""
    if negative_text_embeds is None:
        raise ArgumentError("negative_text_embeds is None; without hard negatives there is nothing to rank")
    image_embeds, text_embeds, negatives, mask = _check(
        image_embeds, text_embeds, None, negative_text_embeds, negative_mask
    )
    types = _types(thresholds, negative_type_ids, mask)
    with torch.autocast(image_embeds.device.type, enabled=False):
        scale = _scalar(logit_scale, image_embeds)
        positive = (image_embeds * text_embeds).sum(dim=1, keepdim=True)
        return scale * (positive - torch.einsum("bd,bkd->bk", image_embeds, negatives)), mask, types


def _types(thresholds: torch.Tensor, type_ids: torch.Tensor | None, mask: torch.Tensor) -> torch.Tensor:
    if not isinstance(thresholds, torch.Tensor) or thresholds.ndim != 1 or not len(thresholds):
        got = tuple(thresholds.shape) if isinstance(thresholds, torch.Tensor) else type(thresholds).__name__
        raise ArgumentError(f"the thresholds must be a tensor of shape (types,) with types > 0, got {got}")
    if type_ids is None:
        type_ids = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    elif type_ids.shape != mask.shape or type_ids.dtype == torch.bool or type_ids.is_floating_point():
        raise ArgumentError(
            f"negative_type_ids must hold integers in shape {tuple(mask.shape)}, got {type_ids.dtype} of shape "
            f"{tuple(type_ids.shape)}"
        )
    types = type_ids.to(device=mask.device, dtype=torch.long).masked_fill(~mask, 0)
    outside = (types < 0) | (types >= len(thresholds))
    if outside.any():
        raise ArgumentError(
            f"a hard negative has type {int(types[outside][0])}, but there are {len(thresholds)} thresholds (types 0 "
            f"to {len(thresholds) - 1}); give one threshold per type"
        )
    return types
