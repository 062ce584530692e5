"""Codebook-CLIP checkpoints in the layout of the Iterated-CLIP authors (that of FDT, on which their code builds)."""

from __future__ import annotations

import re

import torch
from transformers.initialization import no_init_weights

from ..errors import CheckpointError
from ..models.iterated_clip import IteratedCLIPConfig, IteratedCLIPModel
from .architecture import Architecture, Tensors, read_architecture, some
from .layout_forward import image_tokens, text_tokens
from .open_clip import largest_difference, random_inputs, to_transformers

# The authors' towers have no other; weights do not tell it.
ACTIVATION = "quick_gelu"
SIGN = "space_dict"
# Projections and a norm of the plain CLIP beside the codebook, which its embeddings do not use.
_UNUSED = re.compile(r"visual\.(proj|ln_post\.\w+)|encode_text\.text_projection(\.\w+)?|logit_scale_sd")
_HEADS = {"img_query_model": "visual_projection", "txt_query_model": "text_projection"}
_HEAD_LAYERS = {"0": "norm1", "1": "fc1", "3": "norm2", "4": "fc2"}


def split_codebook(tensors: Tensors, source: str) -> tuple[dict, dict, list[str]]:
    """Take a checkpoint of the authors apart.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            What the checkpoint holds: `space_dict`, `visual.*`, `encode_text.*`, `img_query_model.q_map.*`,
            `txt_query_model.q_map.*`, `logit_scale`.
        source (`str`):
            What to call it in messages.

    Returns:
        `tuple[dict, dict, list[str]]`: towers under the names of open_clip; codebook and query heads under ours; and
        the weights that are left out.

    Raises:
        CheckpointError: for names that do not belong to the layout.
    """
    towers, rest, unused, unknown = {}, {}, [], []
    for name, value in tensors.items():
        head, _, layer = name.partition(".q_map.")
        index, _, part = layer.partition(".")
        if _UNUSED.fullmatch(name):
            unused.append(name)
        elif name == SIGN:
            rest["codebook.weight"] = value
        elif name == "logit_scale":
            towers[name] = value.reshape(())
        elif head in _HEADS and index in _HEAD_LAYERS:
            rest[f"{_HEADS[head]}.{_HEAD_LAYERS[index]}.{part}"] = value
        elif name.endswith("attn_mask"):
            continue
        elif name.startswith("visual.") or name.startswith("encode_text."):
            towers[name.removeprefix("encode_text.")] = value
        else:
            unknown.append(name)
    wanted = {
        f"{ours}.{layer}.{part}"
        for ours in _HEADS.values()
        for layer in _HEAD_LAYERS.values()
        for part in ("weight", "bias")
    }
    missing = sorted({"codebook.weight", *wanted} - set(rest))
    if unknown or missing:
        parts = [f"has {some(unknown)}, unknown to the layout"] * bool(unknown)
        parts += [f"lacks {some(missing)} (names as in IteratedCLIPModel)"] * bool(missing)
        raise CheckpointError(f"{source}: {' and '.join(parts)}; it is no codebook-CLIP of the Iterated-CLIP authors")
    return towers, rest, unused


def read_codebook(
    tensors: Tensors,
    *,
    temperature: float,
    vision_heads: int | None = None,
    text_heads: int | None = None,
    tokens: int | None = None,
    source: str = "the checkpoint",
) -> tuple[IteratedCLIPModel, Architecture, list[str]]:
    """Make an [`IteratedCLIPModel`] of a checkpoint of the authors.

    Args:
        tensors (`Mapping[str, torch.Tensor]`):
            What the checkpoint holds.
        temperature (`float`):
            Divisor of the scores before sparsemax, `sd_temperature` in the authors' configuration; weights do not
            tell it.
        vision_heads, text_heads (`int`, *optional*):
            Attention heads; 64 wide by default.
        tokens (`int`, *optional*):
            Size of the vocabulary of the tokenizer that the model is to be used with. The authors' has one token more
            than OpenAI's, a mask, before the start and end tokens; where the checkpoint has it, its embedding moves to
            the end, so that OpenAI's tokenizer fits.
        source (`str`):
            What to call the checkpoint in messages.

    Returns:
        `tuple[IteratedCLIPModel, Architecture, list[str]]`: the model (float32, evaluation mode), its sizes, and the
        names of the weights that it does not use.

    Raises:
        CheckpointError: if weights are missing, unknown or of another shape.
    """
    towers, rest, unused = split_codebook(tensors, source)
    optional = ("visual.proj", "visual.ln_post.weight", "visual.ln_post.bias", "text_projection")
    found = read_architecture(
        towers, vision_heads=vision_heads, text_heads=text_heads, source=source, optional=optional
    )
    codes, size = rest["codebook.weight"].shape
    masked = tokens is not None and found.vocab_size == tokens + 1
    towers = {name: value.float() for name, value in towers.items()}
    if masked:
        words = towers["token_embedding.weight"]
        towers["token_embedding.weight"] = torch.cat(
            [words[: tokens - 2], words[tokens - 1 :], words[tokens - 2 :][:1]]
        )
    end = (tokens if masked else found.vocab_size) - 1
    entries = found.towers(ACTIVATION, bos_token_id=end - 1, eos_token_id=end, pad_token_id=end)
    config = IteratedCLIPConfig(
        **{**entries, "projection_dim": size}, codebook_size=codes, temperature=float(temperature)
    )
    with no_init_weights():
        model = IteratedCLIPModel(config)
    state = {**to_transformers(towers), **{name: value.float() for name, value in rest.items()}}
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    differing = sorted(name for name in {*own, *given} if own.get(name) != given.get(name))
    if differing:
        raise CheckpointError(f"{source}: weights do not fit the codebook model: {some(differing)}")
    model.load_state_dict(state)
    return model.eval(), found, unused


