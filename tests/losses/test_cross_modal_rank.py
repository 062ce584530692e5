"""The rank loss and its thresholds, against definitions written out pair by pair."""

import pytest
import torch
from torch.nn import functional

from vlcomp.errors import ArgumentError
from vlcomp.losses import cross_modal_rank_loss, rank_thresholds
from vlcomp.testing import tiny_siglip

SCALE = 7.0
THRESHOLDS = torch.tensor([1.0, 0.5, 3.0, 2.0], dtype=torch.float64)


def _embeds(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return functional.normalize(embeds, dim=-1).requires_grad_()


def _case():
    """Five rows, three slots; type 1 is not in the batch, row 2 has no negative."""
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool)
    types = torch.tensor([[1, 0, 3], [2, 2, 0], [1, 1, 1], [3, 1, 1], [1, 0, 1]])
    return _embeds(5, 8), _embeds(5, 8, seed=1), _embeds(5, 3, 8, seed=2), types, mask


def _gap(images, texts, negatives, i, k):
    def s(a, b):
        return SCALE * sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))

    return s(images[i], texts[i]) - s(images[i], negatives[i, k])


def _loss_by_hand(images, texts, negatives, types, mask, thresholds):
    losses = [
        max(0.0, -_gap(images, texts, negatives, i, k) + thresholds[types[i, k]].item())
        for i, k in mask.nonzero().tolist()
    ]
    return sum(losses) / len(losses) if losses else 0.0


def _thresholds_by_hand(images, texts, negatives, types, mask, previous, bound):
    out = []
    for kind in range(len(previous)):
        gaps = [_gap(images, texts, negatives, i, k) for i, k in mask.nonzero().tolist() if types[i, k] == kind]
        out.append(min(max(sum(gaps) / len(gaps), 0.0), bound) if gaps else previous[kind].item())
    return out


def test_loss_equals_its_definition():
    images, texts, negatives, types, mask = _case()
    slots = torch.arange(3).expand(5, 3)
    everything, nothing = torch.ones_like(mask), torch.zeros_like(mask)
    for given_types, given_mask in [(types, mask), (None, mask), (types, None), (None, None), (types, nothing)]:
        loss = cross_modal_rank_loss(
            images, texts, negatives, SCALE, THRESHOLDS, negative_type_ids=given_types, negative_mask=given_mask
        )
        by_hand = _loss_by_hand(
            images,
            texts,
            negatives,
            slots if given_types is None else given_types,
            everything if given_mask is None else given_mask,
            THRESHOLDS,
        )
        assert loss.dtype == torch.float64 and loss.shape == ()
        assert loss.item() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("bound", [10.0, 0.5, 0.0])
def test_thresholds_equal_their_definition(bound):
    images, texts, negatives, types, mask = _case()
    for given_types in (types, None):
        new = rank_thresholds(
            images,
            texts,
            negatives,
            SCALE,
            THRESHOLDS,
            negative_type_ids=given_types,
            negative_mask=mask,
            upper_bound=bound,
        )
        used = torch.arange(3).expand(5, 3) if given_types is None else given_types
        expected = _thresholds_by_hand(images, texts, negatives, used, mask, THRESHOLDS, bound)
        assert new.tolist() == pytest.approx(expected, abs=1e-12)
        assert not new.requires_grad and new.dtype == torch.float64


def test_thresholds_are_bounded_below_at_zero_and_follow_the_gap():
    embeds = torch.eye(3, 4)
    orthogonal = torch.eye(4)[3].expand(3, 1, 4)
    kwargs = {"negative_type_ids": torch.ones(3, 1, dtype=torch.long)}
    assert rank_thresholds(embeds, embeds, orthogonal, 4.0, torch.zeros(2), **kwargs).tolist() == [0.0, 4.0]
    assert rank_thresholds(embeds, embeds, orthogonal, 100.0, torch.zeros(2), **kwargs).tolist() == [0.0, 10.0]
    # The negatives are closer than the captions: a mean below zero becomes zero.
    assert rank_thresholds(embeds, -embeds, orthogonal, 4.0, torch.ones(2), **kwargs).tolist() == [1.0, 0.0]


def test_a_type_that_is_absent_keeps_its_threshold():
    images, texts, negatives, types, mask = _case()
    previous = THRESHOLDS.clone()
    options = {"negative_type_ids": types, "negative_mask": mask}
    new = rank_thresholds(images, texts, negatives, SCALE, previous, **options)
    assert torch.equal(previous, THRESHOLDS), "the thresholds given must not change"
    assert new[1] == previous[1] and new.isfinite().all() and (new != previous).sum() == 3
    options["negative_mask"] = torch.zeros_like(mask)
    assert torch.equal(rank_thresholds(images, texts, negatives, SCALE, previous, **options), previous)
    empty = rank_thresholds(images, texts, negatives[:, :0], SCALE, previous)
    assert torch.equal(empty, previous)
    single = [x.detach().float() for x in (images, texts, negatives)]
    kept = rank_thresholds(*single, SCALE, previous.float() / 3, negative_mask=torch.zeros_like(mask))
    assert torch.equal(kept, previous.float() / 3) and kept.dtype == torch.float32


