"""The contrastive losses, against definitions written out pair by pair."""

import math

import pytest
import torch
from torch.nn import functional
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from vlcomp.errors import ArgumentError
from vlcomp.losses import contrastive_loss, sigmoid_contrastive_loss
from vlcomp.testing import tiny_siglip

SCALE, BIAS = 7.0, -3.0


def _embeds(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1).requires_grad_()


def _case():
    ids = torch.tensor([5, 5, 7, 9, 7])
    mask = torch.tensor([[1, 1], [1, 0], [0, 0], [1, 1], [0, 1]], dtype=torch.bool)
    return _embeds(5, 8), _embeds(5, 8, seed=1), _embeds(5, 2, 8, seed=2), ids, mask


def _softmax_by_hand(images, texts, negatives, ids, mask):
    total = 0.0
    for i in range(len(images)):
        positive = SCALE * (images[i] @ texts[i]).item()
        others = [j for j in range(len(texts)) if j == i or ids[j] != ids[i]]
        row = [SCALE * (images[i] @ texts[j]).item() for j in others]
        row += [SCALE * (images[i] @ negatives[j, k]).item() for j, k in mask.nonzero().tolist()]
        column = [SCALE * (images[j] @ texts[i]).item() for j in others]
        for logits in (row, column):
            total += math.log(sum(math.exp(value) for value in logits)) - positive
    return total / 2 / len(images)


def test_softmax_equals_its_definition():
    images, texts, negatives, ids, mask = _case()
    loss = contrastive_loss(images, texts, SCALE, image_ids=ids, negative_text_embeds=negatives, negative_mask=mask)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(_softmax_by_hand(images, texts, negatives, ids, mask), abs=1e-12)
    # Without ids every row is an image of its own, and the loss is CLIP's.
    plain = contrastive_loss(images, texts, SCALE)
    assert plain.item() == pytest.approx(image_text_contrastive_loss(SCALE * texts @ images.T).item(), abs=1e-12)
    assert plain.item() != pytest.approx(contrastive_loss(images, texts, SCALE, image_ids=ids).item(), abs=1e-3)


def test_sigmoid_equals_its_definition():
    images, texts, negatives, ids, mask = _case()
    loss = sigmoid_contrastive_loss(
        images, texts, SCALE, BIAS, image_ids=ids, negative_text_embeds=negatives, negative_mask=mask
    )
    total = 0.0
    for i in range(5):
        for j in range(5):
            if i == j or ids[i] != ids[j]:
                sign = 1 if i == j else -1
                total += math.log1p(math.exp(-sign * (SCALE * (images[i] @ texts[j]).item() + BIAS)))
        for j, k in mask.nonzero().tolist():
            total += math.log1p(math.exp(SCALE * (images[i] @ negatives[j, k]).item() + BIAS))
    assert loss.item() == pytest.approx(total / 5, abs=1e-12)


def test_sigmoid_equals_siglips_own():
    model = tiny_siglip()
    inputs = {"pixel_values": torch.randn(3, 3, 32, 32), "input_ids": torch.randint(5, 200, (3, 64))}
    with torch.no_grad():
        out = model(**inputs, return_loss=True)
        loss = sigmoid_contrastive_loss(out.image_embeds, out.text_embeds, model.logit_scale.exp(), model.logit_bias)
    assert loss.item() == pytest.approx(out.loss.item(), abs=1e-5)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_empty_slots_have_no_influence_whatever_they_hold(sigmoid):
    def run(negatives, mask):
        negatives = negatives.detach().clone().requires_grad_()
        options = {"image_ids": ids, "negative_text_embeds": negatives, "negative_mask": mask}
        if sigmoid:
            loss = sigmoid_contrastive_loss(images, texts, SCALE, BIAS, **options)
        else:
            loss = contrastive_loss(images, texts, SCALE, **options)
        return loss, *torch.autograd.grad(loss, [images, texts, negatives])

    images, texts, negatives, ids, mask = _case()
    expected = run(negatives, mask)
    for rubbish in (torch.nan, torch.inf, 0.0):
        changed = negatives.detach().clone()
        changed[~mask] = rubbish
        for value, other in zip(expected, run(changed, mask), strict=True):
            assert torch.equal(value, other)
    for empty in (run(negatives, torch.zeros_like(mask)), run(negatives[:, :0], mask[:, :0])):
        loss = contrastive_loss(images, texts, SCALE, image_ids=ids)
        if sigmoid:
            loss = sigmoid_contrastive_loss(images, texts, SCALE, BIAS, image_ids=ids)
        assert torch.equal(empty[0], loss)
        assert all(value.isfinite().all() for value in empty)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_extreme_values_stay_finite(sigmoid):
    embeds = torch.eye(4).repeat(2, 1)
    ids = torch.zeros(8, dtype=torch.long)  # all rows show one image: there are no negatives at all
    if sigmoid:
        loss = sigmoid_contrastive_loss(embeds, -embeds, 1e4, -1e3, image_ids=ids)
        assert loss.item() == pytest.approx(1.1e4)
    else:
        loss = contrastive_loss(embeds, -embeds, 1e4, image_ids=ids)
        assert loss.item() == 0
    wrong = sigmoid_contrastive_loss if sigmoid else contrastive_loss
    assert wrong(embeds, -embeds, *([1e4, 0.0] if sigmoid else [1e4])).isfinite()


def test_half_precision_gives_float32_also_under_autocast():
    images, texts = (_embeds(6, 8, seed=seed).detach() for seed in (0, 1))
    expected = contrastive_loss(images.bfloat16().float(), texts.bfloat16().float(), SCALE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = contrastive_loss(images.bfloat16(), texts.bfloat16(), torch.tensor(SCALE))
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(expected.item(), abs=1e-6)


def test_gradients_of_scale_and_bias():
    images, texts, negatives, ids, mask = _case()
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(BIAS, dtype=torch.float64, requires_grad=True)
    options = {"image_ids": ids, "negative_text_embeds": negatives, "negative_mask": mask}
    assert torch.autograd.gradcheck(
        lambda a, b, s, n: contrastive_loss(a, b, s, image_ids=ids, negative_text_embeds=n, negative_mask=mask),
        (images, texts, scale, negatives),
    )
    assert torch.autograd.gradcheck(
        lambda a, b, s, c: sigmoid_contrastive_loss(a, b, s, c, **options), (images, texts, scale, bias)
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text_embeds": torch.ones(4, 8)}, "text_embeds"),
        ({"image_embeds": torch.ones(8), "text_embeds": torch.ones(8)}, "image_embeds"),
        ({"image_embeds": torch.ones(0, 8), "text_embeds": torch.ones(0, 8)}, "batch > 0"),
        ({"image_ids": torch.arange(4)}, "image_ids"),
        ({"negative_text_embeds": torch.ones(5, 8)}, "negative_text_embeds"),
        ({"negative_text_embeds": torch.ones(5, 2, 7)}, "negative_text_embeds"),
        ({"negative_text_embeds": torch.ones(5, 2, 8), "negative_mask": torch.ones(5, 2)}, "boolean"),
        ({"negative_mask": torch.ones(5, 2, dtype=torch.bool)}, "without negative_text_embeds"),
    ],
)
def test_wrong_shapes_are_named(change, named):
    arguments = {"image_embeds": torch.ones(5, 8), "text_embeds": torch.ones(5, 8), "logit_scale": 1.0, **change}
    with pytest.raises(ArgumentError, match=named):
        contrastive_loss(**arguments)
    with pytest.raises(ArgumentError, match=named):
        sigmoid_contrastive_loss(**arguments, logit_bias=0.0)
