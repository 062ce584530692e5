import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from vlcomp import Embedder, load_scenes
from vlcomp.data.images import load_image
from vlcomp.errors import ArgumentError, DataError, EvaluationError
from vlcomp.evaluation.tasks import CaptionChoice, ImageChoice, Retrieval, ScenesChoice, ZeroShotClassification
from vlcomp.evaluation.tasks.classification import read_class_names, read_templates
from vlcomp.evaluation.tasks.scenes import (
    ScenesClassification,
    ScenesRetrieval,
    ScenesWinoground,
    bag_of_words_matrix,
)
from vlcomp.testing import make_captioned_folder, make_class_folder, tiny_clip, tiny_images, tiny_processor

from .common import ConstantModel, HashModel


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def sugarcrepe(tmp_path):
    """Three files that share images, in the official form with ids that are not contiguous."""
    (tmp_path / "images").mkdir()
    for i, image in enumerate(tiny_images(8)):
        image.save(tmp_path / "images" / f"{i:012d}.png")
    for name, count in (("replace_obj", 20), ("replace_att", 12), ("swap_obj", 6)):
        items = {
            str(3 * i): {
                "filename": f"{i % 8:012d}.png",
                "caption": f"{name} caption {i}",
                "negative_caption": f"{name} false {i}",
            }
            for i in range(count)
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(items))
    return tmp_path


# -- caption choice ----------------------------------------------------------------------------------------


def naive_caption_choice(folder, model):
    right = defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        for item in json.loads(file.read_text()).values():
            image = Image.open(folder / "images" / item["filename"])
            right[file.stem].append(model.score(image, item["caption"]) > model.score(image, item["negative_caption"]))
    return right


def test_caption_choice_equals_a_loop_with_all_averages(sugarcrepe):
    model = HashModel()
    result = CaptionChoice(sugarcrepe).run(model)
    right = naive_caption_choice(sugarcrepe, HashModel())
    means = {name: np.mean(rows) for name, rows in right.items()}
    assert {name: result.scores[f"{name}/accuracy"].value for name in means} == pytest.approx(means)
    assert result.scores["micro/accuracy"].value == pytest.approx(np.mean(sum(right.values(), [])))
    assert result.scores["macro/accuracy"].value == pytest.approx(np.mean(list(means.values())))
    groups = [(means["replace_obj"] + means["replace_att"]) / 2, means["swap_obj"]]
    assert result.scores["macro_groups/accuracy"].value == pytest.approx(np.mean(groups))
    assert result.headline == "micro/accuracy" and result.scores["micro/accuracy"].n == 38
    assert result.metrics["caption_choice/swap_obj/accuracy"] == means["swap_obj"]
    # Each distinct image and text went to the model once.
    assert len(model.images) == 8 and len(model.texts) == len(set(model.texts)) == 76
    assert [item["correct"] for item in result.items if item["subset"] == "swap_obj"] == right["swap_obj"]
    assert result.items[0]["cluster"] == "000000000000.png"


def test_one_file_gives_one_accuracy(sugarcrepe):
    result = CaptionChoice(sugarcrepe / "swap_obj.json").run(HashModel())
    assert list(result.scores) == ["accuracy"] and result.headline == "accuracy"


def test_caption_choice_from_metadata(tmp_path, caplog):
    for i, image in enumerate(tiny_images(3)):
        image.save(tmp_path / f"{i}.png")
    rows = [
        {"file_name": "0.png", "caption": "a", "negative_caption": "b"},
        {"file_name": "1.png", "caption": "c", "negative_caption": ["d", "e"]},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = CaptionChoice(tmp_path).run(HashModel())
    assert [item["item_id"] for item in result.items] == ["0", "1", "1.1"]
    # What `vlcomp negatives` found no negative for is left out; where that is all, there is nothing to measure.
    more = [*rows, {"file_name": "2.png", "caption": "f", "negative_captions": []}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, more)))
    assert len(CaptionChoice(tmp_path).run(HashModel()).items) == 3
    assert "left out 1 captions without a negative" in caplog.text
    (tmp_path / "metadata.jsonl").write_text(json.dumps(more[2]))
    with pytest.raises(DataError, match="none of the 1 captions has a negative"):
        CaptionChoice(tmp_path).run(HashModel())
    del rows[1]["negative_caption"]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="line 2 .*negative_caption"):
        CaptionChoice(tmp_path).run(HashModel())


def test_a_missing_image_is_named_or_skipped_and_counted(sugarcrepe):
    (sugarcrepe / "images" / "000000000005.png").unlink()
    with pytest.raises(DataError, match="000000000005.png"):
        CaptionChoice(sugarcrepe).run(HashModel())
    # A damaged one is found when it is read.
    (sugarcrepe / "images" / "000000000006.png").write_bytes(b"not an image")
    task = CaptionChoice(sugarcrepe, skip_bad_images=True)
    result = task.run(HashModel())
    lost = sum(1 for name, n in (("a", 20), ("b", 12), ("c", 6)) for i in range(n) if i % 8 in (5, 6))
    assert result.scores["micro/accuracy"].n == 38 - lost
    assert result.config["skipped"] == 2 and any("2 images" in warning for warning in result.warnings)


