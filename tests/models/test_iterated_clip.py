"""IteratedCLIPModel: sparsemax, the codebook, its tokens, and new agents."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    CLIPModel,
    CLIPProcessor,
    pipeline,
)

from vlcomp import load_embedder
from vlcomp.losses import contrastive_loss
from vlcomp.models.iterated_clip import (
    IteratedCLIPConfig,
    IteratedCLIPModel,
    IteratedCLIPOutput,
    codebook_iterated_clip,
    sparsemax,
)
from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor

CODES = 24
RECORD = {
    "num_generations": 3,
    "generation_steps": 100,
    "codebook_freeze_steps": 25,
    "warmup_steps": 8,
    "rewarmup_steps": 8,
    "rewarmup_start": 0.1,
    "agent": "language",
    "spawn_seed": 7,
    "generation": 2,
}


def tiny_config(**changes):
    sizes = {name: getattr(tiny_clip().config, name).to_dict() for name in ("text_config", "vision_config")}
    values = {"projection_dim": 20, "codebook_size": CODES, "temperature": 2.0, "chunk_size": 2, **changes}
    return IteratedCLIPConfig(**sizes, **values)


def tiny_iterated(seed=0, dtype=torch.float32, **changes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return IteratedCLIPModel(tiny_config(**changes)).eval().to(dtype)


@pytest.fixture
def model():
    return tiny_iterated()


@pytest.fixture(scope="module")
def inputs():
    """Five captions of different length and pictures."""
    texts = ["a red cup", *tiny_captions(4)]
    return dict(tiny_processor()(text=texts, images=tiny_images(5), padding=True, return_tensors="pt"))


def _text(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def _everything(model):
    """Parameters and buffers, also those that no file holds."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _agent_of(name):
    part = name.split(".")[0]
    return {"text_model": "language", "text_projection": "language"}.get(
        part, "vision" if part.startswith("vis") else None
    )


# -- sparsemax


def _nearest_on_the_simplex(row):
    """The projection by bisection on the threshold, in double precision."""
    low, high = row.max().item() - 1, row.max().item()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (row - middle).clamp(min=0).sum() > 1 else (low, middle)
    return (row - low).clamp(min=0)


