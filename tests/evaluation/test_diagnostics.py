"""Scores on changed inputs, text scorers, breakdowns; and models that score pairs."""

import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from vlcomp import evaluate
from vlcomp.errors import ArgumentError, CheckpointError, EvaluationError
from vlcomp.evaluation import get_task
from vlcomp.evaluation.diagnostics import (
    LanguageModel,
    TextOnly,
    breakdown,
    exchanged,
    shuffled_words,
    text_scorer,
)
from vlcomp.evaluation.encoding import Unencoded, pair_scores
from vlcomp.testing import make_captioned_folder, make_class_folder, tiny_processor

from .common import HashModel


@pytest.fixture(autouse=True, scope="module")
def scenes_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


class PairModel:
    """The scores of HashModel, pair by pair."""

    batch_size = 5

    def __init__(self, scale=1.0):
        self.hash, self.scale, self.pairs = HashModel(), scale, 0

    def score_pairs(self, images, texts):
        assert len(images) == len(texts) <= 5
        self.pairs += len(texts)
        return torch.tensor([self.scale * self.hash.score(i, t) for i, t in zip(images, texts, strict=True)]).double()


class Bag(HashModel):
    """Knows the words of a caption and not their order."""

    def encode_texts(self, texts):
        return np.stack([sum(self.vector(word.encode()) for word in text.split()) for text in texts])


# -- pair scorers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["scenes/swap_object", "scenes/winoground", "scenes/retrieval"])
def test_a_pair_scorer_scores_as_the_encoder_with_the_same_numbers(task):
    pairs = PairModel()
    found, expected = (evaluate(m, tasks=task, size=12, progress=False) for m in (pairs, HashModel()))
    assert found.metrics == expected.metrics and found.items[0]["margin"] == pytest.approx(
        expected.items[0]["margin"], abs=1e-6
    )
    # Each pair once: 12 items of two captions, 2 x 2 pairs, or all with all.
    assert pairs.pairs == {"scenes/swap_object": 24, "scenes/winoground": 48, "scenes/retrieval": 144}[task]


def test_pairs_of_a_killed_evaluation_are_not_scored_again(tmp_path):
    class Killed(PairModel):
        def score_pairs(self, images, texts):
            if self.pairs >= 20:
                raise KeyboardInterrupt
            return super().score_pairs(images, texts)

    from vlcomp.evaluation import cache

    options = {"tasks": "scenes/swap_object", "size": 12, "progress": False, "name": "m", "output": tmp_path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "CHUNK", 10)
        with pytest.raises(KeyboardInterrupt):
            evaluate(Killed(), **options)
        Killed.score_pairs = PairModel.score_pairs
        again = Killed()
        report = evaluate(again, **options)
    assert again.pairs == 4  # 24 pairs in parts of 10: the last part is new
    assert report.metrics == evaluate(HashModel(), tasks="scenes/swap_object", size=12, progress=False).metrics


def test_what_a_pair_scorer_cannot_do_is_said(tmp_path):
    classes = make_class_folder(tmp_path, ("cup", "star"))
    with pytest.raises(ArgumentError, match="needs embeddings, and a PairModel scores pairs"):
        evaluate(PairModel(), tasks="zero_shot_classification", data=str(classes), progress=False)
    texts = Unencoded(PairModel(), "text", ["a"], ["a"], [])
    with pytest.raises(ArgumentError, match="compares texts with texts"):
        pair_scores(texts, texts, np.array([0]), np.array([0]))


def test_output_of_a_pair_scorer_is_checked(caplog):
    class Short(PairModel):
        def score_pairs(self, images, texts):
            return super().score_pairs(images, texts)[:-1]

    class Nan(PairModel):
        def score_pairs(self, images, texts):
            return super().score_pairs(images, texts) * math.nan

    with pytest.raises(EvaluationError, match=r"returned shape \[4\] for 5 pairs"):
        evaluate(Short(), tasks="scenes/swap_object", size=8, progress=False)
    with pytest.raises(EvaluationError, match="'swap_object:.* is nan"):
        evaluate(Nan(), tasks="scenes/swap_object", size=8, progress=False)
    report = evaluate(PairModel(1e-6), tasks="scenes/swap_object", size=8, progress=False)
    assert "log-probabilities" in report.results["tasks"]["scenes/swap_object"]["warnings"][0]


# -- changed inputs ----------------------------------------------------------------------------------------


def test_words_are_shuffled_and_images_exchanged():
    text = "a red cup left of a blue star"
    assert shuffled_words(text) == shuffled_words(text) != text
    assert sorted(shuffled_words(text).split()) == sorted(text.split())
    assert shuffled_words("cup") == "cup" and shuffled_words("a a") == "a a"
    images = list(range(9))
    assert sorted(exchanged(images)) == images and all(a != b for a, b in zip(images, exchanged(images), strict=True))
    assert exchanged(images) == exchanged(images) and exchanged([1]) == [1]


