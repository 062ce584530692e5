"""DiscriminativeLVLMModel: readings, embeddings, the single pass, adapters, checkpoints, generation."""

import copy
import json
import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    pipeline,
)

from vlcomp import ZeroShotPipeline, load_embedder
from vlcomp.errors import CheckpointError
from vlcomp.losses import next_token_loss
from vlcomp.models.discriminative_lvlm import (
    DiscriminativeLVLMConfig,
    DiscriminativeLVLMModel,
    DiscriminativeLVLMProcessor,
)
from vlcomp.models.tiny_lvlm import LVLM_KINDS
from vlcomp.testing import (
    save_tiny_lvlm,
    tiny_captions,
    tiny_clip,
    tiny_images,
    tiny_llava,
    tiny_lvlm,
    tiny_lvlm_processor,
)

TEXTS = ["a red cup", "the girl in white is facing the man in black", *tiny_captions(2)]
LONG = [" and ".join(tiny_captions(n, seed=n)) for n in (3, 1, 2, 4)]


def pictures():
    """Four pictures of three shapes; all families but LLaVA-1.5 give them different numbers of tokens."""
    return [*tiny_images(2), *tiny_images(1, (70, 30), seed=1), *tiny_images(1, (30, 60), seed=2)]


@pytest.fixture(scope="module", params=LVLM_KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def processor(kind):
    return tiny_lvlm_processor(kind)


@pytest.fixture(scope="module")
def plain(kind, processor):
    """Untrained. Read it, never change it."""
    return DiscriminativeLVLMModel.from_lvlm(tiny_lvlm(kind), processor=processor)


def moved(model, seed=0, scale=0.3):
    """The same model, as if it had been trained."""
    model = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.trainable_parameters().items():
            if name != "logit_scale":
                parameter += scale * torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
    return model


@pytest.fixture(scope="module")
def trained(plain):
    """With soft prompts and LoRA away from their start. Read it, never change it."""
    return moved(plain)


def image_inputs(processor, images):
    return dict(processor(images=images))


def text_inputs(processor, texts, side="right"):
    found = processor.tokenizer(texts, padding=True, padding_side=side, return_tensors="pt")
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def caption_inputs(processor, texts, side="right"):
    return {f"caption_{name}": value for name, value in text_inputs(processor, texts, side).items()}


@torch.no_grad()
def embed_images(model, processor, images):
    return model.get_image_features(**image_inputs(processor, images)).pooler_output


@torch.no_grad()
def embed_texts(model, processor, texts, side="right"):
    return model.get_text_features(**text_inputs(processor, texts, side)).pooler_output


def close(first, second, atol=1e-5):
    return torch.allclose(first, second, atol=atol, rtol=0)


# -- readings


def chat(processor, content, answer=None):
    """Tokens of a chat through the template, the way anyone would use the LVLM."""
    messages = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = processor.tokenizer(text)["input_ids"]
    if answer is not None:
        ids += [*processor.tokenizer(answer, add_special_tokens=False)["input_ids"], processor.tokenizer.eos_token_id]
    return ids


def stock_inputs(model, processor, image, answer=None):
    """One image and the hand-written prompt for the LVLM itself, its image token repeated as its processor does."""
    prompt = model.config.image_prompt
    ids = chat(processor, [{"type": "image"}, {"type": "text", "text": prompt}], answer)
    images = image_inputs(processor, [image])
    with torch.no_grad():
        count = len(model.lvlm.model.get_image_features(return_dict=True, **images).pooler_output[0])
    token = model.config.image_token_id
    assert ids.count(token) == 1
    ids = [part for i in ids for part in ([i] * count if i == token else [i])]
    inputs = {"input_ids": torch.tensor([ids]), **{k: v for k, v in images.items() if k != "batch_num_images"}}
    if "image_grid_thw" in images:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == token).int()
    return inputs


@torch.no_grad()
def test_untrained_embeddings_are_those_of_the_lvlm_itself(kind, plain, processor):
    lvlm = tiny_lvlm(kind)
    images, texts = pictures(), TEXTS
    found = embed_images(plain, processor, images)
    for row, image in enumerate(images):
        hidden = lvlm.model(**stock_inputs(plain, processor, image)).last_hidden_state
        assert close(found[row], hidden[0, -1]), row
    found = embed_texts(plain, processor, texts)
    for row, text in enumerate(texts):
        content = [{"type": "text", "text": f"{text}\n{plain.config.text_prompt}"}]
        # What positions of an earlier image do to texts is not at issue here.
        lvlm = tiny_lvlm(kind)
        hidden = lvlm.model(input_ids=torch.tensor([chat(processor, content)])).last_hidden_state
        assert close(found[row], hidden[0, -1]), row
    assert not close(found[0], found[1], 0.1)