def compare_codebook(
    model: IteratedCLIPModel, tensors: Tensors, found: Architecture, *, seed: int = 0
) -> tuple[float, float]:
    """Compare a converted model with what the authors' weights compute, on random images and texts.

    Args:
        model ([`IteratedCLIPModel`]):
            The converted model.
        tensors (`Mapping[str, torch.Tensor]`):
            What the checkpoint holds.
        found ([`Architecture`]):
            Its sizes.
        seed (`int`, defaults to 0):
            Seed of the inputs.

    Returns:
        `tuple[float, float]`: the largest difference between L2-normalised embeddings with padding left out of the
        maximum over tokens, as in our model; and that of texts with padding counted as a score of 0, as in the
        authors' code, which our model does not reproduce.
    """
    towers, rest, _ = split_codebook(tensors, "the checkpoint")
    towers = {name: value.float() for name, value in towers.items()}
    pixels, ids, mask = random_inputs(found, model.config.text_config, seed=seed)
    # Ids of the authors' tokenizer: the mask token stands before start and end.
    shift = found.vocab_size - 1 - model.config.text_config.eos_token_id
    theirs = torch.where(ids >= model.config.text_config.bos_token_id, ids + shift, ids)
    theirs = torch.where(mask.bool(), theirs, 0)
    temperature, full = float(model.config.temperature), torch.ones(len(pixels), 1, dtype=torch.bool)
    with torch.no_grad():
        patches = image_tokens(towers, pixels, found.vision_heads, ACTIVATION)[:, 1:]
        words = text_tokens(towers, theirs, found.text_heads, ACTIVATION)
        image = _mixture(rest, "visual_projection", patches, full.expand(-1, patches.shape[1]), temperature, None)
        text, floored = (
            _mixture(rest, "text_projection", words, mask.bool(), temperature, floor) for floor in (None, 0.0)
        )
        ours = [
            model.get_image_features(pixel_values=pixels).pooler_output,
            model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output,
        ]
    return largest_difference(ours, [image, text]), largest_difference(ours[1:], [floored])


def _mixture(
    rest: Tensors, head: str, tokens: torch.Tensor, mask: torch.Tensor, temperature: float, floor: float | None
) -> torch.Tensor:
    """Embeddings from tokens: query head, scores, maximum over tokens, sparsemax, mixture of codes."""
    rest = {name: value.float() for name, value in rest.items()}
    queries = _layer_norm(rest, f"{head}.norm1", tokens) @ rest[f"{head}.fc1.weight"].T + rest[f"{head}.fc1.bias"]
    queries = queries * 0.5 * (1 + torch.erf(queries / 2**0.5))
    queries = _layer_norm(rest, f"{head}.norm2", queries) @ rest[f"{head}.fc2.weight"].T + rest[f"{head}.fc2.bias"]
    codes = rest["codebook.weight"]
    scores = queries @ codes.T / codes.shape[1] ** 0.5
    scores = scores.masked_fill(~mask[..., None], -torch.inf if floor is None else floor) / temperature
    return _simplex(scores.amax(dim=1)) @ codes


def _simplex(scores: torch.Tensor) -> torch.Tensor:
    """The nearest point of the probability simplex, by bisection for the threshold at which weights sum to 1."""
    low, high = scores.amax(dim=-1, keepdim=True) - 1, scores.amax(dim=-1, keepdim=True)
    low, high, wide = low.double(), high.double(), scores.double()
    for _ in range(80):
        middle = (low + high) / 2
        above = (wide - middle).clamp(min=0).sum(dim=-1, keepdim=True) > 1
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (wide - high).clamp(min=0).to(scores.dtype)


def _layer_norm(tensors: Tensors, name: str, hidden: torch.Tensor) -> torch.Tensor:
    width = (hidden.shape[-1],)
    return torch.nn.functional.layer_norm(hidden, width, tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1e-5)
