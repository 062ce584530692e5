"""Small CLIP models and their processors, built without a checkpoint."""

from __future__ import annotations

import torch
from transformers import CLIPConfig, CLIPModel, CLIPProcessor, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ..errors import ArgumentError


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
    config = CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": max_length,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**tower, "image_size": image_size, "patch_size": patch_size},
        projection_dim=projection_dim,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config).eval()


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
