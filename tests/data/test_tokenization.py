"""Tokenizers learnt from captions: no text is lost, and CLIP finds its end token."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, CLIPTokenizer

from vlcomp.data.tokenization import BOS, EOS, text_padding, train_clip_tokenizer
from vlcomp.errors import DataError
from vlcomp.models.comma import CommaConfig
from vlcomp.models.from_scratch import new_clip
from vlcomp.testing import tiny_captions, tiny_clip, tiny_processor, tiny_siglip, tiny_siglip_tokenizer

STRANGE = [
    "café naïve Ærø",
    "日本語 한국어 العربية",
    "👩🏽‍🚀 emoji 🙂",
    "x = {1: [2, 3]}; # <b>&amp;</b>",
    "\x00\x07 control \u2028 characters",
    "zqxj wvkp never seen",
    "",
    "   ",
]


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_clip_tokenizer(tiny_captions(300), vocab_size=900, max_length=32)


@pytest.mark.parametrize(
    "text", ["a red cup left of a blue star", "zqxj wvkp", "café ærø", "日本語 и русский", "🙂 emoji"]
)
def test_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True).strip() == text


def test_lower_cases_and_joins_spaces(tokenizer):
    assert tokenizer("A  Red\nCUP ").input_ids == tokenizer("a red cup").input_ids


@pytest.mark.parametrize("text", STRANGE)
def test_end_token_stands_once_at_the_end_whatever_the_text(tokenizer, text):
    """An unknown token would be the end token, and CLIP pools at the first of those."""
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1] and tokenizer.bos_token_id not in ids[1:-1]
    if text.strip():
        assert len(ids) > 2


def test_every_byte_has_a_token(tokenizer):
    for code in [*range(33, 1024), 0x20AC, 0x1F600]:
        ids = tokenizer(chr(code)).input_ids[1:-1]
        assert tokenizer.eos_token_id not in ids, hex(code)


def test_form_of_clip(tokenizer):
    size = len(tokenizer)
    assert size <= 900
    assert tokenizer.eos_token == EOS and tokenizer.eos_token_id == size - 1  # the highest, as pooling by argmax needs
    assert tokenizer.bos_token == BOS and tokenizer.bos_token_id == size - 2
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert tokenizer.model_max_length == 32
    assert {"a</w>", "red</w>"} <= set(tokenizer.get_vocab())
    assert len(tokenizer("red").input_ids) == 3


def test_same_vocabulary_as_openai_where_the_words_are_those(tokenizer):
    """The 512 byte symbols come first and in the same order, as in OpenAI's file."""
    order = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    assert len(order[0]) == 1 and order[256:512] == [symbol + "</w>" for symbol in order[:256]]


def test_same_texts_same_tokenizer(tokenizer):
    again = train_clip_tokenizer(tiny_captions(300), vocab_size=900, max_length=32)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_save_and_load_through_auto_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(tmp_path)):
        assert len(loaded) == len(tokenizer) and loaded.model_max_length == 32
        for text in [*tiny_captions(20, seed=9), *STRANGE]:
            assert loaded(text).input_ids == tokenizer(text).input_ids
        assert loaded.eos_token_id == tokenizer.eos_token_id == loaded.pad_token_id


def test_save_and_load_with_a_checkpoint(tokenizer, tmp_path):
    new_clip(tokenizer, image_size=16, patch_size=8, width=16, layers=1, heads=2, projection_dim=8).save_pretrained(
        tmp_path
    )
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, CLIPTokenizer) and loaded("a red cup").input_ids == tokenizer("a red cup").input_ids


def test_clip_pools_at_the_end_token_and_texts_differ(tokenizer):
    model = tiny_clip(tokenizer=tokenizer)
    texts = ["a red cup", "a blue cup", "zqxj", "日本"]
    with torch.no_grad():
        together = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
        alone = [model.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output[0] for text in texts]
    assert torch.allclose(together, torch.stack(alone), atol=1e-5)
    assert torch.pdist(together).min() > 1e-3


def test_long_texts_are_cut_and_keep_the_end_token(tokenizer):
    ids = tokenizer("a red cup " * 50, truncation=True).input_ids
    assert len(ids) == 32 and ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("texts", "size", "message"), [([], 600, "`texts` is empty"), (["a"], 513, "513 is below 514")]
)
def test_bad_arguments(texts, size, message):
    with pytest.raises(DataError, match=message):
        train_clip_tokenizer(texts, vocab_size=size)


def test_smallest_vocabulary_still_reads_everything():
    smallest = train_clip_tokenizer(["a"], vocab_size=514)
    assert len(smallest) == 514
    assert smallest.decode(smallest("a red cup").input_ids, skip_special_tokens=True) == "a red cup"


def test_padding_rules():
    assert text_padding(tiny_processor("clip"), tiny_clip().config) == {
        "padding": True,
        "truncation": True,
        "max_length": 32,
    }
    # Prompts of the model's own leave a text less room.
    prompted = CommaConfig(**{**tiny_clip().config.to_dict(), "n_ctx": 3})
    assert text_padding(tiny_processor("clip"), prompted)["max_length"] == 29
    prompted.prompt_variant = "deep-vision"
    assert text_padding(tiny_processor("clip"), prompted)["max_length"] == 32
    fixed = {"padding": "max_length", "truncation": True, "max_length": 64}
    assert text_padding(tiny_processor("siglip"), tiny_siglip().config) == fixed
    assert text_padding(tiny_processor("siglip")) == text_padding(tiny_processor("siglip2")) == fixed
    # transformers writes 1e30 where a tokenizer has no limit; the model's positions then decide
    unlimited = tiny_siglip_tokenizer()
    unlimited.model_max_length = int(1e30)
    assert text_padding(unlimited, tiny_siglip().config) == fixed
