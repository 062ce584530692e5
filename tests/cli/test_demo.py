import json
from dataclasses import replace
from pathlib import Path

import pytest

import _vlcomp_cli
from vlcomp.cli import demo
from vlcomp.methods import METHODS
from vlcomp.studies import clip, imc_cmr, iterated_clip
from vlcomp.studies import discriminative_lvlm as lvlm
from vlcomp.testing import save_tiny_checkpoint


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The demo with a model and test sets of seconds instead of minutes."""
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    real_pretrain, real_measure = clip.pretrain_on_scenes, clip.measure_on_scenes

    def pretrain(folder, **options):
        options.update(steps=4, num_images=64, batch_size=16, eval_steps=2, eval_items=4, width=32, layers=1)
        return real_pretrain(folder, **options)

    def measure(folder, **options):
        tasks = ["scenes/swap_attribute", "scenes/swap_object", "scenes/replace_object", "scenes/replace_attribute"]
        return real_measure(folder, **{**options, "tasks": [*tasks, "scenes/retrieval"], "limit": 8})

    real_fine_tune = imc_cmr.fine_tune_on_scenes

    def fine_tune(base, folder, **options):
        options.update(steps=2, num_images=64, batch_size=16)
        return real_fine_tune(base, folder, **options)

    for module in (clip, imc_cmr):
        monkeypatch.setattr(module, "pretrain_on_scenes", pretrain)
        monkeypatch.setattr(module, "measure_on_scenes", measure)
    monkeypatch.setattr(imc_cmr, "fine_tune_on_scenes", fine_tune)
    real_train = iterated_clip.train_on_scenes

    def train(folder, **options):
        options.update(steps=4, generation_steps=2, freeze_steps=1, num_images=64, batch_size=16, width=32, layers=1)
        return real_train(folder, **{**options, "warmup_steps": 1, "codes": 16})

    monkeypatch.setattr(iterated_clip, "train_on_scenes", train)


def test_demo_leaves_a_model_results_pictures_and_a_page(small, tmp_path, capsys):
    output = tmp_path / "out"
    assert _vlcomp_cli.main(["demo", "--quick", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert "scenes/swap_attribute" in text and "loaded as CLIPModel" in text and "too briefly" in text
    results = json.loads((output / "results" / "clip" / "results.json").read_text())
    other = json.loads((output / "results" / "imc-cmr" / "results.json").read_text())
    assert other["model"]["class"] == "ImcCmrCLIPModel"
    assert text.count("colours exchanged between two objects") == 2
    references = results["tasks"]["scenes/swap_attribute"]["references"]
    assert references["text_only"]["accuracy"]["value"] == 0.5
    assert references["bag_of_words"]["accuracy"]["value"] == 0.5
    page = (output / "report.html").read_text()
    assert "data:image/png;base64," in page and "CLIP" in page
    assert len(list((output / "pictures").glob("*.png"))) == 8
    assert not (output / "clip" / "training").exists()


def test_a_method_by_itself_makes_its_own_start(small, tmp_path, capsys):
    output = tmp_path / "out"
    assert _vlcomp_cli.main(["demo", "--quick", "--methods", "imc-cmr", "--output", str(output)]) == 0
    assert (output / "imc-cmr-start" / "config.json").is_file() and not (output / "clip").exists()
    assert "loaded as ImcCmrCLIPModel" in capsys.readouterr().out


def test_iterated_clip_by_itself(small, tmp_path, capsys):
    output = tmp_path / "out"
    assert _vlcomp_cli.main(["demo", "--quick", "--methods", "iterated-clip", "--output", str(output)]) == 0
    results = json.loads((output / "results" / "iterated-clip" / "results.json").read_text())
    assert results["model"]["class"] == "IteratedCLIPModel"
    assert "loaded as IteratedCLIPModel" in capsys.readouterr().out


def test_discriminative_lvlm_by_itself(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    real_captioner, real_train, real_measure = lvlm.train_scenes_lvlm, lvlm.train_on_scenes, lvlm.measure_on_scenes
    start = save_tiny_checkpoint(tmp_path / "start")
    monkeypatch.setattr(lvlm, "IMAGE_SIZE", 32)

    def captioner(folder, **options):
        small = {"clip": start, "steps": 2, "num_images": 20, "batch_size": 4, "width": 32, "layers": 1}
        return real_captioner(folder, **{**options, **small, "eval_items": 2})

    def train(base, folder, **options):
        real_train(base, folder, **{**options, "steps": 2, "num_images": 20, "batch_size": 4})

    def measure(folder, **options):
        tasks = ["scenes/swap_attribute", "scenes/swap_object", "scenes/replace_object", "scenes/replace_attribute"]
        return real_measure(folder, **{**options, "tasks": [*tasks, "scenes/retrieval"], "limit": 4})

    monkeypatch.setattr(lvlm, "train_scenes_lvlm", captioner)
    monkeypatch.setattr(lvlm, "train_on_scenes", train)
    monkeypatch.setattr(lvlm, "measure_on_scenes", measure)
    output = tmp_path / "out"
    assert _vlcomp_cli.main(["demo", "--quick", "--methods", "discriminative-lvlm", "--output", str(output)]) == 0
    results = json.loads((output / "results" / "discriminative-lvlm" / "results.json").read_text())
    assert results["model"]["class"] == "DiscriminativeLVLMModel"
    assert "loaded as DiscriminativeLVLMModel" in capsys.readouterr().out


def test_a_method_without_a_demo_is_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(demo.METHODS, "discriminative-lvlm", replace(METHODS["discriminative-lvlm"], demo=None))
    assert _vlcomp_cli.main(["demo", "--methods", "discriminative-lvlm", "--output", str(tmp_path / "out")]) == 2
    assert "there is no demo of it; choose from clip, imc-cmr" in capsys.readouterr().err


def test_an_unknown_method_is_found_at_once(tmp_path, capsys):
    assert _vlcomp_cli.main(["demo", "--methods", "imc-cmrr", "--output", str(tmp_path / "out")]) == 2
    assert "did you mean 'imc-cmr'" in capsys.readouterr().err


def test_unwritable_output_is_found_at_once(tmp_path, capsys):
    blocker = tmp_path / "file"
    blocker.write_text("x")
    assert _vlcomp_cli.main(["demo", "--output", str(blocker)]) == 2
    assert str(blocker) in capsys.readouterr().err


def test_a_model_that_does_not_load_is_an_error(tmp_path):
    from vlcomp.errors import VlcompError

    with pytest.raises(VlcompError, match="could not be loaded"):
        demo._reload(Path(tmp_path / "nothing"), tmp_path / "pictures")
