"""CommaModel: a frozen CLIP with prompts, and the methods it is compared with."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextModel,
    pipeline,
)

from vlcomp import load_embedder
from vlcomp.losses import knowledge_loss
from vlcomp.models.comma import CommaConfig, CommaModel, CommaOutput
from vlcomp.models.comma.configuration_comma import VARIANTS
from vlcomp.testing import save_tiny_checkpoint, tiny_captions, tiny_clip, tiny_images, tiny_processor, tiny_tokenizer

NAMES = ["red cup", "star", "black and white dog"]
CAPTIONS = ["a photo of a red cup.", "the girl in white", "a dog left of a cat"]
PROMPTED = [variant for variant in VARIANTS if variant != "zero-shot"]
OPTIONS = {"n_ctx": 3, "share_generator": False, "kd_layers": 2, "template": "a photo of the {}."}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A CLIP of three blocks, its towers of different width. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("comma") / "clip"
    config = tiny_clip(layers=3).config
    for name, value in (("hidden_size", 24), ("intermediate_size", 48)):
        setattr(config.vision_config, name, value)
    torch.manual_seed(0)
    model = CLIPModel(config)
    # Positions as large as words, so that a prompt in the wrong place shows.
    model.text_model.embeddings.position_embedding.weight.data.mul_(3)
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def inputs():
    encoded = tiny_processor()(text=CAPTIONS, images=tiny_images(3), padding=True, return_tensors="pt")
    return {name: encoded[name] for name in ("input_ids", "attention_mask", "pixel_values")}


def _texts(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def build(checkpoint, variant="comma", seed=1, **options):
    torch.manual_seed(seed)
    model = CommaModel.from_clip(checkpoint, prompt_variant=variant, **options).eval()
    with torch.no_grad():  # large enough to matter
        for parameter in model.prompts.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def _everything(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


# -- what is computed


def test_zero_shot_is_clip(checkpoint, inputs):
    model, plain = build(checkpoint, "zero-shot"), CLIPModel.from_pretrained(checkpoint)
    with torch.no_grad():
        one, other = model(**inputs, return_loss=True), plain(**inputs, return_loss=True)
        assert isinstance(one, CommaOutput) and next(iter(one)) == "loss"
        for name in ("loss", "logits_per_image", "logits_per_text", "text_embeds", "image_embeds"):
            assert torch.equal(one[name], other[name]), name
        assert torch.equal(
            model.get_text_features(**_texts(inputs)).pooler_output,
            plain.get_text_features(**_texts(inputs)).pooler_output,
        )
        model.set_classes(NAMES)
        texts = tiny_processor()(text=[f"a photo of a {name}." for name in NAMES], padding=True, return_tensors="pt")
        expected = functional.normalize(plain.get_text_features(**texts).pooler_output)
        assert torch.allclose(model.encode_classes().text_embeds, expected, atol=1e-6)


@pytest.mark.parametrize("variant", PROMPTED)
def test_every_variant_differs_from_clip(variant, checkpoint, inputs):
    model, plain = build(checkpoint, variant), CLIPModel.from_pretrained(checkpoint)
    with torch.no_grad():
        one, other = model(**inputs), plain(**inputs)
    text = not torch.allclose(one.text_embeds, other.text_embeds, atol=1e-3)
    image = not torch.allclose(one.image_embeds, other.image_embeds, atol=1e-3)
    assert text == (variant != "deep-vision") and image == (variant not in ("coop", "deep-text"))


def _embedded(model, words, prompt):
    """BOS, prompts, words, EOS as CLIP's own modules embed them."""
    embeddings = model.text_model.embeddings
    tokens = embeddings.token_embedding(words)
    sequence = torch.cat([tokens[:1], prompt, tokens[1:]])
    return sequence + embeddings.position_embedding.weight[: len(sequence)]


def _through(layers, hidden, deep, start, causal):
    """One text or image through CLIP's layers, the deeper prompts put in from position `start` on."""
    length = len(hidden)
    mask = torch.full((length, length), -torch.inf).triu(1)[None, None] if causal else None
    for index, layer in enumerate(layers):
        if 0 < index < len(deep):
            hidden = hidden.clone()
            hidden[start : start + len(deep[index])] = deep[index]
        hidden = layer(hidden[None], mask)[0]
    return hidden


