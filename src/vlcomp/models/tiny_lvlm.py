"""Tiny random LVLMs of each family, their tokenizer and image processor, built without a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from ..errors import ArgumentError

LVLM_KINDS = ("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl")

_WIDTH = 32
_SIDE = 32  # pixels
_PATCH = 8
_SPECIAL = (
    "<pad>", "<s>", "</s>", "<unk>", "<image>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_CONTENT = (
    "{%% for part in message['content'] %%}{%% if part['type'] == 'image' %%}{{ '%s' }}"
    "{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}"
)
# LLaVA-1.5's chat begins with the token that the tokenizer adds and ends in a word; Qwen's and OneVision's turns stand
# between special tokens.
_VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: "
    + _CONTENT % "<image>\\n"
    + " {% else %}ASSISTANT: "
    + _CONTENT % ""
    + "</s>{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
_CHATML = (
    "{%% for message in messages %%}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    + "{body}"
    + "{{ '<|im_end|>\\n' }}{%% endfor %%}"
    + "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\\n' }}{%% endif %%}"
).replace("%%", "%")
_IMAGE_OF = {"qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>", "llava_onevision": "<image>\\n"}


def new_lvlm_tokenizer(kind: str, texts: Iterable[str], *, vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """Learn a byte-pair vocabulary with the special tokens and the chat template of a family.

    Args:
        kind (`str`):
            One of `LVLM_KINDS`.
        texts (`Iterable[str]`):
            What to learn from.
        vocab_size (`int`, defaults to 640):
            Upper limit of the vocabulary.

    Returns:
        `PreTrainedTokenizerFast`: byte-level, so that no text has an unknown token. That of LLaVA puts `<s>` before a
        text and pads on the left; that of Qwen puts nothing before it and pads on the right.

    Raises:
        ArgumentError: for another `kind`.
    """
    _check(kind)
    backend = Tokenizer(models.BPE())
    vicuna = kind in ("llava", "llava_next")
    # A text begins with a space for LLaVA, as SentencePiece has it, and does not for Qwen.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=vicuna)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if vicuna:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", _SPECIAL.index("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>" if vicuna else None,
        eos_token="</s>" if vicuna else "<|im_end|>",
        unk_token="<unk>" if vicuna else None,
        pad_token="<pad>",
        padding_side="left" if vicuna else "right",
        model_max_length=512,
    )
    image = _IMAGE_OF.get(kind.replace("2_5", "2"), "")
    tokenizer.chat_template = _VICUNA if vicuna else _CHATML.replace("{body}", _CONTENT % image)
    return tokenizer


def new_lvlm_image_processor(kind: str) -> Any:
    """Build the image processor of a family for the tiny models, without torchvision.

    Args:
        kind (`str`):
            One of `LVLM_KINDS`.

    Returns:
        `BaseImageProcessor`: for 32 px crops; LLaVA-NeXT, OneVision and Qwen give wide and tall pictures more tokens.

    Raises:
        ArgumentError: for another `kind`.
    """
    _check(kind)
    square = {"height": _SIDE, "width": _SIDE}
    if kind == "llava":
        return CLIPImageProcessorPil(size={"shortest_edge": _SIDE}, crop_size=square)
    if kind == "llava_next":
        return LlavaNextImageProcessorPil(
            size={"shortest_edge": _SIDE}, crop_size=square, image_grid_pinpoints=_pinpoints()
        )
    if kind == "llava_onevision":
        return LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=_pinpoints())
    return Qwen2VLImageProcessorPil(patch_size=_PATCH, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64})


def new_tiny_lvlm(kind: str, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> PreTrainedModel:
    """Build a random LVLM of a family: 32 wide, two layers in each tower.

    Args:
        kind (`str`):
            One of `LVLM_KINDS`.
        tokenizer (`PreTrainedTokenizerFast`):
            Of [`new_lvlm_tokenizer`].
        seed (`int`, defaults to 0):
            Seed of the weights. The global random state is left as it was.

    Returns:
        `PreTrainedModel`: in evaluation mode.

    Raises:
        ArgumentError: for another `kind`.
    """
    _check(kind)
    config, model_class = _family(kind, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config).eval()
        with torch.no_grad():
            # Weights of 0.02 make attention nearly uniform: what is not seen would hardly be missed.
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    scale = 0.5 if "embed_tokens" in name else weight[0].numel() ** -0.5
                    weight.copy_(torch.randn(weight.shape) * scale)
    return model


def _family(kind: str, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Any]:
    tower = {
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    language = {
        **tower,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    eye = {**tower, "image_size": _SIDE, "patch_size": _PATCH}
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _SPECIAL}
    if kind in ("llava", "llava_next"):
        arguments = {
            "vision_config": CLIPVisionConfig(**eye, projection_dim=_WIDTH),
            "text_config": LlamaConfig(**language),
            "image_token_index": ids["<image>"],
        }
        if kind == "llava":
            return LlavaConfig(**arguments, image_seq_length=16), LlavaForConditionalGeneration
        return LlavaNextConfig(**arguments, image_grid_pinpoints=_pinpoints()), LlavaNextForConditionalGeneration
    if kind == "llava_onevision":
        return LlavaOnevisionConfig(
            vision_config=SiglipVisionConfig(**eye, vision_use_head=False),
            text_config=Qwen2Config(**language),
            image_token_index=ids["<image>"],
            image_grid_pinpoints=_pinpoints(),
            tie_word_embeddings=True,
        ), LlavaOnevisionForConditionalGeneration
    tokens = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    language["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    if kind == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": _WIDTH, "hidden_size": _WIDTH, "num_heads": 4, "patch_size": _PATCH}
        return Qwen2VLConfig(
            text_config=language, vision_config=vision, tie_word_embeddings=True, **tokens
        ), Qwen2VLForConditionalGeneration
    vision = {
        "depth": 2,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_heads": 4,
        "patch_size": _PATCH,
        "out_hidden_size": _WIDTH,
        "window_size": 4 * _PATCH,
        "fullatt_block_indexes": [1],
    }
    return Qwen2_5_VLConfig(text_config=language, vision_config=vision, **tokens), Qwen2_5_VLForConditionalGeneration


def _pinpoints() -> list[list[int]]:
    return [[_SIDE, 2 * _SIDE], [2 * _SIDE, _SIDE], [2 * _SIDE, 2 * _SIDE]]


def _check(kind: str) -> None:
    if kind not in LVLM_KINDS:
        raise ArgumentError(f"kind={kind!r} is not one of {', '.join(map(repr, LVLM_KINDS))}")
