"""The two readings of an LVLM: what its tokens are, and sequences of them for a batch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer
from transformers.utils import cached_file, logging

from .configuration_discriminative_lvlm import DiscriminativeLVLMConfig

logger = logging.get_logger(__name__)

# Stands for a text while the chat template is read; must not occur in one.
_EXAMPLE = "a photo of seven umbrellas"
_TEXT, _IMAGE, _PROMPT = 0, 1, 2  # from _PROMPT on: tokens of the prompt, counted


@dataclass
class Sequences:
    """A batch of readings, padded on the right.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, length)`):
            Tokens; the image token stands once for each feature of an image.
        attention_mask (`torch.LongTensor` of shape `(batch, length)`):
            1 for tokens, 0 for padding.
        image_mask (`torch.BoolTensor` of shape `(batch, length)`):
            Where features of images stand.
        prompt_index (`torch.LongTensor` of shape `(batch, length)`):
            Which token of the prompt stands there; -1 elsewhere.
        summary_index (`torch.LongTensor` of shape `(batch,)`):
            Where the embedding is taken.
        caption_index (`tuple[torch.LongTensor, torch.LongTensor]`, *optional*):
            Rows and columns whose hidden states predict the tokens of the captions.
        caption_labels (`torch.LongTensor` of shape `(tokens,)`, *optional*):
            Those tokens.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    image_mask: torch.Tensor
    prompt_index: torch.Tensor
    summary_index: torch.Tensor
    caption_index: tuple[torch.Tensor, torch.Tensor] | None = None
    caption_labels: torch.Tensor | None = None


def image_sequences(
    config: DiscriminativeLVLMConfig,
    image_lengths: Sequence[int],
    captions: Sequence[Sequence[int]] | None = None,
    device: torch.device | None = None,
) -> Sequences:
    """Lay out image readings, and captions that continue them.

    Args:
        config ([`DiscriminativeLVLMConfig`]):
            Gives the tokens.
        image_lengths (`Sequence[int]`):
            Features of each image.
        captions (`Sequence[Sequence[int]]`, *optional*):
            Tokens of a caption of each image; an empty one counts nothing.
        device (`torch.device`, *optional*):
            Where to put the tensors.

    Returns:
        [`Sequences`]
    """
    middles = [([config.image_token_id] * length, _IMAGE) for length in image_lengths]
    return _sequences(config, "image", middles, captions, device)


def text_sequences(
    config: DiscriminativeLVLMConfig, texts: Sequence[Sequence[int]], device: torch.device | None = None
) -> Sequences:
    """Lay out text readings.

    Args:
        config ([`DiscriminativeLVLMConfig`]):
            Gives the tokens.
        texts (`Sequence[Sequence[int]]`):
            Tokens of each text.
        device (`torch.device`, *optional*):
            Where to put the tensors.

    Returns:
        [`Sequences`]
    """
    return _sequences(config, "text", [(list(text), _TEXT) for text in texts], None, device)


def _sequences(
    config: DiscriminativeLVLMConfig,
    modality: str,
    middles: Sequence[tuple[list[int], int]],
    captions: Sequence[Sequence[int]] | None,
    device: torch.device | None,
) -> Sequences:
    reading, end = config.reading(modality), list(config.caption_end_ids)
    prompt_kinds = list(range(_PROMPT, _PROMPT + len(reading["prompt"])))
    behind = len(reading["after"]) if config.summary_token == "prompt" else 0
    tail = [*reading["between"], *reading["prompt"], *reading["after"]]
    tail_kinds = [_TEXT] * len(reading["between"]) + prompt_kinds + [_TEXT] * len(reading["after"])
    ids, kinds, summaries, rows, columns, labels = [], [], [], [], [], []
    for row, (middle, kind) in enumerate(middles):
        start = len(reading["before"]) + len(middle) + len(tail)
        caption = list(captions[row]) if captions is not None else []
        target = caption + end if caption else []
        read = target[:-1]  # the last label is predicted, not read
        ids.append(torch.tensor([*reading["before"], *middle, *tail, *read]))
        kinds.append(
            torch.tensor([_TEXT] * len(reading["before"]) + [kind] * len(middle) + tail_kinds + [_TEXT] * len(read))
        )
        summaries.append(start - 1 - behind)
        rows += [row] * len(target)
        columns += range(start - 1, start - 1 + len(target))
        labels += target
    input_ids = pad_sequence(ids, batch_first=True).to(device)
    kind = pad_sequence(kinds, batch_first=True, padding_value=-1).to(device)
    return Sequences(
        input_ids=input_ids,
        attention_mask=(kind >= 0).long(),
        image_mask=kind == _IMAGE,
        prompt_index=torch.where(kind >= _PROMPT, kind - _PROMPT, -1),
        summary_index=torch.tensor(summaries, device=device),
        caption_index=None if captions is None else (_long(rows, device), _long(columns, device)),
        caption_labels=None if captions is None else _long(labels, device),
    )


def _long(values: list[int], device: torch.device | None) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long, device=device)


def plain_tokens(
    name: str,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    config: DiscriminativeLVLMConfig,
    vocab_size: int,
) -> list[list[int]]:
    """Take the tokens of texts out of a padded batch, without what the tokenizer puts around a text.

    Args:
        name (`str`):
            The argument, for errors.
        input_ids (`torch.LongTensor` of shape `(texts, length)`):
            As the tokenizer gives them, padded on either side.
        attention_mask (`torch.Tensor` of shape `(texts, length)`, *optional*):
            1 for tokens, 0 for padding; all are tokens if not given.
        config ([`DiscriminativeLVLMConfig`]):
            Says what stands around a text.
        vocab_size (`int`):
            Tokens that the language model has.

    Returns:
        `list[list[int]]`

    Raises:
        ValueError: for wrong shapes, or a token that the model has not, or that stands for an image.
    """
    if input_ids.ndim != 2:
        raise ValueError(f"{name} must have shape (texts, length), got {tuple(input_ids.shape)}")
    if attention_mask is not None and attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"the attention mask must have the shape of {name}, {tuple(input_ids.shape)}, got "
            f"{tuple(attention_mask.shape)}"
        )
    masks = [[1] * input_ids.shape[1]] * len(input_ids) if attention_mask is None else attention_mask.tolist()
    found = []
    for row, (ids, mask) in enumerate(zip(input_ids.tolist(), masks, strict=True)):
        tokens = [token for token, kept in zip(ids, mask, strict=True) if kept]
        start, end = list(config.text_start_ids), list(config.text_end_ids)
        if start and tokens[: len(start)] == start:
            tokens = tokens[len(start) :]
        if end and tokens[-len(end) :] == end:
            tokens = tokens[: -len(end)]
        if tokens and not 0 <= min(tokens) <= max(tokens) < vocab_size:
            raise ValueError(
                f"{name}[{row}] has the token {max(tokens)}, but the model has only {vocab_size}; the tokenizer "
                "belongs to another model"
            )
        if config.image_token_id in tokens:
            raise ValueError(
                f"{name}[{row}] has the token of an image ({config.image_token_id}); pass the text alone, the model "
                "builds its readings itself"
            )
        found.append(tokens)
    return found


def padded_left(
    embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Move the padding of a batch from the right to the left, for generation.

    Args:
        embeds (`torch.Tensor` of shape `(batch, length, hidden_size)`):
            Embeddings.
        mask (`torch.LongTensor` of shape `(batch, length)`):
            1 for tokens, 0 for padding.
        positions (`torch.LongTensor` of shape `(..., batch, length)`):
            Positions of the tokens.

    Returns:
        `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: the same three.
    """
    length = mask.shape[1]
    index = (torch.arange(length, device=mask.device) + mask.sum(dim=1, keepdim=True)) % length
    mask = mask.gather(1, index)
    positions = positions.gather(-1, index.expand(positions.shape)).masked_fill(mask == 0, 0)
    return embeds.gather(1, index[..., None].expand(embeds.shape)), mask, positions


def expand_images(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, image_token_id: int, lengths: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Repeat the token of each image as often as the image has features; padding goes to the left.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch, length)`):
            Each image one token.
        attention_mask (`torch.Tensor` of shape `(batch, length)`):
            1 for tokens, 0 for padding.
        image_token_id (`int`):
            The token of an image.
        lengths (`Sequence[int]`):
            Features of each image.

    Returns:
        `tuple[torch.LongTensor, torch.LongTensor]`: tokens and mask.
    """
    left, rows = iter(lengths), []
    for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
        tokens = [token for token, kept in zip(ids, mask, strict=True) if kept]
        row = [[token] * next(left) if token == image_token_id else [token] for token in tokens]
        rows.append(torch.tensor([token for part in row for token in part]))
    ids = pad_sequence(rows, batch_first=True, padding_side="left")
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
    return ids.to(input_ids.device), mask.to(input_ids.device)


