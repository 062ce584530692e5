"""Next-token cross-entropy without the logits of all tokens and all words in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, check_count

REDUCTIONS = ("mean", "sum", "none")
IGNORE_INDEX = -100
# Tokens that are compared with a part of the vocabulary at a time.
_ROWS = 1024


def next_token_loss(
    hidden: torch.Tensor,
    lm_head: torch.Tensor | nn.Linear,
    labels: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    chunk_size: int = 8192,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy of the next token, from hidden states and the language head.

    The logits are computed a part of the vocabulary and at most 1,024 tokens at a time, in the forward and again in
    the backward pass, so memory grows neither with the vocabulary nor with vocabulary times tokens. The result is that
    of `torch.nn.functional.cross_entropy(hidden @ weight.T + bias, labels)`, in value and gradient.

    Args:
        hidden (`torch.Tensor` of shape `(tokens, width)`):
            Final hidden state at the position *before* each label: row `i` predicts `labels[i]`.
        lm_head (`torch.Tensor` of shape `(vocabulary, width)` or `torch.nn.Linear`):
            Weight of the language head, or the head. A frozen one costs nothing in the backward pass.
        labels (`torch.Tensor` of shape `(tokens,)`):
            Token ids, or `ignore_index`.
        bias (`torch.Tensor` of shape `(vocabulary,)`, *optional*):
            Bias of the head, where `lm_head` is a weight.
        chunk_size (`int`, defaults to 8192):
            Words of the vocabulary that are compared at a time.
        ignore_index (`int`, defaults to -100):
            Label of the tokens that do not count. The head is not computed for them.
        reduction (`str`, defaults to `"mean"`):
            `"mean"` over the tokens that count, `"sum"`, or `"none"` for one value a token, 0 where it does not count.
        num_items (`int` or `torch.Tensor`, *optional*):
            With `"mean"`: divide the sum by this number, such as the tokens that count in a batch of which this is a
            part.

    Returns:
        `torch.Tensor`: scalar, or `(tokens,)` with `reduction="none"`; float32, or float64 if an input is float64. A
        batch without a token that counts gives 0, with gradients of 0.

    Raises:
        ArgumentError: if shapes do not fit, a label is no word of the vocabulary, or `lm_head` is no linear layer.

    Reference:
        Ouali, Bulat et al. 2025 (CVPR, arXiv 2412.04378), the next-token loss on long captions.

    Deviations:
        None: how it is computed, not what.

    Example:
        >>> import torch
        >>> from vlcomp.losses import next_token_loss
        >>> hidden, head = torch.randn(6, 8), torch.nn.Linear(8, 100, bias=False)
        >>> labels = torch.tensor([3, -100, 99, 0, 7, -100])
        >>> plain = torch.nn.functional.cross_entropy(head(hidden), labels)
        >>> torch.allclose(next_token_loss(hidden, head, labels, chunk_size=32), plain, atol=1e-6)
        True
    """
    weight, bias = _head(lm_head, bias)
    _check(hidden, weight, bias, labels, chunk_size, reduction, num_items)
    counts = labels != ignore_index
    rows = counts.nonzero().flatten()
    kept = labels[rows]
    _check_labels(kept, len(weight), ignore_index)
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        losses = _ChunkedCrossEntropy.apply(hidden[rows], weight, bias, kept, chunk_size, dtype)
    if reduction == "none":
        return losses.new_zeros(len(labels)).index_put((rows,), losses)
    if reduction == "sum":
        return losses.sum()
    return losses.sum() / (max(len(kept), 1) if num_items is None else num_items)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss of each token; only the hidden states and one number a token are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        chunk_size: int,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        ctx.chunk_size, ctx.dtype = chunk_size, dtype
        wide = torch.promote_types(dtype, torch.float32)
        log_sums = torch.full((len(labels),), -torch.inf, dtype=wide, device=hidden.device)
        targets = torch.zeros(len(labels), dtype=wide, device=hidden.device)
        for first, part, part_bias in _chunks(weight, bias, chunk_size, dtype):
            for start in range(0, len(labels), _ROWS):
                rows = slice(start, start + _ROWS)
                logits = _logits(hidden[rows], part, part_bias, dtype, wide)
                log_sums[rows] = torch.logaddexp(log_sums[rows], logits.logsumexp(dim=1))
                places, inside = _within(labels[rows], first, len(part))
                found = logits.gather(1, places[:, None]).squeeze(1)
                targets[rows] = torch.where(inside, found, targets[rows])
        ctx.save_for_backward(hidden, weight, bias, labels, log_sums)
        return log_sums - targets

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, labels, log_sums = ctx.saved_tensors
        dtype, wide = ctx.dtype, log_sums.dtype
        wanted = ctx.needs_input_grad[:3]
        # Sums over many chunks are kept in float32, whatever the type of the inputs.
        of_hidden = torch.zeros(hidden.shape, dtype=wide, device=hidden.device) if wanted[0] else None
        of_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if wanted[1] else None
        of_bias = torch.zeros(bias.shape, dtype=wide, device=bias.device) if wanted[2] else None
        if not any(wanted):
            return None, None, None, None, None, None
        for first, part, part_bias in _chunks(weight, bias, ctx.chunk_size, dtype):
            words = slice(first, first + len(part))
            for start in range(0, len(labels), _ROWS):
                rows = slice(start, start + _ROWS)
                logits = _logits(hidden[rows], part, part_bias, dtype, wide)
                # In place: the probabilities take the room of the logits.
                error = logits.sub_(log_sums[rows, None]).exp_()
                places, inside = _within(labels[rows], first, len(part))
                error.scatter_add_(1, places[:, None], -inside.to(wide)[:, None])
                error.mul_(gradient[rows, None])
                low = error.to(dtype)
                if of_hidden is not None:
                    of_hidden[rows] += (low @ part).to(wide)
                if of_weight is not None:
                    of_weight[words] += (low.T @ hidden[rows].to(dtype)).to(wide)
                if of_bias is not None:
                    of_bias[words] += error.sum(dim=0)
        return (
            None if of_hidden is None else of_hidden.to(hidden.dtype),
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(bias.dtype),
            None,
            None,
            None,
        )


