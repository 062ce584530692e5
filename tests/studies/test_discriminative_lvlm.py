"""The study of the discriminative LVLM: its configurations differ in what they say, and its runs can be done."""

import json
from types import SimpleNamespace

from vlcomp.data.scenes import load_scenes
from vlcomp.data.scenes.items import CATEGORIES
from vlcomp.methods import METHODS
from vlcomp.models.discriminative_lvlm import DiscriminativeLVLMModel
from vlcomp.studies import discriminative_lvlm as study
from vlcomp.studies.frame import run_study, study_table
from vlcomp.testing import save_tiny_checkpoint


def test_configurations():
    assert METHODS["discriminative-lvlm"].load("study") is study.STUDY
    found = {
        name: (settings.get("soft_prompts"), settings.get("lora_rank"), settings.get("next_token_weight"))
        for name, settings in study.CONFIGURATIONS.items()
    }
    assert found == {
        "untrained, hand-written prompt": (None, None, None),
        "soft prompt": (True, 0, 0.0),
        "LoRA": (False, 16, 0.0),
        "soft prompt + LoRA": (True, 16, 0.0),
        "soft prompt + LoRA + next token": (True, 16, 1.0),
    }
    trained = [settings for settings in study.CONFIGURATIONS.values() if settings]
    assert len({(s["steps"], s["captions"], s["batch_size"]) for s in trained}) == 1  # equal steps and data
    assert len(study.STUDY.seeds) == 5


def test_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "CAPTIONS", 4)
    monkeypatch.setattr(study, "ITEMS", 4)
    monkeypatch.setattr(study, "IMAGE_SIZE", 32)
    start = save_tiny_checkpoint(tmp_path / "clip")
    small = {"clip": start, "steps": 2, "num_images": 20, "batch_size": 4, "width": 32, "layers": 1, "eval_items": 2}
    real, seen = study.pretrained_captioner, []
    monkeypatch.setattr(study, "pretrained_captioner", lambda folder: real(folder, **small))

    def measured(model, **options):
        loaded = DiscriminativeLVLMModel.from_pretrained(model)
        seen.append((loaded.config.soft_prompts, loaded.config.lora_rank))
        metrics = {f"scenes/{name}/accuracy": 0.5 for name in CATEGORIES} | {"scenes/mean/accuracy": 0.5}
        metrics |= {f"scenes/retrieval/{name}/recall@1": 0.5 for name in ("image_to_text", "text_to_image")}
        return SimpleNamespace(metrics=metrics)

    monkeypatch.setattr(study, "measure_on_scenes", measured)
    few = {"steps": 2, "batch_size": 4, "num_images": 20, "learning_rate": 0.01}
    names = {name: {**settings, **few} if settings else {} for name, settings in study.CONFIGURATIONS.items()}
    tiny = study.Study(**{**vars(study.STUDY), "configurations": names, "seeds": (0,), "parts": {}})
    runs = run_study(tiny, tmp_path / "runs", log=lambda line: None)
    assert seen == [(False, 0), (True, 0), (False, 16), (True, 16), (True, 16)]
    captioner = json.loads((tmp_path / "runs" / "pretrained" / "captions.json").read_text())
    assert all(run["captioner"] == captioner for run in runs)
    assert {"captions/token_accuracy", "captions/exact_match", "scenes/mean/accuracy"} <= set(runs[-1]["metrics"])
    assert 0 <= runs[0]["metrics"]["captions/swap_attribute_by_likelihood"] <= 1
    assert study_table(tiny, runs).count("\n") == 6
    assert tiny.details(runs).count("- untrained, hand-written prompt | 1 |") == 4
    assert not list((tmp_path / "runs").glob("*/seed0/model"))


def test_mirrored_pairs_stand_in_one_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(study, "IMAGE_SIZE", 32)
    rows = load_scenes("train", size=10, image_size=32).select_columns(
        ["image", "caption", "long_caption", "image_id"]
    )
    made = study._with_mirrored_pairs(rows, 0.5, 7, 8, seed=0)
    assert len(made) == 7 * 8
    false = {}
    for name in CATEGORIES:
        for row in load_scenes(name, size=4, image_size=32, split="train"):
            false.setdefault(row["caption"], set()).add(row["negative_caption"])
    pairs = set()
    for start in range(0, len(made), 8):
        batch = made[start : start + 8]
        assert set(batch["caption"][:4]) <= set(rows["caption"][:]) and None not in batch["long_caption"][:4]
        assert batch["long_caption"][4:] == [None] * 4
        for first, second in ((4, 5), (6, 7)):
            assert batch["caption"][second] in false[batch["caption"][first]]
            assert batch["image"][first].tobytes() != batch["image"][second].tobytes()
            pairs.add((batch["caption"][first], batch["caption"][second]))
    assert len(pairs) == 14  # two of each category, none twice
    again, other = (study._with_mirrored_pairs(rows, 0.5, 7, 8, seed=seed)["caption"][:] for seed in (0, 1))
    assert again == made["caption"][:] != other
