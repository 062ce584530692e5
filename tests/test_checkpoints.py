"""What is said of checkpoints that are no dual encoders, or lack a processor."""

import json

import pytest
from transformers import BlipConfig, BlipModel

import _vlcomp_cli
from vlcomp import load_embedder
from vlcomp.checkpoints import load_dual_encoder
from vlcomp.errors import CheckpointError
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel, DiscriminativeLVLMProcessor
from vlcomp.testing import save_tiny_lvlm, tiny_images, tiny_processor


@pytest.mark.parametrize("kind", ["llava", "qwen2_vl"])
def test_of_a_generative_model_it_is_said_how_to_use_it(kind, tmp_path, capsys):
    base = save_tiny_lvlm(tmp_path / "base", kind)
    message = rf"generative model of type '{kind}'.*DiscriminativeLVLMModel.from_lvlm\('.*base'\).*--scorer yes"
    with pytest.raises(CheckpointError, match=message):
        load_embedder(base)
    picture = tmp_path / "a.png"
    tiny_images(1)[0].save(picture)
    assert _vlcomp_cli.main(["classify", str(base), str(picture), "--labels", "cup", "star"]) == 2
    error = capsys.readouterr().err
    assert "DiscriminativeLVLMModel.from_lvlm" in error and "torchvision" not in error


def test_a_dual_encoder_that_can_also_generate_is_one(tmp_path):
    tower = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={**tower, "vocab_size": 700, "encoder_hidden_size": 32, "bos_token_id": 1, "sep_token_id": 2},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    BlipModel(config).save_pretrained(tmp_path / "blip")
    model, _ = load_dual_encoder(tmp_path / "blip", processor=tiny_processor())
    assert isinstance(model, BlipModel)


def test_a_processor_that_is_missing_comes_from_the_lvlm(tmp_path):
    base = save_tiny_lvlm(tmp_path / "base")
    folder = tmp_path / "adapters"
    DiscriminativeLVLMModel.from_lvlm(base).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="no image processor") as error:
        load_embedder(folder)
    fix = str(error.value).partition("Add them from its LVLM: ")[2]
    assert fix == f"DiscriminativeLVLMProcessor.from_lvlm({str(base)!r}).save_pretrained({str(folder)!r})"
    eval(fix, {"DiscriminativeLVLMProcessor": DiscriminativeLVLMProcessor})  # it is what it takes
    assert load_embedder(folder).encode_texts("a red cup").shape == (1, 32)
    # Settings of a tokenizer hold no vocabulary.
    kept = (folder / "tokenizer.json").rename(folder / "kept")
    with pytest.raises(CheckpointError, match="no tokenizer .tokenizer.json"):
        load_embedder(folder)
    kept.rename(folder / "tokenizer.json")
    # Without a place of its LVLM the name is left open; of other models it is said as before.
    entries = json.loads((folder / "config.json").read_text())
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    for change, message in (({"base_name_or_path": None}, "<LVLM>"), ({"model_type": "clip"}, "<base model>")):
        (folder / "config.json").write_text(json.dumps({**entries, **change}))
        with pytest.raises(CheckpointError, match=f"from_(lvlm|pretrained).'{message}'"):
            load_embedder(folder)
