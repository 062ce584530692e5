"""The trainer of the discriminative LVLM, against the definition of its loss with a pass for each part."""

import os
import socket

import datasets
import pytest
import torch
import torch.multiprocessing
from peft import LoraConfig
from torch.nn import functional
from transformers import AutoProcessor

from vlcomp import DiscriminativeLVLMTrainer, DiscriminativeLVLMTrainingArguments
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel, DiscriminativeLVLMProcessor
from vlcomp.studies.scenes_lvlm import new_llava, train_lvlm_tokenizer
from vlcomp.testing import save_tiny_lvlm, tiny_captions, tiny_clip, tiny_images, tiny_processor
from vlcomp.training.discriminative_lvlm import MODEL_SETTINGS

SETTINGS = {
    "per_device_train_batch_size": 6,
    "max_steps": 2,
    "learning_rate": 0.05,
    "optim": "sgd",
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "short_below": 20,
    "long_from": 20,
}


def tiny_lvlm():
    texts = tiny_captions(200)
    return new_llava(
        tiny_clip(), train_lvlm_tokenizer(texts), tiny_processor().image_processor, width=32, layers=2, heads=4
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llava") / "checkpoint"
    model, processor = tiny_lvlm()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def rows(count=12):
    """Rows of each kind: with both captions, with a short one, with a long one."""
    captions = tiny_captions(count)
    long = [
        f"{text} and {other}, {third}"
        for text, other, third in zip(captions, captions[1:] + captions[:1], captions[2:] + captions[:2], strict=True)
    ]
    return datasets.Dataset.from_dict(
        {
            "image": tiny_images(count, (32, 32)),
            "caption": [text if i % 3 < 2 else None for i, text in enumerate(captions)],
            "long_caption": [text if i % 3 != 1 else None for i, text in enumerate(long)],
            "image_id": list(range(100, 100 + count)),
        }
    )


def lvlm_trainer(folder, model, *, data=None, options=None, **changes):
    """A trainer whose adapters do something already."""
    if isinstance(model, os.PathLike):
        torch.manual_seed(0)  # a LoRA starts at random
        model = DiscriminativeLVLMModel.from_lvlm(str(model), lora_rank=2)
    if isinstance(model, DiscriminativeLVLMModel):
        stirred(model)
    args = DiscriminativeLVLMTrainingArguments(str(folder), **{**SETTINGS, **changes})
    return DiscriminativeLVLMTrainer(model, args, rows() if data is None else data, **(options or {}))


def stirred(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.trainable_parameters().items():
            if name != "logit_scale":
                value += 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return model


def gradients(run, batch, **changes):
    for name, value in changes.items():
        setattr(run.args, name, value)
    run.model.zero_grad()
    run.create_optimizer()
    run.current_gradient_accumulation_steps = 1  # as train() sets it
    loss = run.training_step(run.model, batch)
    return loss, {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}


def by_definition(model, batch, contrastive_weight=2.0, next_token_weight=1.0):
    """Both losses, each image and text by itself, the next-token loss in a pass of its own."""
    config, lvlm = model.config, model.lvlm
    images, texts, losses = [], [], []
    for i in range(len(batch["image_ids"])):
        pixels = batch["pixel_values"][i : i + 1]
        if batch["short_mask"][i]:
            images.append(model.get_image_features(pixels).pooler_output)
            ids = batch["input_ids"][i : i + 1][:, batch["attention_mask"][i].bool()]
            texts.append(model.get_text_features(ids).pooler_output)
        caption = batch["caption_input_ids"][i][batch["caption_attention_mask"][i].bool()].tolist()
        if not caption:
            continue
        reading = config.reading("image")
        features = lvlm.model.get_image_features(pixels, return_dict=True).pooler_output[0]
        table = lvlm.get_input_embeddings()
        target = [*caption, *config.caption_end_ids]
        parts = [table(torch.tensor(reading["before"])), features, table(torch.tensor(reading["between"]))]
        parts += [model.soft_prompts.image, table(torch.tensor([*reading["after"], *target]))]
        embeds = torch.cat([part.reshape(-1, 32) for part in parts])[None]
        logits = lvlm(inputs_embeds=embeds).logits[0, -len(target) - 1 : -1]
        losses += functional.cross_entropy(logits, torch.tensor(target), reduction="none")
    images, texts = (functional.normalize(torch.cat(found), dim=-1) for found in (images, texts))
    logits = model.logit_scale.exp() * images @ texts.T
    own = torch.arange(len(logits))
    itc = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    continued = torch.stack(losses).mean()
    return contrastive_weight * itc + next_token_weight * continued, itc, continued


# -- the loss


@pytest.mark.parametrize("weights", [(2.0, 1.0), (0.5, 3.0)])
def test_the_loss_is_its_definition_and_the_gradient_cache_changes_nothing(tmp_path, checkpoint, weights):
    named = dict(zip(("contrastive_weight", "next_token_weight"), weights, strict=True))
    run = lvlm_trainer(tmp_path, checkpoint, **named)
    batch = next(iter(run.get_train_dataloader()))
    assert 0 < batch["short_mask"].sum() < 6 and 0 < batch["caption_attention_mask"].any(dim=1).sum() < 6
    run.model.double()
    expected, itc, continued = by_definition(run.model, batch, **named)
    run.model.zero_grad()
    expected.backward()
    wanted = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}
    plain, found = gradients(run, batch)
    assert plain.item() == pytest.approx(expected.item(), abs=1e-5)
    assert run._parts["itc_loss"].item() == pytest.approx(itc.item(), abs=1e-5)
    assert run._parts["next_token_loss"].item() == pytest.approx(continued.item(), abs=1e-5)
    assert set(found) == set(run.model.trainable_parameters())
    for name, gradient in wanted.items():
        assert torch.allclose(found[name], gradient, atol=1e-5, rtol=1e-5), name
    for size in (1, 2, 4):
        loss, cached = gradients(run, batch, mini_batch_size=size)
        assert loss.item() == pytest.approx(plain.item(), abs=1e-6)
        assert set(cached) == set(found)
        for name, gradient in cached.items():
            assert torch.allclose(gradient, found[name], atol=1e-6, rtol=1e-6), (size, name)


def test_images_of_any_number_of_patches_are_cut_into_mini_batches(tmp_path):
    data = rows(6)
    sizes = [(56, 56), (112, 56), (56, 84), (84, 84), (56, 56), (112, 112)]
    pictures = [tiny_images(1, size, seed)[0] for seed, size in enumerate(sizes)]
    data = (
        data.remove_columns("image")
        .add_column("image", [None] * 6)
        .map(lambda row, i: {"image": pictures[i]}, with_indices=True, features=data.features)
    )
    run = lvlm_trainer(tmp_path, save_tiny_lvlm(tmp_path / "base", "qwen2_vl"), data=data)
    batch = next(iter(run.get_train_dataloader()))
    assert len(batch["pixel_values"]) == 6 and len(set(batch["image_grid_thw"].prod(dim=1).tolist())) > 2
    run.model.double()
    expected, itc, continued = gradients(run, batch)[0], run._parts["itc_loss"], run._parts["next_token_loss"]
    assert expected.item() == pytest.approx(2 * itc.item() + continued.item())
    _, found = gradients(run, batch)
    loss, cached = gradients(run, batch, mini_batch_size=2)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, gradient in cached.items():
        assert torch.allclose(gradient, found[name], atol=1e-6, rtol=1e-6), name


def test_an_image_is_read_once(tmp_path, checkpoint):
    run = lvlm_trainer(tmp_path, checkpoint)
    batch = next(iter(run.get_train_dataloader()))
    seen = {"vision": [], "language": []}
    inner = run.model.lvlm.model
    inner.vision_tower.register_forward_pre_hook(lambda module, args: seen["vision"].append(len(args[0])))
    inner.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen["language"].append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    run.compute_loss(run.model, batch)
    assert seen == {"vision": [6], "language": [6, int(batch["short_mask"].sum())]}


def test_batches_of_one_kind(tmp_path, checkpoint):
    run = lvlm_trainer(tmp_path, checkpoint)
    data = rows()
    both = run.data_collator([data[0], data[3], data[6]])
    only_short = run.data_collator([data[1], data[4], data[7]])
    only_long = run.data_collator([data[2], data[5], data[8]])
    for batch, short, long in ((both, 3, 3), (only_short, 3, 0), (only_long, 0, 3)):
        for size in (None, 2):
            run._parts, run._parts_count = {}, 0
            loss, found = gradients(run, batch, mini_batch_size=size)
            assert torch.isfinite(loss)
            assert (run._parts["captions/short"].item(), run._parts["captions/long"].item()) == (short, long)
            assert (run._parts["itc_loss"].item() == 0) == (short == 0)
            assert (run._parts["next_token_loss"].item() == 0) == (long == 0)
            # Other processes wait for the gradient of every parameter.
            assert set(found) == set(run.model.trainable_parameters())
            assert (found["soft_prompts.text"].abs().max() > 0) == (short > 0)
            assert found["soft_prompts.image"].abs().max() > 0


def test_without_next_token_loss_long_captions_are_not_read(tmp_path, checkpoint):
    run = lvlm_trainer(tmp_path, checkpoint, next_token_weight=0)
    batch = next(iter(run.get_train_dataloader()))
    lengths = []
    run.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    loss = run.compute_loss(run.model.train(), batch)
    reading = run.model.config.reading("image")
    assert lengths[0] == 16 + sum(map(len, reading.values()))
    assert loss.item() == pytest.approx(2 * run._parts["itc_loss"].item())
    assert "next_token_loss" not in run._parts


# -- runs


def test_only_adapters_and_temperature_train(tmp_path, checkpoint):
    run = lvlm_trainer(tmp_path, checkpoint, lr_scheduler_type="constant")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.train()
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(run.model.trainable_parameters())
    kinds = {"soft_prompts.image", "soft_prompts.text", "logit_scale"}
    assert kinds < moved and all("lora" in name for name in moved - kinds)
    entry = run.state.log_history[0]
    for name in ("itc_loss", "next_token_loss", "logit_scale", "captions/short", "captions/long", "captions/left_out"):
        assert name in entry, name
    assert entry["loss"] == pytest.approx(2 * entry["itc_loss"] + entry["next_token_loss"], abs=1e-3)


@pytest.mark.parametrize("whole", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, checkpoint, whole):
    def run(name):
        torch.manual_seed(0)
        options = None
        model = DiscriminativeLVLMModel.from_lvlm(str(checkpoint), lora_rank=2, lora_dropout=0.2)
        if whole:  # an LVLM that is in no place of its own
            lvlm, processor = tiny_lvlm()
            model = DiscriminativeLVLMModel.from_lvlm(lvlm, processor=processor, lora_rank=2, lora_dropout=0.2)
            options = {"processing_class": processor}
        return lvlm_trainer(
            tmp_path / name,
            model,
            options=options,
            max_steps=4,
            save_strategy="steps",
            save_steps=2,
            optim="adamw_torch",
            mini_batch_size=4,
            per_device_train_batch_size=4,
        )

    straight = run("straight")
    straight.train()
    resumed = run("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, straight.model.state_dict()[name]), name
    folder = tmp_path / "straight" / "checkpoint-4"
    loaded = DiscriminativeLVLMModel.from_pretrained(folder)
    assert all(torch.equal(v, straight.model.state_dict()[n]) for n, v in loaded.state_dict().items())
    assert isinstance(AutoProcessor.from_pretrained(folder), DiscriminativeLVLMProcessor)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert (size > 4 * sum(p.numel() for p in loaded.parameters())) == whole
    if not whole:
        other = DiscriminativeLVLMModel.from_lvlm(str(checkpoint), lora_rank=4)
        with pytest.raises(CheckpointError, match="lora_rank is another than in training"):
            lvlm_trainer(tmp_path / "other", other, max_steps=4).train(resume_from_checkpoint=str(folder))


@pytest.mark.parametrize("soft_prompts", [True, False])
@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(tmp_path, checkpoint, reentrant, soft_prompts):
    model = stirred(DiscriminativeLVLMModel.from_lvlm(str(checkpoint), lora_rank=2, soft_prompts=soft_prompts))
    run = lvlm_trainer(tmp_path, model)
    batch = next(iter(run.get_train_dataloader()))
    _, plain = gradients(run, batch)
    assert any("lora_B" in name for name in plain)
    run.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    calls = []
    run.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda module, args: calls.append(1))
    _, found = gradients(run, batch)
    assert len(calls) == 4  # images and texts, each again in the backward pass
    assert found.keys() == plain.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, plain[name], atol=1e-6), name


