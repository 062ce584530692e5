"""The study of Iterated-CLIP: what is held equal, what a run leaves, and its tables."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

import _vlcomp_cli
from vlcomp.analysis import line_chart
from vlcomp.data.scenes.items import CATEGORIES
from vlcomp.studies import iterated_clip as study_module
from vlcomp.studies.clip import SELECTION_METRIC
from vlcomp.studies.frame import differences, load_runs, run_study
from vlcomp.studies.iterated_clip import CONFIGURATIONS, PATCHES, SELECTION, STEPS, STUDY
from vlcomp.studies.iterated_clip_tables import COMPARED, PAIRS, codes_table, figures, over_generations

TINY = {"steps": 4, "generation_steps": 2, "warmup_steps": 1, "num_images": 64, "batch_size": 16, "codes": 16}
TINY |= {"temperature": 1.0, "width": 32, "layers": 1}


def test_configurations_differ_only_where_their_names_say():
    plain = CONFIGURATIONS["Iterated-CLIP"]
    assert plain["generations"] * plain["generation_steps"] == plain["steps"] == STEPS
    checkpoints = {"generation_steps": STEPS // 4, "freeze_steps": STEPS // 16}
    wanted = {
        "CLIP": {"codebook": False, "generations": 1, **checkpoints},
        "Codebook-CLIP": {"generations": 1, **checkpoints},
        "Iterated-CLIP": {},
        "Iterated-CLIP, four generations": {"generations": 4, **checkpoints},
    }
    found = {name: {**plain, **changes} for name, changes in wanted.items()}
    for name in ("codes", "temperature"):
        del found["CLIP"][name]
    assert found == CONFIGURATIONS
    assert len(STUDY.seeds) == 5 and STUDY.parts == {"selection": SELECTION, "patches": PATCHES}
    assert not any("systematic" in name or "winoground" in name for name in SELECTION.columns)
    for name, settings in SELECTION.configurations.items():
        if settings["generations"] > 1:
            assert settings["generations"] * settings["generation_steps"] == settings["steps"] == STEPS, name
            assert settings["freeze_steps"] <= settings["generation_steps"]
    # All that the method's choice hangs on is searched.
    for setting in ("codes", "temperature", "generation_steps", "freeze_steps"):
        assert len({settings.get(setting) for settings in SELECTION.configurations.values()}) >= 3, setting


def test_settings_are_those_that_the_published_search_chose():
    folder = Path(__file__).resolve().parents[2] / "model_cards" / "results" / "iterated-clip" / "selection"
    runs = [(run["settings"], run["metrics"]["scenes/mean/accuracy"]) for run in load_runs(SELECTION, folder)]

    def means(setting, **fixed):
        return {
            settings[setting]: mean
            for settings, mean in runs
            if settings["codebook"] and all(settings.get(name) == value for name, value in fixed.items())
        }

    def best(found):
        assert len(found) >= 2
        return max(found, key=found.get)

    # Temperature and size of the codebook in half the steps; sizes have temperatures in proportion.
    half = {"steps": STEPS // 2, "generations": 1}
    assert best(means("temperature", codes=512, **half)) == study_module.TEMPERATURE
    per_code = study_module.TEMPERATURE / study_module.CODES
    sizes = {codes: means("temperature", codes=codes, **half).get(per_code * codes) for codes in (128, 512, 2048)}
    close = [codes for codes, mean in sizes.items() if mean > max(sizes.values()) - 0.005]
    assert min(close) == study_module.CODES
    # Length, then frozen share of generations.
    chosen = {"temperature": study_module.TEMPERATURE, "codes": study_module.CODES, "steps": STEPS}
    lengths = {
        length: means("generation_steps", generation_steps=length, freeze_steps=length // 4, **chosen)[length]
        for length in (STEPS // 6, STEPS // 4, STEPS // 2)
    }
    assert best(lengths) == study_module.GENERATION_STEPS
    shares = means("freeze_steps", generation_steps=study_module.GENERATION_STEPS, **chosen)
    assert len(shares) == 3 and best(shares) == study_module.FREEZE_STEPS


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Runs of seconds: tiny model and data, few items."""
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "cache"))
    for name, value in (("EASE_STEPS", 3), ("SMOOTH_IMAGES", 2), ("CODE_ROWS", 16)):
        monkeypatch.setattr(study_module, name, value)
    monkeypatch.setattr(study_module, "ScenesRetrieval", partial(study_module.ScenesRetrieval, size=16))
    real = {name: getattr(study_module, name) for name in ("analyse", "validate", "topographic_similarity")}
    monkeypatch.setattr(study_module, "analyse", lambda folder, seed: real["analyse"](folder, seed, ease_rows=32))
    monkeypatch.setattr(study_module, "validate", lambda embedder, items=4: real["validate"](embedder, items=4))
    monkeypatch.setattr(
        study_module,
        "topographic_similarity",
        lambda model, **options: real["topographic_similarity"](model, scenes=12, **options),
    )
    measure = study_module.clip.measure_on_scenes
    monkeypatch.setattr(
        study_module.clip, "measure_on_scenes", lambda folder, **options: measure(folder, **{**options, "size": 8})
    )