def test_a_damaged_image_aborts_and_names_the_file(sugarcrepe):
    (sugarcrepe / "images" / "000000000006.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match="000000000006.png"):
        CaptionChoice(sugarcrepe).run(HashModel())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": {"filename": "x.png", "caption": "a"', "not valid JSON"),
        ('{"0": {"filename": "x.png", "caption": "a"}}', "negative_caption=None"),
        ('{"0": {"filename": "x.png", "caption": " ", "negative_caption": "b"}}', "caption=' '"),
        ('{"0": {}, "0": {}}', "twice"),
        ("{}", "no items"),
    ],
)
def test_malformed_files_are_named(tmp_path, text, message):
    (tmp_path / "items.json").write_text(text)
    with pytest.raises(DataError, match=message):
        CaptionChoice(tmp_path).run(HashModel())


def test_limit_keeps_whole_clusters_and_is_repeatable(sugarcrepe):
    first = CaptionChoice(sugarcrepe, limit=10).run(HashModel()).items
    assert first == CaptionChoice(sugarcrepe, limit=10).run(HashModel()).items
    full = CaptionChoice(sugarcrepe).run(HashModel()).items
    clusters = {item["cluster"] for item in first}
    assert 10 <= len(first) < 38
    assert [i for i in full if i["cluster"] in clusters] == first
    with pytest.raises(ArgumentError, match="limit=0"):
        CaptionChoice(sugarcrepe, limit=0)


def test_text_only_classifier_sees_a_giveaway(tmp_path):
    tiny_images(1)[0].save(tmp_path / "x.png")
    rng = np.random.default_rng(0)
    nouns = ["cup", "star", "dog", "cat", "tree"]
    items, fair = {}, {}
    for i in range(120):
        a, b = rng.choice(nouns, 2, replace=False)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / f"{i}.png")
        items[i] = {"filename": f"{i}.png", "caption": f"a {a}", "negative_caption": f"a {b} of marble"}
        fair[i] = {"filename": f"{i}.png", "caption": f"a {a}", "negative_caption": f"a {b}"}
    for rows, low, high in ((items, 0.95, 1.0), (fair, 0.3, 0.7)):
        (tmp_path / "items.json").write_text(json.dumps(rows))
        score = CaptionChoice(tmp_path).run(HashModel()).references["text_only_classifier"]["accuracy"]
        assert low <= score.value <= high


# -- image choice ----------------------------------------------------------------------------------------


