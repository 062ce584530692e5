"""Pictures of a benchmark among pictures of training."""

import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vlcomp import evaluate
from vlcomp.errors import DataError
from vlcomp.evaluation import get_task
from vlcomp.evaluation.leakage import TrainingImages, difference_hash, image_id, small_grey

from .common import HashModel


def photograph(seed: int, size=(320, 240)) -> Image.Image:
    """Smooth shapes of every size, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (2, 4, 8, 16):
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), dtype=np.float64) / 4
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


@pytest.fixture
def folders(tmp_path):
    train, bench = tmp_path / "train", tmp_path / "bench"
    (train / "part").mkdir(parents=True)
    bench.mkdir()
    for i in range(30):
        photograph(i).save(train / "part" / f"COCO_train2014_{i:012}.jpg", quality=90)
    # The same picture, smaller, lighter and compressed again, under another name.
    copy = ImageEnhance.Brightness(photograph(3)).enhance(1.1).resize((200, 150))
    copy.save(bench / "copy.jpg", quality=60)
    photograph(5).save(bench / f"{5:012}.png")  # the same, called the same
    photograph(99).save(bench / f"{7:012}.jpg")  # called the same, looks different
    photograph(100).save(bench / "fresh.jpg")
    return train, bench


def test_copies_are_found_by_look_and_name(folders):
    train, bench = folders
    files = sorted(bench.iterdir())
    found = TrainingImages(train).compare([str(f) for f in files], [f.name for f in files], "t")
    assert found.same_pictures == [f"{5:012}.png", "copy.jpg"]
    assert found.only_same_names == [f"{7:012}.jpg"]
    match = next(m for m in found.matches if m.image == "copy.jpg")
    assert match.training_image == f"part/COCO_train2014_{3:012}.jpg" and not match.same_id
    with_threads = TrainingImages(train, num_workers=2)
    assert (with_threads.hashes == TrainingImages(train).hashes).all()


def test_different_pictures_are_not_taken_for_copies():
    hashes = difference_hash(np.stack([small_grey(photograph(i, (64, 48))) for i in range(60)]))
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=-1)
    assert bits[~np.eye(60, dtype=bool)].min() > 40


def test_empty_pictures_of_different_colours_are_different(tmp_path):
    for name, grey in (("a", 20), ("b", 200)):
        Image.new("L", (50, 50), grey).save(tmp_path / f"{name}.png")
    found = TrainingImages(tmp_path).compare([Image.new("L", (40, 40), 201)], ["x"])
    assert [match.training_image for match in found.matches] == ["b.png"]


def test_hash_bits_equal_a_loop():
    grey = small_grey(photograph(1))
    bits = [int(grey[y, x] < grey[y, x + 1]) for y in range(16) for x in range(16)]
    assert np.unpackbits(difference_hash(grey).view(np.uint8)).tolist() == bits
    assert image_id("a/COCO_val2014_000000000001.jpg") == image_id("000000000001.png") != image_id("1.jpg")


def test_beside_the_scores(folders, tmp_path):
    train, bench = folders
    rows = {
        str(i): {"filename": path.name, "caption": f"a true {i}", "negative_caption": f"a false {i}"}
        for i, path in enumerate(sorted(bench.iterdir()))
    }
    (tmp_path / "items.json").write_text(json.dumps(rows))
    report = evaluate(
        HashModel(),
        tasks="caption_choice",
        data=str(tmp_path / "items.json"),
        images=str(bench),
        training_images=train,
        progress=False,
    )
    entry = report.results["tasks"]["caption_choice"]
    assert entry["leakage"]["same_pictures"] == 2 and entry["leakage"]["images"] == 4
    assert "2 of its 4 images are among the training images" in entry["warnings"]


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        TrainingImages(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no picture"):
        TrainingImages(tmp_path)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="bad.jpg"):
        TrainingImages(tmp_path)


def test_a_task_that_does_not_tell_its_pictures(folders):
    task = get_task("scenes/winoground", size=4)
    assert TrainingImages(folders[0]).leakage(task) is None
