"""WiSE-FT: mixtures of starting and trained weights."""

import pytest
import torch
from peft import LoraConfig

from vlcomp.errors import ArgumentError
from vlcomp.testing import tiny_clip
from vlcomp.training.adapters import add_adapter
from vlcomp.training.interpolation import StartingWeights

from .common import trainer, weights


def test_only_trained_weights_are_mixed():
    model = tiny_clip()
    model.vision_model.requires_grad_(False)
    start = StartingWeights(model, 0.5)
    before = weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    start.mix_into(model)
    for name, parameter in model.named_parameters():
        moved = 0.5 if parameter.requires_grad else 1.0
        assert torch.allclose(parameter, before[name] + moved, atol=1e-6), name


def test_the_copy_does_not_follow_the_model():
    layer = torch.nn.Linear(2, 2)
    start, first = StartingWeights(layer, 0.0), layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(7.0)
    start.mix_into(layer)
    assert torch.equal(layer.weight, first)


def test_layers_that_an_adapter_trains_whole():
    model = add_adapter(tiny_clip(), LoraConfig(r=2, modules_to_save=["visual_projection"]))
    start = StartingWeights(model, 0.25)
    before = weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    start.mix_into(model)
    kinds = set()
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name and parameter.requires_grad:
            kinds.add("whole")
            assert torch.allclose(parameter, before[name] + 0.25, atol=1e-6), name
        elif ".lora_B." in name:
            kinds.add("B")
            assert torch.allclose(parameter, 0.25 * (before[name] + 1.0), atol=1e-6), name
        elif ".lora_A." in name:
            kinds.add("A")
            assert torch.allclose(parameter, before[name] + 1.0, atol=1e-6), name
    assert kinds == {"whole", "A", "B"}


def test_an_adapter_whose_effect_is_not_linear_is_refused():
    model = add_adapter(tiny_clip(), LoraConfig(r=2, use_dora=True))
    with pytest.raises(ArgumentError, match="plain LoRA"):
        StartingWeights(model, 0.5)
    with pytest.raises(ArgumentError, match="interpolate=2 must lie between"):
        StartingWeights(tiny_clip(), 2)


def test_the_contrastive_trainer_interpolates_at_the_end(tmp_path):
    def run(name, **changes):
        done = trainer(tmp_path / name, **changes)
        start = weights(done.model)
        done.train()
        return start, weights(done.model), done

    start, trained, _ = run("whole")
    _, mixed, done = run("mixed", interpolate=0.5, save_strategy="steps", save_steps=2)
    for name in start:
        assert torch.allclose(mixed[name], (start[name] + trained[name]) / 2, atol=1e-6), name
    # Checkpoints hold what was trained, so that a resumed run goes on from there.
    again = trainer(tmp_path / "again", interpolate=0.5, max_steps=2)
    again.train(resume_from_checkpoint=str(tmp_path / "mixed" / "checkpoint-2"))
    for name, value in weights(again.model).items():
        assert torch.allclose(value, mixed[name], atol=1e-6), name