@pytest.mark.parametrize("variant", ["coop", "deep-text", "comma"])
@pytest.mark.parametrize("legacy", [False, True], ids=["eos", "legacy-eos"])
def test_texts_equal_a_sequence_made_by_hand(variant, legacy, checkpoint, inputs):
    model = build(checkpoint, variant, **OPTIONS)
    if legacy:  # OpenAI's checkpoints: CLIP pools at the highest id
        model.config.text_config.eos_token_id = model.text_model.eos_token_id = 2
    tower = model.text_model
    with torch.no_grad():
        found = model.get_text_features(**_texts(inputs)).pooler_output
        without_mask = model.get_text_features(inputs["input_ids"]).pooler_output
        assert torch.allclose(without_mask, found, atol=1e-6)
        model.set_classes(NAMES)
        classes = model.encode_classes().text_embeds
        prompts = list(model.prompts.text)
        tokenizer = tiny_processor().tokenizer
        # Any text keeps all its words; that of a class has the prompts in place of "a photo of".
        for texts, embeds in ((CAPTIONS, found), ([f"the {name}." for name in NAMES], classes)):
            for text, embed in zip(texts, embeds, strict=True):
                words = torch.tensor(tokenizer(text).input_ids)
                hidden = _through(tower.encoder.layers, _embedded(model, words, prompts[0]), prompts, 1, causal=True)
                expected = model.text_projection(tower.final_layer_norm(hidden)[-1])
                if embeds is classes:
                    expected = functional.normalize(expected, dim=0)
                assert torch.allclose(embed, expected, atol=1e-5), text


def _vision_prompts_by_hand(model):
    """The recursion of the paper with plain loops."""
    prompts, config = model.prompts, model.config

    def linear(module, vector):
        return torch.stack([row @ vector + b for row, b in zip(module.weight, module.bias, strict=True)])

    def block(module, vector):
        centred = vector - vector.mean()
        vector = centred / (centred.square().mean() + module.norm.eps).sqrt() * module.norm.weight + module.norm.bias
        return linear(module.up, linear(module.down, vector).clamp(min=0))

    made = [torch.stack([linear(prompts.projections[0], vector) for vector in prompts.text[0]])]
    for i in range(1, config.vision_prompt_depth):
        which = 0 if config.share_generator else i - 1
        keys = [linear(prompts.projections[which], vector) for vector in prompts.text[i - 1]]
        rows = []
        for query in made[i - 1]:
            weights = torch.stack([(query @ key / len(key) ** 0.5).exp() for key in keys])
            attended = sum(w * key for w, key in zip(weights / weights.sum(), keys, strict=True))
            rows.append(block(prompts.blocks[which], attended) if config.generator_mlp else attended)
        made.append(torch.stack(rows))
    return made


@pytest.mark.parametrize("mlp", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_vision_prompts_equal_the_recursion(mlp, shared, checkpoint):
    model = build(checkpoint, n_ctx=3, generator_mlp=mlp, share_generator=shared)
    found, expected = model.prompts.vision_prompts(), _vision_prompts_by_hand(model)
    assert [tuple(prompt.shape) for prompt in found] == [(3, 24)] * 3
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))
    assert not torch.allclose(found[1], found[2], atol=1e-3)


def test_vision_prompts_of_the_baselines(checkpoint):
    maple, own = build(checkpoint, "maple"), build(checkpoint, "independent")
    expected = [project(text) for project, text in zip(maple.prompts.projections, maple.prompts.text, strict=True)]
    assert all(map(torch.equal, maple.prompts.vision_prompts(), expected))
    assert all(one is other for one, other in zip(own.prompts.vision_prompts(), own.prompts.vision, strict=True))


@pytest.mark.parametrize("variant", ["deep-vision", "maple", "comma"])
def test_images_equal_a_sequence_made_by_hand(variant, checkpoint, inputs):
    model = build(checkpoint, variant, prompt_depth=2)
    tower = model.vision_model
    with torch.no_grad():
        found = model.get_image_features(inputs["pixel_values"]).pooler_output
        prompts = model.prompts.vision_prompts()
        assert len(prompts) == 2
        for patches, embed in zip(tower.embeddings(inputs["pixel_values"]), found, strict=True):
            hidden = tower.pre_layrnorm(torch.cat([patches, prompts[0]]))
            hidden = _through(tower.encoder.layers, hidden, prompts, len(patches), causal=False)
            expected = model.visual_projection(tower.post_layernorm(hidden[0]))
            assert torch.allclose(embed, expected, atol=1e-5)


def test_the_first_prompts_start_at_the_words_they_replace(checkpoint):
    tokenizer = tiny_processor().tokenizer
    model = CommaModel.from_clip(checkpoint, prompt_variant="coop", n_ctx=3)
    table = model.text_model.embeddings.token_embedding.weight
    for row, word in zip(model.prompts.text[0], ["a", "photo", "of"], strict=True):
        assert torch.allclose(row, table[tokenizer(word, add_special_tokens=False).input_ids].mean(0))
    # Words beyond the class name cannot be replaced: what is left over starts at random.
    model = CommaModel.from_clip(checkpoint, prompt_variant="coop", n_ctx=2, template="a {}")
    assert torch.allclose(model.prompts.text[0][0], table[tokenizer("a", add_special_tokens=False).input_ids[0]])
    assert model.config.learned_template == "{}" and 0 < model.prompts.text[0][1].std() < 0.1


