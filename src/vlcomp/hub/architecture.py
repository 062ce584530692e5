"""Sizes of a CLIP, read off its weights in the layout of open_clip."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ArgumentError, CheckpointError
from .layout_forward import count_blocks

Tensors = Mapping[str, torch.Tensor]

# Weights outside of the blocks, and modules within them.
VISION_NAMES = (
    "visual.conv1.weight",
    "visual.class_embedding",
    "visual.positional_embedding",
    "visual.ln_pre.weight",
    "visual.ln_pre.bias",
    "visual.ln_post.weight",
    "visual.ln_post.bias",
    "visual.proj",
)
TEXT_NAMES = ("token_embedding.weight", "positional_embedding", "ln_final.weight", "ln_final.bias", "text_projection")
BLOCK_NAMES = ("ln_1", "attn.out_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
TOWERS = ("visual.transformer.", "transformer.")
# What OpenAI's archives hold beside weights, and masks that old versions of open_clip saved.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
# Widths of vision towers whose heads are not 64 wide: H/14, g/14 and bigG/14.
_HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
# open_clip's names of what (patch, image, vision width, vision layers, text width) tell apart.
_FAMILIES = {
    (32, 224, 768, 12, 512): "ViT-B-32",
    (16, 224, 768, 12, 512): "ViT-B-16",
    (14, 224, 1024, 24, 768): "ViT-L-14",
    (14, 336, 1024, 24, 768): "ViT-L-14-336",
    (14, 224, 1280, 32, 1024): "ViT-H-14",
    (14, 224, 1408, 40, 1024): "ViT-g-14",
    (14, 224, 1664, 48, 1280): "ViT-bigG-14",
}
# A name in a checkpoint, and what it says the checkpoint is.
_OTHERS = {
    "visual.layer1.": "a ResNet of OpenAI's CLIP",
    "visual.trunk.": "a model with a vision tower of timm",
    "visual.attn_pool": "a model that pools images by attention (CoCa)",
    "text_decoder.": "a CoCa model",
    "text.transformer.embeddings.": "a model with a text tower of another library",
    "visual.blocks.": "an EVA model",
    "logit_bias": "a model trained with the sigmoid loss (SigLIP)",
    "vision_model.embeddings.": "a CLIP of transformers, which needs no conversion",
}


@dataclass(frozen=True)
class Architecture:
    """Sizes of a CLIP, read off the shapes of its weights.

    Args:
        image_size, patch_size (`int`):
            In pixels.
        vision_width, vision_layers, vision_heads, vision_mlp (`int`):
            Of the vision tower; `vision_mlp` is the width inside its MLPs.
        text_width, text_layers, text_heads, text_mlp (`int`):
            Of the text tower.
        vocab_size, positions (`int`):
            Tokens, and how many a text may have.
        projection_dim (`int`):
            Size of an embedding.
    """

    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int
    text_width: int
    text_layers: int
    text_heads: int
    text_mlp: int
    vocab_size: int
    positions: int
    projection_dim: int

    @property
    def name(self) -> str | None:
        """open_clip's name of the architecture, if it is a known one."""
        sizes = (self.patch_size, self.image_size, self.vision_width, self.vision_layers, self.text_width)
        return _FAMILIES.get(sizes)

    def describe(self) -> str:
        """One line for a person."""
        name = f"{self.name}: " if self.name else ""
        return (
            f"{name}images {self.image_size} px in patches of {self.patch_size}, vision {self.vision_layers} x "
            f"{self.vision_width} ({self.vision_heads} heads), text {self.text_layers} x {self.text_width} "
            f"({self.text_heads} heads), {self.positions} of {self.vocab_size} tokens, embeddings of "
            f"{self.projection_dim}"
        )

    def towers(self, activation: str, **token_ids: int | None) -> dict[str, Any]:
        """Arguments of a `CLIPConfig`.

        Args:
            activation (`str`):
                `"quick_gelu"` or `"gelu"`.
            **token_ids:
                `bos_token_id`, `eos_token_id`, `pad_token_id`.

        Returns:
            `dict`: `text_config`, `vision_config` and `projection_dim`.
        """
        shared = {"projection_dim": self.projection_dim, "hidden_act": activation}
        text = {
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.positions,
            "hidden_size": self.text_width,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": self.text_heads,
            "intermediate_size": self.text_mlp,
        }
        vision = {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_size": self.vision_width,
            "num_hidden_layers": self.vision_layers,
            "num_attention_heads": self.vision_heads,
            "intermediate_size": self.vision_mlp,
        }
        return {
            "text_config": {**text, **shared, **token_ids},
            "vision_config": {**vision, **shared},
            "projection_dim": self.projection_dim,
        }


