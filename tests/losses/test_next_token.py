"""The chunked next-token loss, against the plain cross-entropy of all logits."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from vlcomp.errors import ArgumentError
from vlcomp.losses import next_token, next_token_loss

TOKENS, WIDTH, WORDS = 23, 7, 50


def _case(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(WORDS, WIDTH, generator=generator, dtype=dtype).requires_grad_()
    bias = torch.randn(WORDS, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(0, WORDS, (TOKENS,), generator=generator)
    labels[::4] = -100
    labels[1], labels[2] = 0, WORDS - 1
    return hidden, weight, bias, labels


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    # Several blocks of tokens too, of which the last is smaller.
    monkeypatch.setattr(next_token, "_ROWS", 5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("chunk", [1, 7, 50, 8192])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_equals_the_plain_loss(dtype, near, chunk, reduction):
    hidden, weight, bias, labels = _case(dtype)
    expected = cross_entropy(hidden @ weight.T + bias, labels, reduction=reduction)
    loss = next_token_loss(hidden, weight, labels, bias=bias, chunk_size=chunk, reduction=reduction)
    assert loss.dtype == dtype and loss.shape == expected.shape
    assert torch.allclose(loss, expected, atol=near, rtol=near)
    weights = torch.arange(1.0, TOKENS + 1, dtype=dtype) / TOKENS if reduction == "none" else 1.0
    wanted = torch.autograd.grad((expected * weights).sum(), (hidden, weight, bias))
    found = torch.autograd.grad((loss * weights).sum(), (hidden, weight, bias))
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=5 * near, rtol=5 * near)
    assert not found[0][labels == -100].any()


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients(with_bias):
    hidden, weight, bias, labels = _case()
    inputs = (hidden[:9], weight, bias) if with_bias else (hidden[:9], weight)

    def loss(hidden, weight, bias=None):
        return next_token_loss(hidden, weight, labels[:9], bias=bias, chunk_size=13, reduction="none")

    assert torch.autograd.gradcheck(loss, inputs)


def test_a_layer_is_taken_as_it_is():
    hidden, *_, labels = _case(torch.float32)
    for bias in (False, True):
        head = nn.Linear(WIDTH, WORDS, bias=bias)
        expected = cross_entropy(head(hidden), labels)
        assert torch.allclose(next_token_loss(hidden, head, labels, chunk_size=16), expected, atol=1e-6)


def test_a_frozen_head_gets_no_gradient_and_costs_none(monkeypatch):
    hidden, weight, bias, labels = _case()
    expected = torch.autograd.grad(cross_entropy(hidden @ weight.T + bias, labels), hidden)[0]
    made, real = [], torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *args, **kwargs: made.append(args[0]) or real(*args, **kwargs))
    frozen = weight.detach(), bias.detach()
    loss = next_token_loss(hidden, frozen[0], labels, bias=frozen[1], chunk_size=16)
    loss.backward()
    assert torch.allclose(hidden.grad, expected, atol=1e-12)
    assert weight.grad is None and bias.grad is None
    assert (WORDS, WIDTH) not in [tuple(shape) if not isinstance(shape, int) else (shape,) for shape in made]


def test_no_matrix_of_all_tokens_and_words_is_made(monkeypatch):
    hidden, weight, bias, labels = _case()
    sizes, real = [], nn.functional.linear

    def noted(*args):
        result = real(*args)
        sizes.append(result.shape)
        return result

    monkeypatch.setattr(nn.functional, "linear", noted)
    next_token_loss(hidden, weight, labels, bias=bias, chunk_size=16).backward()
    assert sizes and max(rows for rows, _ in sizes) <= 5 and max(words for _, words in sizes) <= 16
    counted = int((labels != -100).sum())
    # Once forward and once backward, and not for tokens that do not count.
    assert sum(rows * words for rows, words in sizes) == 2 * counted * WORDS


def test_a_batch_without_labels_costs_nothing_and_keeps_its_graph():
    hidden, weight, bias, labels = _case()
    for reduction in ("mean", "sum"):
        loss = next_token_loss(hidden, weight, torch.full_like(labels, -100), bias=bias, reduction=reduction)
        assert loss.item() == 0
        for gradient in torch.autograd.grad(loss, (hidden, weight, bias)):
            assert gradient.shape and not gradient.any()
    assert next_token_loss(hidden[:0], weight, labels[:0]).item() == 0


def test_parts_of_a_batch_add_up():
    hidden, weight, bias, labels = _case()
    whole = next_token_loss(hidden, weight, labels, bias=bias)
    count = (labels != -100).sum()
    parts = [
        next_token_loss(hidden[part], weight, labels[part], bias=bias, num_items=count)
        for part in (slice(0, 6), slice(6, None))
    ]
    assert sum(parts).item() == pytest.approx(whole.item(), abs=1e-12)
    assert next_token_loss(hidden, weight, labels, bias=bias, num_items=1).item() == pytest.approx(
        next_token_loss(hidden, weight, labels, bias=bias, reduction="sum").item()
    )


def test_another_label_can_be_ignored():
    hidden, weight, bias, labels = _case()
    other = labels.masked_fill(labels == -100, WORDS - 2)
    expected = cross_entropy(hidden @ weight.T + bias, other, ignore_index=WORDS - 2)
    assert torch.allclose(next_token_loss(hidden, weight, other, bias=bias, ignore_index=WORDS - 2), expected)


def test_large_logits_do_not_overflow():
    hidden, weight, bias, labels = _case(torch.float32)
    expected = cross_entropy(1e4 * hidden @ weight.T, labels)
    loss = next_token_loss(1e4 * hidden, weight, labels, chunk_size=7)
    assert torch.isfinite(loss) and loss.item() == pytest.approx(expected.item(), rel=1e-6)
    spoiled = hidden.detach().clone()
    spoiled[0] = math.nan  # a token that does not count
    assert torch.isfinite(next_token_loss(spoiled, weight, labels))


def test_half_precision_sums_in_float32():
    hidden, weight, _, labels = _case(torch.float32)
    half, low = hidden.detach().bfloat16().requires_grad_(), weight.detach().bfloat16()
    loss = next_token_loss(half, low, labels, chunk_size=7)
    assert loss.dtype == torch.float32
    expected = cross_entropy((half @ low.T).float(), labels)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    (wanted,) = torch.autograd.grad(expected, half)
    (found,) = torch.autograd.grad(loss, half)
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), wanted.float(), atol=2e-3)
    with torch.autocast("cpu", torch.bfloat16):
        automatic = next_token_loss(hidden, weight, labels, chunk_size=7)
    assert automatic.dtype == torch.float32 and automatic.item() == pytest.approx(loss.item(), abs=1e-6)
    # A head in half precision under states in full precision, as when only adapters are trained.
    mixed = next_token_loss(hidden, low, labels)
    assert mixed.item() == pytest.approx(cross_entropy(hidden @ low.float().T, labels).item(), abs=1e-6)


class Adapted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WORDS, WIDTH))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden": torch.ones(2, 3, WIDTH)}, r"hidden of shape \(2, 3, 7\) must be \(tokens, 7\)"),
        ({"hidden": torch.ones(TOKENS, 5)}, r"must be \(tokens, 7\)"),
        ({"lm_head": torch.ones(5)}, r"lm_head of shape \(5,\) must be \(vocabulary, width\)"),
        ({"lm_head": Adapted()}, "lm_head is a Adapted; pass a torch.nn.Linear"),
        ({"lm_head": nn.Linear(WIDTH, WORDS), "bias": torch.ones(WORDS)}, "bias was given beside"),
        ({"labels": torch.ones(3, dtype=torch.int64)}, r"labels of shape \(3,\)"),
        ({"labels": torch.ones(TOKENS)}, "type torch.float32 must be"),
        ({"labels": torch.full((TOKENS,), WORDS)}, "labels hold 50, which is neither a word of the vocabulary of 50"),
        ({"labels": torch.full((TOKENS,), -1)}, "labels hold -1"),
        ({"bias": torch.ones(3)}, r"bias of shape \(3,\) must be \(50,\)"),
        ({"chunk_size": 0}, "chunk_size=0 must be at least 1"),
        ({"reduction": "average"}, "reduction='average' is not one of"),
        ({"num_items": 0}, "num_items=0 must be above 0"),
        ({"num_items": 3, "reduction": "sum"}, "num_items=3 is for reduction='mean'"),
    ],
)
def test_wrong_input_is_named(change, named):
    hidden, weight, _, labels = _case(torch.float32)
    with pytest.raises(ArgumentError, match=named):
        next_token_loss(**{"hidden": hidden, "lm_head": weight, "labels": labels, **change})
