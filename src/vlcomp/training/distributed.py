"""Embeddings of all processes in one place, with exact gradients."""

from __future__ import annotations

import zlib
from typing import overload

import torch
import torch.distributed as dist
from torch.nn import functional

from ..errors import ArgumentError

# Shapes of all tensors travel in one message of this many integers.
_MESSAGE = 128


@overload
def gather_embeddings(tensors: torch.Tensor) -> torch.Tensor: ...
@overload
def gather_embeddings(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]: ...


def gather_embeddings(tensors: torch.Tensor | dict[str, torch.Tensor]) -> torch.Tensor | dict[str, torch.Tensor]:
    """Concatenate a tensor, or each tensor of a dictionary, over all processes along the first dimension.

    Gradients flow back to the process that a row came from, summed over processes. With the mean over processes that
    `DistributedDataParallel` takes, a loss that every process computes from the gathered embeddings gives the
    parameters the gradient that one process with the whole batch would give them.

    Processes may hold different numbers of rows. Other dimensions (for instance the number of hard negatives) are
    padded with zeros, `False` for masks, to the largest one. Scalars are returned as they are. Without a process group
    of more than one process the input is returned.

    Args:
        tensors (`torch.Tensor` or `dict[str, torch.Tensor]`):
            Tensors whose first dimension is the batch, such as embeddings `(batch, dim)`, hard negatives
            `(batch, negatives, dim)`, image ids `(batch,)`. Keys and numbers of dimensions agree on all processes.

    Returns:
        `torch.Tensor` or `dict[str, torch.Tensor]`: rows ordered by process, so that all gathered tensors correspond.

    Raises:
        ArgumentError: if the processes pass different sets of tensors.

    Example:
        >>> import torch
        >>> from vlcomp.training import gather_embeddings
        >>> gather_embeddings(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    if isinstance(tensors, torch.Tensor):
        return gather_embeddings({"tensor": tensors})["tensor"]
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return dict(tensors)
    rows = {key: value for key, value in tensors.items() if value.ndim}
    shapes = _gather_shapes(rows)
    return {
        key: _gather_rows(value, [shape[key] for shape in shapes]) if key in rows else value
        for key, value in tensors.items()
    }


def gather_batch(
    embeds: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Gather what a contrastive loss needs, also where only some processes have hard negatives.

    Args:
        embeds (`dict[str, torch.Tensor]`):
            Embeddings, with `text_embeds` and perhaps `negative_text_embeds`.
        batch (`dict[str, torch.Tensor]`):
            Entries of the batch (`image_ids`, `negative_mask`, ...).

    Returns:
        `tuple[dict, dict]`: both of all processes.
    """
    texts = embeds["text_embeds"]
    rows, device, local = len(texts), texts.device, {f"batch {key}": value for key, value in batch.items()}
    # A process whose rows have no hard negatives takes part with none, or the others would wait for it.
    mask = local.setdefault("batch negative_mask", torch.zeros(rows, 0, dtype=torch.bool, device=device))
    # Untyped negatives are all of type 0.
    local.setdefault("batch negative_type_ids", torch.zeros(mask.shape, dtype=torch.long, device=device))
    # A slice, not new zeros: it needs a gradient where the others' negatives do, so that its backward pass takes part.
    embeds = {"negative_text_embeds": texts[:, None, :][:, :0], **embeds}
    together = gather_embeddings(dict(sorted({**embeds, **local}.items())))
    if not together["negative_text_embeds"].shape[1]:
        for key in ("negative_text_embeds", "batch negative_mask", "batch negative_type_ids"):
            del together[key]
    seen = {key.removeprefix("batch "): value for key, value in together.items() if key.startswith("batch ")}
    return {key: value for key, value in together.items() if not key.startswith("batch ")}, seen


def _gather_shapes(tensors: dict[str, torch.Tensor]) -> list[dict[str, list[int]]]:
    """Shapes of the tensors on each process; one collective call for all of them."""
    if not tensors:
        return [{} for _ in range(dist.get_world_size())]
    signature = ", ".join(f"{key}: {value.ndim} dimensions of {value.dtype}" for key, value in tensors.items())
    numbers = [zlib.crc32(signature.encode()), *(size for value in tensors.values() for size in value.shape)]
    if len(numbers) > _MESSAGE:
        raise ArgumentError(f"gather_embeddings takes at most {_MESSAGE - 1} dimensions, got {len(numbers) - 1}")
    device = next(iter(tensors.values())).device
    message = torch.tensor(numbers + [0] * (_MESSAGE - len(numbers)), device=device)
    messages = [torch.empty_like(message) for _ in range(dist.get_world_size())]
    dist.all_gather(messages, message)
    received = torch.stack(messages).tolist()
    if any(numbers[0] != other[0] for other in received):
        raise ArgumentError(
            f"processes gather different tensors; process {dist.get_rank()} has {signature}. Every process must pass "
            "the same keys, numbers of dimensions and types"
        )
    shapes = []
    for row in received:
        position, shape = 1, {}
        for key, value in tensors.items():
            shape[key] = row[position : position + value.ndim]
            position += value.ndim
        shapes.append(shape)
    return shapes


def _gather_rows(value: torch.Tensor, shapes: list[list[int]]) -> torch.Tensor:
    largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    counts = [shape[0] for shape in shapes]
    padding = [
        pad for size, most in zip(reversed(value.shape), reversed(largest), strict=True) for pad in (0, most - size)
    ]
    if any(padding):
        value = functional.pad(value, padding)
    if value.is_floating_point():
        gathered = _GatherSum.apply(value)
    else:
        gathered = _all_gather(value)
    if any(count != largest[0] for count in counts):
        gathered = torch.cat([part[:count] for part, count in zip(gathered.chunk(len(counts)), counts, strict=True)])
    return gathered


def _all_gather(value: torch.Tensor) -> torch.Tensor:
    # Some backends cannot send booleans.
    sent = (value.to(torch.uint8) if value.dtype == torch.bool else value).contiguous()
    parts = [torch.empty_like(sent) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, sent)
    return torch.cat(parts).to(value.dtype)


class _GatherSum(torch.autograd.Function):
    """Gather along the first dimension; the backward pass sums over processes and keeps the own rows."""

    @staticmethod
    def forward(ctx, value: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(value)
        return _all_gather(value)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        start = dist.get_rank() * ctx.rows
        return gradient[start : start + ctx.rows]
