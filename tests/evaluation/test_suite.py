import json
import os
import stat

import numpy as np
import pyarrow.parquet as pq
import pytest

from vlcomp import Embedder, evaluate
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.evaluation import Report, Task, TaskResult, get_task, list_tasks, register_task, registry, resolve_tasks
from vlcomp.evaluation.results import source_commit
from vlcomp.evaluation.suite import _mean_score
from vlcomp.evaluation.task import ITEM_COLUMNS, Score
from vlcomp.testing import make_captioned_folder, make_class_folder, tiny_clip, tiny_processor

from .common import HashModel

SEVEN = [
    "replace_object",
    "replace_attribute",
    "replace_relation",
    "swap_object",
    "swap_attribute",
    "add_object",
    "add_attribute",
]


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def report(cache):
    tasks = [f"scenes/{name}" for name in SEVEN] + ["scenes/retrieval"]
    return evaluate(HashModel(), tasks=tasks, size=20, progress=False, name="models/hash")


# -- names ----------------------------------------------------------------------------------------


def test_groups_and_patterns_expand():
    everything = resolve_tasks("scenes")
    assert len(everything) == len(set(everything)) == 18
    assert {f"scenes/{name}" for name in SEVEN} <= set(everything)
    assert resolve_tasks(["scenes/swap_*", "scenes/swap_object"]) == ["scenes/swap_object", "scenes/swap_attribute"]
    assert len(resolve_tasks("scenes/classification")) == 5
    assert "scenes/systematic/swap_attribute" in resolve_tasks("scenes/systematic")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("scenes/swap_atribute", "scenes/swap_attribute"), ("retreival", "retrieval"), ("scene", "scenes")],
)
def test_an_unknown_task_names_close_ones(name, hint):
    with pytest.raises(ArgumentError, match=f"did you mean .*{hint}"):
        resolve_tasks([name])


def test_every_task_says_what_it_is():
    for info in list_tasks():
        assert info.description and info.licence and info.source and info.convention and info.version, info.name
        assert len(info.description) < 90


def test_options_are_checked(tmp_path):
    with pytest.raises(ArgumentError, match="has no option 'sise'; it has .*size"):
        get_task("scenes/swap_object", sise=3)
    with pytest.raises(ArgumentError, match="needs data"):
        get_task("retrieval")
    with pytest.raises(ArgumentError, match="its own data"):
        get_task("scenes/swap_object", data="x")
    with pytest.raises(ArgumentError, match="group of 18"):
        get_task("scenes")
    with pytest.raises(ArgumentError, match="has an option 'sise'"):
        evaluate(HashModel(), tasks="scenes/swap_object", sise=3)
    with pytest.raises(ArgumentError, match="reads data"):
        evaluate(HashModel(), tasks="scenes/swap_object", data=tmp_path)
    with pytest.raises(ArgumentError, match="more than once"):
        evaluate(HashModel(), tasks=[get_task("scenes/swap_object"), "scenes/swap_object"])
    with pytest.raises(ArgumentError, match="empty"):
        evaluate(HashModel(), tasks=[])
    with pytest.raises(ArgumentError, match="processor is missing"):
        evaluate(tiny_clip(), tasks="scenes/swap_object")


