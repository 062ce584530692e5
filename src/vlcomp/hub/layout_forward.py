"""What checkpoints of other projects compute, written out step by step from their own names of the weights.

Conversions are checked against this: it shares no code with the models of transformers, so that a mistake in a
mapping of names, a transposed matrix or a wrong activation shows as a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

Tensors = Mapping[str, torch.Tensor]


def image_tokens(
    tensors: Tensors,
    pixel_values: torch.Tensor,
    heads: int,
    activation: str,
    prompts: Sequence[torch.Tensor] = (),
) -> torch.Tensor:
    """Outputs of the last block of a vision tower in the layout of open_clip.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            Weights under names such as `visual.conv1.weight`.
        pixel_values (`torch.Tensor` of shape `(images, 3, size, size)`):
            Images.
        heads (`int`):
            Attention heads.
        activation (`str`):
            `"quick_gelu"` or `"gelu"`.
        prompts (`Sequence[torch.Tensor]`):
            For each of the first layers, vectors `(n, width)`: those of the first stand after the patches, those of
            the others take their places.

    Returns:
        `torch.Tensor` of shape `(images, 1 + patches + n, width)`: the class token comes first.
    """
    kernel = tensors["visual.conv1.weight"]
    patches = torch.nn.functional.conv2d(pixel_values, kernel, stride=kernel.shape[-1])
    hidden = patches.flatten(2).transpose(1, 2)
    start = tensors["visual.class_embedding"].expand(len(hidden), 1, -1)
    hidden = torch.cat([start, hidden], dim=1) + tensors["visual.positional_embedding"]
    if prompts:
        hidden = torch.cat([hidden, prompts[0].expand(len(hidden), -1, -1)], dim=1)
    hidden = _norm(tensors, "visual.ln_pre", hidden)
    for index in range(count_blocks(tensors, "visual.transformer.")):
        if 0 < index < len(prompts):
            prompt = prompts[index]
            hidden = torch.cat([hidden[:, : -len(prompt)], prompt.expand(len(hidden), -1, -1)], dim=1)
        hidden = _block(tensors, f"visual.transformer.resblocks.{index}", hidden, heads, activation, causal=False)
    return hidden


def encode_image(
    tensors: Tensors, pixel_values: torch.Tensor, heads: int, activation: str, prompts=()
) -> torch.Tensor:
    """Embeddings `(images, dim)` of a vision tower in the layout of open_clip; see [`image_tokens`]."""
    hidden = image_tokens(tensors, pixel_values, heads, activation, prompts)[:, 0]
    return _norm(tensors, "visual.ln_post", hidden) @ tensors["visual.proj"]


def text_tokens(
    tensors: Tensors,
    input_ids: torch.Tensor,
    heads: int,
    activation: str,
    prompts: Sequence[torch.Tensor] = (),
) -> torch.Tensor:
    """Normed outputs of the last block of a text tower in the layout of open_clip.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            Weights under names such as `transformer.resblocks.0.ln_1.weight`.
        input_ids (`torch.LongTensor` of shape `(texts, length)`):
            Texts, padded with any token after the end token.
        heads (`int`):
            Attention heads.
        activation (`str`):
            `"quick_gelu"` or `"gelu"`.
        prompts (`Sequence[torch.Tensor]`):
            For each of the first layers, vectors `(n, width)` that take the places after the start token.

    Returns:
        `torch.Tensor` of shape `(texts, length, width)`.
    """
    hidden = tensors["token_embedding.weight"][input_ids]
    for index in range(count_blocks(tensors, "transformer.")):
        if index < len(prompts):
            prompt = prompts[index].expand(len(hidden), -1, -1)
            hidden = torch.cat([hidden[:, :1], prompt, hidden[:, 1 + prompt.shape[1] :]], dim=1)
        if index == 0:
            hidden = hidden + tensors["positional_embedding"][: hidden.shape[1]]
        hidden = _block(tensors, f"transformer.resblocks.{index}", hidden, heads, activation, causal=True)
    return _norm(tensors, "ln_final", hidden)


def encode_text(tensors: Tensors, input_ids: torch.Tensor, heads: int, activation: str, prompts=()) -> torch.Tensor:
    """Embeddings `(texts, dim)` of a text tower in the layout of open_clip; see [`text_tokens`].

    It pools where the highest token id stands, which is the end token in OpenAI's vocabulary.
    """
    hidden = text_tokens(tensors, input_ids, heads, activation, prompts)
    return hidden[torch.arange(len(hidden)), input_ids.argmax(dim=1)] @ tensors["text_projection"]


def count_blocks(tensors: Tensors, prefix: str) -> int:
    """Number of blocks of a tower.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            Weights.
        prefix (`str`):
            `"visual.transformer."` or `"transformer."`.

    Returns:
        `int`: one more than the highest index.
    """
    start = f"{prefix}resblocks."
    found = [name[len(start) :].split(".")[0] for name in tensors if name.startswith(start)]
    return 1 + max((int(index) for index in found if index.isdigit()), default=-1)


def _block(
    tensors: Tensors, name: str, hidden: torch.Tensor, heads: int, activation: str, causal: bool
) -> torch.Tensor:
    inner = _norm(tensors, f"{name}.ln_1", hidden)
    mixed = inner @ tensors[f"{name}.attn.in_proj_weight"].T + tensors[f"{name}.attn.in_proj_bias"]
    batch, length, width = inner.shape
    query, key, value = mixed.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(-1, -2) / (width // heads) ** 0.5
    if causal:
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    attended = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, length, width)
    hidden = hidden + _linear(tensors, f"{name}.attn.out_proj", attended)
    inner = _linear(tensors, f"{name}.mlp.c_fc", _norm(tensors, f"{name}.ln_2", hidden))
    if activation == "quick_gelu":
        inner = inner * torch.sigmoid(1.702 * inner)
    else:
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    return hidden + _linear(tensors, f"{name}.mlp.c_proj", inner)


def _linear(tensors: Tensors, name: str, hidden: torch.Tensor) -> torch.Tensor:
    return hidden @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]


def _norm(tensors: Tensors, name: str, hidden: torch.Tensor) -> torch.Tensor:
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    scale = (centred.pow(2).mean(dim=-1, keepdim=True) + 1e-5).rsqrt()
    return centred * scale * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]
