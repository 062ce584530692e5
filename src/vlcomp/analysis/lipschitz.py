"""Smoothness: how much an image's embedding can change when its pixels do."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from transformers import activations

from ..errors import ArgumentError, check_count

# Models whose image embedding is that of transformers' CLIP, or goes from there through a codebook.
_KINDS = ("clip", "imc_cmr_clip", "iterated_clip")


@dataclass(frozen=True)
class Smoothness:
    """Three numbers about one vision agent, from loose and universal to tight and local.

    Args:
        log10_bound (`float`):
            Decimal logarithm of an upper bound of the Lipschitz constant of pixels -> embedding *before* its
            normalisation, over all pixel values. It follows from the weights alone.
        log10_bound_here (`float`):
            The same with what was measured on the pictures in place of the worst case: an upper bound of the spectral
            norm of the Jacobian of pixels -> *normalised* embedding at each of them, and of nothing else.
        slope (`float`):
            The steepest difference quotient of pixels -> normalised embedding that was found at the pictures: a
            *lower* bound of the Lipschitz constant.
    """

    log10_bound: float
    log10_bound_here: float
    slope: float


def smoothness(model: nn.Module, pixel_values: torch.Tensor, *, iterations: int = 10, seed: int = 0) -> Smoothness:
    """Bound the Lipschitz constant of a vision agent from above, and from below at some pictures.

    The map goes from the pixels as the model reads them (resized and normalised) to the embedding, both with Euclidean
    norms. It is a chain, and Lipschitz constants multiply along a chain and add at a residual connection:

        patches * first norm * product over blocks of (1 + norm1 * attention) (1 + norm2 * mlp) * head

    - *linear map*: its spectral norm (of patches: no pixel is in two of them); *activation*: its steepest slope.
    - *layer norm*: `max |gain| / s`, where `s` is the standard deviation over the features of a token, `sqrt(variance
      + eps)`. For `log10_bound` it is its least possible value `sqrt(eps)`, for `log10_bound_here` the least one at
      the pictures.
    - *self-attention* has no Lipschitz constant (Kim et al. 2021), but here it reads a layer norm, whose outputs lie
      in a ball around its bias, of radius `R = max |gain| sqrt(width)`. On that ball a head with matrices Q, K, V of
      `k` rows and queries no longer than `q` has at most the constant

          |V| (sqrt(n) + R |K| (R |Q| + q sqrt(n)) / sqrt(k)),    n tokens,

      which follows from the derivative of the softmax by the Cauchy-Schwarz inequality, and several heads with output
      matrix O have `|O|` times the root of the sum of their squares.
    - *codebook*: the maximum over tokens of scores of all codes C has `|C| / (sqrt(size) * temperature)`, sparsemax is
      a projection on a convex set and has 1, and mixing has `|C - mean code|`.
    - *normalisation* (only for `log10_bound_here`): one over the length of the shortest embedding at the pictures.

    A product of many worst cases lies orders of magnitude above what happens: compare it between checkpoints of one
    architecture, not with 1. That is why the slope is given beside it.

    Args:
        model (`PreTrainedModel`):
            A CLIP, or a model whose image embedding is made as CLIP's or through a codebook.
        pixel_values (`torch.Tensor` of shape `(images, channels, height, width)`):
            Pictures as the model reads them.
        iterations (`int`, defaults to 10):
            Steps of the power iteration behind the slope.
        seed (`int`, defaults to 0):
            Seed of the directions with which it starts.

    Returns:
        [`Smoothness`]

    Raises:
        ArgumentError: for another model, a model whose vision tower holds other layers than CLIP's, or no picture.

    Reference:
        Zheng, Zhang, Kembhavi, Krishna 2024 (CVPR, arXiv 2404.02145) report that such a bound falls over generations.
        Kim, Papamakarios, Mnih 2021 (ICML, arXiv 2006.04710): self-attention is not Lipschitz; bounds on compact
        domains of this form are discussed by Castin, Ablin, Peyre 2024 (ICML, arXiv 2312.14820).

    Deviations:
        The formula above is ours, derived for the layers as they are here; the values are not those of the paper.

    Example:
        >>> import torch
        >>> from vlcomp.analysis import smoothness
        >>> from vlcomp.testing import tiny_iterated_clip
        >>> found = smoothness(tiny_iterated_clip(), torch.randn(2, 3, 32, 32))
        >>> found.slope < 10**found.log10_bound_here
        True
    """
    check_count("iterations", iterations)
    _check(model, pixel_values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = torch.randn(pixel_values.shape, dtype=torch.float64)
    # In double precision and on the CPU: difference quotients of single precision are mostly rounding.
    model = copy.deepcopy(model).to("cpu", torch.float64).eval()
    pixel_values = pixel_values.detach().to("cpu", torch.float64)
    with _deviations(model) as found, torch.no_grad():
        lengths = torch.linalg.vector_norm(model.get_image_features(pixel_values).pooler_output, dim=-1)
    everywhere = _log10_bound(model, lambda norm: math.sqrt(norm.eps))
    here = _log10_bound(model, lambda norm: found[norm]) - _log10(lengths.min().item())
    return Smoothness(everywhere, here, _slope(model, pixel_values, start, iterations))


def attention_bound(
    attention: nn.Module, radius: float, centre: torch.Tensor, tokens: int, heads: int | None = None
) -> float:
    """Lipschitz constant, from above, of self-attention over tokens within `radius` of `centre`; see [`smoothness`].

    Args:
        attention (`nn.Module`):
            With `q_proj`, `k_proj`, `v_proj`, `out_proj` and `num_heads`, as in CLIP.
        radius (`float`):
            How far tokens are from the centre at most.
        centre (`torch.Tensor` of shape `(width,)`):
            The centre.
        tokens (`int`):
            Tokens of a sequence.
        heads (`int`, *optional*):
            Number of heads; by default that of the module.

    Returns:
        `float`
    """
    heads = heads or attention.num_heads
    centres = attention.q_proj(centre).chunk(heads)
    parts = [getattr(attention, f"{name}_proj").weight.chunk(heads) for name in ("q", "k", "v")]
    root, total = math.sqrt(tokens), 0.0
    for query, key, value, middle in zip(*parts, centres, strict=True):
        queries, keys, values = _spectral(query), _spectral(key), _spectral(value)
        longest = torch.linalg.vector_norm(middle).item() + queries * radius
        scores = radius * keys * (radius * queries + longest * root) / math.sqrt(len(query))
        total += (values * (root + scores)) ** 2
    return _spectral(attention.out_proj.weight) * math.sqrt(total)


def _check(model: nn.Module, pixel_values: torch.Tensor) -> None:
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if kind not in _KINDS:
        raise ArgumentError(
            f"model is of type {kind!r}; the bound is derived for the vision towers of {', '.join(_KINDS)}"
        )
    if pixel_values.ndim != 4 or not len(pixel_values):
        raise ArgumentError(
            f"pixel_values has shape {list(pixel_values.shape)}; expected [images, channels, height, width]"
        )
    patches = model.vision_model.embeddings.patch_embedding
    if patches.stride != patches.kernel_size:
        raise ArgumentError(f"the patches overlap (size {patches.kernel_size}, stride {patches.stride})")


def _log10_bound(model: nn.Module, deviation: Callable[[nn.LayerNorm], float]) -> float:
    """Sum of the logarithms along the chain, with the least deviation of tokens at each norm."""
    tower, config = model.vision_model, model.config.vision_config
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    act = _steepest(config.hidden_act)

    def norm(layer: nn.LayerNorm) -> float:
        return _log10(layer.weight.abs().max().item() / deviation(layer))

    total = _log10(_spectral(tower.embeddings.patch_embedding.weight.flatten(1))) + norm(tower.pre_layrnorm)
    for block in tower.encoder.layers:
        first, second = block.layer_norm1, block.layer_norm2
        radius = first.weight.abs().max().item() * math.sqrt(first.normalized_shape[0])
        attention = attention_bound(block.self_attn, radius, first.bias, tokens)
        mlp = _spectral(block.mlp.fc1.weight) * act * _spectral(block.mlp.fc2.weight)
        total += _log10_one_plus(norm(first) + _log10(attention)) + _log10_one_plus(norm(second) + _log10(mlp))
    head = model.visual_projection
    if getattr(model, "codebook", None) is None:
        return total + norm(tower.post_layernorm) + _log10(_spectral(head.weight))
    total += norm(head.norm1) + _log10(_spectral(head.fc1.weight)) + _log10(_steepest("gelu"))
    total += norm(head.norm2) + _log10(_spectral(head.fc2.weight))
    codes = model.codebook.weight
    return total + _log10(_spectral(codes) * _spectral(codes - codes.mean(dim=0)) / model.codebook.divisor)


@contextmanager
def _deviations(model: nn.Module) -> Iterator[dict[nn.Module, float]]:
    """The least standard deviation of a token at each norm, of what the model is given meanwhile."""
    found: dict[nn.Module, float] = {}

    def note(layer: nn.LayerNorm, inputs: tuple[torch.Tensor, ...]) -> None:
        least = (inputs[0].var(dim=-1, correction=0).min() + layer.eps).sqrt().item()
        found[layer] = min(least, found.get(layer, math.inf))

    hooks = [layer.register_forward_pre_hook(note) for layer in model.modules() if isinstance(layer, nn.LayerNorm)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _slope(
    model: nn.Module, pixels: torch.Tensor, direction: torch.Tensor, iterations: int, step: float = 1e-5
) -> float:
    """The steepest difference quotient by power iteration: forwards by differences, back by the transpose."""

    def embed(values: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(model.get_image_features(values).pooler_output, dim=-1)

    def unit(values: torch.Tensor) -> torch.Tensor:
        return values / values.flatten(1).norm(dim=1).clamp(min=1e-300)[:, None, None, None]

    steepest = 0.0
    values = pixels.clone().requires_grad_()
    embeds = embed(values)
    for _ in range(iterations):
        direction = unit(direction)
        with torch.no_grad():
            change = (embed(pixels + step * direction) - embeds) / step
        steepest = max(steepest, change.norm(dim=1).max().item())
        (direction,) = torch.autograd.grad(embeds, values, change, retain_graph=True)
    return steepest


def _spectral(matrix: torch.Tensor) -> float:
    return torch.linalg.matrix_norm(matrix.detach(), 2).item()


def _steepest(name: str) -> float:
    """The largest slope of an activation function, found on a grid (they are straight outside of it)."""
    points = torch.linspace(-12, 12, 240_001, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(activations.ACT2FN[name](points).sum(), points)
    return slopes.abs().max().item() * (1 + 1e-9)  # for what lies between two points


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else -math.inf


def _log10_one_plus(log10: float) -> float:
    return float(np.logaddexp(0.0, log10 * math.log(10)) / math.log(10))


__all__: list[str] = ["Smoothness", "attention_bound", "smoothness"]