def model_weights(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Weights of a CLIP alone, under the names of open_clip's plain models.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            What a checkpoint holds.

    Returns:
        `dict[str, torch.Tensor]`: without masks and sizes; the text tower of a "custom text" model loses its prefix.
    """
    found = {
        name: value
        for name, value in tensors.items()
        if name not in _NO_WEIGHTS and name.rsplit(".", 1)[-1] != "attn_mask"
    }
    if "text.token_embedding.weight" in found:
        found = {name.removeprefix("text."): value for name, value in found.items()}
    return found


def read_architecture(
    tensors: Tensors,
    *,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    source: str = "the checkpoint",
    optional: tuple[str, ...] = (),
) -> Architecture:
    """Read the sizes of a CLIP off its weights, and see that none is missing, superfluous or of another shape.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            From [`model_weights`].
        vision_heads (`int`, *optional*):
            Attention heads of the vision tower, which weights do not tell. By default heads are 64 wide, and as wide
            as in the known models for the widths of H/14 (80), g/14 (88) and bigG/14 (104).
        text_heads (`int`, *optional*):
            Attention heads of the text tower; by default they are 64 wide.
        source (`str`):
            What to call the checkpoint in messages.
        optional (`tuple[str, ...]`):
            Names that may be missing.

    Returns:
        [`Architecture`]

    Raises:
        CheckpointError: names the weights.
        ArgumentError: if the number of heads is needed or does not fit.
    """
    for sign, what in _OTHERS.items():
        if any(name.startswith(sign) for name in tensors):
            raise CheckpointError(
                f"{source}: {sign.rstrip('.')} in its weights says that it is {what}; ViT models with the towers of "
                "OpenAI's CLIP can be converted"
            )
    layers = {tower: count_blocks(tensors, tower) for tower in TOWERS}
    names = expected_names(max(layers["visual.transformer."], 1), max(layers["transformer."], 1))
    missing = [name for name in names if name not in tensors and name not in optional]
    extra = [name for name in tensors if name not in names]
    if missing or extra:
        parts = [f"lacks {some(missing)}"] * bool(missing) + [f"has {some(extra)}, unknown to CLIP"] * bool(extra)
        raise CheckpointError(f"{source}: {' and '.join(parts)}; it is no plain CLIP in the layout of open_clip")
    kernel, places = tensors["visual.conv1.weight"], tensors["visual.positional_embedding"]
    if kernel.ndim != 4 or places.ndim != 2 or tensors["token_embedding.weight"].ndim != 2:
        raise CheckpointError(f"{source}: weights have shapes that no CLIP has ({_shapes(tensors)})")
    grid = round((len(places) - 1) ** 0.5)
    if grid * grid + 1 != len(places):
        raise CheckpointError(
            f"{source}: visual.positional_embedding has {len(places)} places, which is not a square of patches and one"
        )
    widths = {"vision": kernel.shape[0], "text": tensors["token_embedding.weight"].shape[1]}
    heads = {
        "vision": _heads("vision", vision_heads, widths["vision"], _HEAD_WIDTHS.get(widths["vision"], 64)),
        "text": _heads("text", text_heads, widths["text"], 64),
    }
    found = Architecture(
        image_size=grid * kernel.shape[-1],
        patch_size=kernel.shape[-1],
        vision_width=widths["vision"],
        vision_layers=layers["visual.transformer."],
        vision_heads=heads["vision"],
        vision_mlp=tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        text_width=widths["text"],
        text_layers=layers["transformer."],
        text_heads=heads["text"],
        text_mlp=tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        vocab_size=len(tensors["token_embedding.weight"]),
        positions=len(tensors["positional_embedding"]),
        projection_dim=tensors["visual.proj"].shape[-1] if "visual.proj" in tensors else widths["text"],
    )
    for name, shape in _expected_shapes(found).items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"{source}: {name} has shape {list(tensors[name].shape)}; expected {list(shape)}")
    return found


def expected_names(vision_layers: int, text_layers: int) -> list[str]:
    """All names of a CLIP in the layout of open_clip.

    Args:
        vision_layers (`int`):
            Blocks of the vision tower.
        text_layers (`int`):
            Blocks of the text tower.

    Returns:
        `list[str]`
    """
    names = [*VISION_NAMES, *TEXT_NAMES, "logit_scale"]
    for tower, layers in zip(TOWERS, (vision_layers, text_layers), strict=True):
        for index in range(layers):
            block = f"{tower}resblocks.{index}."
            names += [f"{block}attn.in_proj_{part}" for part in ("weight", "bias")]
            names += [f"{block}{name}.{part}" for name in BLOCK_NAMES for part in ("weight", "bias")]
    return names


def open_clip_settings(folder: Path) -> dict[str, Any]:
    """What `open_clip_config.json` beside the weights says.

    Args:
        folder (`Path`):
            Folder of an open_clip repository, or the folder of any file.

    Returns:
        `dict`: `activation`, `vision_heads`, `text_heads` and `preprocess`, as far as it says so; empty without it.

    Raises:
        CheckpointError: if the file cannot be read.
    """
    file = folder / "open_clip_config.json"
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        model = content.get("model_cfg", content)
        vision, text = model["vision_cfg"], model["text_cfg"]
        settings: dict[str, Any] = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
        if "head_width" in vision and "width" in vision:
            settings["vision_heads"] = int(vision["width"]) // int(vision["head_width"])
        if "heads" in text:
            settings["text_heads"] = int(text["heads"])
        settings["preprocess"] = dict(content.get("preprocess_cfg") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: cannot be read as a configuration of open_clip: {error!r}") from error
    return settings


def _heads(tower: str, given: int | None, width: int, head_width: int) -> int:
    option = f"--{tower}-heads"
    if given is not None:
        if given < 1 or width % given:
            raise ArgumentError(f"{option} {given} does not divide the width of the {tower} tower, {width}")
        return given
    if width % head_width or width < head_width:
        raise ArgumentError(
            f"{option} is needed: the {tower} tower is {width} wide, and weights do not tell how many heads it has"
        )
    return width // head_width


def _expected_shapes(found: Architecture) -> dict[str, tuple[int, ...]]:
    patches = (found.image_size // found.patch_size) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (found.vision_width, 3, found.patch_size, found.patch_size),
        "visual.class_embedding": (found.vision_width,),
        "visual.positional_embedding": (patches + 1, found.vision_width),
        "visual.proj": (found.vision_width, found.projection_dim),
        "token_embedding.weight": (found.vocab_size, found.text_width),
        "positional_embedding": (found.positions, found.text_width),
        "text_projection": (found.text_width, found.projection_dim),
        "logit_scale": (),
    }
    for norm, width in (("visual.ln_pre", 0), ("visual.ln_post", 0), ("ln_final", 1)):
        size = (found.vision_width, found.text_width)[width]
        shapes |= {f"{norm}.weight": (size,), f"{norm}.bias": (size,)}
    sizes = (
        (found.vision_width, found.vision_mlp, found.vision_layers),
        (
            found.text_width,
            found.text_mlp,
            found.text_layers,
        ),
    )
    for tower, (width, inner, layers) in zip(TOWERS, sizes, strict=True):
        outputs = {"ln_1": (width,), "ln_2": (width,)}
        outputs |= {"attn.out_proj": (width, width), "mlp.c_fc": (inner, width), "mlp.c_proj": (width, inner)}
        for index in range(layers):
            block = f"{tower}resblocks.{index}."
            shapes |= {f"{block}attn.in_proj_weight": (3 * width, width), f"{block}attn.in_proj_bias": (3 * width,)}
            for module, shape in outputs.items():
                shapes |= {f"{block}{module}.weight": shape, f"{block}{module}.bias": shape[:1]}
    return shapes


def some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def _shapes(tensors: Tensors) -> str:
    names = ("visual.conv1.weight", "visual.positional_embedding", "token_embedding.weight")
    return ", ".join(f"{name} {list(tensors[name].shape)}" for name in names)
