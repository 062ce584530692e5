"""The bound of the vision agent is a bound: of its parts against exact Jacobians, and of the whole."""

import math

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPAttention

from vlcomp.analysis import smoothness
from vlcomp.analysis.lipschitz import _log10_one_plus, _steepest, attention_bound
from vlcomp.errors import ArgumentError
from vlcomp.testing import tiny_clip, tiny_iterated_clip, tiny_siglip

WIDTH, TOKENS = 8, 5


def attention(seed, query=1.0, key=1.0, value=1.0, heads=2):
    torch.manual_seed(seed)
    config = CLIPVisionConfig(hidden_size=WIDTH, num_attention_heads=heads)
    config._attn_implementation = "eager"
    layer = CLIPAttention(config).double()
    with torch.no_grad():
        for name, scale in (("q", query), ("k", key), ("v", value), ("out", 1.0)):
            part = getattr(layer, f"{name}_proj")
            part.weight.normal_().mul_(scale)
            part.bias.normal_().mul_(scale)
    return layer


def steepest(function, at):
    jacobian = torch.autograd.functional.jacobian(function, at)
    return torch.linalg.matrix_norm(jacobian.reshape(at.numel(), -1), 2).item()


@pytest.mark.parametrize(
    "scales", [(0.0, 0.0, 1.0), (0.1, 0.1, 1.0), (1.0, 1.0, 1.0), (5.0, 0.3, 2.0), (8.0, 8.0, 1.0)]
)
def test_attention_stays_within_its_bound(scales):
    ratios = []
    for seed in range(12):
        layer = attention(seed, *scales)
        centre, radius = torch.randn(WIDTH).double(), 1.5
        bound = attention_bound(layer, radius, centre, TOKENS)
        tokens = torch.randn(TOKENS, WIDTH).double()
        tokens = centre + radius * tokens / tokens.norm(dim=1, keepdim=True)
        ratios.append(steepest(lambda x, layer=layer: layer(x[None])[0][0], tokens) / bound)
    assert max(ratios) <= 1
    assert max(ratios) > 1e-3  # and it is not so large that nothing could break it


def test_each_term_of_the_attention_bound_is_needed():
    """Sharp cases: where all tokens attend to one, and where the scores move alone."""
    one = attention(0, 0.0, 0.0, heads=1)
    with torch.no_grad():
        one.v_proj.weight.copy_(torch.eye(WIDTH))
        one.out_proj.weight.copy_(torch.eye(WIDTH))
        one.q_proj.bias.copy_(torch.eye(WIDTH)[0] * 400)
        one.k_proj.weight.zero_()[0, 0] = 1.0  # the token with the largest first feature takes all
    tokens = torch.zeros(TOKENS, WIDTH).double()
    tokens[2, 0] = 1.0
    found = steepest(lambda x: one(x[None])[0][0], tokens)
    assert found == pytest.approx(math.sqrt(TOKENS), rel=1e-6)
    assert attention_bound(one, 1.0, torch.zeros(WIDTH).double(), TOKENS) >= found
    with torch.no_grad():
        one.k_proj.weight.zero_()  # scores that do not move leave this term alone
    assert attention_bound(one, 1.0, torch.zeros(WIDTH).double(), TOKENS) == pytest.approx(math.sqrt(TOKENS))
    # Two tokens at opposite ends whose shares are decided by the query of a third: R |Q| R |K| |V| / sqrt(k) is met
    # up to a factor of two in the shares.
    two = attention(0, 0.0, 0.0, heads=1)
    with torch.no_grad():
        for name in ("q", "k", "v", "out"):
            part = getattr(two, f"{name}_proj")
            part.weight.zero_()[0, 0] = 30.0 if name in ("q", "k") else 1.0
            part.bias.zero_()
    ends = torch.zeros(3, WIDTH).double()
    ends[0, 0], ends[1, 0] = 1.0, -1.0
    found = steepest(lambda x: two(x[None])[0][0], ends)
    without = math.sqrt(3)
    assert without < 0.05 * found <= found <= attention_bound(two, 1.0, torch.zeros(WIDTH).double(), 3)


def test_slopes_of_activations_and_logarithms():
    assert _steepest("quick_gelu") == pytest.approx(1.0998, abs=1e-4)
    assert _steepest("gelu") == pytest.approx(1.1290, abs=1e-4)
    assert _steepest("relu") == pytest.approx(1.0)
    assert _log10_one_plus(-math.inf) == 0 and _log10_one_plus(0.0) == pytest.approx(math.log10(2))
    assert _log10_one_plus(400.0) == pytest.approx(400)  # above what a double holds


