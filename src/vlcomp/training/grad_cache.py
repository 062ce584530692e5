"""Gradient cache: a large contrastive batch in the memory of a small one, with exactly the same gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ..errors import ArgumentError

Embeds = dict[str, torch.Tensor]


def cached_backward(
    encode: Callable[[Any], Embeds],
    mini_batches: Sequence[Any],
    loss_function: Callable[[Embeds], tuple[torch.Tensor, Any]],
    *,
    backward: Callable[[torch.Tensor], None] = torch.Tensor.backward,
    no_sync: Callable[[], AbstractContextManager] = nullcontext,
) -> tuple[torch.Tensor, Any]:
    """Forward and backward of a contrastive loss over all mini-batches at once, one mini-batch in memory at a time.

    First pass: encode each mini-batch without a graph and keep the embeddings. Then compute the loss of all embeddings
    and its gradient with respect to each of them. Second pass: encode each mini-batch again, with a graph, and push
    the stored gradients through it. Random numbers (dropout) are the same in both passes. Gradients are added to the
    parameters as an ordinary backward pass does, and equal those of the whole batch up to rounding.

    Modules whose output depends on the other rows of a batch (batch normalisation) or that change state in a forward
    pass do not fit this scheme.

    Args:
        encode (`Callable[[mini_batch], dict[str, torch.Tensor]]`):
            Gives, for a mini-batch, tensors whose first dimension is the mini-batch. A scalar tensor (for instance the
            logit scale) is shared by all mini-batches.
        mini_batches (`Sequence`):
            The parts of the batch, at least one.
        loss_function (`Callable[[dict[str, torch.Tensor]], tuple[torch.Tensor, Any]]`):
            Gives the scalar loss of the concatenated tensors, and anything else that the caller wants back. It may
            gather over processes. It must reach trainable parameters only through its argument.
        backward (`Callable[[torch.Tensor], None]`, *optional*):
            Called with a scalar for each mini-batch; replace it to scale the loss (`accelerator.backward`).
        no_sync (`Callable[[], ContextManager]`, *optional*):
            Entered around all mini-batches but the last, so that processes exchange gradients once
            (`DistributedDataParallel.no_sync`).

    Returns:
        `tuple[torch.Tensor, Any]`: the detached loss and the second value of `loss_function`.

    Raises:
        ArgumentError: if there is no mini-batch, or the loss uses a parameter that `encode` does not return.

    Reference:
        Gao et al. 2021, Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup (arXiv 2101.06983).

    Example:
        >>> import torch
        >>> from vlcomp.training import cached_backward
        >>> layer = torch.nn.Linear(4, 4)
        >>> halves = torch.randn(8, 4).split(4)
        >>> loss, _ = cached_backward(lambda x: {"x": layer(x)}, halves, lambda e: ((e["x"] @ e["x"].T).mean(), None))
        >>> layer.weight.grad is not None
        True
    """
    if not mini_batches:
        raise ArgumentError("cached_backward needs at least one mini-batch, got none")
    states, outputs = [], []
    with torch.no_grad():
        for mini_batch in mini_batches:
            states.append(RandomState(_tensors(mini_batch)))
            outputs.append(encode(mini_batch))

    leaves, sizes = {}, {}
    for key, first in outputs[0].items():
        if first.ndim:
            leaf = torch.cat([output[key] for output in outputs])
            sizes[key] = [len(output[key]) for output in outputs]
        else:
            leaf = first.clone()
        leaves[key] = leaf.detach().requires_grad_(leaf.is_floating_point())
    del outputs

    with torch.enable_grad():
        loss, extra = loss_function(leaves)
    _check_graph(loss, leaves)
    wanted = {key: leaf for key, leaf in leaves.items() if leaf.requires_grad}
    # Outputs that the loss does not use get zeros: with distributed training each parameter must see a gradient.
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    gradients = {
        key: torch.zeros_like(leaf) if gradient is None else gradient
        for (key, leaf), gradient in zip(wanted.items(), found, strict=True)
    }
    parts = {key: gradient.split(sizes[key]) for key, gradient in gradients.items() if key in sizes}

    after = RandomState(_tensors(mini_batches[0]))
    last = len(mini_batches) - 1
    for index, mini_batch in enumerate(mini_batches):
        with nullcontext() if index == last else no_sync():
            states[index].restore()
            output = encode(mini_batch)
            surrogate = _dot(output, {key: part[index] for key, part in parts.items()})
            if index == last:
                surrogate = surrogate + _dot(output, {key: g for key, g in gradients.items() if key not in parts})
            if surrogate.requires_grad:
                backward(surrogate)
    after.restore()
    return loss.detach(), extra


def split_batch(batch: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Cut a batch into mini-batches of at most `size` rows.

    Args:
        batch (`dict`):
            Tensors with a common first dimension are cut; scalars and anything that is not a tensor go to every part.
        size (`int`):
            Rows of a mini-batch.

    Returns:
        `list[dict]`: the parts in order.

    Raises:
        ArgumentError: if `size` is below 1 or the tensors disagree on the number of rows.

    Example:
        >>> import torch
        >>> from vlcomp.training import split_batch
        >>> [len(part["x"]) for part in split_batch({"x": torch.ones(5, 2)}, 2)]
        [2, 2, 1]
    """
    if size < 1:
        raise ArgumentError(f"mini-batch size {size} is below 1")
    lengths = {key: len(value) for key, value in batch.items() if isinstance(value, torch.Tensor) and value.ndim}
    if len(set(lengths.values())) != 1:
        raise ArgumentError(f"cannot cut a batch whose tensors have different first dimensions: {lengths}")
    rows = next(iter(lengths.values()))
    return [
        {key: value[start : start + size] if key in lengths else value for key, value in batch.items()}
        for start in range(0, rows, size)
    ]


class RandomState:
    """The state of torch's random generators, to be restored later.

    Args:
        tensors (`Iterable[torch.Tensor]`):
            The state of each accelerator that holds one of them is kept beside the CPU's.
    """

    def __init__(self, tensors: Iterable[torch.Tensor] = ()) -> None:
        self._cpu = torch.get_rng_state()
        devices = {tensor.device for tensor in tensors if tensor.device.type != "cpu"}
        self._devices = {device: torch.get_device_module(device).get_rng_state(device) for device in devices}

    def restore(self) -> None:
        """Set the generators to the kept state."""
        torch.set_rng_state(self._cpu)
        for device, state in self._devices.items():
            torch.get_device_module(device).set_rng_state(state, device)


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _dot(outputs: Embeds, gradients: Embeds) -> torch.Tensor:
    """A scalar whose gradient with respect to each output is the given one."""
    total = torch.zeros((), device=next(iter(outputs.values())).device)
    for key, gradient in gradients.items():
        if outputs[key].requires_grad:
            total = total + (outputs[key].to(gradient.dtype) * gradient).sum()
    return total


def _check_graph(loss: torch.Tensor, leaves: Embeds) -> None:
    """Raise if the loss depends on a parameter that is not among `leaves`: its gradient would be lost."""
    known = {id(leaf) for leaf in leaves.values()}
    pending, seen = [loss.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in known:
            raise ArgumentError(
                f"the loss uses a trainable tensor of shape {tuple(variable.shape)} directly; return it from `encode` "
                "(a scalar is shared by all mini-batches) so that the gradient cache can give it a gradient"
            )
        pending.extend(parent for parent, _ in node.next_functions)
