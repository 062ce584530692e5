"""The study of IMC/CMR-CLIP: what is held equal, and the blind scores."""

import json

import numpy as np
import pytest

from vlcomp.errors import DataError
from vlcomp.studies import imc_cmr, imc_cmr_emoji
from vlcomp.studies.blind import choice_with_and_without_pictures, classifier_accuracy
from vlcomp.studies.clip import pretrain_on_scenes
from vlcomp.studies.imc_cmr import SELECTION, STUDY, fine_tune_on_scenes, gains


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(folder / "cache"))
        pretrain_on_scenes(
            folder / "model",
            steps=2,
            num_images=64,
            batch_size=16,
            eval_steps=2,
            eval_items=4,
            width=32,
            layers=1,
            progress=False,
        )
        yield folder / "model"


@pytest.mark.parametrize("negatives", ["world", "generated"])
def test_fine_tuning_runs_and_measures_on_validation(base, tmp_path, negatives):
    curve = fine_tune_on_scenes(
        base,
        tmp_path / "m",
        objective="imc_cmr",
        steps=4,
        negatives=negatives,
        num_images=400,
        batch_size=16,
        eval_steps=2,
        eval_items=4,
        progress=False,
    )
    assert [entry["step"] for entry in curve] == [2, 4]
    assert {"scenes/swap_attribute/accuracy", "scenes/classification/clean/accuracy"} <= curve[0].keys()
    record = json.loads((tmp_path / "m" / "config.json").read_text())
    world = "replace_object" in record["negative_types"]
    assert world == (negatives == "world") and record["rank_thresholds"]


DIFFERENCES = {"objective", "imc_mode", "negative_types", "negatives", "interpolate"}


def test_configurations_differ_only_where_their_names_say():
    for name, settings in STUDY.configurations.items():
        length = imc_cmr.LONG if "twice" in name else imc_cmr.STEPS
        assert settings.get("steps", length) == length, name
        settings = {**settings, "steps": imc_cmr.STEPS} if settings else settings
        assert set(settings) - set(imc_cmr._COMMON) - set(imc_cmr._WEIGHTS) <= DIFFERENCES, name
        assert not settings or {name: settings[name] for name in imc_cmr._COMMON} == imc_cmr._COMMON
        if "without" in name:
            assert imc_cmr.HELD_OUT_TYPE not in settings["negative_types"]
    assert len(STUDY.seeds) == 5 and STUDY.seedless == ("base",)
    assert STUDY.parts["selection"] is SELECTION
    assert not any("test" in name for name in SELECTION.columns)


def test_gains_are_paired_by_seed():
    def run(name, seed, value):
        return {"configuration": name, "seed": seed, "metrics": {"scenes/mean/accuracy": value}}

    runs = [run("base", 0, 0.5), *(run("plain", s, 0.6 + 0.1 * s) for s in (0, 1))]
    runs += [run("NegCLIP", s, 0.65 + 0.1 * s) for s in (0, 1)]
    lines = gains(runs).splitlines()
    assert lines[2].startswith("| plain | +15.0 ± ")
    # The seeds differ, the differences do not.
    assert "| +5.0 ± 0.0 |" in lines[3] and lines[3].endswith("|  |")


class _Reads:
    """Knows each picture by its colour's first channel and each text by its number, or only how texts begin."""

    def __init__(self, blind):
        self.blind = blind

    def encode_images(self, images):
        return np.eye(12)[[10 if self.blind else image.getpixel((0, 0))[0] for image in images]]

    def encode_texts(self, texts):
        place = [int(text[1:]) for text in texts]
        rows = np.eye(12)[place]
        if self.blind:
            rows[:, 10] = [1.0 if text[0] == "t" else 0.0 for text in texts]
        return rows


@pytest.mark.parametrize("blind", [False, True])
def test_shuffled_pictures_unmask_a_model_that_goes_by_the_text(blind):
    from PIL import Image

    images = [Image.new("RGB", (4, 4), (k, 0, 0)) for k in range(6)]
    captions = [f"t{k}" for k in range(6)]
    negatives = [[("a", "f9")], [("a", "f8")], [], [("b", "f7")], [("b", "f9")], []]
    found = choice_with_and_without_pictures(_Reads(blind), images, captions, negatives)
    assert (found["a/choice"], found["b/choice"], found["mean/choice"]) == (1.0, 1.0, 1.0)
    expected = 1.0 if blind else 0.0  # with another picture both texts score 0: a tie, which is wrong
    assert found["a/choice_shuffled"] == found["mean/choice_shuffled"] == expected


def test_the_text_classifier_sees_a_word_that_only_negatives_have():
    captions = [f"a {w} cup {k}" for k, w in enumerate(["red", "blue"] * 20)]
    telling = [[("negation", text.replace("a ", "no "))] for text in captions]
    swapped = [[("attribute", f"a {'blue' if 'red' in t else 'red'} cup {k}")] for k, t in enumerate(captions)]
    assert classifier_accuracy(captions, telling)["negation/text_only_classifier"] > 0.95
    assert classifier_accuracy(captions, swapped)["attribute/text_only_classifier"] < 0.8


def test_the_emoji_study_says_what_it_needs(monkeypatch, tmp_path):
    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    with pytest.raises(DataError, match="set VLCOMP_DATA to a folder that holds noto_emoji"):
        imc_cmr_emoji.EMOJI.run({}, 0, tmp_path)