def test_shuffled_scores_equal_a_loop_and_cost_one_more_pass_over_the_texts():
    model = HashModel()
    report = evaluate(model, tasks="scenes/replace_object", size=30, progress=False, diagnostics=True)
    task = get_task("scenes/replace_object", size=30)
    items, loop = task.items, HashModel()

    def right(images, change):
        wins = []
        for c in items.choices:
            true, false = (loop.score(load(images[c.image]), change(items.texts[t])) for t in (c.text, c.false_text))
            wins.append(true > false)
        return np.mean(wins)

    from vlcomp.data.images import load_image as load

    references = report.results["tasks"]["scenes/replace_object"]["references"]
    found = {name: references[name]["accuracy"]["value"] for name in ("shuffled_words", "shuffled_images")}
    assert found == {
        "shuffled_words": pytest.approx(right(items.images, shuffled_words)),
        "shuffled_images": pytest.approx(right(exchanged(items.images), str)),
    }
    assert len(model.images) == len(items.images)  # no picture twice
    assert len(model.texts) == 2 * len(items.texts)
    assert "words shuffled" in report.to_markdown() and "images shuffled" in report.to_markdown()


def test_a_bag_of_words_loses_nothing_when_words_are_shuffled():
    report = evaluate(Bag(), tasks="scenes/replace_object", size=30, progress=False, diagnostics=True)
    entry = report.results["tasks"]["scenes/replace_object"]
    assert entry["references"]["shuffled_words"] == entry["scores"] | {
        "accuracy": {**entry["references"]["shuffled_words"]["accuracy"]}
    }
    assert entry["references"]["shuffled_words"]["accuracy"]["value"] == entry["scores"]["accuracy"]["value"]
    # Exchanged words alone are nothing to it: every item is a tie, up to the last bits of a sum.
    swaps = evaluate(Bag(), tasks="scenes/swap_attribute", size=30, progress=False)
    score = swaps.score("scenes/swap_attribute/accuracy")
    assert (score.value, score.ties) == (0.0, 30)


def test_tasks_that_do_not_ask_for_composition_are_left_as_they_are(tmp_path):
    folder = make_captioned_folder(tmp_path, 6)
    report = evaluate(HashModel(), tasks="retrieval", data=str(folder), progress=False, diagnostics=True)
    entry = report.results["tasks"]["retrieval"]
    assert entry["references"] == {} and "breakdown" not in entry


# -- text scorers ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def language_model():
    torch.manual_seed(0)
    tokenizer = tiny_processor().tokenizer
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config).eval(), tokenizer


def test_log_probabilities_equal_a_loop_and_do_not_depend_on_the_batch(language_model):
    model, tokenizer = language_model
    texts = ["a red cup", "a blue star left of a red cup", "cup"]
    expected = []
    for text in texts:
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(sum(float(logits[i, ids[i + 1]]) for i in range(len(ids) - 1)))
    for batch_size in (1, 3):
        found = LanguageModel(model, tokenizer, batch_size=batch_size)(texts)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_text_scorer_by_name_or_function_sees_no_picture(language_model, tmp_path):
    model, tokenizer = language_model
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = {"tasks": "scenes/swap_object", "size": 20, "progress": False}
    by_name = evaluate(HashModel(), text_scorer=str(tmp_path), **options)
    by_hand = evaluate(HashModel(), text_scorer=LanguageModel(model, tokenizer), **options)
    scores = [
        report.results["tasks"]["scenes/swap_object"]["references"]["language_model"] for report in (by_name, by_hand)
    ]
    # Items are mirrored: each caption is once true and once false.
    assert scores[0] == scores[1] and scores[0]["accuracy"]["value"] == 0.5
    assert TextOnly(lambda texts: [len(t) for t in texts]).score_pairs([None], ["abc"]).tolist() == [3.0]
    with pytest.raises(CheckpointError, match="causal language model"):
        text_scorer(str(tmp_path / "absent"))
    with pytest.raises(ArgumentError, match="text_scorer=3"):
        text_scorer(3)
    with pytest.raises(ArgumentError, match="tokenizer is missing"):
        LanguageModel(model)


# -- breakdown ---------------------------------------------------------------------------------------------


def test_the_breakdown_equals_a_count():
    report = evaluate(HashModel(), tasks="scenes/add_object", size=40, progress=False)
    parts = report.results["tasks"]["scenes/add_object"]["breakdown"]
    for by in ("length of the true caption", "words in common"):
        assert sum(part["n"] for part in parts if part["by"] == by) == 40
    rows = [(len(i["text"].split()), len(i["false_text"].split()), i["correct"]) for i in report.items]
    for name, keep in (("shorter", -1), ("as long", 0), ("longer", 1)):
        right = [c for a, b, c in rows if np.sign(a - b) == keep]
        found = [part for part in parts if part["group"] == name]
        assert [(p["n"], p["value"]) for p in found] == (
            [(len(right), pytest.approx(np.mean(right)))] if right else []
        )
    assert "words in common" in report.breakdown()
    swaps = evaluate(HashModel(), tasks="scenes/swap_object", size=10, progress=False)
    groups = [p["group"] for p in swaps.results["tasks"]["scenes/swap_object"]["breakdown"]]
    assert groups == ["as long", "same words"]


def test_the_breakdown_takes_the_rows_of_the_headline():
    result = get_task("scenes/swap_object", size=4).run(HashModel())
    rows = [{**row, "item_id": f"{row['item_id']}/{metric}"} for row in result.items for metric in ("accuracy", "b")]
    result.items = rows
    assert [part["n"] for part in breakdown(result)] == [4, 4]
