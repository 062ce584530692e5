"""Examples run as they stand, and recipes hold settings that exist."""

import argparse
import json
import re
import runpy
import shlex
from functools import partial
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoModel

import _vlcomp_cli
from vlcomp.cli import train as train_verb
from vlcomp.cli._train_options import read_settings
from vlcomp.data import load_captioned
from vlcomp.methods import METHODS
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
from vlcomp.testing import make_captioned_folder

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL_LVLM = {"num_images": 40, "batch_size": 4, "width": 32, "layers": 2, "eval_items": 2}
RECIPES = sorted((EXAMPLES / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_by_its_own_command(recipe):
    text = recipe.read_text(encoding="utf-8")
    (command,) = re.findall(r"^#\s+(vlcomp train .*)$", text, re.M)
    words = shlex.split(command)
    assert (EXAMPLES.parent / words[words.index("--config") + 1]) == recipe
    parser = argparse.ArgumentParser()
    train_verb.add_arguments(parser)
    words[words.index("--config") + 1] = str(recipe)
    args = train_verb.parse(parser, words[2:])
    options, settings = read_settings(args, METHODS[args.method].load("arguments"))
    assert options["model"] and options["data"]
    for line in text.splitlines():
        key = line.partition(":")[0]
        if line and not line.startswith("#") and hasattr(settings, key):
            assert getattr(settings, key) is not None


def test_there_is_a_recipe_for_the_method_and_it_has_the_paper_s_settings():
    recipe = next(path for path in RECIPES if path.stem == "imc_cmr_clip_coco")
    parser = argparse.ArgumentParser()
    train_verb.add_arguments(parser)
    args = train_verb.parse(parser, ["imc-cmr", "--config", str(recipe)])
    _, settings = read_settings(args, METHODS["imc-cmr"].load("arguments"))
    assert (settings.learning_rate, settings.num_train_epochs, settings.per_device_train_batch_size) == (5e-6, 5, 256)
    assert (settings.adam_beta1, settings.adam_beta2, settings.adam_epsilon) == (0.9, 0.98, 1e-6)
    assert (settings.weight_decay, settings.warmup_steps, settings.lr_scheduler_type.value) == (0.1, 50, "cosine")
    assert (settings.objective, settings.imc_weight, settings.cmr_weight) == ("imc_cmr", 0.2, 0.2)


def test_train_imc_cmr_clip(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    script = runpy.run_path(str(EXAMPLES / "train_imc_cmr_clip.py"))
    small = {"width": 32, "layers": 1, "batch_size": 16, "eval_steps": 2, "eval_items": 4}
    real = script["pretrain_on_scenes"]
    script["main"].__globals__["pretrain_on_scenes"] = lambda *args, **kwargs: real(*args, **kwargs, **small)
    found = script["main"](str(tmp_path / "out"), pretraining_steps=2, steps=2, rows=160)
    assert set(found) == {"start", "model"}
    assert "scenes/swap_attribute/accuracy" in found["model"]
    assert "thresholds: {'replace_object'" in capsys.readouterr().out


@pytest.mark.parametrize("data", ["cc3m", "cc12m"])
def test_the_recipes_of_iterated_clip_have_the_paper_s_settings(data):
    recipe = next(path for path in RECIPES if path.stem == f"iterated_clip_{data}")
    parser = argparse.ArgumentParser()
    train_verb.add_arguments(parser)
    args = train_verb.parse(parser, ["iterated-clip", "--config", str(recipe)])
    options, settings = read_settings(args, METHODS["iterated-clip"].load("arguments"))
    train_verb._check_options(options, settings)
    assert options["streaming"] and options["data"] == f"{data}/*.tar"
    assert (settings.num_generations, settings.generation_steps, settings.max_steps) == (12, 6000, 72_000)
    assert (settings.codebook_freeze_steps, settings.warmup_steps, settings.rewarmup_steps) == (1500, 500, 500)
    assert (settings.learning_rate, settings.weight_decay, settings.per_device_train_batch_size) == (5e-4, 0.1, 1024)
    assert (settings.adam_beta1, settings.adam_beta2, settings.lr_scheduler_type.value) == (0.9, 0.98, "cosine")
    assert settings.rewarmup_start == 0.1 and settings.agent == "language"


def test_new_iterated_clip(tmp_path, clip_checkpoint, capsys):
    """The start of the recipes, with narrow towers; `vlcomp train` takes it with the recipe's own settings."""
    script = runpy.run_path(str(EXAMPLES / "new_iterated_clip.py"))
    scope = script["main"].__globals__
    assert (scope["VISION"]["hidden_size"], scope["VISION"]["num_hidden_layers"]) == (768, 12)
    assert (scope["TEXT"]["hidden_size"], scope["TEXT"]["num_hidden_layers"]) == (512, 12)
    for tower in ("VISION", "TEXT"):
        scope[tower].update(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
    start = tmp_path / "start"
    # Pictures of another size than the processor's, and fewer codes at the temperature that belongs to them.
    sizes = ["--image-size", "48", "--patch-size", "8", "--text-length", "32", "--codes", "32"]
    model = script["main"](["--output", str(start), "--processor", str(clip_checkpoint), *sizes])
    assert (model.config.projection_dim, model.codebook.weight.shape) == (512, (32, 512))
    assert model.config.temperature == 1000 * 32 / 4096
    with pytest.raises(SystemExit):
        script["main"](["--output", str(start), "--image-size", "36", "--patch-size", "8"])
    assert "36 is not a multiple of --patch-size 8" in capsys.readouterr().err
    script["main"](["--output", str(start), "--processor", str(clip_checkpoint), *sizes])
    assert "untrained" in capsys.readouterr().out

    make_captioned_folder(tmp_path / "photos", n=16)
    recipe = str(EXAMPLES / "recipes" / "iterated_clip_cc3m.yaml")
    changes = ["--model", str(start), "--data", str(tmp_path / "photos"), "--output", str(tmp_path / "run")]
    short = [
        "--num_generations",
        "2",
        "--generation_steps",
        "2",
        "--codebook_freeze_steps",
        "1",
        "--warmup_steps",
        "1",
    ]
    small = ["--rewarmup_steps", "1", "--batch-size", "8", "--mini-batch-size", "4", "--save_steps", "2", "--use_cpu"]
    workers = ["--dataloader_num_workers", "0"]
    assert _vlcomp_cli.main(["train", "iterated-clip", "--config", recipe, *changes, *short, *small, *workers]) == 0
    trained = AutoModel.from_pretrained(tmp_path / "run")
    assert (trained.config.generation, trained.config.generation_steps) == (2, 2)
    assert (tmp_path / "run" / "checkpoint-2").is_dir()


def test_train_iterated_clip(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    script = runpy.run_path(str(EXAMPLES / "train_iterated_clip.py"))
    output = tmp_path / "out"
    found = script["main"](str(output), generations=2, generation_steps=2, rows=160, width=32, layers=1, batch_size=16)
    assert "scenes/swap_attribute/accuracy" in found
    printed = capsys.readouterr().out
    assert "generation 1: a new language agent" in printed and "generation 2: a new language agent" in printed
    assert '<section class="code">' in (output / "codebook.html").read_text(encoding="utf-8")


def test_train_scenes_lvlm(tmp_path, monkeypatch, capsys, clip_checkpoint):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    script = runpy.run_path(str(EXAMPLES / "train_scenes_lvlm.py"))
    found = script["main"](str(tmp_path / "lvlm"), clip=clip_checkpoint, steps=2, progress=False, **SMALL_LVLM)
    assert set(found) >= {"exact_match", "token_accuracy"}
    printed = capsys.readouterr().out
    assert "shown:     The picture shows" in printed and "described:" in printed


def test_train_discriminative_lvlm(tmp_path, monkeypatch, capsys, clip_checkpoint):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    script = runpy.run_path(str(EXAMPLES / "train_discriminative_lvlm.py"))
    scope = script["main"].__globals__
    real = scope["DiscriminativeLVLMTrainingArguments"]
    monkeypatch.setitem(
        scope,
        "DiscriminativeLVLMTrainingArguments",
        lambda *args, **kwargs: real(*args, **{**kwargs, "per_device_train_batch_size": 8, "use_cpu": True}),
    )
    monkeypatch.setitem(scope, "evaluate", partial(scope["evaluate"], size=8, progress=False))
    monkeypatch.setitem(scope, "train_scenes_lvlm", partial(scope["train_scenes_lvlm"], steps=1, progress=False))
    output = tmp_path / "out"
    found = script["main"](str(output), steps=2, rows=32, limit=8, clip=clip_checkpoint, **SMALL_LVLM)
    assert set(found) == {"untrained", "trained"}
    assert "scenes/swap_attribute/accuracy" in found["trained"]
    # What the docstring says: the LVLM stays as it was and where it was, what is saved is small beside it.
    saved = json.loads((output / "model" / "config.json").read_text())
    assert saved["base_name_or_path"] == str(output / "lvlm")
    assert isinstance(AutoModel.from_pretrained(output / "model"), DiscriminativeLVLMModel)


def test_prepare_coco(tmp_path, capsys):
    images = tmp_path / "train2014"
    images.mkdir()
    annotations = {"images": [], "annotations": []}
    for number in (7, 9):
        name = f"COCO_train2014_{number:012d}.jpg"
        Image.new("RGB", (40, 30), (number, 0, 0)).save(images / name)
        annotations["images"].append({"id": number, "file_name": name})
        for k in range(5):
            annotations["annotations"].append({"id": 10 * number + k, "image_id": number, "caption": f"Caption {k}\n"})
    file = tmp_path / "captions_train2014.json"
    file.write_text(json.dumps(annotations))
    main = runpy.run_path(str(EXAMPLES / "prepare_coco.py"))["main"]
    for copy in (False, True):
        output = tmp_path / f"coco{copy}"
        assert main(file, images, output, copy) == 2
        rows = load_captioned(str(output))
        assert len(rows) == 10 and rows[0]["caption"] == "Caption 0"
        assert len(set(rows["image_id"])) == 2 and rows[9]["image"] is not None
    next(images.iterdir()).unlink()
    with pytest.raises(SystemExit, match="1 of 2 pictures are not in"):
        main(file, images, tmp_path / "again")