# -- from a chat template to the tokens of the readings


def load_tokenizer(name_or_path: str | PathLike, chat_template: str | None = None, **hub: Any) -> tuple[Any, str]:
    """Load the tokenizer and the chat template of an LVLM; its image processor, which may need torchvision, is not.

    Args:
        name_or_path (`str` or `PathLike`):
            Folder or Hub repository of the LVLM.
        chat_template (`str`, *optional*):
            Template to take instead of the LVLM's.
        **hub:
            Arguments of `from_pretrained` (`revision`, `cache_dir`, ...).

    Returns:
        `tuple[PreTrainedTokenizerBase, str]`

    Raises:
        ValueError: if there is no tokenizer or no template.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **hub)
    except Exception as error:  # loaders raise many kinds for missing and damaged files
        raise ValueError(
            f"no tokenizer beside {str(name_or_path)!r}; pass processor=AutoTokenizer.from_pretrained('...')"
        ) from error
    template = chat_template or tokenizer.chat_template
    if template is None:  # older processors keep it in a file of their own
        file = cached_file(
            name_or_path, "chat_template.json", _raise_exceptions_for_missing_entries=False, **_file_arguments(hub)
        )
        if file is not None:
            with open(file, encoding="utf-8") as stream:
                template = json.load(stream)["chat_template"]
    return tokenizer, require_template(template, str(name_or_path))


def _file_arguments(hub: dict[str, Any]) -> dict[str, Any]:
    known = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
    return {name: value for name, value in hub.items() if name in known}


def require_template(template: str | dict | None, name: str) -> str:
    """The chat template, if there is one.

    Args:
        template (`str` or `dict`, *optional*):
            What was found; of several, the one called `"default"`.
        name (`str`):
            Where.

    Returns:
        `str`

    Raises:
        ValueError: if there is none.
    """
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise ValueError(
            f"{name}: no chat template; pass chat_template=..., a Jinja template that places an image by the token of "
            "the model, as in processor.chat_template"
        )
    return template


def read_template(
    tokenizer: Any, template: str, image_token_id: int, image_prompt: str, text_prompt: str
) -> dict[str, Any]:
    """Find the tokens of both readings.

    Args:
        tokenizer (`PreTrainedTokenizerFast`):
            Of the LVLM.
        template (`str`):
            Chat template.
        image_token_id (`int`):
            The token in whose place an image stands.
        image_prompt (`str`):
            What stands after an image.
        text_prompt (`str`):
            What stands after a text.

    Returns:
        `dict[str, Any]`: fields of [`DiscriminativeLVLMConfig`]: `image_reading`, `text_reading`, `text_start_ids`,
        `text_end_ids`, `caption_end_ids`.

    Raises:
        ValueError: if the template does not place image and prompt as expected, or the tokenizer is a slow one.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"processor: {type(tokenizer).__name__} does not tell which characters a token covers; pass a tokenizer "
            "with a tokenizer.json (PreTrainedTokenizerFast)"
        )
    image_token = tokenizer.convert_ids_to_tokens(image_token_id)
    if image_token is None:
        raise ValueError(f"processor: the tokenizer has no token {image_token_id}, which stands for an image")

    def rendered(content: list[dict[str, str]]) -> str:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )

    image_text = rendered([{"type": "image"}, {"type": "text", "text": image_prompt}])
    text_text = rendered([{"type": "text", "text": f"{_EXAMPLE}\n{text_prompt}"}])
    plain = tokenizer(_EXAMPLE, add_special_tokens=False)["input_ids"]
    full = tokenizer(_EXAMPLE)["input_ids"]
    at = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), None)
    if at is None:
        raise ValueError("processor: the tokenizer gives other tokens to a text with its special tokens than without")
    start_ids, end = full[:at], tokenizer.eos_token_id
    return {
        "image_reading": _parts(
            tokenizer, image_text, image_token, image_prompt, "image_prompt", [image_token_id], start_ids
        ),
        "text_reading": _parts(tokenizer, text_text, _EXAMPLE, text_prompt, "text_prompt", plain, start_ids),
        "text_start_ids": start_ids,
        "text_end_ids": full[at + len(plain) :],
        "caption_end_ids": [] if end is None else [end],
    }