@torch.no_grad()
def test_the_embedding_can_be_taken_at_the_prompt(kind, processor):
    model = DiscriminativeLVLMModel.from_lvlm(tiny_lvlm(kind), processor=processor, summary_token="prompt")
    inputs = stock_inputs(model, processor, pictures()[2])
    hidden = tiny_lvlm(kind).model(**inputs).last_hidden_state[0]
    at = len(model.config.image_reading["after"])
    assert at and close(embed_images(model, processor, pictures()[2:3])[0], hidden[-1 - at])


def test_prompts_are_fields(processor, kind):
    prompts = {"image_prompt": "What is it?", "text_prompt": "In one word, please:"}
    model = DiscriminativeLVLMModel.from_lvlm(tiny_lvlm(kind), processor=processor, **prompts)
    for modality in ("image", "text"):
        ids = model.config.reading(modality)["prompt"]
        assert processor.tokenizer.decode(ids).strip() == prompts[f"{modality}_prompt"]
        assert len(getattr(model.soft_prompts, modality)) == len(ids)


def test_the_space_before_a_text_may_be_its_own():
    """As in LLaVA-1.5: "USER: a red cup", where the first token is " a"."""
    processor = tiny_lvlm_processor("llava")
    reading = DiscriminativeLVLMModel.from_lvlm(tiny_llava(), processor=processor).config.text_reading
    assert processor.tokenizer.convert_ids_to_tokens(reading["before"])[-1] == ":"


def test_a_text_that_the_template_joins_with_what_is_before_it():
    tokenizer = tiny_lvlm_processor("qwen2_vl").tokenizer  # here a text does not begin with a space
    template = tokenizer.chat_template.replace("message['role'] + '\\n'", "message['role'] + ' '")
    assert template != tokenizer.chat_template
    model = DiscriminativeLVLMModel.from_lvlm(tiny_lvlm("qwen2_vl"), processor=tokenizer, chat_template=template)
    reading = model.config.text_reading
    parts = {part: tokenizer.decode(ids) for part, ids in reading.items()}
    assert parts == {
        "before": "<|im_start|>user ",
        "between": "\n",
        "prompt": model.config.text_prompt,
        "after": "<|im_end|>\n<|im_start|>assistant\n",
    }


# -- independence


@pytest.mark.parametrize("side", ["left", "right"])
def test_embeddings_do_not_depend_on_padding_or_company(trained, processor, side):
    images = pictures()
    alone = torch.cat([embed_images(trained, processor, [image]) for image in images])
    assert close(embed_images(trained, processor, images), alone)
    assert close(embed_images(trained, processor, images[::-1]), alone.flip(0))
    alone = torch.cat([embed_texts(trained, processor, [text], side) for text in TEXTS])
    assert close(embed_texts(trained, processor, TEXTS, side), alone)
    assert close(embed_texts(trained, processor, TEXTS[1:3], side), alone[1:3])
    assert alone.std(dim=0).mean() > 0.1


