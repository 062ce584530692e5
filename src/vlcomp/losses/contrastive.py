"""Image-text contrastive losses with hard negatives and several captions per image."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..errors import ArgumentError


def contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    *,
    image_ids: torch.Tensor | None = None,
    negative_text_embeds: torch.Tensor | None = None,
    negative_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric softmax contrastive loss, with hard-negative captions if given (the NegCLIP form).

    Half the sum of two cross-entropies: each image against all captions and all valid hard negatives of the batch,
    and each caption against all images of the batch. Two rows with the same image id are never each other's
    negatives: the other caption of an image does not count against the image, nor the other copy of the image against
    a caption. A hard negative of another caption of the same image does count, since it is false of that image too.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised image embeddings; row `i` belongs to caption `i`.
        text_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised caption embeddings.
        logit_scale (`torch.Tensor` or `float`):
            Multiplicative scale of the cosines (CLIP: `model.logit_scale.exp()`).
        image_ids (`torch.Tensor` of shape `(batch,)`, *optional*):
            Equal integers mark rows that show the same image. If not given, every row is its own image.
        negative_text_embeds (`torch.Tensor` of shape `(batch, negatives, dim)`, *optional*):
            L2-normalised embeddings of the hard-negative captions of each row.
        negative_mask (`torch.BoolTensor` of shape `(batch, negatives)`, *optional*):
            Which hard negatives exist; all of them if not given. What stands in the other slots has no influence.

    Returns:
        `torch.Tensor`: scalar, float32 (float64 if the embeddings are float64).

    Raises:
        ArgumentError: if shapes or types do not fit.

    Reference:
        Radford et al. 2021 (CLIP, arXiv 2103.00020, figure 3); hard negatives as in Yuksekgonul et al. 2023
        (NegCLIP, arXiv 2210.01936, section 4) and the `ITC` term of Zhang et al. 2024 (arXiv 2306.08832).

    Deviations:
        The papers count two captions of one image in a batch as negatives; here they are left out.

    Example:
        >>> import torch
        >>> from vlcomp.losses import contrastive_loss
        >>> embeds = torch.eye(4)
        >>> float(contrastive_loss(embeds, embeds, 100.0)) < 1e-6
        True
    """
    image_embeds, text_embeds, negatives, negative_mask = _check(
        image_embeds, text_embeds, image_ids, negative_text_embeds, negative_mask
    )
    with torch.autocast(image_embeds.device.type, enabled=False):
        scale = _scalar(logit_scale, image_embeds)
        logits = scale * image_embeds @ text_embeds.T
        same = _same_image(image_ids, logits)
        if same is not None:
            logits = logits.masked_fill(same, -torch.inf)
        image_logits = logits
        if negatives is not None:
            hard = scale * image_embeds @ negatives.flatten(0, 1).T
            image_logits = torch.cat([logits, hard.masked_fill(~negative_mask.flatten(), -torch.inf)], dim=1)
        target = torch.arange(len(logits), device=logits.device)
        image_to_text = functional.cross_entropy(image_logits, target)
        text_to_image = functional.cross_entropy(logits.T, target)
        return (image_to_text + text_to_image) / 2


