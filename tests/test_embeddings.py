import json
import random
import shutil
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoProcessor, CLIPTextModel

from vlcomp import Embedder, load_embedder
from vlcomp.data.tokenization import text_padding, train_clip_tokenizer
from vlcomp.errors import ArgumentError, CheckpointError, DataError, EvaluationError
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
from vlcomp.models.from_scratch import new_processor
from vlcomp.testing import (
    KINDS,
    save_tiny_checkpoint,
    tiny_captions,
    tiny_clip,
    tiny_images,
    tiny_llava,
    tiny_lvlm_processor,
    tiny_model,
    tiny_processor,
)

LENGTHS = [
    "a cup",
    "a red cup left of a blue star",
    "star",
    "the girl in white is facing the man in black by the house",
]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return tiny_model(kind)


@pytest.fixture(scope="module")
def processor(kind):
    return tiny_processor(kind)


def own_texts(kind, model, processor, texts):
    """The model's own embeddings, one text at a time, padded as its paper does."""
    padding = {"padding": False} if kind == "clip" else {"padding": "max_length", "max_length": 64}
    with torch.no_grad():
        rows = [
            model.get_text_features(**processor.tokenizer([text], return_tensors="pt", **padding)).pooler_output
            for text in texts
        ]
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def own_images(model, processor, images):
    with torch.no_grad():
        rows = [
            model.get_image_features(**processor.image_processor([image], return_tensors="pt")).pooler_output
            for image in images
        ]
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def count_rows(model, tower, monkeypatch):
    """Count what passes through get_<tower>_features."""
    rows = []
    original = getattr(model, f"get_{tower}_features")

    def counting(**inputs):
        rows.append(len(next(iter(inputs.values()))))
        return original(**inputs)

    monkeypatch.setattr(model, f"get_{tower}_features", counting)
    return rows


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_texts_equal_the_models_own_whatever_the_batch(kind, model, processor, batch_size):
    texts = LENGTHS + tiny_captions(9)
    expected = own_texts(kind, model, processor, texts)
    embedder = Embedder(model, processor, batch_size=batch_size)
    actual = embedder.encode_texts(texts)
    assert actual.dtype == torch.float32 and not actual.is_inference()
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    order = random.Random(0).sample(range(len(texts)), len(texts))
    shuffled = embedder.encode_texts([texts[i] for i in order])
    torch.testing.assert_close(shuffled, expected[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size,num_workers", [(1, 0), (4, 2), (64, 0)])
def test_images_equal_the_models_own_whatever_the_batch(model, processor, batch_size, num_workers):
    images = tiny_images(7) + tiny_images(3, size=(30, 64), seed=1)
    embedder = Embedder(model, processor, batch_size=batch_size, num_workers=num_workers)
    actual = embedder.encode_images(images)
    torch.testing.assert_close(actual, own_images(model, processor, images), atol=1e-5, rtol=0)
    torch.testing.assert_close(embedder.encode_images(images[::-1]), actual.flip(0), atol=1e-5, rtol=0)


def test_logits_equal_the_forward(kind, model, processor):
    images, texts = tiny_images(3), tiny_captions(4)
    inputs = {
        **processor.image_processor(images, return_tensors="pt"),
        **processor.tokenizer(texts, return_tensors="pt", **text_padding(processor, model.config)),
    }
    with torch.no_grad():
        expected = model(**inputs).logits_per_image
    embedder = Embedder(model, processor)
    actual = embedder.logits(embedder.encode_images(images), embedder.encode_texts(texts))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
    assert (embedder.logit_bias != 0) == (kind != "clip")
    assert embedder.uses_sigmoid == (kind != "clip")
    with pytest.raises(ArgumentError, match="32 but text_embeds of size 16"):
        embedder.similarity(torch.ones(1, 32), torch.ones(1, 16))


def test_each_distinct_text_is_encoded_once(kind, processor, monkeypatch):
    model = tiny_model(kind)
    rows = count_rows(model, "text", monkeypatch)
    texts = [*LENGTHS, *LENGTHS[::-1], LENGTHS[0]]
    embeds = Embedder(model, processor, batch_size=3).encode_texts(texts)
    assert rows == [3, 1]
    assert torch.equal(embeds[:4], embeds[4:8].flip(0)) and torch.equal(embeds[8], embeds[0])
    assert not torch.equal(embeds[0], embeds[1])


def test_each_distinct_image_is_encoded_once(tmp_path, monkeypatch):
    model = tiny_clip()
    rows = count_rows(model, "image", monkeypatch)
    pictures = tiny_images(2)
    path = tmp_path / "a.png"
    pictures[0].save(path)
    content = path.read_bytes()
    palette = pictures[0].convert("P")
    other_palette = palette.copy()
    other_palette.putpalette(bytes(reversed(palette.getpalette())))
    images = [
        *(path, str(path)),
        *(pictures[0], pictures[0].copy()),
        *(pictures[1], pictures[0]),
        *(content, {"bytes": content, "path": None}, {"bytes": None, "path": str(path)}),
        *(np.asarray(pictures[1]), np.asarray(pictures[1]).copy()),
        *(palette, other_palette),
    ]
    embeds = Embedder(model, tiny_processor(), batch_size=4).encode_images(images)
    assert sum(rows) == 1 + 1 + 1 + 1 + 1 + 2  # path, picture 0, picture 1, bytes, array, two palettes
    for same in (1, 2, 3, 5, 6, 7, 8):
        torch.testing.assert_close(embeds[same], embeds[0], atol=1e-5, rtol=0)
    for same in (9, 10):
        torch.testing.assert_close(embeds[same], embeds[4], atol=1e-5, rtol=0)
    assert (embeds[11] - embeds[12]).abs().max() > 1e-3


def test_single_inputs_generators_and_nothing():
    embedder = Embedder(tiny_clip(), tiny_processor(), batch_size=2)
    picture = tiny_images(1)[0]
    assert embedder.encode_texts("a cup").shape == (1, 32)
    assert embedder.encode_images(picture).shape == (1, 32)
    assert embedder.encode_images(np.asarray(picture)).shape == (1, 32)
    generated = embedder.encode_images(image for image in tiny_images(5))
    torch.testing.assert_close(generated, embedder.encode_images(tiny_images(5)), atol=1e-5, rtol=0)
    assert embedder.encode_texts([]).shape == embedder.encode_images([]).shape == (0, 32)


def test_fit_changes_what_the_model_sees():
    model, processor, picture = tiny_clip(), tiny_processor(), tiny_images(1, size=(128, 32))[0]
    squash, crop = (Embedder(model, processor, fit=fit).encode_images(picture) for fit in ("squash", "crop"))
    torch.testing.assert_close(squash, Embedder(model, processor).encode_images(picture), atol=1e-5, rtol=0)
    assert (squash - crop).abs().max() > 1e-3


def test_long_texts_are_cut_at_the_end_token(kind, model, processor):
    embedder = Embedder(model, processor)
    long, longer = "a red cup " * 100, "a red cup " * 200
    embeds = embedder.encode_texts([long, longer, "a red cup"])
    torch.testing.assert_close(embeds[0], embeds[1], atol=1e-5, rtol=0)
    assert (embeds[0] - embeds[2]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_of_weights(kind, model, processor, dtype, monkeypatch):
    texts, images = tiny_captions(5), tiny_images(5)
    expected = Embedder(model, processor)
    embedder = Embedder(tiny_model(kind), processor, dtype=dtype)
    assert embedder.dtype == dtype
    # Not every model casts what it is given.
    seen, original = [], embedder.model.get_image_features
    monkeypatch.setattr(
        embedder.model, "get_image_features", lambda **kw: seen.append(kw["pixel_values"].dtype) or original(**kw)
    )
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-4
    for name, inputs in (("encode_texts", texts), ("encode_images", images)):
        actual = getattr(embedder, name)(inputs)
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual.norm(dim=1), torch.ones(5), atol=1e-6, rtol=0)
        torch.testing.assert_close(actual, getattr(expected, name)(inputs), atol=tolerance, rtol=0)
    assert seen == [dtype]


def test_modes_of_the_modules_and_of_torch_are_left_as_they_were(monkeypatch):
    model = tiny_clip().train()
    modes, original = [], model.get_text_features
    monkeypatch.setattr(
        model, "get_text_features", lambda **kw: modes.append(torch.is_inference_mode_enabled()) or original(**kw)
    )
    model.vision_model.eval()
    model.text_model.encoder.layers[0].self_attn.dropout = 0.9
    before = [module.training for module in model.modules()]
    embedder = Embedder(model, tiny_processor())
    first, again = (embedder.encode_texts(LENGTHS) for _ in range(2))
    torch.testing.assert_close(first, again, atol=0, rtol=0)  # no dropout while encoding
    assert modes == [False, False]  # tensors that a model keeps from there could not be trained with
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    (first @ torch.nn.Linear(32, 2).weight.T).sum().backward()  # embeddings can be trained on
    model.get_text_features(**embedder._prepare_texts(LENGTHS)).pooler_output.sum().backward()
    with pytest.raises(DataError):
        embedder.encode_images(["no/such.png"])
    assert [module.training for module in model.modules()] == before and torch.is_grad_enabled()


def test_a_model_that_returns_a_tensor_and_has_no_scale():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = tiny_clip()
            self.config = self.inner.config

        def get_text_features(self, **inputs):
            return self.inner.get_text_features(**inputs).pooler_output

        def get_image_features(self, **inputs):
            return self.inner.get_image_features(**inputs).last_hidden_state

    embedder = Embedder(Plain(), tiny_processor())
    expected = Embedder(tiny_clip(), tiny_processor()).encode_texts(LENGTHS)
    torch.testing.assert_close(embedder.encode_texts(LENGTHS), expected, atol=1e-5, rtol=0)
    assert embedder.logit_scale == 1.0 and embedder.logit_bias == 0.0
    with pytest.raises(CheckpointError, match=r"get_image_features gives a tensor of shape \[1, 17, 32\]"):
        embedder.encode_images(tiny_images(1))


def test_images_are_read_in_threads(tmp_path, monkeypatch):
    import vlcomp.embeddings as module

    threads = set()
    original = module.process_images
    monkeypatch.setattr(
        module, "process_images", lambda *a, **k: threads.add(threading.current_thread().name) or original(*a, **k)
    )
    paths = []
    for index, image in enumerate(tiny_images(12)):
        paths.append(tmp_path / f"{index}.png")
        image.save(paths[-1])
    model, processor = tiny_clip(), tiny_processor()
    expected = Embedder(model, processor).encode_images(paths)
    assert threads == {threading.current_thread().name}
    threads.clear()
    actual = Embedder(model, processor, batch_size=2, num_workers=2).encode_images(paths)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
    assert threads and all(name.startswith("vlcomp-images") for name in threads)
    (tmp_path / "7.png").write_bytes(paths[7].read_bytes()[:60])
    with pytest.raises(DataError, match="7.png"):
        Embedder(model, processor, batch_size=2, num_workers=2).encode_images(paths)


@pytest.mark.parametrize("make", ["missing", "text", "truncated", "none"])
def test_an_unreadable_image_is_named(make, tmp_path):
    path = tmp_path / "odd.png"
    picture = tiny_images(1)[0]
    if make == "text":
        path.write_text("not a picture")
    elif make == "truncated":
        picture.save(path)
        path.write_bytes(path.read_bytes()[:70])
    embedder = Embedder(tiny_clip(), tiny_processor())
    bad, name = (None, r"images\[1\]") if make == "none" else (path, "odd.png")
    with pytest.raises(DataError, match=name):
        embedder.encode_images([picture, bad])


def test_progress_bars(capfd, monkeypatch):
    import vlcomp.embeddings as module

    bars = []

    class Recorded(module.tqdm):
        def close(self):
            bars.append((self.desc.strip(": "), self.n, self.total))
            super().close()

    monkeypatch.setattr(module, "tqdm", Recorded)
    embedder = Embedder(tiny_clip(), tiny_processor(), progress=True, batch_size=2)
    embedder.encode_texts(tiny_captions(5))
    embedder.encode_images(tiny_images(3) * 2)
    assert bars[0] == ("Encoding texts", 5, 5) and ("Encoding images", 6, 6) in bars
    assert "Encoding images" in capfd.readouterr().err
    embedder.progress = False
    embedder.encode_texts(tiny_captions(5))
    embedder.encode_images(iter(tiny_images(3)))
    assert capfd.readouterr().err == ""


def test_embeddings_that_are_not_finite_name_the_input(tmp_path):
    model = tiny_clip()
    processor = tiny_processor()
    bad = processor.tokenizer("star").input_ids[1]
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight[bad] = float("nan")
    embedder = Embedder(model, processor, name="mine")
    embedder.encode_texts(["a cup", "a red cup"])
    message = r"mine: .*texts\[1\] \('a star'\) is not finite .*token_embedding.weight"
    with pytest.raises(EvaluationError, match=message):
        embedder.encode_texts(["a very red cup", "a star"])
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = float("inf")
    path = tmp_path / "x.png"
    tiny_images(1)[0].save(path)
    with pytest.raises(EvaluationError, match=r"images\[0\] \(.*x.png\) is not finite .*visual_projection.weight"):
        embedder.encode_images([path])


def test_bad_arguments():
    model, processor = tiny_clip(), tiny_processor()
    embedder = Embedder(model, processor)
    with pytest.raises(ArgumentError, match=r"texts\[1\] is None"):
        embedder.encode_texts(["a", None])
    with pytest.raises(ArgumentError, match="images=3"):
        embedder.encode_images(3)
    with pytest.raises(DataError, match="not valid Unicode"):
        embedder.encode_texts(["a cup", "\ud800"])
    lvlm = DiscriminativeLVLMModel.from_lvlm(tiny_llava(), processor=tiny_lvlm_processor("llava"))
    with pytest.raises(DataError, match="the text 'a <image> cup' holds the token of an image"):
        Embedder(lvlm, tiny_lvlm_processor("llava")).encode_texts(["a cup", "a <image> cup"])
    for kwargs, message in [
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"fit": "stretch"}, "fit='stretch'"),
        ({"device": "gpu7"}, "device='gpu7'"),
        ({"dtype": "int8"}, "dtype='int8'"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            Embedder(model, processor, **kwargs)
    with pytest.raises(ArgumentError, match="processor is None"):
        Embedder(model, None)
    with pytest.raises(CheckpointError, match="no image processor .*AutoProcessor.from_pretrained"):
        Embedder(model, processor.tokenizer)
    with pytest.raises(CheckpointError, match="CLIPTextModel is not a dual encoder .*no get_image_features"):
        Embedder(CLIPTextModel(model.config.text_config), processor)


def test_a_processor_of_another_model_is_refused():
    other = train_clip_tokenizer(tiny_captions(50), vocab_size=560, max_length=32)
    with pytest.raises(CheckpointError, match="pools at token"):
        Embedder(tiny_clip(), new_processor(other, 32))
    for kind in ("clip", "siglip"):
        small = new_processor(tiny_processor(kind).tokenizer, 24)
        with pytest.raises(CheckpointError, match="makes images of 24 x 24 pixels, and the model reads 32 x 32"):
            Embedder(tiny_model(kind), small)
    # With the same end token, too large ids are found when they occur.
    model = tiny_model("siglip")
    model.config.text_config.vocab_size = 300
    with pytest.raises(CheckpointError, match="has only 300.*another model"):
        Embedder(model, tiny_processor("siglip")).encode_texts("a red cup")
    tokenizer = tiny_processor().tokenizer
    tokenizer.pad_token = None
    with pytest.raises(CheckpointError, match="no padding token"):
        Embedder(tiny_clip(), new_processor(tokenizer, 32))


def test_another_vocabulary_and_length(tmp_path):
    tokenizer = train_clip_tokenizer(["ein roter Becher", "ein blauer Stern"] * 3, vocab_size=600, max_length=12)
    tiny_clip(tokenizer=tokenizer, seed=2).save_pretrained(tmp_path)
    new_processor(tokenizer, 32).save_pretrained(tmp_path)
    embedder = load_embedder(tmp_path)
    assert embedder.text_kwargs == {"padding": True, "truncation": True, "max_length": 12}
    texts = ["ein roter Becher", "Stern", "ein Stern " * 30]
    cut = tokenizer.decode(tokenizer(texts[2], truncation=True).input_ids, skip_special_tokens=True)
    expected = own_texts("clip", embedder.model, embedder.processor, [*texts[:2], cut])
    torch.testing.assert_close(embedder.encode_texts(texts), expected, atol=1e-5, rtol=0)


def test_text_padding_without_configuration():
    assert text_padding(tiny_processor("clip")) == {"padding": True, "truncation": True, "max_length": 32}
    fixed = {"padding": "max_length", "truncation": True, "max_length": 64}
    assert text_padding(tiny_processor("siglip")) == text_padding(tiny_processor("siglip2")) == fixed
    tokenizer = tiny_processor("clip").tokenizer
    tokenizer.model_max_length = int(1e30)
    assert text_padding(tokenizer) == {"padding": True, "truncation": False}
    assert text_padding(tokenizer, tiny_clip().config)["max_length"] == 32


def test_load_embedder(kind, model, tmp_path, capfd):
    folder = save_tiny_checkpoint(tmp_path / "checkpoint", kind)
    capfd.readouterr()
    embedder = load_embedder(folder, batch_size=3)
    assert capfd.readouterr().err == ""
    assert embedder.name == str(folder) and embedder.batch_size == 3 and not embedder.model.training
    expected = Embedder(model, tiny_processor(kind))
    torch.testing.assert_close(embedder.encode_texts(LENGTHS), expected.encode_texts(LENGTHS), atol=1e-5, rtol=0)
    assert load_embedder(folder, dtype="bfloat16", name="half").dtype == torch.bfloat16


def test_checkpoints_that_lack_something(tmp_path, clip_checkpoint):
    with pytest.raises(CheckpointError, match="nothing: there is no such folder"):
        load_embedder(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="no-such-model: cannot load .*nor is there a folder of this name"):
        load_embedder("no-such-model")
    with pytest.raises(CheckpointError, match="no config.json"):
        load_embedder(tmp_path)
    shutil.copytree(clip_checkpoint, tmp_path / "checkpoint-10")
    with pytest.raises(CheckpointError, match="did you mean .*checkpoint-10"):
        load_embedder(tmp_path)

    bare = tmp_path / "bare"
    tiny_clip().save_pretrained(bare)
    with pytest.raises(CheckpointError, match="no image processor .* and no tokenizer .*save_pretrained"):
        load_embedder(bare)
    tiny_processor().tokenizer.save_pretrained(bare)
    with pytest.raises(CheckpointError, match="no image processor .*AutoProcessor.from_pretrained"):
        load_embedder(bare)
    assert load_embedder(bare, processor=clip_checkpoint).encode_texts("a").shape == (1, 32)
    assert load_embedder(bare, processor=tiny_processor()).encode_texts("a").shape == (1, 32)

    tower = tmp_path / "tower"
    CLIPTextModel(tiny_clip().config.text_config).save_pretrained(tower)
    tiny_processor().save_pretrained(tower)
    with pytest.raises(CheckpointError, match="not a dual encoder"):
        load_embedder(tower)


def test_checkpoints_with_unusable_weights(tmp_path, clip_checkpoint):
    def changed(name, change):
        folder = tmp_path / name
        shutil.copytree(clip_checkpoint, folder)
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    def put_nan(state):
        state["text_projection.weight"][3, 4] = float("nan")

    with pytest.raises(CheckpointError, match="NaN or infinite: text_projection.weight"):
        load_embedder(changed("nan", put_nan))
    with pytest.raises(CheckpointError, match="lacks weights of CLIPModel .visual_projection.weight"):
        load_embedder(changed("missing", lambda state: state.pop("visual_projection.weight")))
    broken = changed("broken", lambda state: None)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="broken: cannot load the model"):
        load_embedder(broken)
    config = json.loads((clip_checkpoint / "config.json").read_text())
    strange = changed("strange", lambda state: None)
    (strange / "config.json").write_text(json.dumps({**config, "model_type": "no_such_model"}))
    with pytest.raises(CheckpointError, match="strange: cannot load"):
        load_embedder(strange)


def test_embedder_agrees_with_auto_classes(siglip2_checkpoint):
    model, processor = AutoModel.from_pretrained(siglip2_checkpoint), AutoProcessor.from_pretrained(siglip2_checkpoint)
    images = tiny_images(3) + tiny_images(2, size=(16, 60), seed=4)
    actual = load_embedder(siglip2_checkpoint, batch_size=5).encode_images(images)
    torch.testing.assert_close(actual, own_images(model, processor, images), atol=1e-5, rtol=0)