@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0, 50.0])
def test_sparsemax_is_the_nearest_point_of_the_simplex(scale):
    scores = torch.randn(6, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale
    scores[1] = 3.0  # all equal
    scores[2, :2] = scores[2].max() + 1  # two winners
    scores[3] += 1e4
    expected = torch.stack([_nearest_on_the_simplex(row) for row in scores])
    assert torch.allclose(sparsemax(scores), expected, atol=1e-11, rtol=0)
    assert torch.allclose(sparsemax(scores)[1], torch.full((400,), 1 / 400, dtype=torch.float64))
    # 1e4 away from 0 single precision has other scores, not another rule.
    single = sparsemax(scores.float()[[0, 1, 2, 4, 5]]).double()
    assert torch.allclose(single, expected[[0, 1, 2, 4, 5]], atol=1e-6, rtol=0)
    assert torch.allclose(single.sum(-1), torch.ones(5, dtype=torch.float64), atol=1e-5)


def test_the_gradient_of_sparsemax():
    scores = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.7
    active = (sparsemax(scores) > 0).sum(-1)
    assert active.min() < 4 and active.max() > 1
    assert torch.autograd.gradcheck(sparsemax, scores.requires_grad_())
    # A softmax over the active ones moves no weight to the others.
    (gradient,) = torch.autograd.grad((sparsemax(scores) * torch.arange(9)).sum(), scores)
    assert (gradient[sparsemax(scores) == 0] == 0).all() and gradient.any()


def test_sparsemax_in_half_precision_and_of_nan():
    scores = torch.randn(2, 50, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert torch.equal(sparsemax(scores), sparsemax(scores.float())) and sparsemax(scores).dtype == torch.float32
    assert sparsemax(torch.tensor([[float("nan"), 1.0]])).isnan().all()


def test_sparsemax_equals_an_independent_one_in_value_and_gradient():
    """As the comparison with entmax below, without that package: the projection by bisection, and on the support S
    the gradient g - mean(g over S), both in double precision."""
    scores = torch.randn(64, 4096, generator=torch.Generator().manual_seed(3)).requires_grad_()
    target = torch.randn(64, 4096, generator=torch.Generator().manual_seed(4))
    values = sparsemax(scores)
    (gradient,) = torch.autograd.grad((values * target).sum(), scores)
    for row in range(64):
        expected = _nearest_on_the_simplex(scores[row].detach().double())
        assert torch.allclose(values[row].double(), expected, atol=1e-6, rtol=0), row
        support = expected > 1e-9
        by_hand = torch.where(support, target[row].double() - target[row][support].double().mean(), 0.0)
        assert torch.allclose(gradient[row].double(), by_hand, atol=1e-6, rtol=0), row


def test_sparsemax_equals_entmax():
    import entmax

    scores = torch.randn(64, 4096, generator=torch.Generator().manual_seed(3)).requires_grad_()
    target = torch.randn(64, 4096, generator=torch.Generator().manual_seed(4))
    ours, theirs = sparsemax(scores), entmax.sparsemax(scores, dim=-1)
    assert torch.allclose(ours, theirs, atol=1e-6, rtol=0)
    gradients = [torch.autograd.grad((values * target).sum(), scores)[0] for values in (ours, theirs)]
    assert torch.allclose(*gradients, atol=1e-6, rtol=0)


# -- the codebook


def _one_at_a_time(model, hidden, tokens, head):
    """The embedding by the formula, for one image or text."""
    config, codes = model.config, model.codebook.weight
    best = torch.full((config.codebook_size,), -torch.inf)
    for token in tokens:
        query = head(hidden[token])
        for k in range(config.codebook_size):
            score = torch.dot(query, codes[k]) / config.projection_dim**0.5 / config.temperature
            best[k] = torch.maximum(best[k], score)
    weights = _nearest_on_the_simplex(best.double()).float()
    return weights, sum(weights[k] * codes[k] for k in range(config.codebook_size))


@torch.no_grad()
def test_embeddings_follow_the_formula(model, inputs):
    text, image = model.get_text_features(**_text(inputs)), model.get_image_features(inputs["pixel_values"])
    lengths = inputs["attention_mask"].sum(-1).tolist()
    assert len(set(lengths)) > 1
    for row in range(5):
        states = text.last_hidden_state[row], image.last_hidden_state[row]
        found = (
            (text, _one_at_a_time(model, states[0], range(lengths[row]), model.text_projection)),
            (image, _one_at_a_time(model, states[1], range(1, len(states[1])), model.visual_projection)),
        )
        for output, (weights, embeds) in found:
            assert torch.allclose(output.code_weights[row], weights, atol=1e-6)
            assert torch.allclose(output.pooler_output[row], embeds, atol=1e-5)
    assert 0 < (text.code_weights > 0).sum(-1).min() < CODES


@torch.no_grad()
def test_padding_does_not_count(model, inputs):
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    expected = model.get_text_features(ids, mask)
    assert torch.allclose(model.get_text_features(ids).pooler_output, expected.pooler_output, atol=1e-6)
    wider = torch.nn.functional.pad(ids, (0, 4), value=9), torch.nn.functional.pad(mask, (0, 4))
    assert torch.allclose(model.get_text_features(*wider).pooler_output, expected.pooler_output, atol=1e-6)
    assert torch.allclose(model.get_text_features(wider[0]).pooler_output, expected.pooler_output, atol=1e-6)
    alone = model.get_text_features(ids[:1, : mask[0].sum()])
    assert torch.allclose(alone.pooler_output, expected.pooler_output[:1], atol=1e-6)
    # A maximum that were floored at 0 would show where all scores are negative.
    head = model.text_projection
    head.fc2.weight.zero_()
    head.fc2.bias.copy_(-model.codebook.weight[0])
    assert (model.codebook(head(expected.last_hidden_state), mask.bool())[1] > 0).sum(-1).max() < CODES
    best = codebook_iterated_clip._scores(head(expected.last_hidden_state), model.codebook.weight, mask.bool())
    assert (best.max(1).values[:, 0] < 0).all()
    weights = model.get_text_features(ids, mask).code_weights
    assert torch.allclose(weights, sparsemax(best.max(1).values / model.codebook.divisor), atol=1e-6)


@torch.no_grad()
def test_the_end_token_of_old_configurations(inputs):
    ids = inputs["input_ids"].clone()
    model = tiny_iterated()
    expected = model.get_text_features(ids, inputs["attention_mask"]).code_weights
    model.text_model.eos_token_id = 2  # pools at the highest id, which the tiny tokenizer's end token has
    assert (ids.argmax(1) == inputs["attention_mask"].sum(1) - 1).all()
    assert torch.allclose(model.get_text_features(ids).code_weights, expected, atol=1e-6)


def test_chunks_change_nothing_and_bound_the_memory(inputs, monkeypatch):
    seen = []
    original = codebook_iterated_clip._scores
    monkeypatch.setattr(
        codebook_iterated_clip, "_scores", lambda *each: seen.append(original(*each).shape) or original(*each)
    )
    results = []
    for size in (1, 2, 100):
        seen.clear()
        model = tiny_iterated(dtype=torch.float64, chunk_size=size)
        output = model(**{**inputs, "pixel_values": inputs["pixel_values"].double()}, return_loss=True)
        output.loss.backward()
        assert max(shape[0] for shape in seen) == min(size, 5)
        assert sum(shape[0] for shape in seen) == 10
        results.append((output.loss.detach(), {n: p.grad for n, p in model.named_parameters()}))
    for loss, gradients in results[1:]:
        assert torch.allclose(loss, results[0][0], atol=1e-12)
        for name, value in gradients.items():
            assert torch.allclose(value, results[0][1][name], atol=1e-12), name


def test_every_parameter_learns(model, inputs):
    model(**inputs, return_loss=True).loss.backward()
    dead = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # A softmax does not change with a common offset of the keys' scores.
    assert not [name for name in dead if not name.endswith("k_proj.bias")]


def test_forward(model, inputs):
    output = model(**inputs, return_loss=True)
    assert isinstance(output, IteratedCLIPOutput) and next(iter(output)) == "loss"
    scale = model.logit_scale.exp()
    loss = contrastive_loss(output.image_embeds, output.text_embeds, scale)
    assert output.loss.item() == pytest.approx(loss.item(), abs=1e-6)
    image = torch.nn.functional.normalize(model.get_image_features(inputs["pixel_values"]).pooler_output, dim=-1)
    assert torch.allclose(output.image_embeds, image, atol=1e-6)
    assert torch.allclose(output.logits_per_image, scale * image @ output.text_embeds.T, atol=1e-5)
    assert torch.equal(output.logits_per_text, output.logits_per_image.T)
    assert output.image_code_weights.shape == output.text_code_weights.shape == (5, CODES)
    fewer = model(**{**inputs, "pixel_values": inputs["pixel_values"][:2]})
    assert fewer.logits_per_image.shape == (2, 5)
    as_tuple = model(**inputs, return_loss=True, return_dict=False)
    assert torch.equal(as_tuple[0], output.loss) and torch.equal(as_tuple[-1], output.text_code_weights)
    hidden = model.get_text_features(**_text(inputs), output_hidden_states=True).hidden_states
    assert len(hidden) == 3


@torch.no_grad()
def test_scores_stay_in_single_precision(model, inputs):
    model.codebook.divisor *= 1000  # where half precision could not tell the embeddings apart
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(**inputs, return_loss=True)
    assert model.text_projection.fc1.weight.dtype == torch.float32
    for name in ("loss", "logits_per_image", "image_embeds", "image_code_weights"):
        assert mixed[name].dtype == torch.float32, name
    assert len(mixed.image_embeds[:, 0].unique()) == 5
    half = model.to(torch.bfloat16)(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()})
    assert half.text_embeds.dtype == torch.float32 and len(half.image_embeds[:, 0].unique()) == 5


def test_a_frozen_codebook_computes_the_same_and_learns_nothing(model, inputs):
    def run():
        model.zero_grad()
        output = model(**inputs, return_loss=True)
        output.loss.backward()
        return output.loss.detach(), {name: value.grad for name, value in model.named_parameters()}

    free = run()
    model.codebook.frozen = True
    frozen = run()
    assert torch.equal(free[0], frozen[0])
    assert free[1]["codebook.weight"].any()
    assert frozen[1]["codebook.weight"] is not None and not frozen[1]["codebook.weight"].any()
    for name, value in free[1].items():
        assert name == "codebook.weight" or torch.equal(value, frozen[1][name]), name


# -- token_codes


@torch.no_grad()
def test_token_codes(model, inputs):
    for given in (_text(inputs), {"pixel_values": inputs["pixel_values"]}):
        everything = model.token_codes(**given, top_k=CODES)
        few = model.token_codes(**given, top_k=2)
        if "input_ids" in given:
            output, head, first = model.get_text_features(**given), model.text_projection, 0
            assert torch.equal(everything.token_mask, inputs["attention_mask"].bool())
        else:
            output, head, first = model.get_image_features(**given), model.visual_projection, 1
            assert everything.token_mask.all() and everything.token_mask.shape == (5, 16)
        assert torch.allclose(everything.code_weights, output.code_weights)
        assert torch.allclose(everything.weights.sum((1, 2)), torch.ones(5), atol=1e-5)
        assert not everything.weights[~everything.token_mask].any()
        assert (everything.codes[~everything.token_mask] == -1).all()
        scores = head(output.last_hidden_state[:, first:]) @ model.codebook.weight.T
        spread = 0
        for row in range(5):
            owned = {}
            for code in output.code_weights[row].nonzero().flatten().tolist():
                tokens = everything.token_mask[row].nonzero().flatten().tolist()
                best = max(tokens, key=lambda token: scores[row, token, code].item())
                owned.setdefault(best, []).append((output.code_weights[row, code].item(), code))
                assert everything.code_tokens[row, code] == best
            spread += len(owned) > 1
            for token in range(scores.shape[1]):
                wanted = [code for _, code in sorted(owned.get(token, []), reverse=True)]
                found = everything.codes[row, token].tolist()
                assert found == wanted + [-1] * (CODES - len(wanted))
                assert few.codes[row, token].tolist() == (wanted + [-1, -1])[:2]
        assert spread


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"input_ids": None}, "got neither"),
        ({"pixel_values": torch.zeros(1, 3, 32, 32)}, "got both"),
        ({"top_k": 0}, "top_k=0 must lie between 1 and the codebook_size of 24"),
        ({"top_k": CODES + 1}, "top_k=25"),
        ({"top_k": 2.0}, "top_k=2.0"),
    ],
)
def test_wrong_requests_for_codes_are_named(model, inputs, changes, named):
    with pytest.raises(ValueError, match=named):
        model.token_codes(**{"input_ids": inputs["input_ids"], **changes})


