"""ImcCmrCLIPModel: a CLIP that also embeds hard negatives."""

import json
import logging

import pytest
import torch
from transformers import CLIPModel

from vlcomp import Embedder, evaluate, load_embedder
from vlcomp.losses import contrastive_loss, cross_modal_rank_loss, intra_modal_contrastive_loss
from vlcomp.models.imc_cmr_clip import ImcCmrCLIPConfig, ImcCmrCLIPModel, ImcCmrCLIPOutput
from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor

from ..training.common import rows, trainer

RECORD = {
    "itc_hard_negatives": True,
    "imc_weight": 0.2,
    "imc_mode": "paper",
    "cmr_weight": 1,
    "threshold_upper_bound": 10.0,
    "negative_types": ["swap", "attribute"],
    "rank_thresholds": [1.25, 0],
}


@pytest.fixture
def model(clip_checkpoint):
    return ImcCmrCLIPModel.from_pretrained(clip_checkpoint)


@pytest.fixture
def caught():
    """Messages that transformers logs."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.fixture(scope="module")
def inputs():
    """Three captions and pictures, two negatives each."""
    processor, texts = tiny_processor(), tiny_captions(9)
    encoded = processor(text=texts, images=tiny_images(3), padding=True, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    length = ids.shape[1]
    return {
        "input_ids": ids[:3],
        "attention_mask": mask[:3],
        "pixel_values": encoded["pixel_values"],
        "negative_input_ids": ids[3:].reshape(3, 2, length),
        "negative_attention_mask": mask[3:].reshape(3, 2, length),
    }


def _plain(inputs):
    return {name: value for name, value in inputs.items() if "negative" not in name}


def _everything(model):
    """Parameters and buffers, also those that no file holds."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


# -- loading and saving


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_a_plain_checkpoint_gives_identical_embeddings(activation, tmp_path, inputs, caught):
    plain = tiny_clip()
    for tower in (plain.config.text_config, plain.config.vision_config):
        tower.hidden_act = activation
    plain.save_pretrained(tmp_path)
    expected = CLIPModel.from_pretrained(tmp_path)
    found, info = ImcCmrCLIPModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and not caught, (info, caught)
    assert found.config.text_config.hidden_act == found.config.vision_config.hidden_act == activation
    assert found.config.model_type == "imc_cmr_clip"
    # Nothing is left as the memory happened to be, not even what is in no file.
    ours, theirs = _everything(found), _everything(expected)
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        one, other = found(**_plain(inputs), return_loss=True), expected(**_plain(inputs), return_loss=True)
        for name in ("loss", "logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
            assert torch.equal(one[name], other[name]), name
        text = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        pixels = {"pixel_values": inputs["pixel_values"]}
        for method, given in (("get_text_features", text), ("get_image_features", pixels)):
            pooled = getattr(found, method)(**given).pooler_output
            assert torch.equal(pooled, getattr(expected, method)(**given).pooler_output)
            assert pooled.shape == (3, 32)


def test_the_activations_of_the_test_above_differ(inputs):
    models = [tiny_clip(), tiny_clip()]
    models[1].config.text_config.hidden_act = "gelu"
    models[1] = CLIPModel(models[1].config)
    models[1].load_state_dict(models[0].state_dict())
    with torch.no_grad():
        texts = [model.eval()(**_plain(inputs)).text_embeds for model in models]
    assert not torch.allclose(*texts, atol=1e-6)


def test_direct_construction_initialises_like_clip():
    config = tiny_clip().config.to_dict()
    config.pop("model_type")
    torch.manual_seed(3)
    ours = _everything(ImcCmrCLIPModel(ImcCmrCLIPConfig(**config)))
    torch.manual_seed(3)
    theirs = _everything(CLIPModel(tiny_clip().config))
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_round_trip_keeps_weights_and_the_training_record(model, tmp_path, inputs, caught):
    for name, value in RECORD.items():
        setattr(model.config, name, value)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "imc_cmr_clip" and saved["architectures"] == ["ImcCmrCLIPModel"]
    again = ImcCmrCLIPModel.from_pretrained(tmp_path)
    assert {name: getattr(again.config, name) for name in RECORD} == RECORD
    with torch.no_grad():
        one, other = model(**inputs), again(**inputs)
    for name in ("logits_per_image", "negative_text_embeds"):
        assert torch.equal(one[name], other[name])
    assert not caught
    # The way back: what was trained is a CLIP.
    assert torch.equal(CLIPModel.from_pretrained(tmp_path).visual_projection.weight, model.visual_projection.weight)


def test_a_model_that_was_not_trained_claims_nothing(model):
    assert {getattr(model.config, name) for name in RECORD} == {None}


def test_other_checkpoints_are_refused(siglip_checkpoint):
    with pytest.raises(ValueError, match="holds a model of type 'siglip'; ImcCmrCLIPConfig reads 'clip'"):
        ImcCmrCLIPModel.from_pretrained(siglip_checkpoint)


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"imc_weight": -1.0}, "imc_weight=-1.0"),
        ({"cmr_weight": float("nan")}, "cmr_weight=nan"),
        ({"threshold_upper_bound": float("inf")}, "threshold_upper_bound=inf"),
        ({"imc_weight": "0.2"}, "imc_weight"),
        ({"imc_mode": "papers"}, "imc_mode='papers'"),
        ({"negative_types": ["swap", "swap"]}, "twice"),
        ({"rank_thresholds": [1.0]}, "one name each"),
        ({"rank_thresholds": [1.0], "negative_types": ["swap", "add"]}, "one name each"),
        ({"rank_thresholds": [float("nan")], "negative_types": ["swap"]}, "finite"),
    ],
)
def test_a_wrong_record_is_refused(entries, named):
    # transformers has the checks raise an error class of huggingface_hub, which is no ValueError for all kinds.
    with pytest.raises(Exception, match=named):
        ImcCmrCLIPConfig(**entries)