def test_half_precision_leaves_adapters_in_full(tmp_path, checkpoint):
    run = lvlm_trainer(tmp_path, str(checkpoint), bf16=True, lora_rank=2, max_steps=1)
    assert run.model.dtype == torch.bfloat16
    assert {value.dtype for value in run.model.trainable_parameters().values()} == {torch.float32}
    run.train()
    assert 0 < run.state.log_history[0]["next_token_loss"] < 20


def test_the_seed_is_that_of_the_lora_too(tmp_path, checkpoint):
    def started(seed):
        run = lvlm_trainer(tmp_path, str(checkpoint), lora_rank=2, seed=seed)
        return {name: value.detach().clone() for name, value in run.model.trainable_parameters().items()}

    first, again, other = started(3), started(3), started(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_settings_are_written_as_they_are(tmp_path):
    # transformers replaces the values of what ends in "_token", as it were a secret.
    args = DiscriminativeLVLMTrainingArguments(str(tmp_path), summary_token="prompt")
    assert args.to_dict()["summary_token"] == "prompt"


def test_lengths_that_leave_a_loss_without_captions_are_said(tmp_path, checkpoint, caplog):
    lvlm_trainer(tmp_path, checkpoint)
    assert not caplog.records
    lvlm_trainer(tmp_path, checkpoint, short_below=2)
    assert "no caption has fewer than short_below=2 tokens (" in caplog.text and "raise short_below" in caplog.text
    caplog.clear()
    lvlm_trainer(tmp_path, checkpoint, long_from=400)
    assert "no caption has 400 to 500 tokens (" in caplog.text
    caplog.clear()
    lvlm_trainer(tmp_path, checkpoint, long_from=400, next_token_weight=0)
    assert not caplog.records


def test_a_caption_with_the_token_of_an_image_is_named(tmp_path, checkpoint):
    for column in ("caption", "long_caption"):
        data = rows().to_list()
        data[0][column] = "a cup <image> and a star"
        with pytest.raises(DataError, match=f"the {column} 'a cup <image> and a star' holds the token of an image"):
            lvlm_trainer(tmp_path, checkpoint, data=datasets.Dataset.from_list(data)).train()


def test_an_lvlm_by_name_becomes_what_the_settings_say(tmp_path, checkpoint):
    settings = {"soft_prompts": False, "lora_rank": 3, "lora_alpha": 6.0, "lora_dropout": 0.1}
    settings |= {"lora_target_modules": ["q_proj"], "image_prompt": "In one word:", "text_prompt": "One word:"}
    settings["summary_token"] = "prompt"
    assert set(settings) == set(MODEL_SETTINGS)
    run = lvlm_trainer(tmp_path, str(checkpoint), **settings)
    assert {name: getattr(run.model.config, name) for name in settings} == settings
    assert run.model.soft_prompts is None
    run.save_model(tmp_path / "saved")
    again = lvlm_trainer(tmp_path, str(tmp_path / "saved"), lora_rank=3)
    assert again.model.config.image_prompt == "In one word:"
    with pytest.raises(ArgumentError, match="lora_rank=4, but .* has 3, which its weights belong to"):
        lvlm_trainer(tmp_path, str(tmp_path / "saved"), lora_rank=4)


# -- several processes


def _two(rank, port, folder, checkpoint, results):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    found = {}
    for size in (None, 2):
        run = lvlm_trainer(f"{folder}/{size}", checkpoint, per_device_train_batch_size=3, mini_batch_size=size)
        run.train()
        found[size] = run.model.state_dict(), run.state.log_history[0]
    if rank == 0:
        torch.save(found, results)
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path, checkpoint):
    alone = lvlm_trainer(tmp_path / "alone", checkpoint)
    alone.train()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    results = tmp_path / "results.pt"
    torch.multiprocessing.spawn(_two, (port, str(tmp_path), checkpoint, results), nprocs=2)
    for size, (state, entry) in torch.load(results, weights_only=False).items():
        for name, value in alone.model.state_dict().items():
            assert torch.allclose(state[name], value, atol=1e-5), (size, name)
        for name in ("itc_loss", "next_token_loss", "captions/short", "captions/long"):
            assert entry[name] == pytest.approx(alone.state.log_history[0][name], abs=1e-4), (size, name)