# -- without a codebook, and from a plain CLIP


@torch.no_grad()
def test_without_a_codebook_it_is_a_clip(clip_checkpoint, inputs):
    expected = CLIPModel.from_pretrained(clip_checkpoint)
    found, info = IteratedCLIPModel.from_pretrained(clip_checkpoint, output_loading_info=True)
    assert not any(info.values()) and not found.config.use_codebook
    ours, theirs = _everything(found), _everything(expected)
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    one, other = found(**inputs, return_loss=True), expected(**inputs, return_loss=True)
    for name in ("loss", "logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        assert torch.allclose(one[name], other[name], atol=1e-6), name
    assert one.text_code_weights is None
    with pytest.raises(ValueError, match="use_codebook is False"):
        found.token_codes(inputs["input_ids"])


def test_without_a_codebook_it_starts_as_a_clip():
    wide = {"use_codebook": False, "projection_dim": 512}
    ours = tiny_iterated(**wide)
    config = tiny_clip().config
    config.projection_dim = 512
    theirs = CLIPModel(config)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in theirs.named_parameters()}
    for name in ("visual_projection", "text_projection"):
        found, expected = (each.get_submodule(name).weight.std().item() for each in (ours, theirs))
        assert found == pytest.approx(expected, rel=0.05)


def _check_start(model):
    """Every tensor has what construction gives it."""
    for name, value in _everything(model).items():
        assert value.isfinite().all(), name
        if name.endswith("bias") or name.endswith("norm1.bias"):
            assert not value.any(), name
        elif "norm" in name:
            assert (value == 1).all(), name
    assert model.codebook.weight.std().item() == pytest.approx(1, rel=0.1)
    for head in (model.text_projection, model.visual_projection):
        for layer in (head.fc1, head.fc2):
            assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.1)
    assert torch.equal(model.text_model.embeddings.position_ids, torch.arange(32)[None])
    assert torch.equal(model.vision_model.embeddings.position_ids, torch.arange(17)[None])