def sigmoid_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    logit_bias: torch.Tensor | float,
    *,
    image_ids: torch.Tensor | None = None,
    negative_text_embeds: torch.Tensor | None = None,
    negative_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pairwise sigmoid contrastive loss of SigLIP, with hard-negative captions if given.

    The sum over pairs of `-log sigmoid(z * (logit_scale * cosine + logit_bias))` divided by the batch size, with
    `z = 1` for an image and its own caption and `z = -1` for every other pair. Pairs of rows with the same image id
    (an image and the other caption of it) are left out. Each image is also paired, with `z = -1`, with every valid
    hard negative of the batch.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised image embeddings; row `i` belongs to caption `i`.
        text_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised caption embeddings.
        logit_scale (`torch.Tensor` or `float`):
            Multiplicative scale of the cosines (SigLIP: `model.logit_scale.exp()`).
        logit_bias (`torch.Tensor` or `float`):
            Added to each scaled cosine.
        image_ids (`torch.Tensor` of shape `(batch,)`, *optional*):
            Equal integers mark rows that show the same image. If not given, every row is its own image.
        negative_text_embeds (`torch.Tensor` of shape `(batch, negatives, dim)`, *optional*):
            L2-normalised embeddings of the hard-negative captions of each row.
        negative_mask (`torch.BoolTensor` of shape `(batch, negatives)`, *optional*):
            Which hard negatives exist; all of them if not given.

    Returns:
        `torch.Tensor`: scalar, float32 (float64 if the embeddings are float64).

    Raises:
        ArgumentError: if shapes or types do not fit.

    Reference:
        Zhai et al. 2023 (SigLIP, arXiv 2303.15343, algorithm 1).

    Deviations:
        The paper has neither hard negatives nor several captions per image.

    Example:
        >>> import torch
        >>> from vlcomp.losses import sigmoid_contrastive_loss
        >>> embeds = torch.eye(4)
        >>> round(float(sigmoid_contrastive_loss(embeds, embeds, 20.0, -10.0)), 4)
        0.0002
    """
    image_embeds, text_embeds, negatives, negative_mask = _check(
        image_embeds, text_embeds, image_ids, negative_text_embeds, negative_mask
    )
    with torch.autocast(image_embeds.device.type, enabled=False):
        scale, bias = _scalar(logit_scale, image_embeds), _scalar(logit_bias, image_embeds)
        logits = scale * image_embeds @ text_embeds.T + bias
        sign = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
        pairs = functional.logsigmoid(sign * logits)
        same = _same_image(image_ids, logits)
        if same is not None:
            pairs = pairs.masked_fill(same, 0.0)
        total = pairs.sum()
        if negatives is not None:
            hard = functional.logsigmoid(-(scale * image_embeds @ negatives.flatten(0, 1).T + bias))
            total = total + hard.masked_fill(~negative_mask.flatten(), 0.0).sum()
        return -total / len(logits)


def _check(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    image_ids: torch.Tensor | None,
    negative_text_embeds: torch.Tensor | None,
    negative_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Check shapes, bring the embeddings to float32 (float64 stays) and blank the slots without a negative."""
    if image_embeds.ndim != 2 or image_embeds.shape != text_embeds.shape or not len(image_embeds):
        raise ArgumentError(
            "image_embeds and text_embeds must have one shape (batch, dim) with batch > 0, got "
            f"{tuple(image_embeds.shape)} and {tuple(text_embeds.shape)}"
        )
    batch, dim = image_embeds.shape
    if image_ids is not None and image_ids.shape != (batch,):
        raise ArgumentError(f"image_ids must have shape ({batch},), got {tuple(image_ids.shape)}")
    dtype = torch.promote_types(torch.promote_types(image_embeds.dtype, text_embeds.dtype), torch.float32)
    image_embeds, text_embeds = image_embeds.to(dtype), text_embeds.to(dtype)
    if negative_text_embeds is None:
        if negative_mask is not None:
            raise ArgumentError("negative_mask was given without negative_text_embeds; pass both or neither")
        return image_embeds, text_embeds, None, None
    if negative_text_embeds.ndim != 3 or negative_text_embeds.shape[::2] != (batch, dim):
        raise ArgumentError(
            f"negative_text_embeds must have shape ({batch}, negatives, {dim}), got "
            f"{tuple(negative_text_embeds.shape)}"
        )
    slots = negative_text_embeds.shape[:2]
    if negative_mask is None:
        negative_mask = torch.ones(slots, dtype=torch.bool, device=negative_text_embeds.device)
    elif negative_mask.dtype != torch.bool or negative_mask.shape != slots:
        raise ArgumentError(
            f"negative_mask must be boolean of shape {tuple(slots)}, got {negative_mask.dtype} of shape "
            f"{tuple(negative_mask.shape)}"
        )
    # Masking logits alone is not enough: 0 * nan in the backward pass would let an unused slot reach the gradients.
    negatives = negative_text_embeds.to(dtype).masked_fill(~negative_mask[..., None], 0.0)
    return image_embeds, text_embeds, negatives, negative_mask


def _scalar(value: torch.Tensor | float, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(value, device=like.device).to(like.dtype).reshape(())


def _same_image(image_ids: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor | None:
    """Pairs of different rows that show one image."""
    if image_ids is None:
        return None
    same = image_ids[:, None] == image_ids[None, :]
    return same.fill_diagonal_(False).to(logits.device)