# -- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"contrastive_weight": -1}, "contrastive_weight=-1 must be 0 or more"),
        ({"next_token_weight": float("nan")}, "next_token_weight=nan must be 0 or more"),
        ({"contrastive_weight": 0, "next_token_weight": 0}, "train nothing"),
        ({"short_below": 0}, "short_below=0 must be at least 1"),
        ({"long_to": 10}, "long_to=10 is below long_from=20"),
        ({"vocabulary_chunk": 0}, "vocabulary_chunk=0"),
        ({"lora_rank": -1}, "lora_rank=-1 must be at least 0"),
        ({"lora_rank": 0, "soft_prompts": False}, "leave nothing to train"),
        ({"freeze": "vision"}, "freeze='vision' is no setting of this method: the LVLM is frozen"),
        ({"layer_decay": 0.8}, "layer_decay=0.8 is no setting"),
        ({"interpolate": 0.5}, "interpolate=0.5 is no setting"),
        ({"max_negatives": 2}, "max_negatives=2 is no setting of this method: its contrastive loss has no hard"),
        ({"merge_adapter": False}, "merge_adapter=False is no setting of this method, whose checkpoint"),
        ({"max_text_length": 20}, "max_text_length=20 is no setting of this method: short_below"),
        ({"use_hard_negatives": True}, "use_hard_negatives=True is no setting"),
        ({"loss": "sigmoid"}, "loss='sigmoid'"),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(ArgumentError, match=message):
        DiscriminativeLVLMTrainingArguments(str(tmp_path), **{**SETTINGS, **changes})