def test_a_wrong_record_is_not_saved(model, tmp_path):
    model.config.rank_thresholds = [1.0, 2.0]
    with pytest.raises(Exception, match="one name each"):
        model.save_pretrained(tmp_path)


# -- the forward pass


def test_negatives_are_embedded_as_captions_are(model, inputs):
    with torch.no_grad():
        output = model(**inputs, return_loss=True)
        assert isinstance(output, ImcCmrCLIPOutput) and next(iter(output)) == "loss"
        assert output.negative_text_embeds.shape == (3, 2, 32)
        for k in range(2):
            texts = {"input_ids": inputs["negative_input_ids"][:, k]}
            texts["attention_mask"] = inputs["negative_attention_mask"][:, k]
            expected = model(**texts, pixel_values=inputs["pixel_values"]).text_embeds
            assert torch.allclose(output.negative_text_embeds[:, k], expected, atol=1e-6)
        without = model(**_plain(inputs), return_loss=True)
        assert without.negative_text_embeds is None
        # Captions, images and the loss know nothing of the negatives.
        for name in ("loss", "text_embeds", "image_embeds"):
            assert torch.equal(output[name], without[name])
        loss = contrastive_loss(output.image_embeds, output.text_embeds, model.logit_scale.exp())
        assert output.loss.item() == pytest.approx(loss.item(), abs=1e-6)
        as_tuple = model(**inputs, return_loss=True, return_dict=False)
        assert torch.equal(as_tuple[0], output.loss) and torch.equal(as_tuple[-1], output.negative_text_embeds)


def test_half_precision_keeps_one_type(model, inputs):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = model(**inputs)
    assert mixed.negative_text_embeds.dtype == mixed.text_embeds.dtype
    with torch.no_grad():
        half = model.to(torch.bfloat16)(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()})
    assert half.negative_text_embeds.dtype == half.text_embeds.dtype == torch.bfloat16


def test_padding_does_not_count(model, inputs):
    with torch.no_grad():
        expected = model(**inputs).negative_text_embeds
        pad = (0, 5)
        wider = {
            "negative_input_ids": torch.nn.functional.pad(inputs["negative_input_ids"], pad, value=7),
            "negative_attention_mask": torch.nn.functional.pad(inputs["negative_attention_mask"], pad),
        }
        assert torch.allclose(model(**{**inputs, **wider}).negative_text_embeds, expected, atol=1e-6)
        # CLIP is causal and pools at the end token, so the mask itself is not needed.
        inputs = {name: value for name, value in inputs.items() if name != "negative_attention_mask"}
        assert torch.allclose(model(**inputs).negative_text_embeds, expected, atol=1e-6)