@pytest.mark.parametrize(
    ("template", "n_ctx", "rest"),
    [
        ("a photo of a {}.", 2, "of a {}."),
        ("a photo of a {}.", 9, "{}."),
        ("{} in a photo", 2, "{} in a photo"),
        ("a non-{} thing", 4, "non-{} thing"),
    ],
)
def test_what_is_left_of_a_template(template, n_ctx, rest):
    assert CommaConfig(template=template, n_ctx=n_ctx).learned_template == rest


# -- gradients


EXPECTED = {
    "zero-shot": [],
    "coop": ["text.0"],
    "deep-text": ["text.0", "text.1", "text.2"],
    "deep-vision": ["vision.0", "vision.1", "vision.2"],
    "independent": ["text.0", "text.1", "text.2", "vision.0", "vision.1", "vision.2"],
    "maple": ["text.0", "text.1", "text.2"]
    + [f"projections.{i}.{name}" for i in range(3) for name in ("weight", "bias")],
    "comma": ["text.0", "text.1", "text.2"]
    + [f"projections.{i}.{name}" for i in range(2) for name in ("weight", "bias")]
    + [
        f"blocks.{i}.{part}.{name}" for i in range(2) for part in ("norm", "down", "up") for name in ("weight", "bias")
    ],
}


def _gradients(model, pixels, images_only=False, knowledge=True):
    model.zero_grad(set_to_none=True)
    output = model(pixel_values=pixels, output_text_hidden_states=True)
    if images_only:
        loss = output.image_embeds.square().sum(0)[:5].sum()
    else:
        loss = functional.cross_entropy(output.logits_per_image, torch.arange(3))
        if knowledge:
            hidden, mask = model.knowledge_targets()
            loss = loss + knowledge_loss(output.text_hidden_states, hidden, output.text_mask, mask)
    if loss.requires_grad:
        loss.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_reaches_all_prompts_and_nothing_of_clip(variant, checkpoint, inputs):
    model = build(checkpoint, variant, share_generator=False).train().set_classes(NAMES)
    found = _gradients(model, inputs["pixel_values"])
    assert sorted(found) == sorted(f"prompts.{name}" for name in EXPECTED[variant])
    for name, gradient in found.items():
        assert gradient.isfinite().all() and gradient.abs().max() > 1e-9, name
    assert sorted(name for name, value in model.named_parameters() if value.requires_grad) == sorted(found)


def test_gradient_runs_through_the_whole_chain(checkpoint, inputs):
    # What images alone send back: text prompts of all layers but the last, from which no vision prompt is made.
    model = build(checkpoint, share_generator=False).set_classes(NAMES)
    found = _gradients(model, inputs["pixel_values"], images_only=True)
    assert sorted(found) == sorted(f"prompts.{name}" for name in EXPECTED["comma"] if name != "text.2")
    # From the last vision prompt back to the first text prompt, by the queries and by nothing else.
    first = torch.autograd.grad(model.prompts.vision_prompts()[2].square().sum(), model.prompts.text[0])[0]
    assert first.abs().max() > 1e-9


def test_detach_generator_leaves_it_as_it_was(checkpoint, inputs):
    model = build(checkpoint, share_generator=False, detach_generator=True).set_classes(NAMES)
    trained = ["text.0", "text.1", "text.2", "projections.0.weight", "projections.0.bias"]
    assert sorted(_gradients(model, inputs["pixel_values"])) == sorted(f"prompts.{name}" for name in trained)
    assert sorted(n for n, p in model.named_parameters() if p.requires_grad) == sorted(f"prompts.{n}" for n in trained)
    other = build(checkpoint, share_generator=False)
    assert all(map(torch.equal, model.prompts.vision_prompts(), other.prompts.vision_prompts()))


def test_checkpointing_changes_no_gradient(checkpoint, inputs):
    model = build(checkpoint).train().set_classes(NAMES)
    expected = _gradients(model, inputs["pixel_values"])
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    ran = []
    handle = model.text_model.encoder.layers[0].mlp.register_forward_pre_hook(lambda *_: ran.append(1))
    found = _gradients(model, inputs["pixel_values"])
    handle.remove()
    assert len(ran) == 2  # forward, and again in backward
    assert sorted(found) == sorted(expected)
    assert all(torch.allclose(found[name], expected[name], atol=1e-7) for name in expected)


