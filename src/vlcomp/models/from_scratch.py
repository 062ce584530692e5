"""Small models of the CLIP family and their processors, built without a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..errors import ArgumentError, check_count, check_number
from .iterated_clip import IteratedCLIPConfig, IteratedCLIPModel


def new_clip(
    tokenizer: PreTrainedTokenizerBase,
    *,
    image_size: int = 64,
    patch_size: int = 8,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    projection_dim: int = 128,
    max_length: int | None = None,
    seed: int = 0,
) -> CLIPModel:
    """Build a randomly initialised `CLIPModel` whose text tower fits `tokenizer`.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Gives the vocabulary and the special token ids; the model pools where `tokenizer.eos_token_id` first
            stands.
        image_size (`int`, defaults to 64):
            Side of the square input in pixels; a multiple of `patch_size`.
        patch_size (`int`, defaults to 8):
            Side of a patch in pixels.
        width (`int`, defaults to 128):
            Hidden size of both towers; a multiple of `heads`. The MLPs are four times as wide.
        layers (`int`, defaults to 4):
            Transformer blocks of each tower.
        heads (`int`, defaults to 4):
            Attention heads of each tower.
        projection_dim (`int`, defaults to 128):
            Size of the shared embedding space.
        max_length (`int`, *optional*):
            Text positions; `tokenizer.model_max_length` if not given.
        seed (`int`, defaults to 0):
            Seed of the initial weights. The global random state is left as it was.

    Returns:
        `CLIPModel`: in evaluation mode, as after `from_pretrained`.

    Raises:
        ArgumentError: if the sizes do not fit each other, or the end token of `tokenizer` has id 2.
    """
    sizes = _sizes(tokenizer, image_size, patch_size, width, layers, heads, projection_dim, max_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(CLIPConfig(**sizes)).eval()


def new_iterated_clip(
    tokenizer: PreTrainedTokenizerBase,
    *,
    image_size: int = 64,
    patch_size: int = 8,
    width: int = 128,
    layers: int = 4,
    heads: int = 4,
    projection_dim: int = 128,
    max_length: int | None = None,
    use_codebook: bool = True,
    codebook_size: int = 512,
    temperature: float | None = None,
    seed: int = 0,
) -> IteratedCLIPModel:
    """Build a randomly initialised [`~vlcomp.IteratedCLIPModel`] whose text tower fits `tokenizer`.

    Args:
        tokenizer, image_size, patch_size, width, layers, heads, projection_dim, max_length:
            As in [`new_clip`]; `projection_dim` is also the size of a code.
        use_codebook (`bool`, defaults to `True`):
            `False` gives a plain CLIP with the same towers, the baseline of the method.
        codebook_size (`int`, defaults to 512):
            Number of codes; the paper's model has 4096.
        temperature (`float`, *optional*):
            Divisor of the scores before sparsemax. How many codes are active depends on it and on the number of codes;
            by default `1000 * codebook_size / 4096`, which is 1000 for the paper's 4096.
        seed (`int`, defaults to 0):
            Seed of the initial weights. The global random state is left as it was.

    Returns:
        `IteratedCLIPModel`: in evaluation mode, as after `from_pretrained`.

    Raises:
        ArgumentError: if the sizes do not fit each other, the codebook has fewer than two codes, the temperature is
            not positive, or the end token of `tokenizer` has id 2.

    Example:
        >>> from vlcomp.models.from_scratch import new_iterated_clip
        >>> from vlcomp.testing import tiny_tokenizer
        >>> model = new_iterated_clip(tiny_tokenizer(), width=32, layers=1, projection_dim=32, codebook_size=64)
        >>> model.config.codebook_size, model.config.temperature
        (64, 15.625)
    """
    check_count("codebook_size", codebook_size, 2)
    temperature = 1000 * codebook_size / 4096 if temperature is None else temperature
    check_number("temperature", temperature)
    if not 0 < temperature < float("inf"):
        raise ArgumentError(f"temperature={temperature} must be finite and above 0; leave it out for the paper's rule")
    config = IteratedCLIPConfig(
        **_sizes(tokenizer, image_size, patch_size, width, layers, heads, projection_dim, max_length),
        use_codebook=use_codebook,
        codebook_size=codebook_size,
        temperature=temperature,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return IteratedCLIPModel(config).eval()


def _sizes(
    tokenizer: PreTrainedTokenizerBase,
    image_size: int,
    patch_size: int,
    width: int,
    layers: int,
    heads: int,
    projection_dim: int,
    max_length: int | None,
) -> dict[str, Any]:
    """What a CLIP configuration says of its towers."""
    if image_size % patch_size:
        raise ArgumentError(f"image_size={image_size} is not a multiple of patch_size={patch_size}")
    if width % heads:
        raise ArgumentError(f"width={width} is not a multiple of heads={heads}")
    max_length = max_length or tokenizer.model_max_length
    if not 2 < max_length <= 100_000:
        raise ArgumentError(
            f"max_length={max_length} cannot be the number of text positions; set tokenizer.model_max_length or pass "
            "max_length (CLIP: 77)"
        )
    if tokenizer.eos_token_id == 2:
        raise ArgumentError(
            "the tokenizer's end token has id 2, for which transformers' CLIP pools at the highest id of a text "
            "instead (the legacy value of OpenAI's checkpoints); give the end token another id, best the highest"
        )
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": projection_dim,
    }
    return {
        "text_config": {
            **tower,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "vision_config": {**tower, "image_size": image_size, "patch_size": patch_size},
        "projection_dim": projection_dim,
    }


def new_processor(tokenizer: PreTrainedTokenizerBase, image_size: int, *, fit: str = "squash") -> CLIPProcessor:
    """Build a `CLIPProcessor` for square images of `image_size` pixels.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            Tokenizer of the text tower.
        image_size (`int`):
            Side of the square that the model reads, in pixels.
        fit (`str`, defaults to `"squash"`):
            `"squash"` resizes to the square and keeps all of the picture, `"crop"` resizes the shorter edge and cuts
            the centre as OpenAI's CLIP does, which loses the sides of wide pictures.

    Returns:
        `CLIPProcessor`

    Raises:
        ArgumentError: for another `fit`.
    """
    if fit == "squash":
        size, crop = {"height": image_size, "width": image_size}, False
    elif fit == "crop":
        size, crop = {"shortest_edge": image_size}, True
    else:
        raise ArgumentError(f"fit={fit!r} is not one of 'squash', 'crop'")
    image_processor = CLIPImageProcessorPil(
        size=size, do_center_crop=crop, crop_size={"height": image_size, "width": image_size}
    )
    return CLIPProcessor(image_processor=image_processor, tokenizer=tokenizer)
