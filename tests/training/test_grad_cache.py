"""The gradient cache gives the gradients of the whole batch."""

import pytest
import torch
from torch import nn

from vlcomp.errors import ArgumentError
from vlcomp.losses import contrastive_loss
from vlcomp.training import cached_backward, split_batch


class Towers(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(6, 16), nn.Dropout(dropout), nn.Tanh(), nn.Linear(16, 4))
        self.text = nn.Sequential(nn.Linear(5, 16), nn.Dropout(dropout), nn.Tanh(), nn.Linear(16, 4))
        self.logit_scale = nn.Parameter(torch.tensor(1.5))
        self.double()

    def forward(self, batch):
        return {
            "image": nn.functional.normalize(self.image(batch["image"]), dim=-1),
            "text": nn.functional.normalize(self.text(batch["text"]), dim=-1),
            "negatives": nn.functional.normalize(self.text(batch["negatives"]), dim=-1),
            "unused": self.text(batch["text"]).sum(-1),
            "scale": self.logit_scale.exp(),
        }


IDS = torch.tensor([0, 0, 1, 2, 1, 3, 4])
MASK = torch.rand(7, 3, generator=torch.Generator().manual_seed(0)) > 0.3


def _batch():
    generator = torch.Generator().manual_seed(1)
    shapes = {"image": (7, 6), "text": (7, 5), "negatives": (7, 3, 5)}
    return {key: torch.randn(*shape, generator=generator, dtype=torch.float64) for key, shape in shapes.items()}


def _loss(embeds):
    return (
        contrastive_loss(
            embeds["image"],
            embeds["text"],
            embeds["scale"],
            image_ids=IDS,
            negative_text_embeds=embeds["negatives"],
            negative_mask=MASK,
        ),
        "kept",
    )


def _gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_equals_the_whole_batch(size):
    model, batch = Towers(), _batch()
    loss, _ = _loss(model(batch))
    loss.backward()
    expected = _gradients(model)
    model.zero_grad()
    cached, extra = cached_backward(model, split_batch(batch, size), _loss)
    assert extra == "kept"
    assert not cached.requires_grad
    assert cached.item() == pytest.approx(loss.item(), abs=1e-12)
    for name, gradient in _gradients(model).items():
        assert torch.allclose(gradient, expected[name], atol=1e-12, rtol=0), name
    # A second backward pass adds to the gradients, as accumulation needs.
    cached_backward(model, split_batch(batch, size), _loss, backward=lambda loss: (loss / 2).backward())
    for name, gradient in _gradients(model).items():
        assert torch.allclose(gradient, 1.5 * expected[name], atol=1e-12, rtol=0), name


def test_dropout_is_the_same_in_both_passes():
    model, parts = Towers(dropout=0.5).train(), split_batch(_batch(), 3)
    torch.manual_seed(3)
    outputs = [model(part) for part in parts]
    loss, _ = _loss(
        {key: torch.cat([o[key] for o in outputs]) for key in outputs[0] if key != "scale"}
        | {"scale": outputs[0]["scale"]}
    )
    loss.backward()
    expected, state = _gradients(model), torch.get_rng_state()
    model.zero_grad()
    torch.manual_seed(3)
    cached, _ = cached_backward(model, parts, _loss)
    assert cached.item() == pytest.approx(loss.item(), abs=1e-12)
    for name, gradient in _gradients(model).items():
        assert torch.allclose(gradient, expected[name], atol=1e-12, rtol=0), name
    assert torch.equal(torch.get_rng_state(), state)


def test_a_frozen_tower_gets_no_gradient():
    model = Towers()
    model.image.requires_grad_(False)
    cached_backward(model, split_batch(_batch(), 2), _loss)
    assert all(p.grad is None for p in model.image.parameters())
    assert all(p.grad is not None for p in model.text.parameters())


def test_only_one_mini_batch_has_a_graph_at_a_time():
    model, alive, most = Towers(), 0, 0

    def encode(part):
        nonlocal alive, most
        output = model(part)
        if output["image"].requires_grad:
            alive += 1
            most = max(most, alive)
        return output

    def backward(loss):
        nonlocal alive
        loss.backward()
        alive -= 1

    cached_backward(encode, split_batch(_batch(), 2), _loss, backward=backward)
    assert most == 1


def test_a_parameter_used_beside_the_embeddings_is_refused():
    model = Towers()
    with pytest.raises(ArgumentError, match="return it from `encode`"):
        cached_backward(model, split_batch(_batch(), 2), lambda e: (_loss(e)[0] * model.logit_scale, None))


def test_bad_batches_are_refused():
    with pytest.raises(ArgumentError, match="at least one"):
        cached_backward(Towers(), [], _loss)
    with pytest.raises(ArgumentError, match="below 1"):
        split_batch(_batch(), 0)
    with pytest.raises(ArgumentError, match="different first dimensions"):
        split_batch({"a": torch.ones(2), "b": torch.ones(3)}, 1)
    parts = split_batch({"a": torch.arange(5), "scalar": torch.tensor(3), "text": "x"}, 2)
    assert [part["a"].tolist() for part in parts] == [[0, 1], [2, 3], [4]]
    assert all(part["text"] == "x" and part["scalar"] == 3 for part in parts)