def larger(model, factor=3.0):
    """Weights of a size that training gives: at a start of 0.02 a block hardly matters beside its residual."""
    with torch.no_grad():
        for name, value in model.vision_model.named_parameters():
            if value.ndim == 2 and "proj" in name or "fc" in name and value.ndim == 2:
                value.mul_(factor)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny_clip(),
        lambda: larger(tiny_clip(seed=1), 8.0),
        lambda: tiny_iterated_clip(),
        lambda: larger(tiny_iterated_clip(seed=1, temperature=0.5)),
        lambda: tiny_iterated_clip(use_codebook=False),
    ],
)
def test_the_slope_lies_below_the_bound_and_is_that_of_the_jacobian(make):
    model = make()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = smoothness(model, pixels, iterations=30)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert 0 < found.slope <= 10**found.log10_bound_here
    model = model.double()
    shortest = model.get_image_features(pixels.double()).pooler_output.norm(dim=1).min().item()
    assert found.log10_bound_here < found.log10_bound - math.log10(shortest)

    def embed(values):
        return nn.functional.normalize(model.get_image_features(values[None]).pooler_output[0], dim=-1)

    exact = []
    for image in pixels.double():
        jacobian = torch.autograd.functional.jacobian(embed, image).flatten(1)
        exact.append(torch.linalg.matrix_norm(jacobian, 2).item())
    assert found.slope == pytest.approx(max(exact), rel=0.02)


def test_the_bound_follows_its_factors():
    """Each factor of the chain moves the bound as the formula says."""
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = tiny_iterated_clip()
    start = smoothness(model, pixels, iterations=1)
    with torch.no_grad():
        model.vision_model.pre_layrnorm.weight *= 10
    assert smoothness(model, pixels, iterations=1).log10_bound == pytest.approx(start.log10_bound + 1, abs=1e-6)
    with torch.no_grad():
        model.vision_model.pre_layrnorm.weight /= 10
        model.visual_projection.fc2.weight *= 10
    assert smoothness(model, pixels, iterations=1).log10_bound == pytest.approx(start.log10_bound + 1, abs=1e-6)
    with torch.no_grad():
        model.visual_projection.fc2.weight /= 10
        model.codebook.weight += 5  # the mean code cancels where it mixes, not in the scores
    changed = smoothness(model, pixels, iterations=1).log10_bound - start.log10_bound
    assert 0 < changed < math.log10(1 + 5 * math.sqrt(24 * 32))
    with torch.no_grad():
        model.codebook.weight -= 5
        model.codebook.divisor *= 100
    assert smoothness(model, pixels, iterations=1).log10_bound == pytest.approx(start.log10_bound - 2, abs=1e-5)


def test_the_chain_by_hand():
    """With silent branches a block is the identity; one that speaks adds to it."""
    model = tiny_clip()
    norm = math.log10(1 / math.sqrt(1e-5))
    tower = model.vision_model
    with torch.no_grad():
        for block in tower.encoder.layers:
            block.self_attn.v_proj.weight.zero_()
            block.mlp.fc2.weight.zero_()

    def spectral(weight):
        return torch.linalg.matrix_norm(weight.detach().double(), 2).item()

    patches, head = tower.embeddings.patch_embedding.weight.flatten(1), model.visual_projection.weight
    expected = math.log10(spectral(patches) * spectral(head)) + 2 * norm
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert smoothness(model, pixels, iterations=1).log10_bound == pytest.approx(expected, abs=1e-6)
    mlp = tower.encoder.layers[1].mlp
    with torch.no_grad():
        mlp.fc2.weight.normal_(std=0.01)
    branch = 10**norm * spectral(mlp.fc1.weight) * _steepest("quick_gelu") * spectral(mlp.fc2.weight)
    expected += math.log10(1 + branch)
    assert smoothness(model, pixels, iterations=1).log10_bound == pytest.approx(expected, abs=1e-6)


def test_wrong_input_is_named():
    with pytest.raises(ArgumentError, match="model is of type 'siglip'; the bound is derived for"):
        smoothness(tiny_siglip(), torch.zeros(1, 3, 32, 32))
    with pytest.raises(ArgumentError, match=r"pixel_values has shape \[3, 32, 32\]"):
        smoothness(tiny_clip(), torch.zeros(3, 32, 32))
    with pytest.raises(ArgumentError, match="iterations=0"):
        smoothness(tiny_clip(), torch.zeros(1, 3, 32, 32), iterations=0)