@pytest.mark.parametrize("name", ["CLIP", "Iterated-CLIP"])
def test_a_run_measures_every_generation_and_keeps_nothing_big(small, tmp_path, name):
    settings = {**CONFIGURATIONS[name], **TINY, "freeze_steps": 1}
    if name != "CLIP":
        settings["generations"] = 2
    found = STUDY.run(settings, 0, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    metrics, checkpoints = found["metrics"], found["checkpoints"]
    assert set(STUDY.columns) <= metrics.keys()
    four = [metrics[f"scenes/systematic/{c}/accuracy"] for c in study_module.SYSTEMATIC_CATEGORIES]
    assert metrics["scenes/systematic/mean/accuracy"] == pytest.approx(sum(four) / 4)
    seven = [metrics[f"scenes/{category}/accuracy"] for category in CATEGORIES]
    assert metrics["scenes/mean/accuracy"] == pytest.approx(sum(seven) / 7)
    assert [each["step"] for each in checkpoints] == [2, 4]
    assert [each["generation"] for each in checkpoints] == ([1, 1] if name == "CLIP" else [1, 2])
    for each in checkpoints:
        assert len(each["ease_curve"]) == 3 and each["slope"] <= 10 ** each["log10_bound_here"]
        assert {SELECTION_METRIC, "scenes/mean/accuracy"} <= each["validation"].keys()
    assert metrics["ease_mean"] == checkpoints[-1]["ease_mean"]
    codes = {"active_codes/image", "active_codes/text", "used_codes/both"}
    assert codes <= metrics.keys() if name != "CLIP" else not codes & metrics.keys()
    events = [(entry["step"], entry["spawn"]) for entry in found["log"] if "spawn" in entry]
    assert events == ([] if name == "CLIP" else [(2, 2)])
    json.dumps(found)
    # The tables of one such run.
    run = {"configuration": name, "seed": 0, **found}
    assert over_generations([run]).count("\n") == 3 and codes_table([run]).count("\n") == 2


def test_the_selection_looks_at_validation_only_and_continues(small, tmp_path, monkeypatch):
    name = next(iter(SELECTION.configurations))
    settings = {**SELECTION.configurations[name], **TINY}
    tiny = type(SELECTION)(**{**vars(SELECTION), "configurations": {name: settings}})

    def fails(*args, **kwargs):
        raise AssertionError("the test split was measured")

    monkeypatch.setattr(study_module.clip, "measure_on_scenes", fails)
    lines = []
    run_study(tiny, tmp_path / "out", log=lines.append)
    run_study(tiny, tmp_path / "out", log=lines.append)
    assert [line.split(": ")[1].split(" ")[0] for line in lines] == [
        "running",
        lines[1].split(": ")[1].split()[0],
        "done",
    ]
    (run,) = load_runs(tiny, tmp_path / "out")
    assert run["settings"]["temperature"] == 1.0 and set(tiny.columns) <= run["metrics"].keys()
    assert "codes of an image" in tiny.details([run])


def test_patch_size_and_rate_reach_the_run(small, tmp_path):
    settings = {**CONFIGURATIONS["Codebook-CLIP"], **TINY, "steps": 20, "generation_steps": 4, "learning_rate": 3e-3}
    log = study_module.train_on_scenes(tmp_path / "model", patch_size=20, progress=False, **settings)
    assert study_module.load_dual_encoder(tmp_path / "model")[0].config.vision_config.patch_size == 20
    rates = {entry["step"]: entry["learning_rate"] for entry in log if "learning_rate" in entry}
    assert rates[2] == 3e-3 and 0 < rates[20] < 1e-4 < rates[18] < rates[10] < rates[2]


def fake(name, seed, mean):
    metrics = dict.fromkeys(
        (
            "scenes/swap_object/accuracy",
            "scenes/swap_attribute/accuracy",
            "scenes/systematic/mean/accuracy",
            "scenes/retrieval/image_to_text/recall@1",
            "scenes/retrieval/text_to_image/recall@1",
        ),
        0.5,
    )
    validation = {SELECTION_METRIC: mean, "scenes/mean/accuracy": mean, "scenes/swap_attribute/accuracy": 0.5}
    entry = {
        "ease_mean": mean,
        "ease_curve": [0.1, mean],
        "ease_at_first_scale_mean": mean,
        "ease_at_first_scale_curve": [0.1, mean],
        "logit_scale": 30.0,
        "log10_bound": 20,
        "log10_bound_here": 10,
        "slope": 2.0,
        "validation": validation,
    }
    first = {**entry, "ease_at_first_scale_curve": [0.0, 0.05]}
    return {
        "configuration": name,
        "seed": seed,
        "metrics": {**metrics, "scenes/mean/accuracy": mean, "topography/image": 0.1},
        "checkpoints": [{"step": 375, **first}, {"step": 1500, **entry}],
    }


def test_differences_are_paired_by_seed():
    runs = [fake("CLIP", seed, 0.6 + 0.1 * seed) for seed in range(3)]
    runs += [fake("Iterated-CLIP", seed, 0.65 + 0.1 * seed) for seed in (0, 1)]
    lines = differences(runs, PAIRS, COMPARED).splitlines()
    assert len(lines) == 3  # what has no partner has no row
    # The seeds differ by 10 points, the differences do not.
    assert lines[2].startswith("| Iterated-CLIP - CLIP | 2 | +5.0 ± 0.0 | +0.0 ± 0.0 |")
    rows = over_generations(runs).splitlines()
    assert len(rows) == 6 and rows[2].startswith(
        "| CLIP | 375 | 70.0 ± 24.8 | 70.0 ± 24.8 | 30.0 ± 0.0 | 20.00 ± 0.00 |"
    )
    assert "## Differences" in STUDY.details(runs) and "+4.7" in STUDY.details(runs)


def test_figures_show_the_mean_over_seeds():
    runs = [fake(name, seed, 0.2 + 0.2 * seed) for name in ("CLIP", "Iterated-CLIP") for seed in (0, 1)]
    drawn = figures(runs)
    assert set(drawn) == {"ease.svg", "ease-at-first-scale.svg", "slope.svg", "bound.svg", "ease-curves.svg"}
    assert "CLIP" in drawn["ease.svg"] and "Iterated-CLIP" in drawn["ease.svg"]
    more = figures([*runs, fake("Iterated-CLIP, four generations", 0, 0.3), fake("another", 0, 0.3)])
    assert "four generations" in more["slope.svg"] and "another" not in more["slope.svg"]
    # The mean of 20 and 40 %: at the first scale a new agent's curve begins at 10.
    same = line_chart(
        {name: [(1, 10.0), (2, 30.0)] for name in ("CLIP", "Iterated-CLIP")},
        title="New language agents beside the final vision agents",
        x_label="its steps",
        y_label="in-batch accuracy (%)",
    )
    assert re.findall(r'<path d="M[^"]*L[^"]*"', drawn["ease-curves.svg"]) == re.findall(
        r'<path d="M[^"]*L[^"]*"', same
    )
    assert figures([]) == {}


def test_reproduce_writes_the_figures_beside_the_table(small, tmp_path, monkeypatch, capsys):
    runs = [fake("Codebook-CLIP", 0, 0.2)]
    tiny = type(STUDY)(
        **{
            **vars(STUDY),
            "configurations": {"Codebook-CLIP": TINY},
            "seeds": (0,),
            "run": lambda settings, seed, folder: {k: runs[0][k] for k in ("metrics", "checkpoints")},
        }
    )
    monkeypatch.setattr(study_module, "STUDY", tiny)
    assert _vlcomp_cli.main(["reproduce", "iterated-clip", "--output", str(tmp_path / "out")]) == 0
    for name, figure in figures(runs).items():
        assert (tmp_path / "out" / name).read_text() == figure
        assert f"![{name.removesuffix('.svg')}]({name})" in (tmp_path / "out" / "README.md").read_text()
