"""Tokenizers for models trained from scratch, and the padding rule of each family of text towers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import models, trainers
from transformers import CLIPTokenizer

from ..errors import DataError

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_SIGLIP_LENGTH = 64  # text positions of every released SigLIP and SigLIP2


def train_clip_tokenizer(texts: Iterable[str], *, vocab_size: int = 4096, max_length: int = 77) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in the form of CLIP's own.

    The 256 byte symbols (each also as the end of a word) are always in the vocabulary, so no text has an unknown
    token; an unknown token would be the end-of-text token, and CLIP would pool there. The end-of-text token has the
    highest id, as in OpenAI's vocabulary.

    Args:
        texts (`Iterable[str]`):
            Captions to learn from.
        vocab_size (`int`, defaults to 4096):
            Upper limit of the vocabulary, at least 514 (twice the byte symbols and two special tokens).
        max_length (`int`, defaults to 77):
            `model_max_length` of the tokenizer: longer texts are cut there when truncation is on.

    Returns:
        `CLIPTokenizer`: lower-cases, adds start and end tokens, pads with the end token.

    Raises:
        DataError: if there is no text, or `vocab_size` is below 514.

    Example:
        >>> from vlcomp.data.tokenization import train_clip_tokenizer
        >>> tokenizer = train_clip_tokenizer(["a red star", "a blue cup"], vocab_size=600)
        >>> tokenizer.decode(tokenizer("a red cup").input_ids, skip_special_tokens=True)
        'a red cup'
    """
    if vocab_size < 514:
        raise DataError(f"vocab_size={vocab_size} is below 514, the byte symbols and special tokens alone")
    texts = list(texts)
    if not texts:
        raise DataError("cannot train a tokenizer: `texts` is empty")
    # An empty CLIP tokenizer brings CLIP's normaliser and word splitter; only its model is trained here.
    skeleton = CLIPTokenizer()
    backend = skeleton.backend_tokenizer
    backend.model = models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", fuse_unk=False)
    alphabet = sorted(_byte_alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 258,
        min_frequency=2,
        special_tokens=[],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    state = _model_state(backend)
    merges = [tuple(merge) if not isinstance(merge, str) else tuple(merge.split(" ")) for merge in state["merges"]]
    tokens = [*alphabet, *(symbol + "</w>" for symbol in alphabet)]
    known = set(tokens)
    for left, right in merges:
        if left + right not in known:
            known.add(left + right)
            tokens.append(left + right)
    tokens += [BOS, EOS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_length)


def text_padding(tokenizer_or_processor: Any, model_config: Any = None) -> dict[str, Any]:
    """How a family of models wants its texts padded and cut.

    CLIP pools at the end token under a causal mask, so padding to the longest text of the batch is exact and much
    faster than padding to 77. SigLIP and SigLIP2 pool at the last position, whatever stands there: their texts must be
    padded to the length of training (64), or the embeddings are wrong.

    Args:
        tokenizer_or_processor (`PreTrainedTokenizerBase` or `ProcessorMixin`):
            Gives the length where the configuration does not; its class tells the family if there is no configuration.
        model_config (`PreTrainedConfig`, *optional*):
            Configuration of the model; its `model_type` and text positions decide, less what prompts take of these
            (`max_text_length`).

    Returns:
        `dict[str, Any]`: keyword arguments for calling the tokenizer: `padding`, `truncation` and, unless neither side
        has a limit, `max_length`.

    Example:
        >>> from vlcomp.data.tokenization import text_padding
        >>> from vlcomp.testing import tiny_clip, tiny_siglip, tiny_processor
        >>> text_padding(tiny_processor("clip"), tiny_clip().config)
        {'padding': True, 'truncation': True, 'max_length': 32}
        >>> text_padding(tiny_processor("siglip"), tiny_siglip().config)
        {'padding': 'max_length', 'truncation': True, 'max_length': 64}
    """
    tokenizer = getattr(tokenizer_or_processor, "tokenizer", tokenizer_or_processor)
    text_config = getattr(model_config, "text_config", None) or model_config
    positions = _field(text_config, "max_position_embeddings")
    # A model that puts prompts of its own beside a text says how many tokens are left for it.
    room = _field(model_config, "max_text_length")
    limits = [length for length in (positions, room, _sane_length(tokenizer)) if length]
    if model_config is None:
        names = f"{type(tokenizer_or_processor).__name__} {type(tokenizer).__name__}".lower()
        fixed = "siglip" in names
    else:
        # The stock zero-shot pipeline decides by the same word.
        fixed = any("siglip" in str(_field(config, "model_type")) for config in (model_config, text_config))
    if fixed:
        # The positions are the length of training; a tokenizer may be set up for less or more than that.
        return {"padding": "max_length", "truncation": True, "max_length": limits[0] if limits else _SIGLIP_LENGTH}
    if not limits:
        return {"padding": True, "truncation": False}
    return {"padding": True, "truncation": True, "max_length": min(limits)}


def _field(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, dict) else getattr(config, name, None)


def _sane_length(tokenizer: Any) -> int | None:
    """`model_max_length`, or None where it is the 1e30 that transformers puts in for "unknown"."""
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if length and length < 1_000_000 else None


def _byte_alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel.alphabet()


def _model_state(backend: Any) -> dict[str, Any]:
    import json

    return json.loads(backend.to_str())["model"]