def _chunks(weight: torch.Tensor, bias: torch.Tensor | None, size: int, dtype: torch.dtype):
    """Parts of the vocabulary: the first word, and weight and bias in the type to multiply in."""
    for first in range(0, len(weight), size):
        part = slice(first, first + size)
        yield first, weight[part].to(dtype), None if bias is None else bias[part].to(dtype)


def _logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype, wide: torch.dtype
) -> torch.Tensor:
    return nn.functional.linear(hidden.to(dtype), weight, bias).to(wide)


def _within(labels: torch.Tensor, first: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a label stands in a part of the vocabulary (somewhere, if it is in another), and whether it is in it."""
    places = labels - first
    inside = (places >= 0) & (places < size)
    return places.clamp(0, size - 1), inside


def _head(lm_head: Any, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    if isinstance(lm_head, torch.Tensor):
        return lm_head, bias
    if not isinstance(lm_head, nn.Linear):
        # An adapted layer has a `weight` too: that of the layer below the adapter.
        raise ArgumentError(
            f"lm_head is a {type(lm_head).__name__}; pass a torch.nn.Linear or its weight (an adapter on the language "
            "head is not supported: leave the head out of its target_modules)"
        )
    if bias is not None:
        raise ArgumentError("bias was given beside an lm_head that is a layer; pass lm_head.weight with it")
    return lm_head.weight, lm_head.bias


def _check(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    chunk_size: int,
    reduction: str,
    num_items: int | torch.Tensor | None,
) -> None:
    check_count("chunk_size", chunk_size)
    if reduction not in REDUCTIONS:
        raise ArgumentError(f"reduction={reduction!r} is not one of {', '.join(map(repr, REDUCTIONS))}")
    if num_items is not None and reduction != "mean":
        raise ArgumentError(f"num_items={num_items} is for reduction='mean', not {reduction!r}; leave it out")
    if num_items is not None and not num_items > 0:
        raise ArgumentError(f"num_items={num_items} must be above 0")
    if weight.ndim != 2 or not len(weight):
        raise ArgumentError(f"lm_head of shape {tuple(weight.shape)} must be (vocabulary, width)")
    if hidden.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ArgumentError(
            f"hidden of shape {tuple(hidden.shape)} must be (tokens, {weight.shape[1]}), the width of the head; "
            "flatten a batch with hidden.flatten(0, 1)"
        )
    if labels.shape != hidden.shape[:1] or labels.dtype not in (torch.int64, torch.int32):
        raise ArgumentError(
            f"labels of shape {tuple(labels.shape)} and type {labels.dtype} must be ({len(hidden)},), whole numbers: "
            "one for each row of hidden"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ArgumentError(f"bias of shape {tuple(bias.shape)} must be ({len(weight)},), a number for each word")


def _check_labels(labels: torch.Tensor, vocabulary: int, ignore_index: int) -> None:
    if len(labels):
        low, high = torch.stack(torch.aminmax(labels)).tolist()
        if low < 0 or high >= vocabulary:
            raise ArgumentError(
                f"labels hold {low if low < 0 else high}, which is neither a word of the vocabulary of {vocabulary} "
                f"nor ignore_index={ignore_index}"
            )
