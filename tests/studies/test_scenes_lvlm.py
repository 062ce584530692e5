"""The recipe of the small LVLM: its parts fit each other, and its measures measure what they say."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from vlcomp.data.scenes import load_scenes
from vlcomp.errors import ArgumentError
from vlcomp.studies import scenes_lvlm
from vlcomp.studies.scenes_lvlm import (
    BRIEF,
    DETAILED,
    IMAGE_WORD,
    TASKS,
    TEXT_WORD,
    CaptionCollator,
    caption_quality,
    encode_conversations,
    new_llava,
    train_lvlm_tokenizer,
    train_scenes_lvlm,
)
from vlcomp.testing import save_tiny_checkpoint, tiny_clip, tiny_images, tiny_processor

LONG = (
    "The picture shows two things on sand. There is a small plain red cup at the top left. There is a big plain teal "
    "star in the centre. The cup is left of the star."
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return load_scenes("train", size=40, image_size=32, cache_dir=tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def llava(rows):
    tokenizer = train_lvlm_tokenizer([*rows["caption"], *rows["long_caption"]])
    return new_llava(tiny_clip(), tokenizer, tiny_processor().image_processor, width=32, layers=2)


def test_no_text_has_an_unknown_token(rows):
    tokenizer = train_lvlm_tokenizer(rows["long_caption"], vocab_size=500)
    assert len(tokenizer) <= 500
    for text in ("a red cup", "Ünïcode – 東京!", "two\nlines"):
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.bos_token_id and ids[-1] != tokenizer.eos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    # A word is one token, at the start of a text as in it.
    assert tokenizer("star", add_special_tokens=False)["input_ids"] == tokenizer("a star")["input_ids"][-1:]
    assert tokenizer.padding_side == "left"
    with pytest.raises(ArgumentError, match="vocab_size=100 is below 260"):
        train_lvlm_tokenizer(["a"], vocab_size=100)


def test_the_vision_tower_is_the_clip_s_without_its_last_block(llava):
    model, _ = llava
    clip = tiny_clip()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = clip.vision_model(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]
        found = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
        features = model.model.get_image_features(pixels, return_dict=True).pooler_output
        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.allclose(torch.stack(list(features)), model.model.multi_modal_projector(expected), atol=1e-6)
    with pytest.raises(ArgumentError, match="vision tower of one block"):
        new_llava(tiny_clip(layers=1), llava[1].tokenizer, None)
    with pytest.raises(ArgumentError, match="width=30 is not a multiple of heads=4"):
        new_llava(clip, llava[1].tokenizer, None, width=30)


def test_conversations(llava):
    _, processor = llava
    pictures = tiny_images(2, (32, 32))
    questions = [(pictures[0], BRIEF), (None, f"a cup\n{TEXT_WORD}"), (pictures[1], DETAILED)]
    batch = encode_conversations(processor, questions, ["a red cup", "cup", "a star"])
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    tokenizer = processor.tokenizer
    for ids, labels, answer in zip(batch["input_ids"], batch["labels"], ("a red cup", "cup", "a star"), strict=True):
        kept = labels[labels != -100]
        assert tokenizer.decode(kept).strip() == f"{answer}{tokenizer.eos_token}"
        assert torch.equal(ids[-len(kept) :], kept)  # the answer is the end
    image_tokens = (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist()
    assert image_tokens == [16, 0, 16]
    assert torch.equal(batch["attention_mask"], (batch["input_ids"] != tokenizer.pad_token_id).long())
    # The tokens are those of question and answer in one text, as a model reads its own answer.
    asked = encode_conversations(processor, questions[1:2])
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "text", "text": questions[1][1]}]}], add_generation_prompt=True
    )
    both = tokenizer(f"{prompt} cup")["input_ids"]
    assert both[:-1] == asked["input_ids"][0].tolist() and "labels" not in asked


def test_every_task_is_taught(llava, rows):
    _, processor = llava
    seen = {name: 0 for name in TASKS}
    collator = CaptionCollator(processor, seed=3)
    real = scenes_lvlm.encode_conversations

    def noted(processor, questions, answers):
        for (picture, text), answer, row in zip(questions, answers, list(rows) * 5, strict=True):
            name = next(name for name in TASKS if text.endswith(name))
            seen[name] += 1
            assert (picture is None) == (name == TEXT_WORD)
            expected = {DETAILED: [row["long_caption"]], BRIEF: [row["caption"]]}
            assert answer in expected.get(name, row["caption"].replace(",", "").split())
        return real(processor, questions[:2], answers[:2])

    scenes_lvlm.encode_conversations = noted
    try:
        collator(list(rows) * 5)
    finally:
        scenes_lvlm.encode_conversations = real
    assert all(seen.values()) and seen[DETAILED] > seen[BRIEF] > seen[IMAGE_WORD]


class Parrot(nn.Module):
    """Finds the given texts most likely, and says them."""

    def __init__(self, processor, texts):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.tokenizer, self.texts = processor.tokenizer, texts

    def _ids(self):
        return [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in self.texts]

    def forward(self, input_ids, **inputs):
        logits = torch.zeros(*input_ids.shape, len(self.tokenizer))
        for row, ids in enumerate(self._ids()):
            ids = [*ids, self.tokenizer.eos_token_id]
            for place, token in enumerate(ids, input_ids.shape[1] - len(ids) - 1):
                logits[row, place, token] = 1
        return SimpleNamespace(logits=logits)

    def generate(self, input_ids, **inputs):
        made = [[*ids, self.tokenizer.eos_token_id] for ids in self._ids()]
        width = max(map(len, made))
        made = torch.tensor([ids + [self.tokenizer.pad_token_id] * (width - len(ids)) for ids in made])
        return torch.cat([input_ids, made], dim=1)


def test_caption_quality(llava, rows):
    _, processor = llava
    pictures = tiny_images(2, (32, 32))
    given = [{"image": picture, "long_caption": LONG} for picture in pictures]
    first, second, third, relation = (f"{sentence}." for sentence in LONG.rstrip(".").split(". "))
    assert set(caption_quality(Parrot(processor, [LONG, LONG]), processor, given).values()) == {1.0}
    # Another order of the objects and another relation are as true.
    other = f"{first} {third} {second} The star is right of the cup."
    found = caption_quality(Parrot(processor, [other, other]), processor, given)
    assert found["exact_match"] == found["sentence_match"] == 1 and 0 < found["token_accuracy"] < 1
    wrong = f"{first} {second} {third.replace('teal', 'blue')} {relation}"
    found = caption_quality(Parrot(processor, [LONG, wrong]), processor, given)
    assert (found["exact_match"], found["sentence_match"]) == (0.5, pytest.approx(5 / 6))
    tokens = len(processor.tokenizer(LONG, add_special_tokens=False)["input_ids"]) + 1
    assert found["token_accuracy"] == pytest.approx(1 - 1 / (2 * tokens))
    # Facts that are too many are as wrong.
    more = f"{LONG} There is a big plain red key in the centre."
    assert caption_quality(Parrot(processor, [LONG, more]), processor, given)["exact_match"] == 0.5
    with pytest.raises(ArgumentError, match="rows is empty"):
        caption_quality(Parrot(processor, []), processor, [])


def test_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    start = save_tiny_checkpoint(tmp_path / "clip")
    small = {"steps": 8, "num_images": 40, "batch_size": 8, "width": 32, "layers": 1, "eval_items": 6}
    made = train_scenes_lvlm(tmp_path / "lvlm", clip=start, progress=False, **small)
    assert set(made.metrics) == {"token_accuracy", "exact_match", "sentence_match"}
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(made.folder),
        AutoProcessor.from_pretrained(made.folder),
    )
    assert isinstance(model, LlavaForConditionalGeneration) and isinstance(processor, LlavaProcessor)
    held = load_scenes("train", size=6, image_size=32, split="validation")
    assert caption_quality(model, processor, held) == pytest.approx(made.metrics)
    # Pictures in a batch of other lengths get the same answer.
    questions = [(held[0]["image"], DETAILED), (held[1]["image"], f"{BRIEF} {BRIEF}")]
    together = encode_conversations(processor, questions)
    alone = encode_conversations(processor, questions[:1])
    with torch.inference_mode():
        both, one = model(**together).logits[0, -1], model(**alone).logits[0, -1]
    assert torch.allclose(both, one, atol=1e-4)
    assert not (tmp_path / "lvlm" / "training").exists()
    tower = model.model.vision_tower.state_dict()
    before = tiny_clip().vision_model.state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in tower.items())