def test_special_tokens_around_a_text_do_not_count(trained, processor):
    bare = processor.tokenizer(TEXTS[0], add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        found = trained.get_text_features(bare["input_ids"], bare["attention_mask"]).pooler_output
    assert close(found, embed_texts(trained, processor, TEXTS[:1]), 1e-6)


# -- one pass


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_pass_equals_two(trained, processor, side):
    images = image_inputs(processor, pictures())
    captions = caption_inputs(processor, LONG, side)
    with torch.no_grad():
        once = trained.forward_with_caption(**images, **captions)
        assert close(once.pooler_output, trained.get_image_features(**images).pooler_output)
        other = caption_inputs(processor, LONG[::-1], side)
        assert close(once.pooler_output, trained.forward_with_caption(**images, **other).pooler_output)
        # The second pass: each caption with its image alone.
        rows = []
        for row, (image, text) in enumerate(zip(pictures(), LONG, strict=True)):
            single = trained.forward_with_caption(
                **image_inputs(processor, [image]), **caption_inputs(processor, [text])
            )
            ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
            assert single.caption_labels.tolist() == [*ids, processor.tokenizer.eos_token_id]
            here = once.caption_rows == row
            assert torch.equal(once.caption_labels[here], single.caption_labels)
            assert close(once.caption_hidden_states[here], single.caption_hidden_states)
            rows.append(single.caption_hidden_states)
    assert len(once.caption_labels) == sum(map(len, rows))


@torch.no_grad()
def test_the_next_token_loss_is_that_of_the_lvlm(kind, plain, processor):
    images = pictures()
    once = plain.forward_with_caption(**image_inputs(processor, images), **caption_inputs(processor, LONG))
    for row, (image, text) in enumerate(zip(images, LONG, strict=True)):
        inputs = stock_inputs(plain, processor, image, answer=text)
        count = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
        labels = inputs["input_ids"].clone()
        labels[0, :-count] = -100
        expected = tiny_lvlm(kind)(**inputs, labels=labels).loss
        here = once.caption_rows == row
        found = next_token_loss(once.caption_hidden_states[here], plain.lm_head, once.caption_labels[here])
        assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_images_without_a_caption_count_nothing(trained, processor):
    images, captions = image_inputs(processor, pictures()), caption_inputs(processor, LONG)
    captions["caption_attention_mask"][[0, 2]] = 0
    with torch.no_grad():
        found = trained.forward_with_caption(**images, **captions)
        assert set(found.caption_rows.tolist()) == {1, 3}
        captions["caption_attention_mask"][:] = 0
        nothing = trained.forward_with_caption(**images, **captions)
    assert len(nothing.caption_labels) == 0 and nothing.caption_hidden_states.shape == (0, 32)
    assert close(nothing.pooler_output, found.pooler_output)


def test_forward_compares_and_reads_captions(trained, processor):
    inputs = {**image_inputs(processor, pictures()), **text_inputs(processor, TEXTS)}
    with torch.no_grad():
        output = trained(**inputs, return_loss=True, **caption_inputs(processor, LONG))
        images = functional.normalize(embed_images(trained, processor, pictures()))
        texts = functional.normalize(embed_texts(trained, processor, TEXTS))
        alone = trained(pixel_values=inputs["pixel_values"], **caption_inputs(processor, LONG), **{
            name: value for name, value in inputs.items() if name.startswith(("image_", "batch_num"))
        })  # fmt: skip
    assert close(output.image_embeds, images) and close(output.text_embeds, texts)
    scale = trained.logit_scale.exp().item()
    assert scale == pytest.approx(1 / 0.07)
    assert close(output.logits_per_image, images @ texts.T * scale, 1e-3)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)
    target = torch.arange(4)
    expected = sum(
        functional.cross_entropy(part, target) for part in (output.logits_per_image, output.logits_per_text)
    )
    assert output.loss.item() == pytest.approx(expected.item() / 2, abs=1e-5)
    assert len(output.caption_labels) == len(output.caption_hidden_states) == len(output.caption_rows)
    assert alone.text_embeds is None and close(alone.image_embeds, output.image_embeds)
    assert trained(**inputs, return_dict=False)[0].shape == (4, 4)


# -- adapters


def loss_of(model, processor):
    output = model(
        **image_inputs(processor, pictures()),
        **text_inputs(processor, TEXTS),
        **caption_inputs(processor, LONG),
        return_loss=True,
    )
    return output.loss + next_token_loss(output.caption_hidden_states, model.lm_head, output.caption_labels)


@pytest.mark.parametrize("soft_prompts", [True, False])
@pytest.mark.parametrize("lora_rank", [4, 0])
def test_only_what_is_trained_moves(kind, processor, soft_prompts, lora_rank):
    model = DiscriminativeLVLMModel.from_lvlm(
        tiny_lvlm(kind), processor=processor, soft_prompts=soft_prompts, lora_rank=lora_rank
    ).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = model.trainable_parameters()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(trained)
    assert any(name.startswith("soft_prompts.") for name in trained) == soft_prompts
    assert any("lora_A" in name for name in trained) == bool(lora_rank)
    assert not any("vision" in name or "visual" in name for name in trained)
    if lora_rank:  # every linear layer of both blocks
        assert sum("lora_A" in name for name in trained) == 2 * 7
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):  # at first the gradient of A is 0, because B is
        optimizer.zero_grad()
        loss_of(model, processor).backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(trained)


def test_gradients_of_checkpointing_are_the_same(kind, processor):
    for settings in ({}, {"soft_prompts": False}):
        model = moved(DiscriminativeLVLMModel.from_lvlm(tiny_lvlm(kind), processor=processor, **settings)).train()
        gradients = []
        for checkpointing in (False, True):
            if checkpointing:
                model.activation_checkpointing_enable()
                assert any(getattr(m, "gradient_checkpointing", False) for m in model.language_model.modules())
            model.zero_grad()
            loss_of(model, processor).backward()
            gradients.append({name: p.grad.clone() for name, p in model.trainable_parameters().items()})
        assert all(value.any() for value in gradients[0].values())
        for name, value in gradients[0].items():
            assert close(value, gradients[1][name]), name


