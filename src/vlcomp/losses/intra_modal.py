"""Intra-modal contrast: a caption is pushed away from its own hard negatives, within text space."""

from __future__ import annotations

import torch
from torch.nn import functional

from ..errors import ArgumentError
from .contrastive import _check, _scalar

MODES = ("paper", "image_anchor", "released")


def intra_modal_contrastive_loss(
    image_embeds: torch.Tensor,
    text_embeds: torch.Tensor,
    negative_text_embeds: torch.Tensor,
    logit_scale: torch.Tensor | float,
    *,
    negative_mask: torch.Tensor | None = None,
    mode: str = "paper",
) -> torch.Tensor:
    """Contrast of each caption with its own hard negatives (IMC).

    With `S(a, b) = logit_scale * cosine(a, b)`, captions `T_i`, their images `I_i` and the valid hard negatives
    `T_i^k` of caption `i`:

    - `"paper"`: the mean over captions of `logsumexp_k S(T_i, T_i^k)`. Images play no part.
    - `"image_anchor"`: the mean over captions of
      `-log(exp S(I_i, T_i) / (exp S(I_i, T_i) + sum_k exp S(T_i, T_i^k)))`.
    - `"released"`: the mean over captions of the cross-entropy of `S(T_i, n)` over all valid hard negatives `n` of
      the batch, with the first of them as the target for every caption. It pulls captions *towards* a negative, and
      depends on the order of the rows. It is here for ablations only.

    The first two are means over the captions that have a hard negative, the third over all captions. Each is 0, with a
    graph, if the batch has no hard negative.

    The loss serves softmax (CLIP) and sigmoid (SigLIP) models alike: `S` is the scaled cosine without SigLIP's bias.
    The bias would cancel in `"image_anchor"` and `"released"`; to `"paper"` it would add itself, a constant that says
    nothing about the embeddings and would only push the bias down.

    Args:
        image_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised image embeddings; row `i` belongs to caption `i`. Only `mode="image_anchor"` uses them.
        text_embeds (`torch.Tensor` of shape `(batch, dim)`):
            L2-normalised caption embeddings.
        negative_text_embeds (`torch.Tensor` of shape `(batch, negatives, dim)`):
            L2-normalised embeddings of the hard-negative captions of each row; any number, also none.
        logit_scale (`torch.Tensor` or `float`):
            Multiplicative scale of the cosines (`model.logit_scale.exp()`).
        negative_mask (`torch.BoolTensor` of shape `(batch, negatives)`, *optional*):
            Which hard negatives exist; all of them if not given. What stands in the other slots has no influence.
        mode (`str`, defaults to `"paper"`):
            `"paper"`, `"image_anchor"` or `"released"`, see above.

    Returns:
        `torch.Tensor`: scalar, float32 (float64 if the embeddings are float64).

    Raises:
        ArgumentError: if shapes or types do not fit, or for another `mode`.

    Reference:
        Zhang, Awal, Agrawal 2024 (CVPR, arXiv 2306.08832), the term `L_imc`; `"released"` is what most versions of the
        authors' public code compute.

    Deviations:
        A hard negative that does not exist is left out; the authors' code puts in the embedding of a filler text, in
        `"released"` also as the target.

    Example:
        >>> import torch
        >>> from vlcomp.losses import intra_modal_contrastive_loss
        >>> texts = torch.eye(2, 3)
        >>> far, near = torch.eye(3)[2].expand(2, 1, 3), texts[:, None]
        >>> [float(intra_modal_contrastive_loss(texts, texts, negatives, 10.0)) for negatives in (far, near)]
        [0.0, 10.0]
    """
    if mode not in MODES:
        raise ArgumentError(f"mode={mode!r} is not one of {', '.join(map(repr, MODES))}")
    if negative_text_embeds is None:
        raise ArgumentError("negative_text_embeds is None; without hard negatives leave this loss out")
    image_embeds, text_embeds, negatives, mask = _check(
        image_embeds, text_embeds, None, negative_text_embeds, negative_mask
    )
    with torch.autocast(image_embeds.device.type, enabled=False):
        scale = _scalar(logit_scale, text_embeds)
        if mode == "released":
            return _released(text_embeds, negatives, mask, scale)
        has_negative = mask.any(dim=1)
        scores = (scale * torch.einsum("bd,bkd->bk", text_embeds, negatives)).masked_fill(~mask, -torch.inf)
        pushed = torch.logsumexp(scores, dim=1)  # -inf for captions without a hard negative, which do not count
        if mode == "image_anchor":
            pushed = -functional.logsigmoid(scale * (image_embeds * text_embeds).sum(dim=1) - pushed)
        return pushed.masked_fill(~has_negative, 0.0).sum() / has_negative.sum().clamp(min=1)


def _released(
    text_embeds: torch.Tensor, negatives: torch.Tensor, mask: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    scores = scale * text_embeds @ negatives.flatten(0, 1).T
    if not mask.any():
        return scores.sum() * 0.0  # the embeddings of slots without a negative are 0
    first = mask.flatten().int().argmax()
    logits = scores.masked_fill(~mask.flatten(), -torch.inf)
    return functional.cross_entropy(logits, first.expand(len(logits)))
