"""The study of COMMA: what is held equal, on which pictures settings are chosen, and that a run runs."""

import json

import pytest

from vlcomp.data.classification_sets import load_classification_set
from vlcomp.data.fewshot import base_and_novel
from vlcomp.data.scenes.classes import ATTRIBUTE_NOUNS
from vlcomp.models.comma import CommaConfig
from vlcomp.studies import comma
from vlcomp.studies.clip import pretrain_on_scenes
from vlcomp.studies.comma import STUDY, few_shot_run, gains, pretrained_base, selection_sets
from vlcomp.training import CommaTrainingArguments

TINY = {"num_images": 64, "batch_size": 16, "eval_items": 4, "width": 32, "layers": 1, "progress": False}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(folder / "cache"))
        pretrain_on_scenes(folder / "model", steps=2, eval_steps=2, **TINY)
        yield folder / "model"


def studies():
    return [STUDY, *STUDY.parts.values()]


@pytest.mark.parametrize("study", studies(), ids=lambda study: study.title)
def test_every_configuration_has_arguments_that_exist(study, tmp_path):
    for name, settings in study.configurations.items():
        assert json.loads(json.dumps(settings)) == settings, name
        args = CommaTrainingArguments(str(tmp_path), **settings)
        # All towers of the base have four blocks.
        chosen = {field: getattr(args, field) for field in ("prompt_variant", "prompt_depth", "kd_layers", "n_ctx")}
        chosen = {field: value for field, value in chosen.items() if value is not None}
        tower = {"num_hidden_layers": 4}
        CommaConfig(text_config=tower, vision_config=tower, **chosen).validate_prompts()


def test_methods_differ_only_in_prompts_and_in_what_was_chosen_for_each():
    own = {"learning_rate", "n_ctx", "prompt_variant", "detach_generator", "kd_weight"}
    for name, settings in STUDY.configurations.items():
        if name == "zero-shot":
            assert settings == {"prompt_variant": "zero-shot"}
            continue
        shared = {key: value for key, value in settings.items() if key not in own}
        assert shared == {key: value for key, value in comma.TRAINING.items() if key not in own}
        assert settings.get("detach_generator", False) == ("detached" in name)
    assert len(STUDY.seeds) == 5 and STUDY.seedless == ("zero-shot",)
    for part in ("cross-dataset", "domain-generalization"):
        assert STUDY.parts[part].configurations is comma.TRANSFERS and STUDY.parts[part].seeds == STUDY.seeds
    for name, settings in comma.TRANSFERS.items():
        changed = {key for key, value in settings.items() if STUDY.configurations[name][key] != value}
        assert changed == (set() if name == "zero-shot" else {"num_train_epochs", "learning_rate"})


def test_settings_are_chosen_without_the_novel_classes(base, monkeypatch):
    chosen = selection_sets()
    assert chosen[0].class_names == tuple(" ".join(pair) for pair in ATTRIBUTE_NOUNS[:40])
    for part in chosen:
        trained, held = base_and_novel(part)
        assert not {n.split()[-1] for n in trained.class_names} & {n.split()[-1] for n in held.class_names}
    of_the_study = [base_and_novel(load_classification_set(n, image_size=24))[1] for n in comma.BASE_TO_NOVEL]
    for part, novel in zip(chosen, of_the_study, strict=True):
        assert not set(part.class_names) & set(novel.class_names)
    seen = {}

    def fake(model, data, *, split, **kwargs):
        seen.update(data=data, split=split)
        raise KeyboardInterrupt

    monkeypatch.setattr(comma, "base_to_novel", fake)
    with pytest.raises(KeyboardInterrupt):
        STUDY.parts["selection"].run({}, 0, base / "a" / "b" / "c")
    assert seen["split"] == "validation" and [d.class_names for d in seen["data"]] == [d.class_names for d in chosen]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(comma, "pretrained_base", lambda folder: folder)


@pytest.mark.parametrize("protocol", ["base-to-novel", "cross-dataset", "domain-generalization"])
def test_a_run_gives_the_columns_of_its_table(base, protocol, monkeypatch):
    monkeypatch.setattr(comma, "SHOTS", 1)
    study = STUDY if protocol == "base-to-novel" else STUDY.parts[protocol]
    quick = {"max_steps": 1, "warmup_epochs": 0}
    settings = {**study.configurations["COMMA"], **quick}
    metrics = few_shot_run(protocol, settings, 1, base)["metrics"]
    assert set(metrics) >= set(study.columns) and all(0 <= value <= 1 for value in metrics.values())


def test_the_base_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.undo()
    made = []

    def pretrain(folder, **settings):
        made.append(settings)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        return type("Made", (), {"curve": [{"step": 1}]})

    monkeypatch.setattr(comma, "pretrain_on_scenes", pretrain)
    assert pretrained_base(tmp_path / "p") == pretrained_base(tmp_path / "p") == tmp_path / "p" / "model"
    assert len(made) == 1 and made[0]["steps"] == comma.BASE_STEPS
    (tmp_path / "p" / "curve.json").unlink()  # half a base does not count as one
    pretrained_base(tmp_path / "p")
    assert len(made) == 2


def test_gains_are_paired_by_seed():
    def run(name, seed, value):
        return {"configuration": name, "seed": seed, "metrics": {"harmonic_mean": value}}

    runs = [run("zero-shot", 1, 0.6), *(run("CoOp", seed, 0.5 + 0.1 * seed) for seed in (1, 2))]
    runs += [run("COMMA", seed, 0.55 + 0.1 * seed) for seed in (1, 2)]
    lines = gains(runs, "harmonic_mean").splitlines()
    assert lines[2].startswith("| zero-shot |  | +10.0 ± ")
    assert lines[3].startswith("| CoOp | +5.0 ± ") and lines[3].endswith("| +5.0 ± 0.0 |")
    assert lines[4].startswith("| COMMA | +10.0 ± ") and lines[4].endswith("|  |")
