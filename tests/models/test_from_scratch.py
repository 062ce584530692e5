"""Models made without a checkpoint fit their tokenizer."""

import pytest
import torch

from vlcomp.errors import ArgumentError
from vlcomp.models.from_scratch import new_clip, new_iterated_clip, new_processor
from vlcomp.testing import tiny_tokenizer

SMALL = {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2, "projection_dim": 8}


def test_an_end_token_that_clip_would_not_pool_at_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(2)
    assert tokenizer.eos_token_id == 2
    with pytest.raises(ArgumentError, match="end token has id 2"):
        new_clip(tokenizer, **SMALL)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"image_size": 20}, "image_size=20"), ({"heads": 3}, "width=16"), ({"max_length": 2}, "max_length=2")],
)
def test_sizes_that_do_not_fit_are_named(change, named):
    with pytest.raises(ArgumentError, match=named):
        new_clip(tiny_tokenizer(), **{**SMALL, **change})
    with pytest.raises(ArgumentError, match="fit='pad'"):
        new_processor(tiny_tokenizer(), 16, fit="pad")


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = new_clip(tiny_tokenizer(), **SMALL, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    second, other = (new_clip(tiny_tokenizer(), **SMALL, seed=seed) for seed in (3, 4))
    assert torch.equal(first.text_projection.weight, second.text_projection.weight)
    assert not torch.equal(first.text_projection.weight, other.text_projection.weight)


def test_an_iterated_clip_has_the_towers_of_the_clip_beside_it():
    tokenizer = tiny_tokenizer()
    model = new_iterated_clip(tokenizer, **SMALL, codebook_size=64, seed=3)
    assert (model.config.codebook_size, model.config.temperature) == (64, 1000 / 64)
    assert model.codebook.weight.shape == (64, 8) and model.config.text_config.eos_token_id == tokenizer.eos_token_id
    clip = new_clip(tokenizer, **SMALL, seed=3)
    plain = new_iterated_clip(tokenizer, **SMALL, use_codebook=False, seed=3)
    assert plain.state_dict().keys() == clip.state_dict().keys()
    assert {name: value.shape for name, value in plain.state_dict().items()} == {
        name: value.shape for name, value in clip.state_dict().items()
    }
    assert new_iterated_clip(tokenizer, **SMALL, codebook_size=64, temperature=2).config.temperature == 2
    state = torch.get_rng_state()
    again, other = (new_iterated_clip(tokenizer, **SMALL, codebook_size=64, seed=seed) for seed in (3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.codebook.weight, again.codebook.weight)
    assert not torch.equal(model.codebook.weight, other.codebook.weight)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"codebook_size": 1}, "codebook_size=1 must be at least 2"),
        ({"codebook_size": 2.5}, "codebook_size=2.5 must be a whole number"),
        ({"temperature": 0}, "temperature=0 must be finite and above 0"),
        ({"temperature": "hot"}, "temperature='hot' must be a number"),
        ({"image_size": 20}, "image_size=20"),
    ],
)
def test_codebooks_that_do_not_work_are_named(change, named):
    with pytest.raises(ArgumentError, match=named):
        new_iterated_clip(tiny_tokenizer(), **{**SMALL, **change})