def test_the_defaults_are_the_paper_s(tmp_path):
    args = DiscriminativeLVLMTrainingArguments(str(tmp_path))
    assert (args.learning_rate, args.lr_scheduler_type) == (1e-4, "cosine")
    assert (args.short_below, args.long_from, args.long_to) == (30, 30, 500)
    assert (args.contrastive_weight, args.next_token_weight) == (2.0, 1.0)
    assert all(getattr(args, name) is None for name in MODEL_SETTINGS)


def test_models_and_data_that_do_not_fit(tmp_path, checkpoint, clip_checkpoint):
    with pytest.raises(CheckpointError, match="not an image-text-to-text model"):
        lvlm_trainer(tmp_path, str(clip_checkpoint))
    with pytest.raises(CheckpointError, match="nothing-there: there is no such folder"):
        lvlm_trainer(tmp_path, str(tmp_path / "nothing-there"))
    with pytest.raises(CheckpointError, match="lora_target_modules has 'query'"):
        lvlm_trainer(tmp_path, str(checkpoint), lora_target_modules=["query"])
    with pytest.raises(ArgumentError, match="summary_token='first'"):
        lvlm_trainer(tmp_path, str(checkpoint), summary_token="first")
    with pytest.raises(CheckpointError, match="processor is None"):
        lvlm_trainer(tmp_path, tiny_lvlm()[0])
    with pytest.raises(ArgumentError, match="model is a int"):
        lvlm_trainer(tmp_path, 3)
    with pytest.raises(ArgumentError, match="peft_config: the LoRA is part of the model"):
        lvlm_trainer(tmp_path, checkpoint, options={"peft_config": LoraConfig(r=2)})
    with pytest.raises(DataError, match="no column 'caption' and no column 'long_caption', only image, text"):
        lvlm_trainer(
            tmp_path, checkpoint, data=datasets.Dataset.from_dict({"image": tiny_images(2), "text": ["a"] * 2})
        )
    with pytest.raises(DataError, match="no caption of a batch of 6 rows has fewer than short_below=2 tokens"):
        lvlm_trainer(tmp_path, checkpoint, short_below=2, long_from=200).train()