def test_adapters_can_be_switched_off(plain, trained, processor):
    images, texts = embed_images(plain, processor, pictures()), embed_texts(plain, processor, TEXTS)
    flags = [p.requires_grad for p in trained.parameters()]
    assert not close(embed_images(trained, processor, pictures()), images, 0.01)
    assert not close(embed_texts(trained, processor, TEXTS), texts, 0.01)
    with trained.disable_adapters() as model:
        assert model is trained
        with trained.disable_adapters():
            pass
        assert close(embed_images(trained, processor, pictures()), images, 1e-6)
        assert close(embed_texts(trained, processor, TEXTS), texts, 1e-6)
    assert not close(embed_images(trained, processor, pictures()), images, 0.01)
    assert [p.requires_grad for p in trained.parameters()] == flags
    trained.disable_adapters()
    assert close(embed_texts(trained, processor, TEXTS), texts, 1e-6)
    trained.enable_adapters()
    assert not close(embed_texts(trained, processor, TEXTS), texts, 0.01)


def test_unknown_layers_are_named():
    with pytest.raises(ValueError, match=r"lora_target_modules has 'c_attn'.*gate_proj, k_proj"):
        DiscriminativeLVLMModel.from_lvlm(
            tiny_llava(), processor=tiny_lvlm_processor(), lora_target_modules=["q_proj", "c_attn"]
        )
    lvlm = tiny_llava()
    DiscriminativeLVLMModel.from_lvlm(lvlm, processor=tiny_lvlm_processor())
    with pytest.raises(ValueError, match="has a LoRA already"):
        DiscriminativeLVLMModel.from_lvlm(lvlm, processor=tiny_lvlm_processor())


def test_trained_weights_stay_in_float32_beside_a_half_precision_lvlm():
    processor = tiny_lvlm_processor("qwen2_vl")
    lvlm = tiny_lvlm("qwen2_vl").bfloat16()
    model = DiscriminativeLVLMModel.from_lvlm(lvlm, processor=processor)
    assert model.dtype == torch.bfloat16
    assert {p.dtype for p in model.trainable_parameters().values()} == {torch.float32}
    full = DiscriminativeLVLMModel.from_lvlm(tiny_lvlm("qwen2_vl"), processor=processor)
    found, expected = (functional.normalize(embed_images(m, processor, pictures()).float()) for m in (model, full))
    assert ((found * expected).sum(dim=-1) > 0.99).all()
    loss_of(model.train(), processor).backward()
    assert model.soft_prompts.image.grad.isfinite().all()


# -- generation


def generated(model, inputs, **kwargs):
    return model.generate(**inputs, max_new_tokens=6, do_sample=False, **kwargs)


def test_generation_is_that_of_the_lvlm(kind, plain, processor):
    lvlm, trained = tiny_lvlm(kind), moved(plain, scale=1.0)
    expected, different = [], 0
    for image in pictures():
        inputs = stock_inputs(plain, processor, image)
        expected.append(generated(lvlm, inputs))
        with trained.disable_adapters():
            assert torch.equal(generated(trained, inputs), expected[-1])
            # One token for each image will do.
            ids = torch.tensor(
                [chat(processor, [{"type": "image"}, {"type": "text", "text": plain.config.image_prompt}])]
            )
            images = image_inputs(processor, [image])
            assert torch.equal(generated(trained, {"input_ids": ids, **images}), expected[-1])
        different += not torch.equal(generated(trained, inputs), expected[-1])
    assert different
    # After images of several sizes, a chat without one.
    ids = torch.tensor([chat(processor, [{"type": "text", "text": text}]) for text in TEXTS[:1] * 2])
    with trained.disable_adapters():
        assert torch.equal(generated(trained, {"input_ids": ids}), generated(tiny_lvlm(kind), {"input_ids": ids}))


def test_captions_continue_the_image_reading(trained, processor):
    """Greedily, each new token is what the single pass predicts after those before it."""
    images, tokenizer = pictures(), processor.tokenizer
    never = [i for i in tokenizer.all_special_ids + [trained.config.image_token_id] if i != tokenizer.eos_token_id]
    together = generated(trained, image_inputs(processor, images), suppress_tokens=never)
    for row, image in enumerate(images):
        tokens = generated(trained, image_inputs(processor, [image]), suppress_tokens=never)[0].tolist()
        assert together[row].tolist()[: len(tokens)] == tokens
        with torch.no_grad():
            read = trained.forward_with_caption(
                **image_inputs(processor, [image]), caption_input_ids=torch.tensor([tokens])
            )
            logits = trained.lm_head(read.caption_hidden_states)
        logits[:, never] = -torch.inf
        assert logits.argmax(dim=-1).tolist()[: len(tokens)] == tokens