def test_slots_without_a_negative(model, inputs):
    mask = inputs["negative_attention_mask"].clone()
    mask[0, 1] = mask[2] = 0
    model.zero_grad()
    output = model(**{**inputs, "negative_attention_mask": mask})
    expected = model(**inputs).negative_text_embeds.detach()
    found = output.negative_text_embeds
    present = mask.bool().any(-1)
    assert not found[~present].any() and torch.allclose(found[present], expected[present], atol=1e-6)
    found.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        for empty in (
            {"negative_attention_mask": torch.zeros_like(mask)},
            {name: inputs[name][:, :0] for name in ("negative_input_ids", "negative_attention_mask")},
        ):
            output = model(**{**inputs, **empty}).negative_text_embeds
            assert output.shape[::2] == (3, 32) and not output.any()


def test_gradients_flow_through_the_negatives(model, inputs):
    mask = torch.tensor([[True, True], [True, False], [False, False]])

    def gradients(**detached):
        model.zero_grad()
        output = model(**inputs)
        images, texts, negatives = output.image_embeds, output.text_embeds, output.negative_text_embeds
        texts = texts.detach()
        if detached:
            negatives = negatives.detach()
        scale = model.logit_scale.exp()
        loss = intra_modal_contrastive_loss(images, texts, negatives, scale, negative_mask=mask)
        loss = loss + cross_modal_rank_loss(images, texts, negatives, scale, torch.full((2,), 9.0), negative_mask=mask)
        loss.backward()
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}

    found = gradients()
    assert all(value.isfinite().all() for value in found.values())
    assert found["text_model.embeddings.token_embedding.weight"].any()
    assert not any(name.startswith("text_") for name in gradients(detached=True))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"input_ids": None}, "input_ids is None"),
        ({"pixel_values": None}, "pixel_values is None"),
        ({"negative_input_ids": None}, "without negative_input_ids"),
        ({"negative_input_ids": torch.ones(3, 5, dtype=torch.long)}, r"\(3, negatives, length\), got \(3, 5\)"),
        ({"negative_input_ids": torch.ones(2, 2, 5, dtype=torch.long)}, r"got \(2, 2, 5\)"),
        ({"negative_attention_mask": torch.ones(3, 2)}, "negative_attention_mask must have the shape"),
    ],
)
def test_wrong_input_is_named(model, inputs, change, named):
    with pytest.raises(ValueError, match=named):
        model(**{**inputs, **change})


# -- the rest of the package takes it as it is


def test_the_base_trainer_trains_it(model, tmp_path):
    run = trainer(tmp_path, model=model, data=rows(negatives=True), save_strategy="steps", save_steps=2)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    result = run.train()
    assert result.global_step == 2 and result.training_loss > 0
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert not still
    # The checkpoint is whole, processor and all, and is loaded by name.
    again = load_embedder(tmp_path / "checkpoint-2").model
    assert type(again) is ImcCmrCLIPModel
    assert torch.equal(again.logit_scale, model.logit_scale)


def test_trains_as_a_plain_clip_does(clip_checkpoint, tmp_path):
    results = []
    for kind in (CLIPModel, ImcCmrCLIPModel):
        found = kind.from_pretrained(clip_checkpoint)
        run = trainer(tmp_path / kind.__name__, model=found, data=rows(negatives=True))
        results.append((run.train().training_loss, _everything(found)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(value, results[1][1][name]) for name, value in results[0][1].items())


def test_embedder_and_evaluate_take_it(model, clip_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path))
    plain = CLIPModel.from_pretrained(clip_checkpoint)
    captions, images = tiny_captions(5), tiny_images(3)
    embedders = [Embedder(each, tiny_processor()) for each in (model, plain)]
    assert torch.equal(*[embedder.encode_texts(captions) for embedder in embedders])
    assert torch.equal(*[embedder.encode_images(images) for embedder in embedders])
    options = {"tasks": ["scenes/swap_attribute", "scenes/retrieval"], "size": 6, "progress": False}
    ours, theirs = (evaluate(each, tiny_processor(), **options) for each in (model, plain))
    assert ours.results["model"]["class"] == "ImcCmrCLIPModel" and len(ours.results["tasks"]) == 2
    assert ours.results["tasks"] == theirs.results["tasks"]