def test_training_leaves_clip_bit_identical(checkpoint, inputs):
    model = build(checkpoint).train().set_classes(NAMES)
    before = {name: value.clone() for name, value in _everything(model).items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(8):
        output = model(pixel_values=inputs["pixel_values"])
        loss = functional.cross_entropy(output.logits_per_image, torch.arange(3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    changed = {name for name, value in _everything(model).items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith("prompts.")} and losses[-1] < losses[0]


# -- the knowledge term


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_knowledge_term_equals_a_direct_computation(layers, checkpoint, inputs):
    template = "a photo of a {}, a striped thing"
    model = build(checkpoint, kd_layers=layers, knowledge_template=template).set_classes(NAMES)
    frozen, tokenizer = CLIPTextModel.from_pretrained(checkpoint), tiny_processor().tokenizer
    with torch.no_grad():
        output = model(pixel_values=inputs["pixel_values"], output_text_hidden_states=True)
        hidden, mask = model.knowledge_targets()
        found = knowledge_loss(output.text_hidden_states, hidden, output.text_mask, mask)
        total = []
        for layer in range(-layers, 0):
            for place, name in enumerate(NAMES):
                ids = torch.tensor([tokenizer(template.format(name)).input_ids])
                target = frozen(ids, output_hidden_states=True).hidden_states[layer][0]
                # One class without padding, through the model's own text tower.
                alone = torch.tensor([tokenizer(f"of a {name}.").input_ids])
                own = model.get_text_features(alone, output_hidden_states=True).hidden_states[layer][0]
                assert torch.allclose(own, output.text_hidden_states[layer][place, : len(own)], atol=1e-5)
                assert output.text_mask[place].sum() == len(own) and mask[place].sum() == len(target)
                shared = min(len(own), len(target)) - 1
                cosines = [functional.cosine_similarity(own[i], target[i], dim=0) for i in range(shared)]
                cosines.append(functional.cosine_similarity(own[-1], target[-1], dim=0))
                total.append(1 - torch.stack(cosines).mean())
    assert found.item() == pytest.approx(torch.stack(total).mean().item(), abs=1e-6) and found > 1e-2
    assert len(output.text_hidden_states) == len(hidden) == layers


def test_knowledge_targets_are_computed_once_and_in_parts(checkpoint):
    model = build(checkpoint).set_classes(NAMES)
    calls = _count(model)
    hidden, mask = model.knowledge_targets()
    part, part_mask = model.knowledge_targets(torch.tensor([2, 0]))
    assert calls == [3]
    assert torch.equal(part[0], hidden[0][[2, 0]]) and torch.equal(part_mask, mask[[2, 0]])
    model.prompts.text[0].data.add_(1)  # the frozen CLIP knows nothing of prompts
    model.knowledge_targets()
    assert calls == [3]
    in_parts = build(checkpoint).set_classes(NAMES).knowledge_targets(batch_size=1)[0]
    assert torch.allclose(in_parts[0], hidden[0], atol=1e-5)
    model.set_classes(NAMES[:2])
    assert len(model.knowledge_targets()[1]) == 2


# -- texts and padding


def test_padding_has_no_influence(checkpoint, inputs):
    model = build(checkpoint)
    end = model.config.text_config.eos_token_id
    with torch.no_grad():
        expected = model.get_text_features(**_texts(inputs)).pooler_output
        room = 32 - inputs["input_ids"].shape[1]  # as far as the tokenizer pads, so that the prompts need its places
        wide = {
            "input_ids": functional.pad(inputs["input_ids"], (0, room), value=end),
            "attention_mask": functional.pad(inputs["attention_mask"], (0, room)),
        }
        assert torch.allclose(model.get_text_features(**wide).pooler_output, expected, atol=1e-6)
        wide["input_ids"][:, inputs["input_ids"].shape[1] :] = 7
        assert torch.allclose(model.get_text_features(**wide).pooler_output, expected, atol=1e-6)
        alone = model.get_text_features(torch.tensor([tiny_processor().tokenizer(CAPTIONS[1]).input_ids]))
        assert torch.allclose(alone.pooler_output[0], expected[1], atol=1e-6)


def test_texts_that_no_longer_fit(checkpoint):
    model = build(checkpoint)
    end = model.config.text_config.eos_token_id
    assert model.config.max_text_length == 30
    ids = torch.full((2, 31), 5)
    ids[0, 29], ids[1, 30] = end, end
    with pytest.raises(ValueError, match=r"input_ids\[1\] has 31 tokens, with which the 2 prompts no longer fit"):
        model.get_text_features(ids)
    with torch.no_grad():
        assert model.get_text_features(ids[:1]).pooler_output.shape == (1, 32)
        assert build(checkpoint, "deep-vision").get_text_features(ids).pooler_output.shape == (2, 32)
    with pytest.raises(ValueError, match=r"names\[0\]='dog dog .* has room for 30 beside the prompts"):
        model.set_classes(["dog " * 30])


# -- classes


def _count(model):
    """How many texts go through the text tower, call by call."""
    calls = []
    model.text_model.embeddings.register_forward_hook(lambda _, __, output: calls.append(len(output)))
    return calls


def test_classes_are_encoded_once_until_something_changes(checkpoint, inputs):
    model = build(checkpoint).set_classes(NAMES)
    calls, pixels = _count(model), inputs["pixel_values"]

    def encodes(before=lambda: None):
        calls.clear()
        before()
        with torch.no_grad():
            model(pixel_values=pixels)
        return sum(calls)

    prompt = model.prompts.text[1]
    assert [encodes(), encodes(), encodes()] == [3, 0, 0]

    @torch.no_grad()
    def in_place():
        prompt.add_(0.1)

    def by_data():
        prompt.data[0, 0] += 0.1

    @torch.no_grad()
    def clip():
        model.text_projection.weight.mul_(1.5)

    for change in (in_place, by_data, clip, lambda: model.set_classes(["cup", "dog"])):
        expected = 2 if change is not in_place and change is not by_data and change is not clip else 3
        assert [encodes(change), encodes()] == [expected, 0]
    with torch.no_grad():
        kept = model.encode_classes().text_embeds
        kept.zero_()
        assert model.encode_classes().text_embeds.any()
        some = model.encode_classes(torch.tensor([1])).text_embeds
        assert torch.allclose(some, model.encode_classes(batch_size=1).text_embeds[1:], atol=1e-6)
    # While prompts train, nothing is kept.
    calls.clear()
    for _ in range(2):
        assert model(pixel_values=pixels).text_embeds.requires_grad
    assert calls == [2, 2]
    # What was kept in inference mode can be trained on outside.
    with torch.inference_mode():
        model(pixel_values=pixels)
    vision = build(checkpoint, "deep-vision").set_classes(NAMES)
    calls = _count(vision)
    with torch.inference_mode():
        vision(pixel_values=pixels)
        vision.knowledge_targets()
    output = vision(pixel_values=pixels)
    output.logits_per_image.sum().backward()
    vision.knowledge_targets()[0][0].requires_grad_().square().sum().backward()
    assert calls == [3, 3] and vision.prompts.vision[0].grad.any()


def test_the_same_texts_are_encoded_once(checkpoint, inputs):
    model = build(checkpoint)
    calls = _count(model)
    with torch.no_grad():
        first, second = model(**inputs), model(**inputs)
        assert calls == [3] and torch.equal(first.logits_per_image, second.logits_per_image)
        assert second.text_model_output.pooler_output.shape == (3, 32)
        other = model(**{**inputs, "input_ids": inputs["input_ids"].flip(0)})
        assert calls == [3, 3] and not torch.equal(other.text_embeds, first.text_embeds)
        states = model(**inputs, output_text_hidden_states=True)
        assert torch.allclose(states.text_embeds, first.text_embeds, atol=1e-6)
        assert states.text_mask.sum(1).tolist() == (inputs["attention_mask"].sum(1) + 2).tolist()


def test_new_classes_at_run_time(checkpoint, inputs):
    model = build(checkpoint)
    with pytest.raises(ValueError, match=r"set_classes\(\[...\]\)"):
        model(pixel_values=inputs["pixel_values"])
    assert model.class_names is None
    with torch.no_grad():
        by_name = model.set_classes(NAMES)(pixel_values=inputs["pixel_values"])
        labels = [model.config.learned_template.format(name) for name in NAMES]
        texts = tiny_processor()(text=labels, padding=True, return_tensors="pt")
        by_text = model(**texts, pixel_values=inputs["pixel_values"])
        assert torch.allclose(by_name.logits_per_image, by_text.logits_per_image, atol=1e-5)
        other = model.set_classes(NAMES, template="this is the {}")(pixel_values=inputs["pixel_values"])
    assert model.class_names == tuple(NAMES)
    assert not torch.allclose(by_name.logits_per_image, other.logits_per_image, atol=1e-3)


@pytest.mark.parametrize(
    ("names", "options", "named"),
    [
        ([], {}, "names is empty"),
        ("cup", {}, "is one string"),
        (["cup", " "], {}, r"names\[1\]=' '"),
        (["cup", 3], {}, r"names\[1\]=3"),
        (["cup", "dog", "cup "], {}, r"names\[2\]='cup ' is also names\[0\]"),
        (["cup", "Cup"], {}, r"names\[1\]='Cup' has the same tokens as names\[0\]='cup'"),
        (["cup"], {"template": "a photo"}, "template='a photo' needs one placeholder"),
        (["cup"], {"template": "a {} and a {}"}, "needs one placeholder"),
        (["cup"], {"template": "a {name}"}, "needs one placeholder"),
        (["cup"], {"knowledge_template": "a photo"}, "knowledge_template='a photo'"),
    ],
)
def test_wrong_classes_are_named(names, options, named, checkpoint):
    with pytest.raises(ValueError, match=named):
        CommaModel.from_clip(checkpoint).set_classes(names, **options)


def test_without_a_tokenizer(checkpoint, tmp_path):
    CLIPModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer beside the checkpoint"):
        CommaModel.from_clip(tmp_path)
    model = CommaModel.from_clip(tmp_path, tokenizer=tiny_processor())
    with pytest.raises(ValueError, match="no tokenizer beside the checkpoint"):
        model.set_classes(NAMES)
    model.set_classes(NAMES, tokenizer=tiny_processor().tokenizer)
    assert CommaModel.from_clip(tmp_path, ctx_init="random").prompts.text[0].std() > 0
    with pytest.raises(ValueError, match="tokenizer belongs to another model: it ends a text with token"):
        model.set_classes(NAMES, tokenizer=tiny_tokenizer(["some other words"] * 9))
    with pytest.raises(ValueError, match="no tokenizer beside the checkpoint ''"):
        CommaModel(model.config.__class__(**{**model.config.to_dict(), "_name_or_path": ""})).set_classes(NAMES)


# -- settings


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"prompt_variant": "commas"}, "prompt_variant='commas' is not one of 'zero-shot'"),
        ({"prompt_depth": 13}, "prompt_depth=13 is beyond the 12 blocks of the text tower"),
        ({"prompt_depth": 0}, "prompt_depth=0 must be at least 1"),
        ({"prompt_variant": "coop", "prompt_depth": 9}, "'coop' has prompts in 1 layers"),
        ({"prompt_variant": "zero-shot", "prompt_depth": 1}, "'zero-shot' has prompts in 0 layers"),
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"n_ctx": 75}, "n_ctx=75 leaves no room"),
        ({"kd_layers": 13}, "kd_layers=13 must be between 1 and 12"),
        ({"kd_weight": float("nan")}, "kd_weight=nan"),
        ({"prompt_std": -1.0}, "prompt_std=-1.0"),
        ({"template": "a photo"}, "template='a photo' needs one placeholder"),
        ({"knowledge_template": "{} {}"}, "knowledge_template="),
        ({"ctx_init": "words"}, "ctx_init='words'"),
        ({"prompt_variant": "maple", "detach_generator": True}, "detach_generator=True"),
        ({"n_ctx": "2"}, "n_ctx"),
    ],
)
def test_wrong_settings_are_named(entries, named):
    with pytest.raises(Exception, match=named):  # transformers raises an error class of huggingface_hub
        CommaConfig(**entries)