# -- checkpoints


@pytest.fixture(scope="module")
def base(kind, tmp_path_factory):
    """Folder of a tiny LVLM. Read it, never write into it."""
    return save_tiny_lvlm(tmp_path_factory.mktemp(kind) / "base", kind)


@pytest.fixture(scope="module")
def from_base(base):
    return moved(DiscriminativeLVLMModel.from_lvlm(base, lora_rank=4), seed=3)


def saved(model, processor, folder):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_from_lvlm_reads_a_folder(kind, base, plain):
    processor = DiscriminativeLVLMProcessor.from_lvlm(base)
    assert processor.chat_template == tiny_lvlm_processor(kind).chat_template
    model = DiscriminativeLVLMModel.from_lvlm(base)
    assert model.config.base_name_or_path == str(base)
    assert model.config.image_reading == plain.config.image_reading
    assert close(embed_images(model, processor, pictures()), embed_images(plain, processor, pictures()), 1e-6)


def test_adapters_round_trip(kind, base, from_base, tmp_path):
    processor = DiscriminativeLVLMProcessor.from_lvlm(base)
    folder = saved(from_base, processor, tmp_path / "adapters")
    assert set(load_file(folder / "model.safetensors")) == set(from_base.trainable_parameters())
    assert size_of(folder) < size_of(base) / 2
    assert not (folder / "adapter_config.json").exists()  # or AutoModel would look for a PEFT model
    assert AutoConfig.from_pretrained(folder).base_config.model_type == kind
    images, texts = embed_images(from_base, processor, pictures()), embed_texts(from_base, processor, TEXTS)
    for auto in (AutoModel, AutoModelForZeroShotImageClassification):
        model = auto.from_pretrained(folder)
        assert type(model) is DiscriminativeLVLMModel and not model.training
        again = AutoProcessor.from_pretrained(folder)
        assert type(again) is DiscriminativeLVLMProcessor
        assert close(embed_images(model, again, pictures()), images, 1e-6)
        assert close(embed_texts(model, again, TEXTS), texts, 1e-6)
        assert {n for n, p in model.named_parameters() if p.requires_grad} == set(model.trainable_parameters())
    # As transformers.Trainer resumes: what is missing is what is never saved, or it warns.
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert set(missing) == set(model._keys_to_ignore_on_save) and not unexpected
    # And once more from what was read.
    again = DiscriminativeLVLMModel.from_pretrained(saved(model, processor, tmp_path / "again"))
    assert close(embed_texts(again, processor, TEXTS), texts, 1e-6)
    assert load_file(folder / "model.safetensors").keys() == load_file(tmp_path / "again/model.safetensors").keys()


def test_merged_checkpoint_needs_no_base(base, from_base, tmp_path):
    processor = DiscriminativeLVLMProcessor.from_lvlm(base)
    images = embed_images(from_base, processor, pictures())
    from_base.merge_and_save(tmp_path / "merged")
    processor.save_pretrained(tmp_path / "merged")
    assert close(embed_images(from_base, processor, pictures()), images, 0)  # itself unchanged
    assert from_base.config.lora_rank == 4 and from_base.config.base_name_or_path
    model, info = DiscriminativeLVLMModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.lora_rank == 0 and model.config.base_name_or_path is None
    assert not any("lora" in name for name in model.state_dict())
    assert close(embed_images(model, processor, pictures()), images)
    assert close(embed_texts(model, processor, TEXTS), embed_texts(from_base, processor, TEXTS))
    inputs = image_inputs(processor, pictures())
    assert torch.equal(generated(model, inputs), generated(from_base, inputs))
    # It can be saved again, whole.
    model.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    assert close(embed_images(again, processor, pictures()), images)


