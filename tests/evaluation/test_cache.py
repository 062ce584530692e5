"""Embeddings on disk: by weights, processor and content."""

import numpy as np
import pytest
from PIL import Image

from vlcomp import Embedder, evaluate
from vlcomp.embeddings import content_key
from vlcomp.errors import ArgumentError, DataError, EvaluationError
from vlcomp.evaluation import cache
from vlcomp.evaluation.cache import MemoryStore, Store, fingerprint, remembered
from vlcomp.evaluation.encoding import embed_images
from vlcomp.testing import make_captioned_folder, tiny_clip, tiny_images, tiny_processor

from .common import HashModel


class Counting(Embedder):
    """Counts what is encoded."""

    encoded = 0

    def encode_images(self, images):
        images = list(images)
        self.encoded += len(images)
        return super().encode_images(images)

    def encode_texts(self, texts):
        self.encoded += len(texts)
        return super().encode_texts(texts)


def embedder(seed=0, **options):
    return Counting(tiny_clip(seed=seed), tiny_processor(), **options)


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i, image in enumerate(tiny_images(7)):
        paths.append(str(tmp_path / f"{i}.png"))
        image.save(paths[-1])
    return paths


@pytest.mark.parametrize("workers", [0, 2])
def test_embeddings_are_those_of_the_model_and_computed_once(pictures, tmp_path, workers, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 3)
    plain = Embedder(tiny_clip(), tiny_processor())
    texts = ["a red cup", "a very long text about a blue star", "a", "a red cup"]
    first = embedder(num_workers=workers)
    for model in (remembered(first, tmp_path / "c"), remembered(embedder(), tmp_path / "c")):
        np.testing.assert_allclose(model.encode_images(pictures), plain.encode_images(pictures), atol=1e-6)
        np.testing.assert_allclose(model.encode_texts(texts), plain.encode_texts(texts), atol=1e-6)
    assert first.encoded == 7 + 3 and model.model.encoded == 0


def test_other_weights_processors_and_fits_are_other_models(pictures, tmp_path):
    models = [embedder(), embedder(1), embedder(fit="pad"), embedder(dtype="float64")]
    other = tiny_processor()
    other.image_processor.image_mean = [0.1, 0.2, 0.3]
    models.append(Counting(tiny_clip(), other))
    assert len({fingerprint(model) for model in models}) == len(models)
    assert fingerprint(embedder()) == fingerprint(models[0])
    for model in models:
        remembered(model, tmp_path / "c").encode_images(pictures)
        assert model.encoded == 7
    # One weight that changes is enough.
    changed = embedder()
    changed.model.logit_scale.data += 1e-3
    assert fingerprint(changed) != fingerprint(models[0])


def test_a_picture_that_is_replaced_under_its_name_is_encoded_again(pictures, tmp_path):
    remembered(embedder(), tmp_path / "c").encode_images(pictures)
    Image.new("RGB", (20, 30), "green").save(pictures[3])
    model = embedder()
    found = remembered(model, tmp_path / "c").encode_images(pictures)
    assert model.encoded == 1
    np.testing.assert_allclose(found, embedder().encode_images(pictures), atol=1e-6)


def test_equal_content_under_two_names_is_encoded_once(pictures, tmp_path):
    twin = tmp_path / "twin.png"
    twin.write_bytes(open(pictures[0], "rb").read())
    model = embedder()
    found = remembered(model, tmp_path / "c").encode_images(
        [pictures[0], str(twin), {"path": str(twin), "bytes": None}]
    )
    assert model.encoded == 1 and (found[0] == found[1]).all() and (found[0] == found[2]).all()
    assert content_key(pictures[0]) == content_key(twin.read_bytes()) != content_key(pictures[1])
    assert content_key("http://example.com/a.png") is None and content_key(str(tmp_path / "absent.png")) is None


def test_evaluations_share_a_cache(tmp_path):
    folder = make_captioned_folder(tmp_path / "data", 8)
    options = {"tasks": "retrieval", "data": str(folder), "cache": tmp_path / "c", "progress": False}
    first, second = embedder(), embedder()
    reports = [evaluate(model, **options) for model in (first, second)]
    assert first.encoded > 8 and second.encoded == 0
    assert reports[0].metrics == reports[1].metrics and reports[0].items == reports[1].items


def test_a_model_that_does_not_tell_its_weights_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="HashModel has; give it an attribute `fingerprint`"):
        evaluate(HashModel(), tasks="scenes/retrieval", size=8, cache=tmp_path, progress=False)
    model = HashModel()
    model.fingerprint = "hash 16"
    for images in (8, 0):
        model.images = []
        evaluate(model, tasks="scenes/retrieval", size=8, cache=tmp_path, progress=False)
        assert len(model.images) == images
    model.fingerprint = 5
    with pytest.raises(ArgumentError, match="is 5; it must be a text"):
        fingerprint(model)


def test_what_is_no_number_is_not_kept(tmp_path):
    class Sick(HashModel):
        fingerprint = "sick"
        sick = True

        def encode_images(self, images):
            rows = super().encode_images(images)
            rows[1:2] = np.nan if self.sick else rows[1:2]
            return rows

    model = Sick()
    images = tiny_images(3)
    with pytest.raises(EvaluationError, match="'b'"):
        embed_images(remembered(model, tmp_path), images, ["a", "b", "c"], [])
    model.sick, model.images = False, []
    assert np.isfinite(embed_images(remembered(model, tmp_path), images, ["a", "b", "c"], [])).all()
    assert len(model.images) == 1


def test_a_damaged_part_is_named(tmp_path):
    store = Store(tmp_path)
    keys = [bytes([i]) * 16 for i in range(4)]
    store.add(keys, np.arange(8.0).reshape(4, 2))
    assert [row.tolist() for row in Store(tmp_path).get(keys[::-1])] == [[6, 7], [4, 5], [2, 3], [0, 1]]
    assert Store(tmp_path).get([b"x" * 16, None]) == [None, None]
    rows = next(path for path in tmp_path.glob("*.npy") if "keys" not in path.name)
    rows.write_bytes(rows.read_bytes()[:-8])
    with pytest.raises(DataError, match="delete the folder"):
        Store(tmp_path).get(keys)
    memory = MemoryStore()
    memory.add(keys, np.ones((4, 2)))
    assert len(memory) == 4 and memory.get([None, keys[0]])[1].tolist() == [1, 1]
