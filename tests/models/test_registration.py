"""What `import vlcomp` makes known to transformers."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    CLIPProcessor,
    pipeline,
)

from vlcomp.models.imc_cmr_clip import ImcCmrCLIPConfig, ImcCmrCLIPModel
from vlcomp.registration import register
from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_processor

LABELS = tiny_captions(4)


def _save(model_class, folder, clip_checkpoint):
    model_class.from_pretrained(clip_checkpoint).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[ImcCmrCLIPModel], ids=lambda model: model.__name__)
def model_class(request):
    return request.param


@pytest.fixture(scope="module")
def folder(model_class, clip_checkpoint, tmp_path_factory):
    """A saved model. Read it, never write into it."""
    return _save(model_class, tmp_path_factory.mktemp("saved") / "model", clip_checkpoint)


def _run(code, *arguments, cache):
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done


def test_auto_classes_find_the_model(model_class, folder):
    assert type(AutoConfig.from_pretrained(folder)) is model_class.config_class
    assert type(AutoModel.from_pretrained(folder)) is model_class
    assert type(AutoModelForZeroShotImageClassification.from_pretrained(folder)) is model_class
    assert type(AutoModel.from_config(model_class.config_class.from_pretrained(folder))) is model_class
    assert type(AutoProcessor.from_pretrained(folder)) is CLIPProcessor


def test_auto_classes_need_no_class_names_in_the_folder(model_class, clip_checkpoint, tmp_path):
    _save(model_class, tmp_path, clip_checkpoint)
    expected = AutoProcessor.from_pretrained(tmp_path)
    removed = set()
    for path in tmp_path.glob("*.json"):
        content = json.loads(path.read_text())
        for entries in (content, content.get("image_processor", {})):
            for name in ("processor_class", "tokenizer_class", "image_processor_type"):
                if isinstance(entries, dict) and entries.pop(name, None):
                    removed.add(name)
        path.write_text(json.dumps(content))
    assert removed == {"processor_class", "tokenizer_class", "image_processor_type"}
    config = AutoConfig.from_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path, config=config)
    assert type(processor) is CLIPProcessor
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is type(expected.tokenizer)
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is type(expected.image_processor)
    text = LABELS[0]
    assert processor.tokenizer(text).input_ids == expected.tokenizer(text).input_ids


def test_registering_again_changes_nothing(folder):
    register()
    register()
    assert type(AutoProcessor.from_pretrained(folder)) is CLIPProcessor
    assert (
        type(AutoModel.from_pretrained(folder)).config_class.model_type
        == AutoConfig.from_pretrained(folder).model_type
    )


def test_stock_pipeline_in_a_new_process(folder, clip_checkpoint, tmp_path):
    image = tiny_images(1)[0]
    image.save(tmp_path / "image.png")
    code = """
import json, sys, vlcomp
from transformers import pipeline
from transformers.utils.logging import disable_progress_bar
disable_progress_bar()
classify = pipeline("zero-shot-image-classification", model=sys.argv[1])
print(json.dumps([type(classify.model).__name__, classify(sys.argv[2], candidate_labels=json.loads(sys.argv[3]))]))
"""
    done = _run(code, folder, tmp_path / "image.png", json.dumps(LABELS), cache=tmp_path)
    name, found = json.loads(done.stdout.splitlines()[-1])
    assert name == type(AutoModel.from_pretrained(folder)).__name__
    stock = pipeline("zero-shot-image-classification", model=str(clip_checkpoint))
    expected = stock(str(tmp_path / "image.png"), candidate_labels=LABELS)
    assert [entry["label"] for entry in found] == [entry["label"] for entry in expected]
    assert [entry["score"] for entry in found] == pytest.approx([entry["score"] for entry in expected], abs=1e-6)
    assert not done.stderr  # neither the import nor the pipeline has anything to warn of


def test_remote_code_works_without_vlcomp(clip_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(ImcCmrCLIPConfig, "_auto_class", None)
    monkeypatch.setattr(ImcCmrCLIPModel, "_auto_class", None)
    ImcCmrCLIPConfig.register_for_auto_class()
    ImcCmrCLIPModel.register_for_auto_class("AutoModel")
    folder = _save(ImcCmrCLIPModel, tmp_path / "remote", clip_checkpoint)
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_imc_cmr_clip.ImcCmrCLIPConfig",
        "AutoModel": "modeling_imc_cmr_clip.ImcCmrCLIPModel",
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
folder, picture, labels = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = AutoModel.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
texts = processor(text=labels, padding=True, return_tensors="pt")
with torch.no_grad():
    embeds = model.get_text_features(**texts).pooler_output
    pixels = torch.zeros(4, 3, 32, 32)
    negatives = model(**texts, pixel_values=pixels, negative_input_ids=texts["input_ids"][:, None])
classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
print(json.dumps({
    "module": type(model).__module__,
    "processor": type(processor).__name__,
    "embeds": embeds.tolist(),
    "negatives": list(negatives.negative_text_embeds.shape),
    "best": classify(picture, candidate_labels=labels)[0],
}))
"""
    done = _run(code, folder, tmp_path / "image.png", json.dumps(LABELS), cache=tmp_path / "modules")
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["module"].startswith("transformers_modules.")
    assert found["processor"] == "CLIPProcessor" and found["negatives"] == [4, 1, 32]
    texts = tiny_processor()(text=LABELS, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = tiny_clip().get_text_features(**texts).pooler_output
    assert torch.allclose(torch.tensor(found["embeds"]), expected, atol=1e-6)
    stock = pipeline("zero-shot-image-classification", model=str(clip_checkpoint))
    best = stock(str(tmp_path / "image.png"), candidate_labels=LABELS)[0]
    assert found["best"]["label"] == best["label"]
    assert found["best"]["score"] == pytest.approx(best["score"], abs=1e-6)