@pytest.fixture
def pairs_file(tmp_path):
    (tmp_path / "dev").mkdir()
    for i, image in enumerate(tiny_images(6)):
        image.save(tmp_path / "dev" / f"{i}.png")
    rows = [
        {"sentence": f"sentence {i % 5}", "true_file": f"dev/{i % 3}.png", "false_file": f"dev/{3 + i % 2}.png"}
        for i in range(20)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return tmp_path / "pairs.jsonl"


def test_image_choice_equals_a_loop_clustered_by_sentence(pairs_file):
    model = HashModel()
    result = ImageChoice(pairs_file).run(model)
    right = []
    for line in pairs_file.read_text().splitlines():
        row = json.loads(line)
        true, false = (Image.open(pairs_file.parent / row[key]) for key in ("true_file", "false_file"))
        right.append(model.score(true, row["sentence"]) > model.score(false, row["sentence"]))
    assert result.scores["accuracy"].value == np.mean(right)
    assert {item["cluster"] for item in result.items} == {f"sentence {i}" for i in range(5)}
    assert result.items[0]["false_image"] == "dev/3.png" and result.items[0]["false_text"] is None
    assert len(result.gallery[0]["images"]) == 2


def test_image_choice_names_what_is_wrong(pairs_file):
    lines = pairs_file.read_text().splitlines()
    pairs_file.write_text("\n".join([*lines[:2], '{"sentence": "x"}']))
    with pytest.raises(DataError, match="line 3 .*true_file"):
        ImageChoice(pairs_file).run(HashModel())
    pairs_file.write_text('{"sentence": "x", "true_file": "dev/9.png", "false_file": "dev/1.png"}')
    with pytest.raises(DataError, match="9.png does not exist"):
        ImageChoice(pairs_file).run(HashModel())


def test_nlvr1_loads_in_full(data_root):
    items = ImageChoice(data_root / "nlvr1" / "dev_pairs.jsonl").items
    assert len(items.choices) == 834 and len(items.texts) == 230


# -- retrieval ----------------------------------------------------------------------------------------


def test_retrieval_equals_a_loop_with_several_captions(tmp_path):
    folder = make_captioned_folder(tmp_path, 15, 3)
    model = HashModel()
    result = Retrieval(str(folder)).run(model)
    images, captions = [], []
    for line in (folder / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        captions += [(len(images), caption) for caption in row["caption"]]
        images.append(Image.open(folder / row["file_name"]))
    scores = np.array([[model.score(image, caption) for _, caption in captions] for image in images])
    for k in (1, 5, 10):
        hits = []
        for i in range(15):
            order = np.argsort(-scores[i])
            hits.append(any(captions[t][0] == i for t in order[:k]))
        assert result.scores[f"image_to_text/recall@{k}"].value == pytest.approx(np.mean(hits))
        hits = [i in np.argsort(-scores[:, t])[:k] for t, (i, _) in enumerate(captions)]
        assert result.scores[f"text_to_image/recall@{k}"].value == pytest.approx(np.mean(hits))
    assert result.scores["text_to_image/recall@1"].n == 45
    assert result.scores["image_to_text/recall@1"].chance == pytest.approx(3 / 45)
    assert result.metrics["retrieval/text_to_image/recall@5"] == result.scores["text_to_image/recall@5"].value
    assert len(result.items) == 15 + 45 and len(model.images) == 15


def test_equal_captions_of_different_images_tie(tmp_path):
    folder = make_captioned_folder(tmp_path, 4)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows[1]["caption"] = rows[0]["caption"]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = Retrieval(str(folder)).run(HashModel())
    direction = [item for item in result.items if item["subset"] == "image_to_text"]
    assert direction[0]["tie"] and direction[1]["tie"] and not direction[0]["correct"]
    assert result.scores["image_to_text/recall@1"].ties >= 2


def test_a_dead_model_retrieves_nothing(tmp_path):
    result = Retrieval(str(make_captioned_folder(tmp_path, 12))).run(ConstantModel())
    assert set(result.metrics.values()) == {0.0}
    assert any("nearly the same" in warning for warning in result.warnings)


# -- classification ----------------------------------------------------------------------------------------


def test_classification_equals_a_loop_with_templates(tmp_path):
    names = ["cup", "star", "dog", "cat", "tree", "moon", "big_fish"]
    folder = make_class_folder(tmp_path, names, 5)
    templates = ["a photo of a {}.", "one {c}"]
    model = HashModel()
    result = ZeroShotClassification(folder, templates=templates).run(model)
    right, top5, per_class = [], [], defaultdict(list)
    for label, name in enumerate(sorted(names)):
        for file in sorted((folder / name).iterdir()):
            scores = []
            for other in sorted(names):
                texts = [
                    model.vector(t.format(other.replace("_", " "), c=other.replace("_", " ")).encode())
                    for t in templates
                ]
                mean = np.mean([t.astype(float) / np.linalg.norm(t.astype(float)) for t in texts], axis=0)
                image = model.vector(load_image(file).tobytes()).astype(float)
                scores.append(image @ mean / np.linalg.norm(image) / np.linalg.norm(mean))
            right.append(np.argmax(scores) == label)
            top5.append(label in np.argsort(scores)[-5:])
            per_class[name].append(right[-1])
    assert result.scores["accuracy"].value == pytest.approx(np.mean(right))
    assert result.scores["accuracy@5"].value == pytest.approx(np.mean(top5))
    assert result.scores["mean_class_accuracy"].value == pytest.approx(
        np.mean([np.mean(v) for v in per_class.values()])
    )
    assert result.scores["accuracy"].chance == pytest.approx(1 / 7)
    assert len(model.texts) == 14


def test_templates_and_names_from_files(tmp_path):
    (tmp_path / "templates.json").write_text(json.dumps({"pets": ["a {c}.", "the {c}."], "cars": ["{} car"]}))
    assert read_templates(f"{tmp_path / 'templates.json'}:pets") == ("a {c}.", "the {c}.")
    (tmp_path / "names.txt").write_text("tabby\nterrier\n")
    assert read_class_names(tmp_path / "names.txt", ["n01", "n02"]) == ["tabby", "terrier"]
    (tmp_path / "names.json").write_text(json.dumps({"n02": "terrier", "n01": "tabby"}))
    assert read_class_names(tmp_path / "names.json", ["n01", "n02"]) == ["tabby", "terrier"]
    with pytest.raises(ArgumentError, match="has no key 'birds'"):
        read_templates(f"{tmp_path / 'templates.json'}:birds")
    with pytest.raises(ArgumentError, match="2 names for 3 folders"):
        read_class_names(["a", "b"], ["x", "y", "z"])
    with pytest.raises(ArgumentError, match="must contain"):
        read_templates(["a photo"])


# -- Scenes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", ["replace_object", "swap_attribute", "add_attribute", "systematic/swap_object"])
def test_scenes_choice_equals_a_loop_and_references_hold(subset):
    result = ScenesChoice(subset, size=60).run(HashModel())
    model, rows = HashModel(), load_scenes(subset, size=60)
    right = [model.score(r["image"], r["caption"]) > model.score(r["image"], r["negative_caption"]) for r in rows]
    assert result.scores["accuracy"].value == np.mean(right)
    for scorer in ("text_only", "text_only_classifier"):
        # Mirrored items: every caption is once true and once false.
        assert result.references[scorer]["accuracy"].value == 0.5
        assert result.references[scorer]["accuracy"].standard_error == 0.0
    # The classifier has something to say; chance is not for want of an opinion.
    assert result.references["text_only_classifier"]["accuracy"].ties < 60
    ceiling = result.references["bag_of_words"]["accuracy"].value
    assert ceiling == 0.5 if "swap" in subset else ceiling > 0.8


def test_bag_of_words_matrix_equals_the_scorer():
    from vlcomp.data.scenes import bag_of_words_score

    rows = load_scenes("retrieval", size=12)
    scenes, captions = list(rows["scene"]), list(rows["caption"])
    expected = [[bag_of_words_score(caption, scene) for caption in captions] for scene in scenes]
    assert bag_of_words_matrix(scenes, captions).tolist() == expected


def test_scenes_retrieval_prints_the_ceiling():
    result = ScenesRetrieval(size=60).run(HashModel())
    assert result.task == "scenes/retrieval" and result.scores["image_to_text/recall@1"].n == 60
    assert result.references["bag_of_words"]["image_to_text/recall@1"].value > 0.7


def test_scenes_winoground_equals_a_loop():
    model = HashModel()
    result = ScenesWinoground(size=40).run(model)
    text, image = [], []
    for row in load_scenes("winoground", size=40):
        s = [[model.score(row[f"image_{i}"], row[f"caption_{c}"]) for c in (0, 1)] for i in (0, 1)]
        text.append(s[0][0] > s[0][1] and s[1][1] > s[1][0])
        image.append(s[0][0] > s[1][0] and s[1][1] > s[0][1])
    assert result.scores["text_score"].value == np.mean(text)
    assert result.scores["image_score"].value == np.mean(image)
    assert result.scores["group_score"].value == np.mean(np.array(text) & np.array(image))
    assert len(result.gallery[0]["images"]) == 2


def test_scenes_classification_reads_as_english():
    model = HashModel()
    result = ScenesClassification("sketch", size=40).run(model)
    assert "an arrow" in model.texts and "a star" in model.texts
    assert result.scores["accuracy"].chance == 0.05


# -- models ----------------------------------------------------------------------------------------


def test_an_embedder_and_any_object_with_its_methods_score_the_same(sugarcrepe):
    embedder = Embedder(tiny_clip(), tiny_processor())

    class Wrapped:
        def encode_images(self, images):
            return embedder.encode_images(images) * 3

        def encode_texts(self, texts):
            return embedder.encode_texts(texts).numpy()

    first, second = (CaptionChoice(sugarcrepe).run(model) for model in (embedder, Wrapped()))
    assert [i["true_score"] for i in first.items] == pytest.approx([i["true_score"] for i in second.items], abs=1e-6)


def test_nan_from_a_model_aborts(sugarcrepe):
    class Broken(HashModel):
        def encode_texts(self, texts):
            out = super().encode_texts(texts)
            out[texts.index("swap_obj caption 3")] = np.nan
            return out

    with pytest.raises(EvaluationError, match="swap_obj caption 3"):
        CaptionChoice(sugarcrepe).run(Broken())


def test_a_dead_model_chooses_nothing_right(sugarcrepe):
    result = CaptionChoice(sugarcrepe).run(ConstantModel())
    assert result.scores["micro/accuracy"].value == 0.0
    assert result.scores["micro/accuracy"].ties == 38


def test_an_object_without_the_methods_is_refused(sugarcrepe):
    with pytest.raises(ArgumentError, match="no encode_images"):
        CaptionChoice(sugarcrepe).run(object())


def test_retrieval_among_one_image_is_refused(tmp_path):
    task = Retrieval(make_captioned_folder(tmp_path / "one", 1, 2))
    with pytest.raises(DataError, match="only one image"):
        task.pairs  # noqa: B018


def test_names_that_are_no_file(tmp_path):
    folder = make_class_folder(tmp_path / "classes")
    with pytest.raises(ArgumentError, match="class_names='missing.txt' is not a file"):
        ZeroShotClassification(folder, class_names="missing.txt").load()
    with pytest.raises(ArgumentError, match="templates='a photo' is neither a file nor a text .* write for instance"):
        ZeroShotClassification(folder, templates="a photo")
