"""The knowledge term, against its definition one token at a time."""

import math

import pytest
import torch

from vlcomp.errors import ArgumentError
from vlcomp.losses import knowledge_loss

LENGTHS, TARGET_LENGTHS = (4, 6, 3, 2), (4, 3, 5, 2)


def _mask(lengths, width):
    return torch.tensor([[1] * n + [0] * (width - n) for n in lengths])


def _case(layers=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(layers, 4, 6, 5, generator=generator, dtype=dtype).requires_grad_()
    target = torch.randn(layers, 4, 5, 5, generator=generator, dtype=dtype)
    return hidden, target, _mask(LENGTHS, 6), _mask(TARGET_LENGTHS, 5)


def _cosine(a, b):
    a, b = a.tolist(), b.tolist()
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def _by_hand(hidden, target):
    layers = []
    for own, other in zip(hidden, target, strict=True):
        classes = []
        for c, (n, m) in enumerate(zip(LENGTHS, TARGET_LENGTHS, strict=True)):
            pairs = [(i, i) for i in range(min(n, m) - 1)] + [(n - 1, m - 1)]
            classes.append(sum(1 - _cosine(own[c, i], other[c, j]) for i, j in pairs) / len(pairs))
        layers.append(sum(classes) / len(classes))
    return sum(layers) / len(layers)


@pytest.mark.parametrize("layers", [1, 3])
def test_equals_its_definition(layers):
    hidden, target, mask, target_mask = _case(layers)
    loss = knowledge_loss(hidden, target, mask, target_mask)
    assert loss.dtype == torch.float64 and loss.shape == ()
    assert loss.item() == pytest.approx(_by_hand(hidden, target), abs=1e-12)
    # As a model returns them: one tensor a layer, masks of truth values.
    assert torch.equal(knowledge_loss(tuple(hidden), list(target), mask.bool(), target_mask.bool()), loss)


def test_gradients():
    hidden, target, mask, target_mask = _case()
    assert torch.autograd.gradcheck(lambda h: knowledge_loss(h, target, mask, target_mask), (hidden,))


def test_padding_has_no_influence():
    hidden, target, mask, target_mask = _case()
    expected = knowledge_loss(hidden, target, mask, target_mask)
    (wanted,) = torch.autograd.grad(expected, hidden)
    spoiled = hidden.detach().masked_fill(mask[None, :, :, None] == 0, math.nan).requires_grad_()
    bad_target = target.masked_fill(target_mask[None, :, :, None] == 0, math.inf)
    loss = knowledge_loss(spoiled, bad_target, mask, target_mask)
    (found,) = torch.autograd.grad(loss, spoiled)
    assert torch.equal(loss, expected) and torch.equal(found, wanted)
    assert not found[mask.expand(2, -1, -1) == 0].any()


def test_same_directions_cost_nothing_and_opposite_ones_two():
    hidden, _, mask, _ = _case()
    assert abs(knowledge_loss(hidden, 3 * hidden.detach(), mask, mask).item()) < 1e-12
    assert knowledge_loss(hidden, -hidden.detach(), mask, mask).item() == pytest.approx(2)


def test_half_precision_is_computed_in_float32():
    hidden, target, mask, target_mask = _case(dtype=torch.float32)
    half, low = hidden.detach().bfloat16(), target.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = knowledge_loss(half, low, mask, target_mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(knowledge_loss(half.float(), low.float(), mask, target_mask).item(), abs=1e-7)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden": torch.ones(2, 4, 6)}, "hidden must be layers"),
        ({"hidden": ()}, "hidden must be layers"),
        ({"target_hidden": torch.ones(1, 4, 5, 5)}, "target_hidden 1 of shape"),
        ({"target_hidden": torch.ones(2, 4, 5, 7)}, "width must be equal"),
        ({"mask": torch.ones(4, 7)}, r"mask of shape \(4, 7\) does not fit hidden"),
        ({"target_mask": torch.ones(3, 5)}, "target_mask of shape"),
        ({"mask": torch.tensor([[0, 1, 1, 1, 1, 1]] * 4)}, "mask must be 1 for two tokens or more, then 0"),
        ({"target_mask": torch.tensor([[1, 0, 0, 0, 0]] * 4)}, "target_mask must be 1 for two"),
    ],
)
def test_wrong_input_is_named(change, named):
    given = dict(zip(("hidden", "target_hidden", "mask", "target_mask"), _case(), strict=True))
    with pytest.raises(ArgumentError, match=named):
        knowledge_loss(**{**given, **change})
