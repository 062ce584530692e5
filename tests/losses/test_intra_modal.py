"""The intra-modal contrastive loss, against definitions written out item by item."""

import math

import pytest
import torch
from torch.nn import functional

from vlcomp.errors import ArgumentError
from vlcomp.losses import intra_modal_contrastive_loss

SCALE = 7.0
MODES = ["paper", "image_anchor", "released"]


def _embeds(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return functional.normalize(embeds, dim=-1).requires_grad_()


def _case(slots=3):
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)[:, :slots]
    return _embeds(5, 8), _embeds(5, 8, seed=1), _embeds(5, slots, 8, seed=2), mask


def _by_hand(images, texts, negatives, mask, mode):
    """The formulas of the module, one caption at a time."""

    def s(a, b):
        return SCALE * sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))

    every = [negatives[j, k] for j, k in mask.nonzero().tolist()]
    losses = []
    for i in range(len(texts)):
        own = [math.exp(s(texts[i], negatives[i, k])) for k in range(mask.shape[1]) if mask[i, k]]
        if mode == "released" and every:
            logits = [s(texts[i], other) for other in every]
            losses.append(-logits[0] + math.log(sum(math.exp(x) for x in logits)))
        elif mode == "paper" and own:
            losses.append(math.log(sum(own)))
        elif mode == "image_anchor" and own:
            positive = math.exp(s(images[i], texts[i]))
            losses.append(-math.log(positive / (positive + sum(own))))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_equals_its_definition(mode, slots):
    images, texts, negatives, mask = _case(slots)
    for given in (mask, torch.ones_like(mask), torch.zeros_like(mask)):
        loss = intra_modal_contrastive_loss(images, texts, negatives, SCALE, negative_mask=given, mode=mode)
        assert loss.dtype == torch.float64 and loss.shape == ()
        assert loss.item() == pytest.approx(_by_hand(images, texts, negatives, given, mode), abs=1e-12)
    unmasked = intra_modal_contrastive_loss(images, texts, negatives, SCALE, mode=mode)
    assert unmasked.item() == pytest.approx(_by_hand(images, texts, negatives, mask | True, mode), abs=1e-12)


def test_default_is_the_paper_and_ignores_images():
    images, texts, negatives, mask = _case()
    loss = intra_modal_contrastive_loss(images, texts, negatives, SCALE, negative_mask=mask)
    assert loss.item() == pytest.approx(_by_hand(images, texts, negatives, mask, "paper"), abs=1e-12)
    other = intra_modal_contrastive_loss(-images, texts, negatives, SCALE, negative_mask=mask)
    assert torch.equal(loss, other)


@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode):
    images, texts, negatives, mask = _case()
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, n, s: intra_modal_contrastive_loss(a, b, n, s, negative_mask=mask, mode=mode),
        (images, texts, negatives, scale),
    )


@pytest.mark.parametrize(("mode", "pushes"), [("paper", True), ("image_anchor", True), ("released", False)])
def test_direction_a_caption_moves(mode, pushes):
    # Every form but the released one lowers the similarity of a caption and its negative. The image is orthogonal to
    # the negative, so that its own pull does not count.
    texts = torch.tensor([[1.0, 0.0]], requires_grad=True)
    negatives = torch.tensor([[[0.6, 0.8]], [[-0.8, 0.6]]])[: 2 if mode == "released" else 1]
    rows = texts.expand(len(negatives), 2)
    images = torch.tensor([[0.8, -0.6]]).expand(len(negatives), 2)
    loss = intra_modal_contrastive_loss(images, rows, negatives, 1.0, mode=mode)
    (gradient,) = torch.autograd.grad(loss, texts)
    assert ((-gradient[0] @ negatives[0, 0]).item() < 0) == pushes


@pytest.mark.parametrize("mode", MODES)
def test_empty_slots_have_no_influence_whatever_they_hold(mode):
    def run(negatives, mask):
        negatives = negatives.detach().clone().requires_grad_()
        scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
        loss = intra_modal_contrastive_loss(images, texts, negatives, scale, negative_mask=mask, mode=mode)
        wanted = [texts, negatives, scale, *([images] if mode == "image_anchor" else [])]
        return loss, *torch.autograd.grad(loss, wanted)

    images, texts, negatives, mask = _case()
    expected = run(negatives, mask)
    assert all(value.isfinite().all() for value in expected)
    assert (expected[1] != 0).any() and not expected[2][~mask].any() and expected[2][mask].any()
    for rubbish in (torch.nan, torch.inf, 0.0):
        changed = negatives.detach().clone()
        changed[~mask] = rubbish
        for value, other in zip(expected, run(changed, mask), strict=True):
            assert torch.equal(value, other)
    # More empty slots change nothing either.
    wide = run(torch.cat([negatives, negatives], 1), torch.cat([mask, torch.zeros_like(mask)], 1))
    assert wide[0].item() == pytest.approx(expected[0].item(), abs=1e-14)
    assert torch.allclose(wide[1], expected[1], atol=1e-14)
    for empty in (run(negatives, torch.zeros_like(mask)), run(negatives[:, :0], mask[:, :0])):
        assert empty[0] == 0
        assert not any(value.isnan().any() or value.any() for value in empty)


@pytest.mark.parametrize("mode", MODES)
def test_order_of_rows_and_slots(mode):
    images, texts, negatives, mask = _case()
    rows, slots = torch.tensor([3, 0, 4, 2, 1]), torch.tensor([2, 0, 1])
    loss = intra_modal_contrastive_loss(images, texts, negatives, SCALE, negative_mask=mask, mode=mode)
    moved = intra_modal_contrastive_loss(
        images[rows],
        texts[rows],
        negatives[rows][:, slots],
        SCALE,
        negative_mask=mask[rows][:, slots],
        mode=mode,
    )
    # The released form takes the first negative of the batch as its target, which the others do not.
    assert (moved.item() == pytest.approx(loss.item(), abs=1e-12)) == (mode != "released")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e6, 1e30])
def test_extreme_scales_stay_finite(mode, scale):
    images, texts, negatives, mask = (x.detach() for x in _case())
    leaves = [x.float().requires_grad_() for x in (images, texts, negatives)]
    loss = intra_modal_contrastive_loss(*leaves, scale, negative_mask=mask, mode=mode)
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize("mode", MODES)
def test_half_precision_gives_float32_also_under_autocast(mode):
    images, texts, negatives, mask = (x.detach() for x in _case())
    half = [x.bfloat16() for x in (images, texts, negatives)]
    expected = intra_modal_contrastive_loss(*[x.float() for x in half], SCALE, negative_mask=mask, mode=mode)
    with torch.autocast("cpu", torch.bfloat16):
        inside = intra_modal_contrastive_loss(*half, torch.tensor(SCALE), negative_mask=mask, mode=mode)
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mode": "clip"}, "mode='clip'"),
        ({"negative_text_embeds": None}, "negative_text_embeds is None"),
        ({"negative_text_embeds": torch.ones(4, 2, 8)}, "negative_text_embeds"),
        ({"negative_mask": torch.ones(5, 2)}, "boolean"),
        ({"text_embeds": torch.ones(4, 8)}, "text_embeds"),
    ],
)
def test_wrong_input_is_named(change, named):
    arguments = {
        "image_embeds": torch.ones(5, 8),
        "text_embeds": torch.ones(5, 8),
        "negative_text_embeds": torch.ones(5, 2, 8),
        "logit_scale": 1.0,
        **change,
    }
    with pytest.raises(ArgumentError, match=named):
        intra_modal_contrastive_loss(**arguments)