def test_gradients():
    images, texts, negatives, types, mask = _case()
    scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda a, b, n, s: cross_modal_rank_loss(a, b, n, s, THRESHOLDS, negative_type_ids=types, negative_mask=mask),
        (images, texts, negatives, scale),
    )


def test_no_gradient_flows_into_the_thresholds():
    images, texts, negatives, types, mask = _case()
    thresholds = THRESHOLDS.clone().requires_grad_()
    loss = cross_modal_rank_loss(images, texts, negatives, SCALE, thresholds, negative_type_ids=types)
    assert torch.autograd.grad(loss, [images, thresholds], allow_unused=True)[1] is None


def test_empty_slots_have_no_influence_whatever_they_hold():
    def run(negatives, types, mask):
        negatives = negatives.detach().clone().requires_grad_()
        scale = torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)
        options = {"negative_type_ids": types, "negative_mask": mask}
        loss = cross_modal_rank_loss(images, texts, negatives, scale, THRESHOLDS, **options)
        new = rank_thresholds(images, texts, negatives, scale, THRESHOLDS, **options)
        return loss, new, *torch.autograd.grad(loss, [images, texts, negatives, scale])

    images, texts, negatives, types, mask = _case()
    expected = run(negatives, types, mask)
    assert all(value.isfinite().all() for value in expected)
    assert not expected[4][~mask].any() and expected[4][mask].any()
    for rubbish in (torch.nan, torch.inf, 0.0):
        changed = negatives.detach().clone()
        changed[~mask] = rubbish
        for strange in (-1, 99, 2):  # a type that does not exist, where no negative is
            for value, other in zip(expected, run(changed, types.masked_fill(~mask, strange), mask), strict=True):
                assert torch.equal(value, other)
    for empty in (run(negatives, types, torch.zeros_like(mask)), run(negatives[:, :0], types[:, :0], mask[:, :0])):
        assert empty[0] == 0 and torch.equal(empty[1], THRESHOLDS)
        assert not any(value.isnan().any() or value.any() for value in empty[2:])


def test_order_of_rows_and_slots_does_not_matter():
    images, texts, negatives, types, mask = _case()
    rows, slots = torch.tensor([3, 0, 4, 2, 1]), torch.tensor([2, 0, 1])
    moved = images[rows], texts[rows], negatives[rows][:, slots]
    options = {"negative_type_ids": types, "negative_mask": mask}
    changed = {name: value[rows][:, slots] for name, value in options.items()}
    for function in (cross_modal_rank_loss, rank_thresholds):
        value = function(images, texts, negatives, SCALE, THRESHOLDS, **options)
        assert torch.allclose(value, function(*moved, SCALE, THRESHOLDS, **changed), atol=1e-12)
    # Types may be numbered in any way.
    names = torch.tensor([2, 0, 3, 1])
    renamed = {**options, "negative_type_ids": names[types]}
    thresholds = torch.empty_like(THRESHOLDS).index_copy_(0, names, THRESHOLDS)
    loss = cross_modal_rank_loss(images, texts, negatives, SCALE, THRESHOLDS, **options)
    assert torch.equal(loss, cross_modal_rank_loss(images, texts, negatives, SCALE, thresholds, **renamed))
    new = rank_thresholds(images, texts, negatives, SCALE, THRESHOLDS, **options)
    assert torch.equal(new, rank_thresholds(images, texts, negatives, SCALE, thresholds, **renamed)[names])


def test_parts_of_a_batch_joined_equal_the_batch():
    # What gathering over processes relies on: rows of one process after those of the other.
    images, texts, negatives, types, mask = _case()
    whole = rank_thresholds(images, texts, negatives, SCALE, THRESHOLDS, negative_type_ids=types, negative_mask=mask)
    joined = [torch.cat([x[:2], x[2:]]) for x in (images, texts, negatives, types, mask)]
    again = rank_thresholds(*joined[:3], SCALE, THRESHOLDS, negative_type_ids=joined[3], negative_mask=joined[4])
    assert torch.equal(whole, again)
    # ... and the mean of two parts' thresholds is something else, so they must not be averaged.
    parts = [
        rank_thresholds(
            images[p], texts[p], negatives[p], SCALE, THRESHOLDS, negative_type_ids=types[p], negative_mask=mask[p]
        )
        for p in (slice(2), slice(2, 5))
    ]
    assert not torch.allclose((parts[0] + parts[1]) / 2, whole)