def test_settings_changed_later_are_checked_again(checkpoint):
    config = CommaConfig()
    config.prompt_depth = 20
    with pytest.raises(ValueError, match="prompt_depth=20"):
        CommaModel(config)
    with pytest.raises(ValueError, match="prompt_depth=4 is beyond the 3 blocks of the text tower"):
        CommaModel.from_pretrained(checkpoint, prompt_depth=4)


def test_depths():
    depths = {
        v: (c.text_prompt_depth, c.vision_prompt_depth) for v in VARIANTS for c in [CommaConfig(prompt_variant=v)]
    }
    assert depths == {
        "zero-shot": (0, 0),
        "coop": (1, 0),
        "deep-text": (9, 0),
        "deep-vision": (0, 9),
        "independent": (9, 9),
        "maple": (9, 9),
        "comma": (9, 9),
    }
    assert CommaConfig(vision_config={"num_hidden_layers": 4}).text_prompt_depth == 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"pixel_values": None}, "pixel_values is None"),
        ({"position_ids": torch.arange(12)[None]}, "position_ids was given"),
        ({"attention_mask": "left"}, "padded on the right"),
        ({"input_ids": torch.ones(5, dtype=torch.long)}, r"must have shape \(texts, length\), got \(5,\)"),
        ({"pixel_values": "two", "return_loss": True}, "as many images as texts, got 2 and 3"),
    ],
)
def test_wrong_input_is_named(change, named, checkpoint, inputs):
    change = dict(change)
    if change.get("attention_mask") == "left":
        change["attention_mask"] = inputs["attention_mask"].flip(1)
    if isinstance(change.get("pixel_values"), str):
        change["pixel_values"] = inputs["pixel_values"][:2]
    given = {**inputs, **change}
    if given["input_ids"].ndim == 1:
        given["attention_mask"] = None
    with pytest.raises(ValueError, match=named):
        build(checkpoint)(**given)


