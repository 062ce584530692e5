"""The codebook of Iterated-CLIP: queries of tokens, sparsemax, and mixtures of codes."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .configuration_iterated_clip import IteratedCLIPConfig


class _Sparsemax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor) -> torch.Tensor:
        # The threshold does not change with a common offset, and small numbers lose least in the running sum.
        scores = scores - scores.amax(dim=-1, keepdim=True)
        ordered = scores.sort(dim=-1, descending=True).values
        sums = ordered.cumsum(dim=-1)
        counts = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
        # At least one is active; a row of NaN has none, and is to stay NaN.
        active = (1 + counts * ordered > sums).sum(dim=-1, keepdim=True).clamp(min=1)
        threshold = (sums.gather(-1, active - 1) - 1) / active
        weights = (scores - threshold).clamp(min=0)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (weights,) = ctx.saved_tensors
        active = weights > 0
        gradient = gradient.masked_fill(~active, 0)
        mean = gradient.sum(dim=-1, keepdim=True) / active.sum(dim=-1, keepdim=True)
        return (gradient - mean).masked_fill(~active, 0)


def sparsemax(scores: torch.Tensor) -> torch.Tensor:
    """Project scores onto the probability simplex: a softmax that gives exact zeros.

    Args:
        scores (`torch.Tensor` of shape `(..., codes)`):
            Any scores. Half precision is computed in float32.

    Returns:
        `torch.Tensor` of the same shape, float32 or float64: the nearest point (Euclidean) whose entries are not
        negative and sum to 1 along the last dimension.

    Reference:
        Martins, Astudillo 2016, From Softmax to Sparsemax (arXiv 1602.02068), Algorithm 1 and Section 2.5.

    Example:
        >>> import torch
        >>> from vlcomp.models.iterated_clip import sparsemax
        >>> sparsemax(torch.tensor([1.0, 0.5, -1.0]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    return _Sparsemax.apply(scores.to(torch.promote_types(scores.dtype, torch.float32)))


class IteratedCLIPLinear(nn.Linear):
    """A linear layer that starts with a standard deviation of `fan_in ** -0.5` and a bias of 0.

    Its class tells `_init_weights` so: for models outside of transformers that function is not called for a module
    that merely holds others, such as a query head, and a plain `nn.Linear` would get the configuration's default.
    """


class IteratedCLIPQueryHead(nn.Module):
    """Turns a hidden state of a tower into a query: LayerNorm, Linear, GELU, LayerNorm, Linear.

    Args:
        width (`int`):
            Hidden size of the tower.
        size (`int`):
            Size of a query, which is that of a code.
        eps (`float`):
            Epsilon of the norms.
    """

    def __init__(self, width: int, size: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.fc1 = IteratedCLIPLinear(width, size)
        self.activation = nn.GELU()
        self.norm2 = nn.LayerNorm(size, eps=eps)
        self.fc2 = IteratedCLIPLinear(size, size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Queries `(..., size)` of hidden states `(..., width)`."""
        return self.fc2(self.norm2(self.activation(self.fc1(self.norm1(hidden_states)))))


class IteratedCLIPCodebook(nn.Module):
    """The codes, and how queries are turned into a mixture of them.

    Attributes:
        weight (`nn.Parameter` of shape `(codes, size)`):
            The codes.
        frozen (`bool`):
            Whether no gradient of the loss reaches the codes. They still receive one of exact zeros, so that
            distributed training sees every parameter in every step.

    Args:
        config ([`IteratedCLIPConfig`]):
            Number of codes, size, temperature and chunk size.
    """

    def __init__(self, config: IteratedCLIPConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.codebook_size, config.projection_dim))
        self.divisor = config.projection_dim**0.5 * config.temperature
        self.chunk_size = config.chunk_size
        self.frozen = False

    def forward(self, queries: torch.Tensor, token_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix the codes.

        Args:
            queries (`torch.Tensor` of shape `(batch, tokens, size)`):
                A query for each token.
            token_mask (`torch.BoolTensor` of shape `(batch, tokens)`):
                Which tokens count.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: embeddings `(batch, size)` and code weights `(batch, codes)`, float32
            (or float64) whatever the precision of the towers.
        """
        codes = self.weight.detach() if self.frozen else self.weight
        # At a high temperature all embeddings lie close together; half precision could not tell them apart.
        with torch.autocast(device_type=queries.device.type, enabled=False):
            codes = _at_least_float32(codes)
            best = torch.cat([scores.max(dim=1).values for scores in self._chunks(queries, codes, token_mask)])
            weights = sparsemax(best / self.divisor)
            embeds = weights @ codes
            if self.frozen:
                embeds = embeds + 0 * self.weight[0, 0]
        return embeds, weights

    def winners(self, queries: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """The token that scores highest for each code, `(batch, codes)`."""
        with torch.autocast(device_type=queries.device.type, enabled=False):
            codes = _at_least_float32(self.weight)
            return torch.cat([scores.max(dim=1).indices for scores in self._chunks(queries, codes, token_mask)])

    def _chunks(self, queries: torch.Tensor, codes: torch.Tensor, token_mask: torch.Tensor) -> Iterator[torch.Tensor]:
        parts = _at_least_float32(queries).split(self.chunk_size), token_mask.split(self.chunk_size)
        return (_scores(some, codes, mask) for some, mask in zip(*parts, strict=True))


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _scores(queries: torch.Tensor, codes: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
    """Score of each token for each code, -inf for those that do not count, [batch, tokens, codes]."""
    return (queries @ codes.T).masked_fill(~token_mask[..., None], -torch.inf)


__all__ = ["IteratedCLIPCodebook", "IteratedCLIPLinear", "IteratedCLIPQueryHead", "sparsemax"]