def test_a_bias_cancels():
    # On a sigmoid tower the scores are scale * cosine + bias; the loss of those scores is the same.
    images, texts, negatives, types, mask = _case()
    bias, total = -10.0, 0.0
    positive = SCALE * (images * texts).sum(1) + bias
    for i, k in mask.nonzero().tolist():
        negative = SCALE * images[i] @ negatives[i, k] + bias
        total += max(0.0, (negative - positive[i] + THRESHOLDS[types[i, k]]).item())
    loss = cross_modal_rank_loss(
        images, texts, negatives, SCALE, THRESHOLDS, negative_type_ids=types, negative_mask=mask
    )
    assert loss.item() == pytest.approx(total / mask.sum().item(), abs=1e-12)


def test_on_a_sigmoid_tower():
    # The other captions of the batch stand for hard negatives, so SigLIP's own logits, with its bias, tell the loss.
    model = tiny_siglip().double()
    inputs = {"pixel_values": torch.randn(3, 3, 32, 32).double(), "input_ids": torch.randint(5, 200, (3, 64))}
    out = model(**inputs)
    negatives = torch.stack([out.text_embeds.roll(-1, 0), out.text_embeds.roll(-2, 0)], dim=1)
    thresholds = torch.tensor([0.5, 2.0], dtype=torch.float64)
    logits, losses = out.logits_per_image, []
    for i in range(3):
        for k in range(2):
            losses.append(torch.relu(logits[i, (i + k + 1) % 3] - logits[i, i] + thresholds[k]))
    arguments = out.image_embeds, out.text_embeds, negatives, model.logit_scale.exp(), thresholds
    loss = cross_modal_rank_loss(*arguments)
    assert model.logit_bias.item() != 0
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-12) and loss > 0
    loss.backward()
    assert model.logit_bias.grad is None and all(p.grad.isfinite().all() for p in model.text_model.parameters())


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e6, 1e30])
def test_extreme_scales_stay_finite(scale):
    images, texts, negatives, types, mask = (x.detach() for x in _case())
    leaves = [x.float().requires_grad_() for x in (images, texts, negatives)]
    options = {"negative_type_ids": types, "negative_mask": mask}
    loss = cross_modal_rank_loss(*leaves, scale, THRESHOLDS, **options)
    loss.backward()
    assert loss.isfinite() and all(x.grad.isfinite().all() for x in leaves)
    new = rank_thresholds(*leaves, scale, THRESHOLDS.float(), **options)
    assert ((new >= 0) & (new <= 10)).all()


def test_half_precision_gives_float32_also_under_autocast():
    images, texts, negatives, types, mask = (x.detach() for x in _case())
    half = [x.bfloat16() for x in (images, texts, negatives)]
    options = {"negative_type_ids": types, "negative_mask": mask}
    for function in (cross_modal_rank_loss, rank_thresholds):
        expected = function(*[x.float() for x in half], SCALE, THRESHOLDS, **options)
        with torch.autocast("cpu", torch.bfloat16):
            inside = function(*half, torch.tensor(SCALE), THRESHOLDS.bfloat16(), **options)
        assert inside.dtype == torch.float32
        assert torch.allclose(inside, expected, atol=1e-6)


@pytest.mark.parametrize("function", [cross_modal_rank_loss, rank_thresholds])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"negative_text_embeds": None}, "negative_text_embeds is None"),
        ({"negative_text_embeds": torch.ones(4, 2, 8)}, "negative_text_embeds"),
        ({"negative_mask": torch.ones(5, 2)}, "boolean"),
        ({"text_embeds": torch.ones(4, 8)}, "text_embeds"),
        ({"thresholds": torch.tensor(1.0)}, "thresholds"),
        ({"thresholds": torch.ones(0)}, "thresholds"),
        ({"thresholds": [1.0, 2.0]}, "thresholds"),
        ({"thresholds": torch.ones(1)}, "type 1, but there are 1 thresholds"),
        ({"negative_type_ids": torch.full((5, 2), 2)}, "type 2, but there are 2 thresholds"),
        ({"negative_type_ids": torch.full((5, 2), -1)}, "type -1"),
        ({"negative_type_ids": torch.zeros(5, 2)}, "negative_type_ids must hold integers"),
        ({"negative_type_ids": torch.zeros(5, dtype=torch.long)}, "negative_type_ids"),
    ],
)
def test_wrong_input_is_named(function, change, named):
    arguments = {
        "image_embeds": torch.ones(5, 8),
        "text_embeds": torch.ones(5, 8),
        "negative_text_embeds": torch.ones(5, 2, 8),
        "logit_scale": 1.0,
        "thresholds": torch.ones(2),
        **change,
    }
    if function is rank_thresholds:
        arguments["previous"] = arguments.pop("thresholds")
    with pytest.raises(ArgumentError, match=named):
        function(**arguments)


@pytest.mark.parametrize("bound", [-1.0, float("nan")])
def test_wrong_upper_bound_is_named(bound):
    embeds = torch.eye(2)
    with pytest.raises(ArgumentError, match="upper_bound"):
        rank_thresholds(embeds, embeds, embeds[:, None], 1.0, torch.zeros(1), upper_bound=bound)