def test_construction():
    model = tiny_iterated(seed=5)
    _check_start(model)
    assert model.logit_scale.item() == pytest.approx(2.6592)
    assert tiny_iterated(logit_scale_init_value=3).logit_scale.item() == 3
    again = _everything(tiny_iterated(seed=5))
    assert all(torch.equal(value, again[name]) for name, value in _everything(model).items())
    doubled = tiny_iterated(codebook_initializer_std=2.0, seed=5)
    assert torch.allclose(doubled.codebook.weight, 2 * model.codebook.weight)


def test_a_codebook_between_the_towers_of_a_clip(clip_checkpoint):
    clip = CLIPModel.from_pretrained(clip_checkpoint)

    def load():
        torch.manual_seed(3)
        options = {"use_codebook": True, "codebook_size": CODES, "chunk_size": 3}
        return IteratedCLIPModel.from_pretrained(clip_checkpoint, output_loading_info=True, **options)

    found, info = load()
    assert (found.config.codebook_size, found.codebook.weight.shape) == (CODES, (CODES, 32))
    drawn = [name for name in found.state_dict() if "projection" in name or "codebook" in name]
    assert sorted(info["missing_keys"]) == sorted(drawn)
    _check_start(found)  # nothing is left as the memory happened to be
    for name, value in clip.state_dict().items():
        if name not in info["unexpected_keys"]:
            assert torch.equal(value, found.state_dict()[name]), name
    assert len(info["unexpected_keys"]) == 4  # two projections and the norm of the class token
    again = _everything(load()[0])
    assert all(torch.equal(value, again[name]) for name, value in _everything(found).items())


