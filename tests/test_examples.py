"""Examples run as they stand, and recipes hold settings that exist."""

import argparse
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from PIL import Image

from vlcomp.cli import train as train_verb
from vlcomp.data import load_captioned
from vlcomp.methods import METHODS

EXAMPLES = Path(__file__).parents[1] / "examples"
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
    options, settings = train_verb._settings(args, METHODS[args.method].load("arguments"))
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
    _, settings = train_verb._settings(args, METHODS["imc-cmr"].load("arguments"))
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