def test_a_task_of_ones_own(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTERED", {})

    class Mine(Task):
        name, source, licence, convention = "mine/half", "here", "MIT", "none"

        def __init__(self, *, value: float = 0.5):
            self.value = value

        def run(self, model, *, progress=False):
            return TaskResult(self.name, self.version, {"accuracy": Score(self.value, 2)})

    register_task("mine/half", Mine, description="one half")
    assert resolve_tasks("mine") == ["mine/half"]
    assert evaluate(
        HashModel(),
        tasks=[
            "mine",
        ],
        value=0.25,
        progress=False,
    ).metrics == {"mine/half/accuracy": 0.25}
    with pytest.raises(ArgumentError, match="exists already"):
        register_task("mine/half", Mine)


# -- evaluate ----------------------------------------------------------------------------------------


def test_results_hold_everything_that_scores_depend_on(report):
    results = report.results
    assert results["schema"] == "vlcomp-results/1" and results["model"]["name"] == "models/hash"
    assert {"vlcomp_version", "created", "commit", "settings", "environment", "tasks"} <= set(results)
    entry = results["tasks"]["scenes/swap_object"]
    assert entry["n"] == 20 and entry["version"] == "1.1" and entry["headline"] == "accuracy"
    assert set(entry["scores"]["accuracy"]) == {"value", "n", "standard_error", "low", "high", "ties", "chance"}
    assert set(entry["references"]) == {"text_only", "text_only_classifier", "bag_of_words"}
    assert entry["config"]["size"] == 20 and entry["config"]["split"] == "test" and entry["config"]["world"]
    json.dumps(results, allow_nan=False)


def test_the_mean_of_the_seven_categories(report):
    values = [report.metrics[f"scenes/{name}/accuracy"] for name in SEVEN]
    mean = report.score("scenes/mean/accuracy")
    assert mean.value == pytest.approx(sum(values) / 7) and mean.n == 140
    errors = [report.score(f"scenes/{name}/accuracy").standard_error for name in SEVEN]
    assert mean.standard_error == pytest.approx(sum(e * e for e in errors) ** 0.5 / 7)
    assert (
        "scenes/mean/accuracy"
        not in evaluate(HashModel(), tasks="scenes/swap_*", size=4, progress=False, references=False).metrics
    )


def test_report_round_trip(report, tmp_path):
    report.save(tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["gallery.json", "items.parquet", "results.json"]
    again = Report.load(tmp_path / "run")
    assert again.results == report.results and again.gallery == report.gallery
    assert again.to_markdown() == report.to_markdown()
    filled = [{column: item.get(column) for column in ITEM_COLUMNS} for item in report.items]
    assert again.items == filled and len(filled) == 7 * 20 + 2 * 20
    table = pq.read_table(tmp_path / "run" / "items.parquet").to_pydict()
    chosen = [c for c, t in zip(table["correct"], table["task"], strict=True) if t == "scenes/swap_object"]
    assert sum(chosen) / 20 == report.metrics["scenes/swap_object/accuracy"]
    assert Report.load(tmp_path / "run" / "results.json").name == "models/hash"
    mode = stat.S_IMODE((tmp_path / "run" / "results.json").stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    assert mode == 0o666 & ~umask


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        Report.load(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": "other/9"}')
    with pytest.raises(DataError, match="'other/9'"):
        Report.load(tmp_path)


def test_an_unwritable_output_is_found_before_anything_runs(tmp_path):
    (tmp_path / "file").write_text("")

    class Never:
        def encode_images(self, images):
            raise AssertionError("must not run")

        encode_texts = encode_images

    with pytest.raises(ArgumentError, match="cannot be written"):
        evaluate(Never(), tasks="scenes/swap_object", size=4, output=tmp_path / "file" / "run")


def test_markdown_shows_intervals_and_references(report):
    lines = report.to_markdown().splitlines()
    assert len({len(line) for line in lines}) == 1
    row = next(line for line in lines if "scenes/swap_object/accuracy" in line)
    score = report.score("scenes/swap_object/accuracy")
    assert f"{score.value:.3f}" in row and f"{score.low:.3f} - {score.high:.3f}" in row
    assert row.count("0.500") >= 4  # text only twice, bag of words, chance
    assert len(report.to_markdown(headlines=True).splitlines()) == 2 + 9


def test_data_for_each_task_and_options_where_they_fit(tmp_path):
    captioned, classes = make_captioned_folder(tmp_path / "a", 6), make_class_folder(tmp_path / "b", ("cup", "star"))
    report = evaluate(
        HashModel(),
        tasks=["retrieval", "zero_shot_classification"],
        data={"retrieval": str(captioned), "zero_shot_classification": classes},
        templates="a {}",
        limit=5,
        progress=False,
    )
    assert report.results["tasks"]["retrieval"]["config"]["images"] == 5
    assert report.results["tasks"]["zero_shot_classification"]["config"]["templates"] == ["a {}"]


def test_a_folder_a_model_and_an_embedder_score_the_same(clip_checkpoint):
    from vlcomp import load_embedder

    embedder = load_embedder(clip_checkpoint)
    options = {"tasks": "scenes/swap_object", "size": 10, "progress": False}
    reports = [
        evaluate(str(clip_checkpoint), **options),
        evaluate(embedder.model, embedder.processor, **options),
        evaluate(embedder, **options),
    ]
    scores = [[item["margin"] for item in report.items] for report in reports]
    assert scores[0] == scores[1] == scores[2]
    assert reports[0].results["model"]["model_type"] == "clip" and reports[0].results["model"]["parameters"] > 1000
    assert isinstance(embedder, Embedder)


def test_commit_is_that_of_the_package_or_nothing():
    commit = source_commit()
    assert commit is None or len(commit.removesuffix("-dirty")) == 40


def test_a_checkpoint_without_a_processor_takes_the_given_one(tmp_path):
    tiny_clip().save_pretrained(tmp_path)
    options = {"tasks": "scenes/swap_object", "size": 8, "progress": False}
    with pytest.raises(CheckpointError, match="no image processor"):
        evaluate(tmp_path, **options)
    given = evaluate(tmp_path, tiny_processor(), **options)
    assert given.metrics == evaluate(tiny_clip(), tiny_processor(), **options).metrics


def test_a_group_mean_knows_no_spread_where_its_parts_do_not():
    scores = [Score.from_values([1, 0], ["a", "a"]), Score.from_values([1, 0, 1], ["a", "b", "c"])]
    assert scores[0].standard_error is None and scores[0].low is None
    assert scores[1].standard_error > 0
    mean = _mean_score(scores)
    assert mean.value == pytest.approx(7 / 12)
    assert mean.standard_error is None and mean.low is None and mean.high is None
    assert _mean_score(scores[1:]).low < scores[1].value


def test_a_mistyped_task_name_finds_the_task_itself():
    with pytest.raises(ArgumentError, match="did you mean retrieval"):
        resolve_tasks("retreival")


@pytest.mark.parametrize("option", [{"limit": "5"}, {"limit": 2.5}, {"batch_size": "x"}, {"batch_size": 2.5}], ids=str)
def test_counts_are_whole_numbers(option):
    with pytest.raises(ArgumentError, match=f"{list(option)[0]}=.* must be a whole number"):
        evaluate(tiny_clip(), tiny_processor(), tasks="scenes/retrieval", size=20, progress=False, **option)


def test_a_class_in_place_of_a_model():
    with pytest.raises(ArgumentError, match="model is the class HashModel"):
        evaluate(HashModel, tasks="scenes/retrieval", size=20, progress=False)


@pytest.mark.parametrize("option", [{"device": "cpu"}, {"fit": "pad"}, {"dtype": "float32"}, {"processor": object()}])
def test_options_that_an_embedder_would_not_heed_are_refused(option):
    with pytest.raises(ArgumentError, match=f"{next(iter(option))} has no effect on a Embedder"):
        evaluate(Embedder(tiny_clip(), tiny_processor()), tasks=["scenes/retrieval"], size=4, progress=False, **option)


# -- ties --------------------------------------------------------------------------------------------


def test_noise_of_float32_decides_nothing():
    from vlcomp.evaluation.scoring import TIE_TOLERANCE, compare_pairs, rank_candidates, winoground_scores

    assert TIE_TOLERANCE == 1e-6
    true = np.array([0.3 + 5e-8, 0.3 - 5e-8, 0.3 + 2e-6, 0.3 - 2e-6])
    outcome = compare_pairs(true, np.full(4, 0.3))
    assert outcome.tie.tolist() == [True, True, False, False] and outcome.correct.tolist() == [0, 0, 1, 0]
    assert outcome.margin[:2].tolist() == [0, 0] and outcome.expected.tolist() == [0.5, 0.5, 1, 0]
    grid = np.array([[[0.5, 0.5 - 5e-8], [0.2, 0.4]], [[0.5, 0.5 - 2e-6], [0.2, 0.6]]])
    found = winoground_scores(grid)
    assert found.text.tolist() == [False, True] and found.text_tie.tolist() == [True, False]
    ranks = rank_candidates(np.array([[0.5, 0.5 - 5e-8, 0.5 - 2e-6]]), [0], [0, 1, 2])
    assert (ranks.rank.tolist(), ranks.tied.tolist()) == ([2], [1])


# -- the full suite ----------------------------------------------------------------------------------


@pytest.fixture
def benchmarks(tmp_path, monkeypatch):
    """A folder of benchmarks with one that is complete and one of which files are missing."""
    from .benchmarks.layouts import dump, picture

    monkeypatch.delenv("VLCOMP_DATA", raising=False)
    root = tmp_path / "benchmarks"
    for side in (0, 1):
        picture(root / "winoground" / "images" / f"ex_{side}.png")
    row = {"image_0": "ex_0", "image_1": "ex_1", "caption_0": "a cup on a hat", "caption_1": "a hat on a cup"}
    (root / "winoground" / "examples.jsonl").write_text(json.dumps(row) + "\n")
    dump(root / "sugarcrepe" / "swap_obj.json", {"0": {"filename": "x.jpg", "caption": "a", "negative_caption": "b"}})
    return root


def test_the_full_suite_measures_what_is_found_and_says_what_is_left_out(benchmarks, tmp_path):
    classes = make_class_folder(tmp_path / "classes", ("cup", "star"))
    data = {"benchmarks": benchmarks, "zero_shot_classification": str(classes)}
    report = evaluate(
        HashModel(), suite="full", data=data, size=8, allow_partial=True, templates="a {}", progress=False
    )
    tasks = set(report.results["tasks"])
    assert {f"scenes/{name}" for name in SEVEN} | {"scenes/retrieval", "scenes/classification/clean"} < tasks
    assert {"winoground", "zero_shot_classification", "scenes/mean"} < tasks
    assert not {name for name in tasks if "systematic" in name}
    left_out = report.results["left_out"]
    assert "x.jpg" in left_out["sugarcrepe"] and "no data named" in left_out["retrieval"]
    assert "official files" in left_out["aro/relation"]
    everything = {info.name for info in list_tasks()}
    assert tasks - {"scenes/mean"} | set(left_out) == {n for n in everything if n in tasks or n[:7] != "scenes/"}
    assert any("incomplete" in warning for warning in report.results["tasks"]["winoground"]["warnings"])
    strict = evaluate(HashModel(), suite="full", data=benchmarks, size=8, progress=False)
    assert "allow_partial" in strict.results["left_out"]["winoground"]


def test_a_pair_scorer_leaves_out_what_it_cannot_do():
    from .test_diagnostics import PairModel

    report = evaluate(PairModel(), suite="full", size=4, progress=False)
    assert set(report.results["tasks"]) == {f"scenes/{n}" for n in [*SEVEN, "winoground", "mean"]}
    assert "no embeddings" in report.results["left_out"]["scenes/retrieval"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "ful"}, "suite='ful' is not known; there is 'full'"),
        ({"suite": "full", "tasks": "scenes"}, "leave tasks out"),
        ({"suite": "full", "sise": 3}, "has an option 'sise'"),
        ({"suite": "full", "data": {"retreival": "x"}}, "did you mean retrieval"),
    ],
)
def test_mistakes_about_suites(options, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(HashModel(), progress=False, **options)


# -- while training ----------------------------------------------------------------------------------


def test_a_suite_on_a_subset_while_training(tmp_path):
    from vlcomp.training.evaluators import SuiteEvaluator

    from ..training.common import trainer

    evaluator = SuiteEvaluator(size=12, limit=6)
    assert {"sugarcrepe", "retrieval"} <= set(evaluator.left_out)
    made = trainer(tmp_path, options={"evaluators": [evaluator]}, metric_for_best_model="scenes/swap_object/accuracy")
    metrics = made.evaluate()
    assert {
        "eval_scenes/swap_object/accuracy",
        "eval_scenes/retrieval/image_to_text/recall@1",
        "eval_scenes/classification/clean/accuracy",
    } < set(metrics)
    with pytest.raises(ArgumentError, match="leave tasks out"):
        SuiteEvaluator("scenes", suite="full")
    with pytest.raises(ArgumentError, match="did you mean"):
        SuiteEvaluator(["scenes/swap_objekt"])


def test_a_callback_measures_in_any_trainer(tmp_path):
    import torch
    from transformers import Trainer, TrainingArguments

    from vlcomp.training.evaluators import EvaluationCallback, SuiteEvaluator

    model, processor = tiny_clip(), tiny_processor()
    size = model.config.vision_config.image_size

    def collate(rows):
        pixels = torch.zeros(len(rows), 3, size, size)
        ids = processor.tokenizer(["a cup"] * len(rows), return_tensors="pt")["input_ids"]
        return {"pixel_values": pixels, "input_ids": ids, "return_loss": True}

    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    made = Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=[0] * 4,
        eval_dataset=[0] * 4,
        processing_class=processor,
        callbacks=[EvaluationCallback([SuiteEvaluator(["scenes/swap_object"], size=8)])],
    )
    made.train()
    name = "eval_scenes/swap_object/accuracy"
    assert [entry["step"] for entry in made.state.log_history if name in entry] == [1, 2]
    # The random numbers of training are those of a run without the callback.
    torch.manual_seed(1)
    assert name in made.evaluate()
    drawn = torch.rand(1)
    made.remove_callback(EvaluationCallback)
    torch.manual_seed(1)
    assert name not in made.evaluate() and torch.rand(1) == drawn