# -- loading and saving


@pytest.mark.parametrize("variant", VARIANTS)
def test_loading_a_plain_clip_initialises_everything(variant, checkpoint):
    config = CommaConfig.from_pretrained(checkpoint, prompt_variant=variant)
    torch.manual_seed(0)
    direct = CommaModel(config)
    torch.manual_seed(0)
    loaded, info = CommaModel.from_pretrained(checkpoint, prompt_variant=variant, output_loading_info=True)
    assert {name.split(".")[0] for name in info["missing_keys"]} <= {"prompts"} and not info["unexpected_keys"]
    ours, theirs = _everything(loaded), _everything(CLIPModel.from_pretrained(checkpoint))
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    assert ours.keys() == _everything(direct).keys()
    for name, value in ours.items():
        if not name.startswith("prompts."):
            assert not value.requires_grad
            continue
        made = _everything(direct)[name]
        if made.std() == 0 or value.std() == 0:
            assert torch.equal(value, made), name  # norms and biases
        else:
            assert 0.01 < value.std() < 0.03 and 0.01 < made.std() < 0.03, name
    plain = CLIPModel(CLIPModel.config_class.from_pretrained(checkpoint))
    assert set(plain.state_dict()) == {name for name in direct.state_dict() if not name.startswith("prompts.")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_round_trip(variant, checkpoint, inputs, tmp_path):
    options = OPTIONS if variant == "comma" else {"prompt_std": 0.5}
    model = build(checkpoint, variant, **options)
    model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    again, info = CommaModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert {
        name: getattr(again.config, name) for name in options
    } == options and again.config.prompt_variant == variant
    assert [n for n, p in again.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]
    with torch.no_grad():
        one, other = (m.set_classes(NAMES)(pixel_values=inputs["pixel_values"]) for m in (model, again))
        assert torch.allclose(one.logits_per_image, other.logits_per_image, atol=1e-5)
    # The way back: inside is the CLIP.
    plain = CLIPModel.from_pretrained(checkpoint)
    assert torch.equal(CLIPModel.from_pretrained(tmp_path).visual_projection.weight, plain.visual_projection.weight)


@pytest.mark.parametrize("variant", VARIANTS)
def test_prompts_in_a_file_of_their_own(variant, checkpoint, inputs, tmp_path):
    model = build(checkpoint, variant, template="the {} in a photo", n_ctx=1)
    path = tmp_path / "new" / "prompts.safetensors"
    model.save_prompts(path)
    assert sorted(load_file(path)) == sorted(model.prompts.state_dict())
    other = CommaModel.from_clip(checkpoint, prompts=path).eval()
    same = build(checkpoint, variant, seed=9, n_ctx=1).set_classes(NAMES)
    with torch.no_grad():
        expected = model.set_classes(NAMES)(pixel_values=inputs["pixel_values"]).logits_per_image
        if variant != "zero-shot":
            found = same(pixel_values=inputs["pixel_values"]).logits_per_image
            assert not torch.allclose(found, expected, atol=1e-3)
        same.load_prompts(path)
        for each in (other, same):
            found = each.set_classes(NAMES)(pixel_values=inputs["pixel_values"]).logits_per_image
            assert torch.allclose(found, expected, atol=1e-5)
            assert each.config.template == "the {} in a photo"


def test_wrong_prompt_files_are_named(checkpoint, tmp_path):
    model = build(checkpoint)
    path = tmp_path / "prompts.safetensors"
    with pytest.raises(ValueError, match="there is no such file"):
        model.load_prompts(path)
    for write in (
        lambda: path.write_text("nothing"),
        lambda: save_file({"a": torch.ones(1)}, path),
    ):
        write()
        with pytest.raises(ValueError, match="is not a file of prompts"):
            model.load_prompts(path)
    model.save_prompts(path)
    before = _everything(build(checkpoint, n_ctx=4))
    other = build(checkpoint, n_ctx=4)
    with pytest.raises(ValueError, match="n_ctx=2, but the model has 4"):
        other.load_prompts(path)
    assert all(torch.equal(value, before[name]) for name, value in _everything(other).items())
    with pytest.raises(ValueError, match="prompt_variant='comma', but the model has 'maple'"):
        build(checkpoint, "maple").load_prompts(path)
    narrow = save_tiny_checkpoint(tmp_path / "narrow")
    with pytest.raises(ValueError, match="text_prompt_depth=3, but the model has 2"):
        CommaModel.from_clip(narrow).load_prompts(path)
    fine_tuned = build(checkpoint)
    with torch.no_grad():
        fine_tuned.text_projection.weight.neg_()
    with pytest.raises(ValueError, match="trained on another CLIP"):
        fine_tuned.load_prompts(path)
    with torch.no_grad():
        model.prompts.text[1][0, 0] = torch.nan
    model.save_prompts(path)
    with pytest.raises(ValueError, match="text.1 is not finite"):
        model.load_prompts(path)


def test_other_checkpoints_are_refused(checkpoint, siglip_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="holds a model of type 'siglip', not 'clip'"):
        CommaModel.from_clip(siglip_checkpoint)
    build(checkpoint).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="load it with CommaModel.from_pretrained"):
        CommaModel.from_clip(tmp_path)
    with pytest.raises(TypeError, match="prompt_variannt"):
        CommaModel.from_clip(checkpoint, prompt_variannt="coop")


