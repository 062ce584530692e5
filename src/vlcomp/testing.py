"""Tiny tokenizers, models, pictures and folders for tests: real classes, 32 wide, two layers, no download.

They are public because whoever extends the package needs them too: a new task or trainer is tested with
``save_tiny_checkpoint`` and ``make_captioned_folder`` exactly as the package's own are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tokenizers import processors, trainers
from transformers import (
    CLIPModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    Siglip2Config,
    Siglip2Model,
    Siglip2Processor,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipProcessor,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from .data.tokenization import train_clip_tokenizer
from .errors import ArgumentError
from .models.discriminative_lvlm import DiscriminativeLVLMProcessor
from .models.from_scratch import new_clip, new_iterated_clip, new_processor
from .models.iterated_clip import IteratedCLIPModel
from .models.tiny_lvlm import new_lvlm_image_processor, new_lvlm_tokenizer, new_tiny_lvlm

KINDS = ("clip", "siglip", "siglip2")

_IMAGE_SIZE = 32
_PATCH_SIZE = 8
_WIDTH = 32
_SIGLIP_TEXT_LENGTH = 64  # what every released SigLIP was trained with and the stock pipeline pads to
_COLOURS = {
    "red": (208, 32, 32),
    "green": (32, 160, 64),
    "blue": (40, 72, 208),
    "yellow": (232, 208, 40),
    "black": (16, 16, 16),
    "white": (248, 248, 248),
    "purple": (128, 48, 160),
    "orange": (240, 136, 24),
}
_NOUNS = ("cup", "star", "girl", "man", "dog", "cat", "house", "ball", "tree", "car")
_RELATIONS = ("left of", "right of", "above", "below", "next to", "in front of", "facing", "behind")
_EXTRA = (
    "This is a photo of a small thing.",
    "a photo of a large thing on a wooden table",
    "the girl in white is facing the man in black",
    "there are two things, and one of them is striped",
)


def tiny_captions(n: int, seed: int = 0) -> list[str]:
    """Make short English captions of two coloured things and a relation.

    Args:
        n (`int`):
            How many; up to 46,000 they are all different.
        seed (`int`, defaults to 0):
            Seed of the choice.

    Returns:
        `list[str]`: for instance `"a red cup left of a blue star"`.

    Example:
        >>> from vlcomp.testing import tiny_captions
        >>> len(set(tiny_captions(100)))
        100
    """
    rng = random.Random(seed)
    captions: list[str] = []
    seen: set[str] = set()
    repeats = 0
    while len(captions) < n:
        first, second = rng.sample(_NOUNS, 2)
        colours = rng.choice(list(_COLOURS)), rng.choice(list(_COLOURS))
        caption = f"{_article(colours[0])} {first} {rng.choice(_RELATIONS)} {_article(colours[1])} {second}"
        if caption in seen and repeats < 10_000:
            repeats += 1
            continue
        seen.add(caption)
        captions.append(caption)
    return captions


def tiny_images(n: int, size: tuple[int, int] = (40, 32), seed: int = 0) -> list[Image.Image]:
    """Draw `n` different RGB pictures of coloured shapes.

    Args:
        n (`int`):
            How many.
        size (`tuple[int, int]`, defaults to `(40, 32)`):
            Width and height in pixels, as in PIL; not square, so that cropping and resizing differ.
        seed (`int`, defaults to 0):
            Seed of the drawing.

    Returns:
        `list[PIL.Image.Image]`
    """
    rng = random.Random(seed)
    return [_draw(rng, size, rng.choice(list(_COLOURS.values()))) for _ in range(n)]


def tiny_tokenizer(texts: Iterable[str] | None = None, max_length: int = 32) -> PreTrainedTokenizerBase:
    """Train a CLIP tokenizer on a small fixed English corpus.

    Args:
        texts (`Iterable[str]`, *optional*):
            Other texts to learn from.
        max_length (`int`, defaults to 32):
            `model_max_length`, in tokens.

    Returns:
        `CLIPTokenizer`: of a few hundred tokens; never gives an unknown token.

    Example:
        >>> from vlcomp.testing import tiny_tokenizer
        >>> ids = tiny_tokenizer()("a red cup").input_ids
        >>> ids[-1] == tiny_tokenizer().eos_token_id
        True
    """
    return train_clip_tokenizer(_corpus() if texts is None else texts, vocab_size=1024, max_length=max_length)


def tiny_siglip_tokenizer(max_length: int = _SIGLIP_TEXT_LENGTH) -> PreTrainedTokenizerBase:
    """Train a tokenizer that behaves as SigLIP's: lower case, no start token, an end token, no attention mask.

    Args:
        max_length (`int`, defaults to 64):
            `model_max_length`, in tokens: the length SigLIP texts are padded to.

    Returns:
        `Siglip2Tokenizer`: needs no sentencepiece, and falls back to bytes, so that no text has an unknown token.
    """
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    octets = [f"<0x{octet:02X}>" for octet in range(256)]
    trained = Siglip2Tokenizer().backend_tokenizer  # for the normaliser and the word splitter
    trained.train_from_iterator(_corpus(), trainers.BpeTrainer(vocab_size=300, special_tokens=[], show_progress=False))
    state = json.loads(trained.to_str())["model"]
    pieces = sorted(state["vocab"], key=state["vocab"].__getitem__)
    vocab = {token: index for index, token in enumerate(dict.fromkeys([*special, *octets, *pieces]))}
    tokenizer = Siglip2Tokenizer(
        vocab=vocab,
        merges=[tuple(merge) for merge in state["merges"]],
        model_max_length=max_length,
        padding_side="right",
        model_input_names=["input_ids"],
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocab["<eos>"])]
    )
    return tokenizer


def tiny_clip(seed: int = 0, dtype: torch.dtype = torch.float32, **over: Any) -> CLIPModel:
    """Build a random `CLIPModel` for 32 px pictures that fits `tiny_tokenizer()`.

    Args:
        seed (`int`, defaults to 0):
            Seed of the weights.
        dtype (`torch.dtype`, defaults to `torch.float32`):
            Type of the weights.
        **over:
            Passed to [`~vlcomp.models.from_scratch.new_clip`] instead of the tiny values (`tokenizer`, `width`,
            `layers`, `heads`, `image_size`, `patch_size`, `projection_dim`, `max_length`).

    Returns:
        `CLIPModel`: in evaluation mode.
    """
    tokenizer = over.pop("tokenizer", None) or tiny_tokenizer()
    sizes = {
        "image_size": _IMAGE_SIZE,
        "patch_size": _PATCH_SIZE,
        "width": _WIDTH,
        "layers": 2,
        "heads": 4,
        "projection_dim": _WIDTH,
    }
    return new_clip(tokenizer, **{**sizes, **over}, seed=seed).to(dtype)


def tiny_iterated_clip(seed: int = 0, dtype: torch.dtype = torch.float32, **over: Any) -> IteratedCLIPModel:
    """Build a random `IteratedCLIPModel` for 32 px pictures that fits `tiny_tokenizer()`.

    Args:
        seed (`int`, defaults to 0):
            Seed of the weights.
        dtype (`torch.dtype`, defaults to `torch.float32`):
            Type of the weights.
        **over:
            Passed to [`~vlcomp.models.from_scratch.new_iterated_clip`] instead of the tiny values (24 codes,
            temperature 2, and those of [`tiny_clip`]); `use_codebook=False` gives the plain head.

    Returns:
        `IteratedCLIPModel`: in evaluation mode.

    Example:
        >>> from vlcomp.testing import tiny_iterated_clip
        >>> tiny_iterated_clip().codebook.weight.shape
        torch.Size([24, 32])
    """
    tokenizer = over.pop("tokenizer", None) or tiny_tokenizer()
    sizes = {
        "image_size": _IMAGE_SIZE,
        "patch_size": _PATCH_SIZE,
        "width": _WIDTH,
        "layers": 2,
        "heads": 4,
        "projection_dim": _WIDTH,
        "codebook_size": 24,
        "temperature": 2.0,
    }
    return new_iterated_clip(tokenizer, **{**sizes, **over}, seed=seed).to(dtype)


def tiny_siglip(seed: int = 0) -> SiglipModel:
    """Build a random `SiglipModel` for 32 px pictures that fits `tiny_siglip_tokenizer()`.

    Args:
        seed (`int`, defaults to 0):
            Seed of the weights.

    Returns:
        `SiglipModel`: in evaluation mode, with 64 text positions, a logit scale of 10 and a logit bias of -2.
    """
    config = SiglipConfig(
        text_config=_siglip_text_config(),
        vision_config={**_siglip_tower(), "image_size": _IMAGE_SIZE, "patch_size": _PATCH_SIZE},
    )
    return _seeded(SiglipModel, config, seed)


def tiny_siglip2(seed: int = 0) -> Siglip2Model:
    """Build a random `Siglip2Model` (any aspect ratio, at most 16 patches) that fits `tiny_siglip_tokenizer()`.

    Args:
        seed (`int`, defaults to 0):
            Seed of the weights.

    Returns:
        `Siglip2Model`: in evaluation mode, with 64 text positions, a logit scale of 10 and a logit bias of -2.
    """
    config = Siglip2Config(
        text_config=_siglip_text_config(),
        vision_config={**_siglip_tower(), "num_patches": _patches(), "patch_size": _PATCH_SIZE},
    )
    return _seeded(Siglip2Model, config, seed)


def tiny_model(kind: str = "clip", seed: int = 0) -> PreTrainedModel:
    """Build the tiny model of a family.

    Args:
        kind (`str`, defaults to `"clip"`):
            `"clip"`, `"siglip"` or `"siglip2"`.
        seed (`int`, defaults to 0):
            Seed of the weights.

    Returns:
        `PreTrainedModel`

    Raises:
        ArgumentError: for another `kind`.
    """
    return {"clip": tiny_clip, "siglip": tiny_siglip, "siglip2": tiny_siglip2}[_checked(kind)](seed)


def tiny_processor(kind: str = "clip") -> ProcessorMixin:
    """Build the processor of `tiny_clip`, `tiny_siglip` or `tiny_siglip2`.

    Args:
        kind (`str`, defaults to `"clip"`):
            `"clip"`, `"siglip"` or `"siglip2"`.

    Returns:
        `ProcessorMixin`

    Raises:
        ArgumentError: for another `kind`.
    """
    if _checked(kind) == "clip":
        return new_processor(tiny_tokenizer(), _IMAGE_SIZE)
    tokenizer = tiny_siglip_tokenizer()
    if kind == "siglip":
        image_processor = SiglipImageProcessorPil(size={"height": _IMAGE_SIZE, "width": _IMAGE_SIZE})
        return SiglipProcessor(image_processor=image_processor, tokenizer=tokenizer)
    image_processor = Siglip2ImageProcessorPil(patch_size=_PATCH_SIZE, max_num_patches=_patches())
    return Siglip2Processor(image_processor=image_processor, tokenizer=tokenizer)


def save_tiny_checkpoint(folder: str | Path, kind: str = "clip", seed: int = 0) -> Path:
    """Write a tiny model and its processor as a checkpoint that `AutoModel` and `AutoProcessor` read.

    Args:
        folder (`str` or `Path`):
            Where to write; made if missing.
        kind (`str`, defaults to `"clip"`):
            `"clip"`, `"siglip"` or `"siglip2"`.
        seed (`int`, defaults to 0):
            Seed of the weights.

    Returns:
        `Path`: the folder.

    Raises:
        ArgumentError: for another `kind`.

    Example:
        >>> import tempfile
        >>> from transformers import pipeline
        >>> from vlcomp.testing import save_tiny_checkpoint, tiny_images
        >>> folder = save_tiny_checkpoint(tempfile.mkdtemp())
        >>> classify = pipeline("zero-shot-image-classification", model=str(folder))
        >>> len(classify(tiny_images(1)[0], candidate_labels=["a cup", "a star"]))
        2
    """
    folder = Path(folder)
    tiny_model(kind, seed).save_pretrained(folder)
    tiny_processor(kind).save_pretrained(folder)
    return folder


def tiny_lvlm(kind: str = "llava", seed: int = 0) -> PreTrainedModel:
    """Build a random generative LVLM that fits `tiny_lvlm_processor(kind)`.

    Args:
        kind (`str`, defaults to `"llava"`):
            One of `LVLM_KINDS`: `"llava"`, `"llava_next"`, `"llava_onevision"`, `"qwen2_vl"`, `"qwen2_5_vl"`.
        seed (`int`, defaults to 0):
            Seed of the weights.

    Returns:
        `PreTrainedModel`: in evaluation mode.

    Raises:
        ArgumentError: for another `kind`.
    """
    return new_tiny_lvlm(kind, new_lvlm_tokenizer(kind, _corpus()), seed)


def tiny_llava(seed: int = 0) -> PreTrainedModel:
    """Build a random `LlavaForConditionalGeneration` that fits `tiny_lvlm_processor("llava")`.

    Args:
        seed (`int`, defaults to 0):
            Seed of the weights.

    Returns:
        `LlavaForConditionalGeneration`: in evaluation mode.
    """
    return tiny_lvlm("llava", seed)


def tiny_lvlm_processor(kind: str = "llava") -> DiscriminativeLVLMProcessor:
    """Build the processor of `tiny_lvlm(kind)`, with a chat template; without torchvision.

    Args:
        kind (`str`, defaults to `"llava"`):
            One of `LVLM_KINDS`.

    Returns:
        `DiscriminativeLVLMProcessor`

    Raises:
        ArgumentError: for another `kind`.
    """
    tokenizer = new_lvlm_tokenizer(kind, _corpus())
    return DiscriminativeLVLMProcessor(
        new_lvlm_image_processor(kind), tokenizer, chat_template=tokenizer.chat_template
    )


def save_tiny_lvlm(folder: str | Path, kind: str = "llava", seed: int = 0) -> Path:
    """Write a tiny LVLM, its tokenizer and its image processor, as a base for `DiscriminativeLVLMModel.from_lvlm`.

    Args:
        folder (`str` or `Path`):
            Where to write; made if missing.
        kind (`str`, defaults to `"llava"`):
            One of `LVLM_KINDS`.
        seed (`int`, defaults to 0):
            Seed of the weights.

    Returns:
        `Path`: the folder.

    Raises:
        ArgumentError: for another `kind`.
    """
    folder, processor = Path(folder), tiny_lvlm_processor(kind)
    tiny_lvlm(kind, seed).save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)
    return folder


def make_captioned_folder(
    folder: str | Path, n: int = 12, captions_per_image: int = 1, *, size: tuple[int, int] = (40, 32), seed: int = 0
) -> Path:
    """Write a Hugging Face `imagefolder`: PNG pictures and a `metadata.jsonl` with `file_name` and `caption`.

    Args:
        folder (`str` or `Path`):
            Where to write; made if missing.
        n (`int`, defaults to 12):
            Number of pictures.
        captions_per_image (`int`, defaults to 1):
            With more than one, `caption` is a list.
        size (`tuple[int, int]`, defaults to `(40, 32)`):
            Width and height in pixels.
        seed (`int`, defaults to 0):
            Seed of pictures and captions.

    Returns:
        `Path`: the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    captions = tiny_captions(n * captions_per_image, seed)
    lines = []
    for index, image in enumerate(tiny_images(n, size, seed)):
        name = f"{index:04d}.png"
        image.save(folder / name)
        own = captions[index * captions_per_image : (index + 1) * captions_per_image]
        lines.append(json.dumps({"file_name": name, "caption": own[0] if captions_per_image == 1 else own}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def make_class_folder(
    folder: str | Path,
    classes: Sequence[str] = ("cup", "star"),
    n: int = 4,
    *,
    size: tuple[int, int] = (40, 32),
    seed: int = 0,
) -> Path:
    """Write a folder with one subfolder of PNG pictures for each class.

    Args:
        folder (`str` or `Path`):
            Where to write; made if missing.
        classes (`Sequence[str]`, defaults to `("cup", "star")`):
            Names of the classes; pictures of one class share their background colour.
        n (`int`, defaults to 4):
            Pictures of each class.
        size (`tuple[int, int]`, defaults to `(40, 32)`):
            Width and height in pixels.
        seed (`int`, defaults to 0):
            Seed of the pictures.

    Returns:
        `Path`: the folder.
    """
    folder = Path(folder)
    rng = random.Random(seed)
    colours = list(_COLOURS.values())
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(n):
            _draw(rng, size, colours[label % len(colours)]).save(folder / name / f"{index:03d}.png")
    return folder


def _article(colour: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour}"


def _corpus() -> list[str]:
    return [*tiny_captions(400), *_EXTRA * 5]


def _patches() -> int:
    return (_IMAGE_SIZE // _PATCH_SIZE) ** 2


def _checked(kind: str) -> str:
    if kind not in KINDS:
        raise ArgumentError(f"kind={kind!r} is not one of {', '.join(map(repr, KINDS))}")
    return kind


def _draw(rng: random.Random, size: tuple[int, int], background: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(image)
    for shape in (draw.rectangle, draw.ellipse):
        left, right = sorted(rng.sample(range(size[0] + 1), 2))
        top, bottom = sorted(rng.sample(range(size[1] + 1), 2))
        shape((left, top, right, bottom), fill=tuple(rng.randrange(256) for _ in range(3)))
    return image


def _siglip_tower() -> dict[str, Any]:
    return {
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }


def _siglip_text_config() -> dict[str, Any]:
    tokenizer = tiny_siglip_tokenizer()
    return {
        **_siglip_tower(),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": _SIGLIP_TEXT_LENGTH,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "projection_size": _WIDTH,
    }


def _seeded(model_class: type[PreTrainedModel], config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config).eval()
    with torch.no_grad():
        # Released SigLIPs have such values; a bias of 0 would hide a caller that forgets to add it.
        model.logit_scale.fill_(torch.tensor(10.0).log().item())
        model.logit_bias.fill_(-2.0)
    return model
