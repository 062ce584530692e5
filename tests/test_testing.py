import json

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from vlcomp.errors import ArgumentError
from vlcomp.testing import (
    KINDS,
    make_captioned_folder,
    make_class_folder,
    save_tiny_checkpoint,
    tiny_captions,
    tiny_clip,
    tiny_images,
    tiny_model,
    tiny_processor,
    tiny_siglip_tokenizer,
    tiny_tokenizer,
)

STRANGE = ["A RED cup", "Übergröße 日本 🙂", "", "  two  spaces \n"]


def test_clip_tokenizer_never_gives_an_unknown_token_and_cuts():
    tokenizer = tiny_tokenizer()
    for text in STRANGE:
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids.index(tokenizer.eos_token_id) == len(ids) - 1
    cut = tokenizer("cup " * 100, truncation=True).input_ids
    assert len(cut) == 32 and cut[-1] == tokenizer.eos_token_id


def test_siglip_tokenizer_has_no_start_token_and_pads_behind_the_end():
    tokenizer = tiny_siglip_tokenizer()
    for text in STRANGE:
        encoded = tokenizer(text, padding="max_length", max_length=64, truncation=True)
        assert list(encoded) == ["input_ids"] and len(encoded.input_ids) == 64
        end = encoded.input_ids.index(tokenizer.eos_token_id)
        assert tokenizer.unk_token_id not in encoded.input_ids
        assert set(encoded.input_ids[end + 1 :]) == {tokenizer.pad_token_id}
    assert tokenizer("A RED cup").input_ids == tokenizer("a red cup").input_ids
    assert tokenizer("cup " * 100, truncation=True).input_ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_reads_back_through_auto_classes(kind, tmp_path):
    folder = save_tiny_checkpoint(tmp_path / "checkpoint", kind, seed=3)
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    expected = tiny_model(kind, 3)
    assert type(model) is type(expected)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert type(processor) is type(tiny_processor(kind))
    for text in STRANGE:
        kwargs = {"padding": "max_length", "max_length": 16, "truncation": True}
        assert dict(processor.tokenizer(text, **kwargs)) == dict(tiny_processor(kind).tokenizer(text, **kwargs))


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_differ_between_inputs(kind):
    model, processor = tiny_model(kind), tiny_processor(kind)
    texts = processor.tokenizer(tiny_captions(10), return_tensors="pt", padding="max_length", max_length=32)
    images = processor.image_processor(tiny_images(10), return_tensors="pt")
    with torch.no_grad():
        if kind != "clip":
            texts = processor.tokenizer(tiny_captions(10), return_tensors="pt", padding="max_length", max_length=64)
        for embeds in (model.get_text_features(**texts), model.get_image_features(**images)):
            embeds = torch.nn.functional.normalize(embeds.pooler_output, dim=-1)
            cosine = embeds @ embeds.T - 2 * torch.eye(10)
            assert cosine.max() < 0.9999
            assert cosine.fill_diagonal_(1).min() < 0.95


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = tiny_clip(0), tiny_clip(0), tiny_clip(1)
    assert torch.equal(torch.get_rng_state(), before)
    weight = "visual_projection.weight"
    assert torch.equal(first.state_dict()[weight], again.state_dict()[weight])
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])
    assert tiny_clip(dtype=torch.bfloat16, width=16, projection_dim=8).visual_projection.weight.shape == (8, 16)
    with pytest.raises(ArgumentError, match="'blip'.*'siglip2'"):
        tiny_model("blip")


def test_pictures_and_captions_are_distinct_and_seeded():
    captions = tiny_captions(500)
    assert len(set(captions)) == 500 and captions == tiny_captions(500) and captions != tiny_captions(500, seed=1)
    assert not any(" a orange" in f" {caption}" for caption in captions)
    pictures = tiny_images(50)
    assert {picture.size for picture in pictures} == {(40, 32)}
    assert len({picture.tobytes() for picture in pictures}) == 50
    assert np.array_equal(pictures[0], tiny_images(1)[0])


def test_folders(tmp_path):
    folder = make_captioned_folder(tmp_path / "captioned", n=3, captions_per_image=2)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == sorted(path.name for path in folder.glob("*.png"))
    assert [len(row["caption"]) for row in rows] == [2, 2, 2]
    single = make_captioned_folder(tmp_path / "single", n=2)
    assert isinstance(json.loads((single / "metadata.jsonl").read_text().splitlines()[0])["caption"], str)
    classes = make_class_folder(tmp_path / "classes", ("cup", "dog", "star"), n=2)
    assert sorted(str(p.relative_to(classes)) for p in classes.rglob("*.png"))[::2] == [
        "cup/000.png",
        "dog/000.png",
        "star/000.png",
    ]