def test_half_precision(checkpoint, inputs):
    model = build(checkpoint).set_classes(NAMES)
    with torch.no_grad():
        expected = model(pixel_values=inputs["pixel_values"])
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(pixel_values=inputs["pixel_values"])
        assert torch.allclose(mixed.logits_per_image.float(), expected.logits_per_image, atol=0.5)
        # Nothing kept in one type is given out in another.
        again = model(pixel_values=inputs["pixel_values"])
        assert torch.equal(again.text_embeds, expected.text_embeds)
        half = CommaModel.from_clip(checkpoint, dtype=torch.bfloat16).set_classes(NAMES)
        output = half(pixel_values=inputs["pixel_values"].bfloat16(), output_text_hidden_states=True)
    assert output.text_embeds.dtype == output.image_embeds.dtype == torch.bfloat16
    assert half.prompts.text[0].dtype == torch.bfloat16


# -- the rest of transformers and of the package takes it as it is


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    """A saved model with its processor. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("saved") / "comma"
    build(checkpoint).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def test_auto_classes_find_the_model(folder):
    assert type(AutoConfig.from_pretrained(folder)) is CommaConfig
    assert type(AutoModelForZeroShotImageClassification.from_pretrained(folder)) is CommaModel
    assert type(AutoProcessor.from_pretrained(folder)) is CLIPProcessor
    model = AutoModel.from_pretrained(folder)
    assert type(model) is CommaModel and not model.logit_scale.requires_grad
    assert model.set_classes(NAMES).class_names == tuple(NAMES)


def test_stock_pipeline_and_embedder(folder):
    image, labels = tiny_images(1)[0], tiny_captions(4)
    classify = pipeline("zero-shot-image-classification", model=str(folder))
    calls = _count(classify.model)
    found = classify([image, *tiny_images(2)], candidate_labels=labels, hypothesis_template="{}")[0]
    assert calls == [4]  # the pipeline passes them with each image
    embedder = load_embedder(folder)
    scores = embedder.logits(embedder.encode_images([image]), embedder.encode_texts(labels)).softmax(-1)[0]
    expected = dict(zip(labels, scores.tolist(), strict=True))
    assert {entry["label"]: entry["score"] for entry in found} == pytest.approx(expected, abs=1e-5)


def test_remote_code_works_without_vlcomp(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(CommaConfig, "_auto_class", None)
    monkeypatch.setattr(CommaModel, "_auto_class", None)
    CommaConfig.register_for_auto_class()
    CommaModel.register_for_auto_class("AutoModel")
    folder = tmp_path / "remote"
    model = build(checkpoint)
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoModelForZeroShotImageClassification"] = config["auto_map"]["AutoModel"]
    (folder / "config.json").write_text(json.dumps(config))
    tiny_images(1)[0].save(tmp_path / "image.png")
    code = """
import json, sys
sys.modules["vlcomp"] = None  # `import vlcomp` raises ImportError from here on
import torch
from transformers import AutoModel, pipeline
folder, picture, names = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    embeds = model.set_classes(names).encode_classes().text_embeds
classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
print(json.dumps([type(model).__module__, embeds.tolist(), len(classify(picture, candidate_labels=names))]))
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "image.png"), json.dumps(NAMES)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    module, embeds, labels = json.loads(done.stdout.splitlines()[-1])
    assert module.startswith("transformers_modules.") and labels == 3
    with torch.no_grad():
        expected = model.set_classes(NAMES).encode_classes().text_embeds
    assert torch.allclose(torch.tensor(embeds), expected, atol=1e-6)
