"""Weights in the layout of OpenAI's CLIP and open_clip, and in that of transformers."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel
from transformers.initialization import no_init_weights

from ..errors import CheckpointError
from .architecture import Architecture, Tensors, expected_names, some
from .layout_forward import count_blocks, encode_image, encode_text

ACTIVATIONS = ("quick_gelu", "gelu")
# The same weights under both names.
_VISION = {
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
_TEXT = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
}
_TRANSPOSED = ("visual.proj", "text_projection")
_BLOCK = {
    "ln_1": "layer_norm1",
    "attn.out_proj": "self_attn.out_proj",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_TOWERS = {"visual.transformer.": "vision_model.encoder.", "transformer.": "text_model.encoder."}


def to_transformers(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Rename weights from the layout of open_clip to that of transformers.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            Weights of a CLIP or of a part of it.

    Returns:
        `dict[str, torch.Tensor]`: the fused matrix of queries, keys and values is taken apart, and both projections
        are transposed.

    Raises:
        CheckpointError: for a name that is not known.
    """
    renamed: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        new = _VISION.get(name) or _TEXT.get(name) or ("logit_scale" if name == "logit_scale" else None)
        if new is not None:
            renamed[new] = value.T.contiguous() if name in _TRANSPOSED else value
            continue
        tower, index, rest = _block_name(name)
        if rest.startswith("attn.in_proj_"):
            part = rest.removeprefix("attn.in_proj_")
            for letter, piece in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{tower}layers.{index}.self_attn.{letter}_proj.{part}"] = piece.contiguous()
        else:
            module, part = rest.rsplit(".", 1)
            if module not in _BLOCK:
                raise CheckpointError(f"the name {name!r} is not known in the layout of open_clip")
            renamed[f"{tower}layers.{index}.{_BLOCK[module]}.{part}"] = value
    return renamed


def to_open_clip(state: Tensors) -> dict[str, torch.Tensor]:
    """Rename weights from the layout of transformers to that of open_clip: the inverse of [`to_transformers`].

    Args:
        state (`Mapping[str, torch.Tensor]`):
            State dictionary of a `CLIPModel`.

    Returns:
        `dict[str, torch.Tensor]`

    Raises:
        CheckpointError: if a weight is missing, or one has no place in the layout.
    """
    back = {new: name for name, new in {**_VISION, **_TEXT, "logit_scale": "logit_scale"}.items()}
    modules = {new: name for name, new in _BLOCK.items()}
    towers = {new: name for name, new in _TOWERS.items()}
    renamed, fused, unknown = {}, {}, []
    for name, value in state.items():
        if name in back:
            renamed[back[name]] = value.T.contiguous() if back[name] in _TRANSPOSED else value
            continue
        if name.endswith("position_ids"):  # a buffer of old versions
            continue
        tower = next((new for new in towers if name.startswith(f"{new}layers.")), None)
        index, _, rest = name[len(f"{tower}layers.") :].partition(".") if tower else ("", "", "")
        module, _, part = rest.rpartition(".")
        if tower is None or not (module in modules or module in {f"self_attn.{x}_proj" for x in "qkv"}):
            unknown.append(name)
        elif module in modules:
            renamed[f"{towers[tower]}resblocks.{index}.{modules[module]}.{part}"] = value
        else:
            fused.setdefault(f"{towers[tower]}resblocks.{index}.attn.in_proj_{part}", {})[module[-6]] = value
    if unknown:
        raise CheckpointError(
            f"the model has {some(unknown)}, for which the layout of open_clip has no place; only a plain CLIP can be "
            "written in it (merge an adapter first)"
        )
    for name, parts in fused.items():
        renamed[name] = torch.cat([parts[letter] for letter in "qkv"])
    order = expected_names(*(max(count_blocks(renamed, tower), 1) for tower in _TOWERS))
    missing = [name for name in order if name not in renamed]
    if missing:
        raise CheckpointError(f"the model lacks {some(missing)}")
    return {name: renamed[name] for name in order}