def _parts(
    tokenizer: Any, text: str, middle: str, prompt: str, name: str, middle_ids: list[int], start_ids: list[int]
) -> dict[str, list[int]]:
    prompt = prompt.strip()  # templates strip too
    if text.count(middle) != 1 or text.count(prompt) != 1 or text.index(middle) > text.index(prompt):
        raise ValueError(
            f"chat_template does not place {middle!r} once and {name}={prompt!r} once behind it; it gives {text!r}"
        )
    begun = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    first = [] if begun else list(start_ids)
    ends = [text.index(middle), text.index(middle) + len(middle), text.index(prompt), text.index(prompt) + len(prompt)]
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    # The space before a text may be a token of the text.
    for begin in (ends[0], len(text[: ends[0]].rstrip(" "))):
        parts: dict[str, list[int]] = {"before": list(first), "between": [], "prompt": [], "after": []}
        found = []
        for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            where = _where(start, end, [begin, *ends[1:]])
            (found if where == "middle" else parts[where]).append(token)
        if found == middle_ids:
            return parts
    logger.info(
        f"the chat template puts {middle!r} where its tokens join with those beside it; the parts of {text!r} are "
        "tokenized one by one instead"
    )
    pieces = text[: ends[0]], text[ends[1] : ends[2]], prompt, text[ends[3] :]
    alone = [tokenizer(piece, add_special_tokens=False)["input_ids"] if piece else [] for piece in pieces]
    return {**dict(zip(parts, alone, strict=True)), "before": [*first, *alone[0]]}


def _where(start: int, end: int, ends: list[int]) -> str:
    """Name the part that a token belongs to; one that reaches into the middle or the prompt is of these."""
    if start < ends[1] and end > ends[0]:
        return "middle"
    if start < ends[3] and end > ends[2]:
        return "prompt"
    return "before" if end <= ends[0] else "between" if end <= ends[2] else "after"


__all__ = [
    "Sequences",
    "expand_images",
    "image_sequences",
    "load_tokenizer",
    "padded_left",
    "plain_tokens",
    "read_template",
    "require_template",
    "text_sequences",
]