def test_an_lvlm_from_memory_is_saved_whole(trained, processor, tmp_path):
    saved(trained, processor, tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    for name, value in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    for name, value in dict(trained.named_buffers()).items():  # also those that no file holds
        assert torch.equal(dict(model.named_buffers())[name], value), name
    assert close(embed_images(model, processor, pictures()), embed_images(trained, processor, pictures()), 1e-6)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(model.trainable_parameters())


def test_embedder_and_pipelines_run_unchanged(base, from_base, tmp_path):
    processor = DiscriminativeLVLMProcessor.from_lvlm(base)
    folder = saved(from_base, processor, tmp_path)
    embedder = load_embedder(folder, batch_size=3)
    images = functional.normalize(embed_images(from_base, processor, pictures()))
    assert close(embedder.encode_images(pictures()), images)
    assert close(embedder.encode_texts(TEXTS), functional.normalize(embed_texts(from_base, processor, TEXTS)))
    assert embedder.logit_scale == pytest.approx(1 / 0.07)
    labels = ["cup", "girl", "dog"]
    ours = ZeroShotPipeline(folder)(pictures(), candidate_labels=labels)
    stock = pipeline("zero-shot-image-classification", model=str(folder))
    for image, expected in zip(pictures(), ours, strict=True):
        found = stock(image, candidate_labels=labels)
        assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
        assert [entry["score"] for entry in found] == pytest.approx([e["score"] for e in expected], abs=1e-5)


def _run(code, *arguments, cache):
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny LLaVA and adapters for it. Read it, never write into it."""
    place = tmp_path_factory.mktemp("checkpoint")
    save_tiny_lvlm(place / "base")
    model = moved(DiscriminativeLVLMModel.from_lvlm(place / "base", lora_rank=4), seed=3)
    saved(model, DiscriminativeLVLMProcessor.from_lvlm(place / "base"), place / "adapters")
    return place


LABELS = ["a cup", "a red star", "the dog left of a green ball"]


def test_adapters_in_a_new_process(checkpoint, tmp_path):
    """AutoModel, AutoProcessor and the stock pipeline, with nothing imported but vlcomp."""
    pictures()[2].save(tmp_path / "image.png")
    code = """
import json, sys, vlcomp
import torch
from transformers import AutoModel, AutoProcessor, pipeline
from transformers.utils.logging import disable_progress_bar
disable_progress_bar()
folder, picture, labels = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
classify = pipeline("zero-shot-image-classification", model=folder)
model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
with torch.no_grad():
    embeds = model.get_text_features(**processor(text=labels)).pooler_output
names = [type(part).__name__ for part in (model, processor, classify.model)]
print(json.dumps([names, embeds.tolist(), classify(picture, candidate_labels=labels)]))
"""
    done = _run(code, checkpoint / "adapters", tmp_path / "image.png", json.dumps(LABELS), cache=tmp_path)
    names, embeds, scores = json.loads(done.stdout.splitlines()[-1])
    assert names == ["DiscriminativeLVLMModel", "DiscriminativeLVLMProcessor", "DiscriminativeLVLMModel"]
    model = DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters")
    expected = embed_texts(model, AutoProcessor.from_pretrained(checkpoint / "adapters"), LABELS)
    assert close(torch.tensor(embeds), expected)
    ours = ZeroShotPipeline(checkpoint / "adapters")(tmp_path / "image.png", candidate_labels=LABELS)
    assert [entry["label"] for entry in scores] == [entry["label"] for entry in ours]
    assert [entry["score"] for entry in scores] == pytest.approx([entry["score"] for entry in ours], abs=1e-5)
    assert not done.stderr  # nothing to warn of


def test_remote_code_works_without_vlcomp(checkpoint, tmp_path, monkeypatch):
    for part, auto in (
        (DiscriminativeLVLMConfig, "AutoConfig"),
        (DiscriminativeLVLMModel, "AutoModel"),
        (DiscriminativeLVLMProcessor, "AutoProcessor"),
    ):
        monkeypatch.setattr(part, "_auto_class", None)
        part.register_for_auto_class(auto)
    folder = tmp_path / "remote"
    model = DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters")
    processor = DiscriminativeLVLMProcessor.from_lvlm(checkpoint / "base")
    saved(model, processor, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoModelForZeroShotImageClassification"] = config["auto_map"]["AutoModel"]
    (folder / "config.json").write_text(json.dumps(config))
    pictures()[2].save(tmp_path / "image.png")
    code = """
import json, sys
sys.modules["vlcomp"] = None  # `import vlcomp` raises ImportError from here on
import torch
from transformers import AutoModel, AutoProcessor, pipeline
folder, picture, labels = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    embeds = model.get_text_features(**processor(text=labels)).pooler_output
classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
print(json.dumps([type(model).__module__, type(processor).__name__, embeds.tolist(),
                  classify(picture, candidate_labels=labels)]))
"""
    done = _run(code, folder, tmp_path / "image.png", json.dumps(LABELS), cache=tmp_path / "modules")
    module, name, embeds, scores = json.loads(done.stdout.splitlines()[-1])
    assert module.startswith("transformers_modules.") and name == "DiscriminativeLVLMProcessor"
    assert close(torch.tensor(embeds), embed_texts(model, processor, LABELS))
    ours = ZeroShotPipeline(checkpoint / "adapters")(tmp_path / "image.png", candidate_labels=LABELS)
    assert [entry["label"] for entry in scores] == [entry["label"] for entry in ours]


# -- what is refused


def changed(folder, place, **values):
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    config.update(values)
    (place / "config.json").write_text(json.dumps(config))
    return place


def test_a_missing_base_is_named_and_can_be_given(checkpoint, tmp_path):
    folder = changed(checkpoint / "adapters", tmp_path / "moved", base_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"base model of '.*moved' is missing: '.*gone'.*base='<folder or rep"):
        DiscriminativeLVLMModel.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="base model of"):
        load_embedder(folder)
    expected = DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters")
    for base in (checkpoint / "base", tiny_llava()):
        model = DiscriminativeLVLMModel.from_pretrained(folder, base=base)
        for name, value in expected.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("difference", ["weights", "one layer", "family"])
def test_another_base_is_refused(checkpoint, difference):
    if difference == "weights":
        base = tiny_llava(seed=1)
    elif difference == "one layer":
        base = tiny_llava()
        base.model.language_model.layers[1].mlp.down_proj.weight.data *= 1.01
    else:
        base = tiny_lvlm("qwen2_vl")
    with pytest.raises(ValueError, match="is not the base model that '.*adapters' was trained on: its"):
        DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters", base=base)
    if difference != "family":
        DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters", base=base, check_base=False)


def test_the_base_in_another_precision_is_the_base(checkpoint):
    model = DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters", dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16 and model.soft_prompts.image.dtype == torch.float32
    with pytest.raises(ValueError, match="is not the base model"):
        DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters", base=tiny_llava(seed=1).bfloat16())


def test_what_is_trained_stays_in_float32_in_a_whole_checkpoint(base, tmp_path):
    model = DiscriminativeLVLMModel.from_lvlm(str(base), lora_rank=4, dtype=torch.bfloat16)
    with torch.no_grad():
        for value in model.trainable_parameters().values():
            value += 0.123456789
    model.merge_and_save(tmp_path / "merged")
    merged = DiscriminativeLVLMModel.from_pretrained(tmp_path / "merged")
    assert merged.dtype == torch.bfloat16
    for name, value in merged.trainable_parameters().items():
        assert value.dtype == torch.float32 and torch.equal(value, model.trainable_parameters()[name]), name

    made = DiscriminativeLVLMModel.from_lvlm(
        tiny_llava().bfloat16(), processor=tiny_lvlm_processor("llava"), lora_rank=4
    )
    made.save_pretrained(tmp_path / "whole")
    whole = DiscriminativeLVLMModel.from_pretrained(tmp_path / "whole")
    assert whole.dtype == torch.bfloat16 and any("lora_A" in name for name in whole.trainable_parameters())
    for name, value in whole.trainable_parameters().items():
        assert value.dtype == torch.float32 and torch.equal(value, made.trainable_parameters()[name]), name


def test_similarities_are_computed_in_float32(base):
    processor = DiscriminativeLVLMProcessor.from_lvlm(base)
    model = DiscriminativeLVLMModel.from_lvlm(str(base), dtype=torch.bfloat16)
    texts = sorted(set(tiny_captions(100)))
    with torch.inference_mode():
        output = model(**processor(images=pictures()[:2], text=texts, padding=True))
    assert output.logits_per_image.dtype == output.image_embeds.dtype == torch.float32
    assert close(output.text_embeds.norm(dim=-1), torch.ones(len(texts)), 1e-6)
    # In bfloat16 there are 256 values between 8 and 16, so that texts would tie.
    assert len(output.logits_per_image[0].unique()) > 0.95 * len(texts)


def test_the_device_is_that_of_the_token_embeddings(base, kind):
    config = DiscriminativeLVLMModel.from_lvlm(str(base)).config
    model = DiscriminativeLVLMModel(config, tiny_lvlm(kind).to("meta"))
    assert model.device == model.logit_scale.device == torch.device("meta")


def test_prompts_of_another_length_are_refused(checkpoint, tmp_path):
    reading = json.loads((checkpoint / "adapters/config.json").read_text())["image_reading"]
    length = len(reading["prompt"])
    folder = changed(
        checkpoint / "adapters", tmp_path / "short", image_reading={**reading, "prompt": reading["prompt"][:-2]}
    )
    with pytest.raises(ValueError, match=f"soft prompt of {length} tokens for each image.*has {length - 2};"):
        DiscriminativeLVLMModel.from_pretrained(folder)
    with pytest.raises(ValueError, match="image_prompt: fixed in a checkpoint"):
        DiscriminativeLVLMModel.from_pretrained(checkpoint / "adapters", image_prompt="What is it?")


def test_adapters_that_lack_something_are_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint / "adapters", tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    lost = next(name for name in weights if "lora_B" in name)
    save_file({k: v for k, v in weights.items() if k != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"lacks {lost};"):
        DiscriminativeLVLMModel.from_pretrained(folder)
    save_file({**weights, "more": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="has more, for which the model has no place"):
        DiscriminativeLVLMModel.from_pretrained(folder)
    save_file({**weights, lost: weights[lost][:, :2].clone()}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lora_rank is another"):
        DiscriminativeLVLMModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no model.safetensors"):
        DiscriminativeLVLMModel.from_pretrained(folder)


def test_other_models_are_refused(checkpoint, clip_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="type 'clip', not an image-text-to-text model"):
        DiscriminativeLVLMModel.from_lvlm(clip_checkpoint)
    with pytest.raises(ValueError, match="discriminative LVLM already: load it with from_pretrained"):
        DiscriminativeLVLMModel.from_lvlm(checkpoint / "adapters")
    with pytest.raises(ValueError, match="holds a model of type 'llava'.*from_lvlm"):
        DiscriminativeLVLMModel.from_pretrained(checkpoint / "base")
    with pytest.raises(ValueError, match="'.*nothing' cannot be loaded as an LVLM: there is no such folder"):
        DiscriminativeLVLMModel.from_lvlm(tmp_path / "nothing")
    with pytest.raises(ValueError, match="CLIPModel has no model.language_model"):
        DiscriminativeLVLMModel.from_lvlm(tiny_clip(), processor=tiny_lvlm_processor())
    with pytest.raises(ValueError, match="processor is None"):
        DiscriminativeLVLMModel.from_lvlm(tiny_llava())
    tokenizer = tiny_lvlm_processor().tokenizer
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template; pass chat_template"):
        DiscriminativeLVLMModel.from_lvlm(tiny_llava(), processor=tokenizer)
    with pytest.raises(ValueError, match="does not place '<image>' once"):
        DiscriminativeLVLMModel.from_lvlm(tiny_llava(), processor=tokenizer, chat_template="{{ messages }}")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"summary_token": "first"}, "summary_token='first' is not one of 'last', 'prompt'"),
        ({"lora_rank": -1}, "lora_rank=-1 must not be negative"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0 must be"),
        ({"lora_alpha": 0}, "lora_alpha=0 must be"),
        ({"lora_target_modules": []}, "lora_target_modules is empty"),
        ({"image_prompt": " "}, "image_prompt=' ' is empty"),
        ({"image_reading": {"prompt": [1]}}, "image_reading must have the parts before, between, prompt, after"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(Exception, match=message):  # transformers raises an error class of huggingface_hub
        DiscriminativeLVLMConfig(**settings)


def test_inputs_that_do_not_fit_are_refused(trained, processor):
    images, texts = image_inputs(processor, pictures()), text_inputs(processor, TEXTS)
    with pytest.raises(ValueError, match="pixel_values is None"):
        trained(**texts)
    with pytest.raises(ValueError, match="input_ids is None"):
        trained(**images)
    with pytest.raises(ValueError, match="as many images as texts, got 4 and 3"):
        trained(**images, **text_inputs(processor, TEXTS[:3]), return_loss=True)
    with pytest.raises(ValueError, match="has 3 captions for 4 images"):
        trained.forward_with_caption(**images, **caption_inputs(processor, LONG[:3]))
    with pytest.raises(ValueError, match=r"input_ids\[1\] has the token of an image"):
        ids = texts["input_ids"].clone()
        ids[1, :] = trained.config.image_token_id
        trained.get_text_features(ids)
    with pytest.raises(ValueError, match=r"input_ids\[0\] has the token 5000, but the model has only"):
        trained.get_text_features(torch.tensor([[5000]]))
    with pytest.raises(ValueError, match="attention mask must have the shape of input_ids"):
        trained.get_text_features(texts["input_ids"], texts["attention_mask"][:, 1:])
    with pytest.raises(ValueError, match="image_size: .* takes no such argument"):
        trained.get_image_features(images["pixel_values"], image_size=1)
    described = [name for name in ("image_grid_thw", "image_sizes") if name in images]
    assert bool(described) == (trained.config.base_config.model_type != "llava")
    for name in described:
        without = {k: v for k, v in images.items() if k != name}
        chat = torch.tensor([[trained.config.image_token_id]])
        for call in (trained.get_image_features, trained.generate, partial(trained.generate, input_ids=chat)):
            with pytest.raises(ValueError, match=f"{name} is missing; pass all that the processor gives"):
                call(**without)
    with pytest.raises(ValueError, match="images and text are None"):
        processor()
    with pytest.raises(ValueError, match="input_ids and pixel_values are None"):
        trained.generate()