def build_clip(tensors: Tensors, found: Architecture, activation: str, **token_ids: int | None) -> CLIPModel:
    """Make a `CLIPModel` of weights in the layout of open_clip.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            From [`model_weights`].
        found ([`Architecture`]):
            Its sizes.
        activation (`str`):
            `"quick_gelu"` or `"gelu"`.
        **token_ids:
            `bos_token_id`, `eos_token_id` and `pad_token_id`; by default the last two tokens of the vocabulary are
            start and end, as in OpenAI's.

    Returns:
        `CLIPModel`: float32, in evaluation mode.
    """
    last = found.vocab_size - 1
    ids = {"bos_token_id": last - 1, "eos_token_id": last, "pad_token_id": last, **token_ids}
    with no_init_weights():
        model = CLIPModel(CLIPConfig(**found.towers(activation, **ids)))
    model.load_state_dict({name: value.float() for name, value in to_transformers(tensors).items()})
    return model.eval()


def compare_clip(model: Any, tensors: Tensors, found: Architecture, activation: str, *, seed: int = 0) -> float:
    """Compare a model of transformers with its weights in the layout of open_clip, on random images and texts.

    Args:
        model (`CLIPModel` or built like it):
            The model.
        tensors (`Mapping[str, torch.Tensor]`):
            The same weights in the layout of open_clip.
        found ([`Architecture`]):
            Their sizes.
        activation (`str`):
            `"quick_gelu"` or `"gelu"`.
        seed (`int`, defaults to 0):
            Seed of the inputs.

    Returns:
        `float`: the largest difference between L2-normalised embeddings.
    """
    tensors = {name: value.float() for name, value in tensors.items()}
    pixels, ids, mask = random_inputs(found, model.config.text_config, seed=seed)
    device = model.device
    with torch.no_grad():
        theirs = [
            encode_image(tensors, pixels, found.vision_heads, activation),
            encode_text(tensors, torch.where(mask.bool(), ids, 0), found.text_heads, activation),
        ]
        ours = [
            model.get_image_features(pixel_values=pixels.to(device)).pooler_output,
            model.get_text_features(input_ids=ids.to(device), attention_mask=mask.to(device)).pooler_output,
        ]
    return largest_difference(ours, theirs)


def random_inputs(found: Architecture, text_config: Any, *, seed: int = 0, count: int = 3) -> tuple[torch.Tensor, ...]:
    """Random images and texts of several lengths.

    Args:
        found ([`Architecture`]):
            Sizes of the model.
        text_config (`CLIPTextConfig`):
            Its start and end tokens.
        seed (`int`, defaults to 0):
            Seed.
        count (`int`, defaults to 3):
            How many of each.

    Returns:
        `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: pixel values `(count, 3, size, size)`, token ids `(count,
        positions)` padded with the end token, and their attention mask.
    """
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, 3, found.image_size, found.image_size, generator=generator)
    start, end = text_config.bos_token_id, text_config.eos_token_id
    ids = torch.randint(0, max(min(start, end), 1), (count, found.positions), generator=generator)
    ids[:, 0] = start
    # From a single word to a text that fills all positions.
    lengths = torch.linspace(3, found.positions, count).round().long()
    places = torch.arange(found.positions)
    ids = torch.where(places < lengths[:, None] - 1, ids, end)
    return pixels, ids, (places < lengths[:, None]).long()


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Largest difference between pairs of embeddings, L2-normalised; NaN if one of them is."""
    found = []
    for pair in zip(ours, theirs, strict=True):
        one, other = (torch.nn.functional.normalize(embeds.float().cpu(), dim=-1) for embeds in pair)
        found.append((one - other).abs().max())
    return float(torch.stack(found).max())


def _block_name(name: str) -> tuple[str, str, str]:
    for tower, new in _TOWERS.items():
        start = f"{tower}resblocks."
        if name.startswith(start):
            index, _, rest = name[len(start) :].partition(".")
            return new, index, rest
    raise CheckpointError(f"the name {name!r} is not known in the layout of open_clip")
