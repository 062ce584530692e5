"""Few-shot protocols on folders of tiny pictures."""

import json
import math

import datasets
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vlcomp import protocols
from vlcomp.data.classification_sets import ClassificationSet, load_classification_set
from vlcomp.errors import ArgumentError, DataError
from vlcomp.protocols import base_to_novel, cross_dataset, domain_generalization, harmonic_mean
from vlcomp.protocols import prompted as prompted_module
from vlcomp.protocols.prompted import FewShot
from vlcomp.protocols.results import ProtocolResult, slug
from vlcomp.testing import make_class_folder

CLASSES = ("cup", "star", "dog", "house", "ball")
# Two steps, no warm-up.
QUICK = {"max_steps": 2, "warmup_epochs": 0, "random_crop": None, "prompt_depth": 2, "report_to": "none"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_class_folder(tmp_path_factory.mktemp("sets") / "zoo", CLASSES, n=8)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_class_folder(tmp_path_factory.mktemp("sets") / "farm", ("cat", "tree", "car"), n=8, seed=1)


def quiet(line):
    pass


def test_base_to_novel_writes_a_file_a_seed_and_continues(clip_checkpoint, folder, tmp_path):
    lines = []
    arguments = {"arguments": QUICK, "shots": 2, "output": tmp_path}
    result = base_to_novel(clip_checkpoint, folder, seeds=[1], log=lines.append, **arguments)
    (record,) = result.records
    metrics = record["metrics"]
    assert metrics["harmonic_mean"] == pytest.approx(harmonic_mean(metrics["base"], metrics["novel"]))
    assert record["data"]["source"]["classes"] == 5 and record["shots"] == 2 and record["split"] == "test"
    assert json.loads((tmp_path / "zoo" / "seed1.json").read_text()) == record
    assert (tmp_path / "zoo" / "seed1.safetensors").is_file() and not (tmp_path / "zoo" / "seed1").exists()
    assert lines[0].startswith("[1/1] zoo, seed 1: base ")

    again = base_to_novel(clip_checkpoint, folder, seeds=[1, 2], log=lines.append, **arguments)
    assert lines[1] == "[1/2] zoo, seed 1: done before" and lines[2].startswith("[2/2] zoo, seed 2: base ")
    assert again.records[0] == record and [r["seed"] for r in again.records] == [1, 2]
    with pytest.raises(DataError, match="seed1.json was made with shots=2, and now it is 3; give another output"):
        base_to_novel(clip_checkpoint, folder, seeds=[1], log=quiet, **{**arguments, "shots": 3})
    with pytest.raises(DataError, match="was made with arguments="):
        base_to_novel(
            clip_checkpoint, folder, seeds=[1], log=quiet, **{**arguments, "arguments": {**QUICK, "n_ctx": 1}}
        )
    (tmp_path / "zoo" / "seed2.json").write_text("{")
    with pytest.raises(DataError, match="seed2.json is not a result of a protocol"):
        base_to_novel(clip_checkpoint, folder, seeds=[2], log=quiet, **arguments)


def test_only_base_classes_are_trained(clip_checkpoint, folder, monkeypatch):
    seen = {}
    real = prompted_module.CommaTrainer

    def trainer(model, args, train, **kwargs):
        seen.update(rows=train, names=kwargs["class_names"], args=args)
        return real(model, args, train, **kwargs)

    monkeypatch.setattr(prompted_module, "CommaTrainer", trainer)
    base_to_novel(clip_checkpoint, folder, shots=3, seeds=[4], arguments=QUICK, log=quiet)
    assert seen["names"] == ("ball", "cup", "dog")  # the first three of five, in the order of the folders
    assert len(seen["rows"]) == 9
    places = {row["path"].split("/")[-2] for row in seen["rows"]["image"]}
    assert places == {"ball", "cup", "dog"}
    test = {row["path"] for row in load_classification_set(folder).split("test")["image"]}
    assert not test & {row["path"] for row in seen["rows"]["image"]}
    assert seen["args"].seed == 4 and seen["args"].template == "a photo of a {}."


def test_the_same_seed_gives_the_same_prompts(clip_checkpoint, folder, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        base_to_novel(
            clip_checkpoint, folder, shots=2, seeds=[seed], arguments=QUICK, output=tmp_path / name, log=quiet
        )
    a, b, c = (load_file(next((tmp_path / name).rglob("*.safetensors"))) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not any(torch.equal(a[f"text.{layer}"], c[f"text.{layer}"]) for layer in (0, 1))


def test_zero_shot_is_one_run_and_is_that_of_the_plain_clip(clip_checkpoint, folder):
    from vlcomp.evaluation import evaluate
    from vlcomp.evaluation.tasks import ZeroShotClassification

    arguments = {"prompt_variant": "zero-shot"}
    result = base_to_novel(clip_checkpoint, folder, shots=2, seeds=[3, 4], arguments=arguments, log=quiet)
    assert len(result.records) == 1 and result.records[0]["shots"] is None
    rows = load_classification_set(folder).split("test")
    keep = [i for i, label in enumerate(rows["label"]) if label < 3]

    class Base(ZeroShotClassification):
        def load(self):
            from vlcomp.evaluation.tasks.classification import LabelledImages

            images = [rows["image"][i] for i in keep]
            return LabelledImages(
                images, [str(i) for i in keep], np.array(rows["label"])[keep], ["ball", "cup", "dog"]
            )

    report = evaluate(str(clip_checkpoint), tasks=[Base(gallery=False)], progress=False)
    expected = report.metrics["zero_shot_classification/accuracy"]
    assert result.records[0]["metrics"]["base"] == pytest.approx(expected)


def test_cross_dataset_measures_targets_with_their_own_classes(clip_checkpoint, folder, other, monkeypatch):
    asked = []
    real = prompted_module.Prompted.accuracy

    def accuracy(self, data):
        value = real(self, data)
        asked.append((data.name, self.model.class_names))
        return value

    monkeypatch.setattr(prompted_module.Prompted, "accuracy", accuracy)
    result = cross_dataset(clip_checkpoint, folder, [other], shots=2, seeds=[1], arguments=QUICK, log=quiet)
    assert asked == [("farm", ("car", "cat", "tree")), ("zoo", ("ball", "cup", "dog", "house", "star"))]
    (record,) = result.records
    assert set(record["metrics"]) == {"source", "farm", "mean"}
    assert record["metrics"]["mean"] == record["metrics"]["farm"]
    assert record["arguments"]["learning_rate"] == 0.0026 and record["arguments"]["prompt_depth"] == 2
    with pytest.raises(ArgumentError, match="targets is missing"):
        cross_dataset(clip_checkpoint, folder)
    with pytest.raises(ArgumentError, match="must not hold the source 'zoo'"):
        cross_dataset(clip_checkpoint, folder, [folder])


def test_transfer_has_three_layers_of_prompts_where_there_are_so_many(clip_checkpoint):
    from vlcomp.protocols.prompted import with_depth

    assert with_depth(str(clip_checkpoint), {}, 3)["prompt_depth"] == 2  # two blocks
    assert with_depth(str(clip_checkpoint), {"prompt_depth": 1}, 3)["prompt_depth"] == 1
    assert "prompt_depth" not in with_depth(str(clip_checkpoint), {"prompt_variant": "coop"}, 3)
    assert with_depth("no/such", {}, 3)["prompt_depth"] == 3


def test_domains_have_the_source_s_classes(clip_checkpoint, folder, other, tmp_path):
    part = make_class_folder(tmp_path / "sketches", ("dog", "cup"), n=6, seed=5)
    arguments = {"prompt_variant": "zero-shot"}
    result = domain_generalization(clip_checkpoint, folder, [part], arguments=arguments, log=quiet)
    assert set(result.metrics) == {"source", "sketches", "mean"} and result.protocol == "domain-generalization"
    with pytest.raises(ArgumentError, match="domain 'farm' has the class 'car', which 'zoo' has not"):
        domain_generalization(clip_checkpoint, folder, [other], arguments=arguments, log=quiet)


def test_ties_are_wrong_and_nan_aborts(clip_checkpoint, folder):
    from vlcomp.errors import EvaluationError

    data = load_classification_set(folder)
    made = FewShot(str(clip_checkpoint), {"prompt_variant": "zero-shot"}, 1).train(data, 0, None)
    twins = ClassificationSet("t", "a {}", data.class_names, data.splits)
    with torch.no_grad():
        made.model.text_projection.weight.fill_(0.01)  # all texts point one way
    assert made.accuracy(twins) == 0.0
    with torch.no_grad():
        made.model.text_projection.weight.fill_(math.nan)
    with pytest.raises(EvaluationError):
        made.accuracy(twins)


def test_bad_arguments(clip_checkpoint, folder, tmp_path):
    def run(**over):
        return base_to_novel(clip_checkpoint, **{"data": folder, "log": quiet, "arguments": QUICK, "shots": 2, **over})

    with pytest.raises(DataError, match="class 'ball' of the training split of 'zoo' has 4 images, fewer than the 16"):
        run(shots=16)
    with pytest.raises(ArgumentError, match="split='dev' is not one of test, validation"):
        run(split="dev")
    with pytest.raises(ArgumentError, match=r"seeds=\[1, 1\]"):
        run(seeds=[1, 1])
    with pytest.raises(ArgumentError, match="arguments holds 'seed', which the protocol sets"):
        run(arguments={"seed": 1})
    with pytest.raises(ArgumentError, match="arguments holds 'n_ctxt', which is no field"):
        run(arguments={"n_ctxt": 1})
    with pytest.raises(ArgumentError, match="must be one or more sets, each once"):
        run(data=[folder, folder])
    with pytest.raises(ArgumentError, match="count=2: base and novel classes need at least two each"):
        run(data=make_class_folder(tmp_path / "two", n=5))
    with pytest.raises(ArgumentError, match="data=3 is neither a name, a folder"):
        run(data=3)


def _record(name, seed, base, novel):
    return {"set": name, "seed": seed, "metrics": {"base": base, "novel": novel}}


def test_the_table_has_means_with_intervals():
    records = [_record("a", 1, 0.5, 0.7), _record("a", 2, 0.6, 0.7), _record("b", 1, 0.9, 0.5)]
    result = ProtocolResult("base-to-novel", {"base": "base", "novel": "novel"}, records)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.to_markdown().splitlines()]
    assert lines[0] == ["trained on", "seeds", "base", "novel"]
    assert lines[2] == ["a", "2", "55.0 ± 63.5", "70.0 ± 0.0"]  # t of one degree of freedom: 12.7 x 0.05
    assert lines[3] == ["b", "1", "90.0", "50.0"]
    assert lines[4] == ["mean of sets", "1", "70.0", "60.0"]  # of the seed that both have
    assert result.values("base") == {1: pytest.approx(0.7)}
    assert result.interval("base", "a").value == pytest.approx(0.55)
    with pytest.raises(ArgumentError, match="metric='hm' is not one of base, novel"):
        result.values("hm")
    with pytest.raises(ArgumentError, match="data='c' is not one of a, b"):
        result.values("base", "c")


def test_harmonic_mean_and_names_of_folders():
    assert harmonic_mean(0.5, 0.5) == 0.5 and harmonic_mean(0.0, 0.9) == 0.0
    assert harmonic_mean(0.8242, 0.7587) == pytest.approx(0.7901, abs=1e-4)
    assert slug("scenes/noun/sketch") == "scenes-noun-sketch" and slug("../x") == "..-x"


def test_scenes_have_usual_targets(monkeypatch):
    seen = []
    fake = ClassificationSet("x", "{}", ("a", "b"), {"test": datasets.Dataset.from_dict({"label": [0]})})
    monkeypatch.setattr(prompted_module, "load_classification_set", lambda name, **_: seen.append(name) or fake)
    with pytest.raises(ArgumentError, match="each once"):
        protocols.domain_generalization("m", "scenes/noun")
    assert seen == ["scenes/noun", *(f"scenes/noun/{s}" for s in ("outline", "noise", "palette", "sketch"))]