# -- new agents


@pytest.mark.parametrize("codebook", [True, False])
@pytest.mark.parametrize("agent", ["language", "vision"])
def test_a_new_agent_is_as_constructed(agent, codebook):
    model = tiny_iterated(use_codebook=codebook)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.5  # so that constants too have something to return to
    before = {name: value.clone() for name, value in _everything(model).items()}
    random = torch.get_rng_state()
    drawn = model.spawn_agent(agent, 11)
    assert torch.equal(random, torch.get_rng_state())
    fresh, other = (
        _everything(tiny_iterated(seed=11, use_codebook=codebook)),
        _everything(tiny_iterated(seed=12, use_codebook=codebook)),
    )
    mine = {name for name in before if _agent_of(name) == agent}
    assert {id(value) for value in drawn} == {id(v) for n, v in model.named_parameters() if n in mine}
    for name, value in _everything(model).items():
        assert torch.equal(value, fresh[name] if name in mine else before[name]), name
        if name in mine and name in dict(model.named_parameters()):
            assert not torch.equal(value, before[name]), name
            constant = name.endswith("bias") or "norm" in name
            assert torch.equal(value, other[name]) == constant, name
    assert any(name in mine for name in dict(model.named_buffers()))


def test_wrong_agents_are_named(model):
    with pytest.raises(ValueError, match="agent='text' is not one of 'language', 'vision'"):
        model.spawn_agent("text", 0)
    for seed in (-1, 1.5, True, 2**63):
        with pytest.raises(ValueError, match="seed="):
            model.spawn_agent("language", seed)


# -- wrong input


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"codebook_size": 1}, "codebook_size=1 must be at least 2"),
        ({"codebook_size": 8.5}, "codebook_size"),
        ({"temperature": 0}, "temperature=0 must be finite and above 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"codebook_initializer_std": -1.0}, "codebook_initializer_std=-1.0"),
        ({"chunk_size": 0}, "chunk_size=0"),
        ({"projection_dim": 0}, "projection_dim=0"),
        ({"agent": "text"}, "agent='text' is not one of"),
        ({"num_generations": 0}, "num_generations=0"),
    ],
)
def test_a_wrong_configuration_is_refused(entries, named):
    # transformers has the checks raise an error class of huggingface_hub, which is no ValueError for all kinds.
    with pytest.raises(Exception, match=named):
        IteratedCLIPConfig(**entries)


def test_wrong_input_is_named(model, inputs, siglip_checkpoint):
    for name in ("input_ids", "pixel_values"):
        with pytest.raises(ValueError, match=f"{name} is None"):
            model(**{**inputs, name: None})
    with pytest.raises(ValueError, match="2 images and 5 texts"):
        model(**{**inputs, "pixel_values": inputs["pixel_values"][:2]}, return_loss=True)
    mask = inputs["attention_mask"].clone()
    mask[3] = 0
    with pytest.raises(ValueError, match="the text in row 3 without a token"):
        model.get_text_features(inputs["input_ids"], mask)
    with pytest.raises(ValueError, match="holds a model of type 'siglip'; IteratedCLIPConfig reads 'clip'"):
        IteratedCLIPModel.from_pretrained(siglip_checkpoint)


