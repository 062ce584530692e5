import numpy as np
import pytest
import torch
from transformers import pipeline

from vlcomp import Embedder, ZeroShotPipeline
from vlcomp.errors import ArgumentError, CheckpointError, DataError
from vlcomp.testing import KINDS, save_tiny_checkpoint, tiny_captions, tiny_clip, tiny_images, tiny_processor


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return save_tiny_checkpoint(tmp_path_factory.mktemp(request.param) / "checkpoint", request.param)


@pytest.fixture
def classify():
    return ZeroShotPipeline(tiny_clip(), tiny_processor())


def count_texts(classify, monkeypatch):
    model, counted = classify.embedder.model, []
    original = model.get_text_features

    def counting(**inputs):
        counted.append(len(inputs["input_ids"]))
        return original(**inputs)

    monkeypatch.setattr(model, "get_text_features", counting)
    return counted


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    scores = {entry["label"]: entry["score"] for entry in expected}
    for entry in actual:
        assert list(entry) == list(expected[0])
        assert type(entry["score"]) is float
        assert entry["score"] == pytest.approx(scores.pop(entry["label"]), abs=1e-5)
    assert not scores
    assert [e["score"] for e in actual] == sorted((e["score"] for e in actual), reverse=True)


@pytest.mark.parametrize("template", [None, "a drawing of {}", "{}"])
def test_equal_to_the_stock_pipeline(folder, template):
    stock = pipeline("zero-shot-image-classification", model=str(folder))
    classify = ZeroShotPipeline(folder)
    images, labels = tiny_images(5), tiny_captions(9)
    options = {} if template is None else {"hypothesis_template": template}
    expected = stock(images, candidate_labels=labels, **options)
    assert max(row[0]["score"] - row[-1]["score"] for row in expected) > 1e-3  # labels are told apart
    for batch_size in (None, 1, 2, 64):
        classify.clear_cache()
        for one, other in zip(classify(images, labels, batch_size=batch_size, **options), expected, strict=True):
            assert_same(one, other)
    single = classify(images[0], labels, **options)
    assert isinstance(single[0], dict)
    assert_same(single, stock(images[0], candidate_labels=labels, **options))
    one = classify(images[:1], labels[:1])
    assert_same(one[0], stock(images[:1], candidate_labels=labels[:1])[0])


def test_labels_are_encoded_once_and_remembered(classify, monkeypatch):
    counted = count_texts(classify, monkeypatch)
    labels = tiny_captions(10)
    first = classify(tiny_images(20), labels)
    assert sum(counted) == 10
    assert classify(tiny_images(20), labels) == first
    assert sum(counted) == 10
    classify(tiny_images(1), labels, hypothesis_template="a {}")
    assert sum(counted) == 20
    classify(tiny_images(1), labels[::-1])
    assert sum(counted) == 30
    classify.clear_cache()
    classify(tiny_images(1), labels)
    assert sum(counted) == 40
    for index in range(40):
        classify(tiny_images(1), [f"label {index}"])
    assert len(classify._labels) == 16


def test_remembered_labels_follow_the_weights(classify):
    image, labels = tiny_images(1)[0], ["a cup", "a star"]
    model = classify.embedder.model
    before = classify(image, labels)
    optimizer = torch.optim.AdamW(model.text_model.parameters(), lr=0.05)
    inputs = classify.embedder._prepare_texts(labels)
    model.get_text_features(**inputs).pooler_output.pow(2).sum().backward()
    optimizer.step()
    after = classify(image, labels)
    assert after == ZeroShotPipeline(model, tiny_processor())(image, labels) and after != before
    model.load_state_dict(tiny_clip().state_dict())
    assert classify(image, labels) == before


def test_several_templates_are_averaged_and_normalised(classify):
    embedder, labels, images = classify.embedder, ["a cup", "a star"], tiny_images(2)
    templates = ["a photo of {}.", "{} on a {}", "{}"]
    means = []
    for label in labels:
        prompts = embedder.encode_texts([template.replace("{}", label) for template in templates])
        means.append(torch.nn.functional.normalize(prompts.mean(dim=0), dim=0))
    expected = embedder.logits(embedder.encode_images(images), torch.stack(means)).softmax(dim=-1)
    for row, scores in zip(classify(images, labels, hypothesis_template=templates), expected, strict=True):
        found = {entry["label"]: entry["score"] for entry in row}
        assert [found[label] for label in labels] == pytest.approx(scores.tolist(), abs=1e-6)


def test_long_labels_are_cut_where_the_stock_pipeline_raises(classify):
    assert len(classify(tiny_images(1)[0], ["cup " * 200, "a star"])) == 2


def test_top_k_and_kinds_of_images(classify, tmp_path):
    labels, picture = tiny_captions(6), tiny_images(1)[0]
    full = classify(picture, labels)
    assert classify(picture, labels, top_k=2) == full[:2]
    assert classify(picture, labels, top_k=99) == full
    picture.save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), np.asarray(picture)):
        assert_same(classify(image, labels), full)
        assert_same(classify([image], labels)[0], full)
    assert classify([], labels) == []
    assert len(classify((image for image in tiny_images(3)), labels)) == 3


def test_bad_labels_and_templates(classify):
    picture = tiny_images(1)[0]
    for labels, message in [
        ([], "candidate_labels is empty"),
        ("a cup", "must be a list of strings, such as .'a cup'."),
        (None, "candidate_labels=None must be a list"),
        (["a", "b", "a"], r"candidate_labels\[2\]='a' is there twice"),
        (["a", " "], r"candidate_labels\[1\]=' ' is empty"),
        (["a", 3], r"candidate_labels\[1\]=3 is not a string"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            classify(picture, labels)
    for template, message in [
        ("a photo", 'hypothesis_template=.a photo. has no "{}"'),
        (["{}", "x"], "hypothesis_template='x'"),
        ([], "hypothesis_template is empty"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            classify(picture, ["a"], hypothesis_template=template)
    with pytest.raises(ArgumentError, match="top_k=0"):
        classify(picture, ["a"], top_k=0)
    with pytest.raises(ArgumentError, match="batch_size=0"):
        classify(picture, ["a"], batch_size=0)
    with pytest.raises(DataError, match="no_such.png"):
        classify(["no_such.png"], ["a"], batch_size=3)
    assert classify.embedder.batch_size == 64


def test_what_a_pipeline_is_made_of(clip_checkpoint):
    with pytest.raises(ArgumentError, match="processor is missing: a loaded CLIPModel needs one"):
        ZeroShotPipeline(tiny_clip())
    embedder = Embedder(tiny_clip(), tiny_processor(), batch_size=5)
    assert ZeroShotPipeline(embedder).embedder is embedder
    with pytest.raises(ArgumentError, match="has its own batch_size"):
        ZeroShotPipeline(embedder, batch_size=3)
    with pytest.raises(CheckpointError, match="no such folder"):
        ZeroShotPipeline(clip_checkpoint / "nothing")
    made = ZeroShotPipeline(clip_checkpoint, dtype="bfloat16", batch_size=3, fit="crop").embedder
    assert (made.dtype, made.batch_size, made.fit) == (torch.bfloat16, 3, "crop")


def test_top_k_is_a_whole_number(clip_checkpoint):
    with pytest.raises(ArgumentError, match="top_k='2' must be a whole number"):
        ZeroShotPipeline(clip_checkpoint)(tiny_images(1), ["a", "b"], top_k="2")
