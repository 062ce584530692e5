"""Ease of learning: only the language agent learns, from the same start, against what the vision agent says."""

import numpy as np
import pytest
import torch

from vlcomp.analysis import ease_of_learning
from vlcomp.analysis.ease import _batches, _matched, with_new_language_agent
from vlcomp.errors import ArgumentError, DataError
from vlcomp.models.comma import CommaModel
from vlcomp.models.from_scratch import new_iterated_clip
from vlcomp.testing import (
    tiny_captions,
    tiny_clip,
    tiny_images,
    tiny_iterated_clip,
    tiny_processor,
    tiny_siglip,
)

LANGUAGE = ("text_model", "text_projection")


def everything(model):
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.parametrize("make", [tiny_clip, tiny_iterated_clip, tiny_siglip])
def test_the_language_agent_is_new_and_alone_trainable(make):
    model = make()
    with torch.no_grad():
        for value in model.parameters():
            value += 0.25
    before = {name: value.clone() for name, value in everything(model).items()}
    state = torch.get_rng_state()
    learner = with_new_language_agent(model, 3)
    again, other = everything(with_new_language_agent(model, 3)), everything(with_new_language_agent(model, 4))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in everything(learner).items():
        mine = name.split(".")[0] in LANGUAGE
        assert torch.equal(value, again[name]), name
        if not mine:
            assert torch.equal(value, before[name]), name
        if isinstance(value, torch.nn.Parameter):
            assert value.requires_grad == mine, name
            if mine:
                assert not torch.equal(value, before[name]), name
                constant = name.endswith("bias") or "norm" in name
                assert constant or not torch.equal(value, other[name]), name
    assert all(torch.equal(value, before[name]) for name, value in everything(model).items())


def rows(n=24):
    return tiny_images(n), tiny_captions(n)


@pytest.mark.parametrize("make", [tiny_clip, lambda: tiny_iterated_clip(temperature=20.0)])
def test_a_new_agent_learns_and_the_model_stays(make):
    model, processor = make(), tiny_processor()
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, captions = rows()
    options = {"steps": 60, "batch_size": 12, "learning_rate": 3e-3}
    found = ease_of_learning(model, processor, images, captions, **options)
    assert len(found.accuracy) == 60 and found.batch_size == 12
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.requires_grad for value in model.parameters())
    # It learns: rows come back, and by then it knows some of them.
    assert found.final > 0.7 and found.accuracy[0] < 0.3
    assert found.mean == pytest.approx(np.mean(found.accuracy))
    assert found.final == pytest.approx(np.mean(found.accuracy[-6:]))
    again = ease_of_learning(model, processor, images, captions, **{**options, "steps": 5})
    assert again.accuracy == found.accuracy[:5]
    other = ease_of_learning(model, processor, images, captions, **{**options, "steps": 5, "seed": 1})
    assert other.accuracy != again.accuracy
    scaled = ease_of_learning(model, processor, images, captions, **{**options, "steps": 20, "logit_scale": 50.0})
    assert scaled.accuracy[0] == found.accuracy[0] and scaled.accuracy != found.accuracy[:20]


def test_the_new_agent_is_none_that_training_began_with(monkeypatch):
    """A run and its analysis have the same seed, and the agent of the first generation was drawn with it."""
    learners = []

    def noted(model, seed):
        learners.append(with_new_language_agent(model, seed))
        return learners[-1]

    monkeypatch.setattr("vlcomp.analysis.ease.with_new_language_agent", noted)
    small = {"image_size": 32, "width": 32, "layers": 1, "projection_dim": 32, "codebook_size": 16}
    model = new_iterated_clip(tiny_processor().tokenizer, seed=3, **small)
    data = (model, tiny_processor(), tiny_images(4), tiny_captions(4))
    for seed in (3, 3, 4):
        ease_of_learning(*data, steps=1, batch_size=2, learning_rate=1e-9, seed=seed)
    first, again, other = (learner.text_model.embeddings.token_embedding.weight for learner in learners)
    assert torch.allclose(first, again) and not torch.allclose(first, other, atol=1e-3)
    assert not torch.allclose(first, model.text_model.embeddings.token_embedding.weight, atol=1e-3)


def test_nothing_can_be_learned_of_a_vision_agent_that_says_one_thing():
    model, processor = tiny_clip(), tiny_processor()
    with torch.no_grad():
        model.vision_model.post_layernorm.weight.zero_()
        model.vision_model.post_layernorm.bias.fill_(1.0)
    images, captions = rows()
    found = ease_of_learning(model, processor, images, captions, steps=10, batch_size=12)
    # Rows of the logits are all alike: of the pictures at most one is right, and texts tie, which is wrong.
    assert found.final <= 0.5 / 12 + 1e-6


def test_batches_go_over_all_rows_before_any_comes_back():
    batches = _batches(10, 4, 5, seed=0)
    assert [len(batch) for batch in batches] == [4] * 5
    assert len({*batches[0], *batches[1]}) == 8 and len({*batches[2], *batches[3]}) == 8
    assert batches == _batches(10, 4, 5, seed=0) != _batches(10, 4, 5, seed=1)


def test_matching_is_strict():
    assert _matched(torch.eye(4)) == 1.0
    assert _matched(torch.zeros(4, 4)) == 0.0
    assert _matched(torch.tensor([[2.0, 1.0], [3.0, 4.0]])) == 0.75  # one column is lost


def test_wrong_input_is_named(clip_checkpoint):
    processor = tiny_processor()
    images, captions = rows(4)
    with pytest.raises(DataError, match="there are 4 rows, and a batch has batch_size=128"):
        ease_of_learning(tiny_clip(), processor, images, captions)
    with pytest.raises(ArgumentError, match="4 images and 3 captions"):
        ease_of_learning(tiny_clip(), processor, images, captions[:3])
    for setting in ({"steps": 0}, {"batch_size": 1}, {"learning_rate": 0.0}, {"logit_scale": 0.0}, {"seed": -1}):
        with pytest.raises(ArgumentError, match=next(iter(setting))):
            ease_of_learning(tiny_clip(), processor, images, captions, **{"batch_size": 4, **setting})
    prompted = CommaModel.from_clip(str(clip_checkpoint))
    with pytest.raises(ArgumentError, match="a CommaModel, whose language agent cannot be told from the rest"):
        ease_of_learning(prompted, processor, images, captions, batch_size=4)