# -- the rest of the world takes it as it is


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with its processor. Read it, never write into it."""
    folder = tmp_path_factory.mktemp("saved") / "iterated"
    model = tiny_iterated()
    for name, value in RECORD.items():
        setattr(model.config, name, value)
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@torch.no_grad()
def test_round_trip(folder, inputs):
    saved = json.loads((folder / "config.json").read_text())
    assert saved["model_type"] == "iterated_clip" and saved["architectures"] == ["IteratedCLIPModel"]
    again, info = IteratedCLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert {name: getattr(again.config, name) for name in RECORD} == RECORD
    assert set(getattr(tiny_iterated().config, name) for name in RECORD) == {None}
    model = tiny_iterated()
    for name, value in _everything(model).items():
        assert torch.equal(value, _everything(again)[name]), name
    assert torch.equal(model(**inputs).logits_per_image, again(**inputs).logits_per_image)


def test_auto_classes_and_pipeline(folder):
    assert type(AutoConfig.from_pretrained(folder)) is IteratedCLIPConfig
    assert type(AutoModel.from_pretrained(folder)) is IteratedCLIPModel
    assert type(AutoModelForZeroShotImageClassification.from_pretrained(folder)) is IteratedCLIPModel
    assert type(AutoProcessor.from_pretrained(folder)) is CLIPProcessor
    labels, image = tiny_captions(4), tiny_images(1)[0]
    found = pipeline("zero-shot-image-classification", model=str(folder))(image, candidate_labels=labels)
    embedder = load_embedder(folder)
    template = [f"This is a photo of {label}." for label in labels]
    cosines = (embedder.encode_images([image]) @ embedder.encode_texts(template).T)[0]
    scores = torch.as_tensor(cosines * embedder.model.logit_scale.exp().item()).softmax(-1)
    expected = {label: score for label, score in zip(labels, scores.tolist(), strict=True)}
    assert {entry["label"]: entry["score"] for entry in found} == pytest.approx(expected, abs=1e-5)


def test_remote_code_works_without_vlcomp(tmp_path, monkeypatch, inputs):
    monkeypatch.setattr(IteratedCLIPConfig, "_auto_class", None)
    monkeypatch.setattr(IteratedCLIPModel, "_auto_class", None)
    IteratedCLIPConfig.register_for_auto_class()
    IteratedCLIPModel.register_for_auto_class("AutoModel")
    folder = tmp_path / "remote"
    model = tiny_iterated()
    model.save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_iterated_clip.IteratedCLIPConfig",
        "AutoModel": "modeling_iterated_clip.IteratedCLIPModel",
    }
    # What the stock pipeline asks for; a class announces itself for one auto class only.
    config["auto_map"]["AutoModelForZeroShotImageClassification"] = config["auto_map"]["AutoModel"]
    (folder / "config.json").write_text(json.dumps(config))
    tiny_images(1)[0].save(tmp_path / "image.png")
    code = """
import json, sys
sys.modules["vlcomp"] = None  # `import vlcomp` raises ImportError from here on
import torch
from transformers import AutoModel, AutoProcessor, pipeline
folder, picture, ids = sys.argv[1], sys.argv[2], torch.tensor(json.loads(sys.argv[3]))
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    embeds = model.get_text_features(ids).pooler_output
    codes = model.token_codes(ids).codes
classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
model.spawn_agent("language", 3)
print(json.dumps({
    "module": type(model).__module__,
    "processor": type(processor).__name__,
    "embeds": embeds.tolist(),
    "codes": codes.tolist(),
    "labels": len(classify(picture, candidate_labels=["a cup", "a star"])),
}))
"""
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}
    arguments = [str(folder), str(tmp_path / "image.png"), json.dumps(inputs["input_ids"].tolist())]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["module"].startswith("transformers_modules.") and found["processor"] == "CLIPProcessor"
    with torch.no_grad():
        expected = model.get_text_features(inputs["input_ids"]).pooler_output
    assert torch.allclose(torch.tensor(found["embeds"]), expected, atol=1e-5)
    assert found["codes"] == model.token_codes(inputs["input_ids"]).codes.tolist() and found["labels"] == 2
