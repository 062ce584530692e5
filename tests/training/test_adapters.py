"""LoRA runs: what trains, what is saved, and that everything saved loads."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModel, pipeline

from vlcomp import Embedder
from vlcomp.errors import ArgumentError
from vlcomp.testing import tiny_captions, tiny_images, tiny_model, tiny_processor

from .common import rows, trainer, weights


def _lora(folder, kind="clip", model=None, evaluators=None, **changes):
    return trainer(
        folder,
        model=model or tiny_model(kind),
        processor=tiny_processor(kind),
        data=rows(16),
        options={"peft_config": LoraConfig(r=4, lora_dropout=0.1), "evaluators": evaluators},
        **{"learning_rate": 0.5, "save_strategy": "steps", "save_steps": 1, "max_steps": 3, **changes},
    )


def _embeds(model, kind="clip"):
    embedder = Embedder(model, tiny_processor(kind))
    return torch.cat([embedder.encode_images(tiny_images(3)), embedder.encode_texts(tiny_captions(3))])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_only_the_adapter_moves_and_the_merged_checkpoint_loads(tmp_path, kind):
    run = _lora(tmp_path, kind)
    before, start = weights(run.model), _embeds(run._base_model, kind)
    run.train()
    run.save_model()
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert any("vision_model" in name for name in moved)
    assert any("text_model" in name for name in moved)
    trained = _embeds(run._base_model, kind)
    assert not torch.allclose(trained, start, atol=1e-3)
    for folder in (tmp_path, tmp_path / "checkpoint-3"):
        assert not (folder / "adapter_config.json").exists()
        assert torch.allclose(_embeds(AutoModel.from_pretrained(folder), kind), trained, atol=1e-5)
        adapted = PeftModel.from_pretrained(tiny_model(kind), folder / "adapter")
        assert torch.allclose(_embeds(adapted.get_base_model(), kind), trained, atol=1e-5)
    scores = pipeline("zero-shot-image-classification", model=str(tmp_path))(
        tiny_images(1)[0], candidate_labels=["a cup", "a star"]
    )
    assert len(scores) == 2


@pytest.mark.parametrize("merge", [True, False])
def test_resumed_equals_straight(tmp_path, merge):
    straight = _lora(tmp_path / "straight", merge_adapter=merge)
    straight.train()
    resumed = _lora(tmp_path / "resumed", merge_adapter=merge)
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-2"))
    for name, value in weights(straight.model).items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_folder_of_the_adapter_alone(tmp_path, clip_checkpoint):
    run = _lora(tmp_path, model=AutoModel.from_pretrained(clip_checkpoint), merge_adapter=False)
    run.train()
    run.save_model()
    assert not (tmp_path / "model.safetensors").exists()
    expected = _embeds(run._base_model)
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(clip_checkpoint), tmp_path)
    assert torch.allclose(_embeds(adapted.get_base_model()), expected, atol=1e-6)
    # The base is on disk, so AutoModel and the pipeline find it through adapter_config.json.
    assert torch.allclose(_embeds(AutoModel.from_pretrained(tmp_path)), expected, atol=1e-6)


def test_the_best_adapter_is_loaded_at_the_end(tmp_path):
    scores = iter([0.9, 0.1, 0.2])
    run = _lora(
        tmp_path,
        evaluators=[lambda embedder: {"m": next(scores)}],
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="m",
    )
    run.train()
    best = AutoModel.from_pretrained(tmp_path / "checkpoint-1")
    assert torch.allclose(_embeds(run._base_model), _embeds(best), atol=1e-5)


def test_a_frozen_tower_has_no_trained_adapter(tmp_path):
    run = _lora(tmp_path, freeze="vision", save_strategy="no", mini_batch_size=4)
    before = weights(run.model)
    run.train()
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("text_model" in name for name in moved)


def test_a_configuration_that_does_not_fit(tmp_path):
    with pytest.raises(ArgumentError, match="peft_config does not fit CLIPModel"):
        trainer(tmp_path, options={"peft_config": LoraConfig(target_modules=["no_such_layer"])})
    with pytest.raises(ArgumentError, match="holds no adapter"):
        run = _lora(tmp_path)
        run.train(resume_from_checkpoint=str(_plain_checkpoint(tmp_path / "plain")))


def _plain_checkpoint(folder):
    trainer(folder, max_steps=1, save_strategy="steps", save_steps=1).train()
    return folder / "checkpoint-1"
