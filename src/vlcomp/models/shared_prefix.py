"""Sequences that begin alike, with an image in what they share, read by an LVLM: what is shared is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

# Attention whose keys and values can be kept and shared as they are.
_KINDS = ("full_attention", "sliding_attention")


@dataclass
class Prefixes:
    """Beginnings of sequences that were read.

    Args:
        cache (`list[tuple[torch.Tensor, torch.Tensor]]`):
            Keys and values of each layer, `(prefixes, heads, length, size)`.
        mask (`torch.LongTensor` of shape `(prefixes, length)`):
            1 for tokens, 0 for padding, which is on the right.
        next_position (`torch.LongTensor` of shape `(prefixes,)`):
            Position of the token that comes next.
    """

    cache: list[tuple[torch.Tensor, torch.Tensor]]
    mask: torch.Tensor
    next_position: torch.Tensor


def attention_that_cannot_be_shared(lvlm: PreTrainedModel) -> str | None:
    """Name a kind of layer whose state is more than keys and values.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM.

    Returns:
        `str` or `None`
    """
    return next(iter(_kinds(lvlm) - set(_KINDS)), None)


def reads_one_by_one(lvlm: PreTrainedModel) -> bool:
    """Whether prefixes of different length cannot be read in one batch.

    A sliding window counts places, and padding leaves empty ones between a prefix and what continues it.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM.

    Returns:
        `bool`
    """
    return "sliding_attention" in _kinds(lvlm)


def _kinds(lvlm: PreTrainedModel) -> set[str]:
    return set(getattr(lvlm.config.get_text_config(), "layer_types", None) or ["full_attention"])


def read_prefixes(
    lvlm: PreTrainedModel,
    tokens: Sequence[Sequence[int]],
    features: Sequence[torch.Tensor],
    image_token_id: int,
    *,
    image_grid_thw: torch.Tensor | None = None,
) -> Prefixes:
    """Read prefixes of one image each, and keep their keys and values.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM, with a causal language model.
        tokens (`Sequence[Sequence[int]]`):
            Tokens of each prefix; its image is one token.
        features (`Sequence[torch.Tensor]`, each of shape `(features, width)`):
            What the language model is given for each image.
        image_token_id (`int`):
            The token of an image.
        image_grid_thw (`torch.LongTensor` of shape `(prefixes, 3)`, *optional*):
            Shapes of the images in patches, for models whose positions (M-RoPE) need them.

    Returns:
        [`Prefixes`]
    """
    inner, device = lvlm.model, lvlm.get_input_embeddings().weight.device
    rows = []
    for ids, feature in zip(tokens, features, strict=True):
        at = list(ids).index(image_token_id)
        rows.append(torch.tensor([*ids[:at], *[image_token_id] * len(feature), *ids[at + 1 :]]))
    ids = pad_sequence(rows, batch_first=True).to(device)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    is_image = (ids == image_token_id) & mask.bool()
    if hasattr(inner, "get_rope_index"):
        # Given, so that what the model remembers of other images has no part in it.
        positions = inner.get_rope_index(
            ids, mm_token_type_ids=is_image.int(), image_grid_thw=image_grid_thw, attention_mask=mask
        )[0]
        last = positions.masked_fill(mask == 0, 0).amax(dim=(0, 2))
    else:
        positions = torch.arange(ids.shape[1], device=device).expand(len(ids), -1)
        last = mask.sum(dim=1) - 1
    embeds = lvlm.get_input_embeddings()(ids.masked_fill(is_image, 0))
    embeds = embeds.masked_scatter(is_image[..., None], torch.cat(list(features)).to(embeds))
    cache = DynamicCache()
    inner.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    return Prefixes([(layer.keys, layer.values) for layer in cache.layers], mask, last + 1)


def last_hidden_states(
    lvlm: PreTrainedModel, prefixes: Prefixes, owners: Sequence[int], rests: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Read what continues prefixes; the prefixes stay as they are.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM that read them.
        prefixes ([`Prefixes`]):
            What was read.
        owners (`Sequence[int]` of shape `[sequences]`):
            Which prefix each sequence continues.
        rests (`Sequence[Sequence[int]]`):
            Tokens of each sequence after its prefix, at least one, none of an image.

    Returns:
        `torch.Tensor` of shape `(sequences, hidden_size)`: final hidden state of the last token of each.
    """
    hidden = continued_hidden_states(lvlm, prefixes, owners, rests)
    last = torch.tensor([len(rest) - 1 for rest in rests], device=hidden.device)
    return hidden[torch.arange(len(rests), device=hidden.device), last]


def continued_hidden_states(
    lvlm: PreTrainedModel, prefixes: Prefixes, owners: Sequence[int], rests: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Read what continues prefixes; the prefixes stay as they are.

    Args:
        lvlm (`PreTrainedModel`):
            The LVLM that read them.
        prefixes ([`Prefixes`]):
            What was read.
        owners (`Sequence[int]` of shape `[sequences]`):
            Which prefix each sequence continues.
        rests (`Sequence[Sequence[int]]`):
            Tokens of each sequence after its prefix, at least one, none of an image.

    Returns:
        `torch.Tensor` of shape `(sequences, length, hidden_size)`: final hidden states of all tokens, those of
        shorter sequences followed by what means nothing.
    """
    device = prefixes.mask.device
    own = torch.tensor(owners, device=device)
    ids = pad_sequence([torch.tensor(rest) for rest in rests], batch_first=True).to(device)
    sizes = torch.tensor([len(rest) for rest in rests], device=device)
    places = torch.arange(ids.shape[1], device=device)
    positions = prefixes.next_position[own][:, None] + places
    if hasattr(lvlm.model, "get_rope_index"):
        positions = positions.expand(3, -1, -1)
    chosen = [tuple(part[own.to(part.device)] for part in layer) for layer in prefixes.cache]
    return lvlm.model.language_model(
        inputs_embeds=lvlm.get_input_embeddings()(ids),
        attention_mask=torch.cat([prefixes.mask[own], (places < sizes[:, None]).to(prefixes.mask)], dim=1),
        position_ids=positions,
        past_key_values=DynamicCache(chosen),
        use_cache=True,
    ).last_hidden_state


__all__ = [
    "Prefixes",
    "attention_that_cannot_be_shared",
    "continued_hidden_states",
    "last_hidden_states",
    "read_prefixes",
    "reads_one_by_one",
]
