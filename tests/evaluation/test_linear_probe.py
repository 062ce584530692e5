import numpy as np
import pytest
from PIL import Image

from vlcomp.errors import ArgumentError, DataError
from vlcomp.evaluation import get_task
from vlcomp.evaluation.tasks import LinearProbe
from vlcomp.evaluation.tasks.linear_probe import fit_logistic, held_out

from .common import HashModel


class ColourModel(HashModel):
    """Sees the mean colour of a picture, and some noise."""

    def encode_images(self, images):
        noise = super().encode_images(images)
        return np.stack([[*np.asarray(x).mean(axis=(0, 1)), *n[:3] * 30] for x, n in zip(images, noise, strict=True)])


def write(folder, splits, classes=("blue", "green", "red"), seed=0):
    rng = np.random.default_rng(seed)
    for split, count in splits.items():
        for k, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (4, 4, 3))
                pixels[:, :, 2 - k % 3] += 40
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{i}.png")
    return folder


def test_the_fit_is_the_minimum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.integers(0, 4, 60)
    weights, bias = fit_logistic(x, y, 4, 2.0)
    logits = x @ weights.T + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(60), y] -= 1
    # Gradient of strength * sum of cross-entropies + half the squared weights.
    assert np.abs(2.0 * p.T @ x + weights).max() < 1e-4
    assert np.abs(2.0 * p.sum(axis=0)).max() < 1e-4
    # A strong penalty leaves small weights.
    assert np.abs(fit_logistic(x, y, 4, 1e-4)[0]).max() < np.abs(weights).max() / 10


def test_held_out_is_a_fifth_of_each_class():
    labels = np.array([0] * 20 + [1] * 10 + [2] * 3)
    learn, out = held_out(labels, 0)
    assert sorted([*learn, *out]) == list(range(33))
    assert [int((labels[out] == k).sum()) for k in range(3)] == [4, 2, 1]
    assert np.array_equal(held_out(labels, 0)[1], out) and not np.array_equal(held_out(labels, 1)[1], out)


def test_it_learns_what_the_embedding_tells(tmp_path):
    write(tmp_path, {"train": 30, "test": 20})
    result = LinearProbe(tmp_path).run(ColourModel())
    assert result.scores["accuracy"].value > 0.85 and result.scores["accuracy"].n == 60
    assert result.scores["mean_class_accuracy"].value == pytest.approx(result.scores["accuracy"].value)
    assert result.scores["accuracy"].chance == pytest.approx(1 / 3)
    # Random embeddings tell nothing.
    assert LinearProbe(tmp_path).run(HashModel()).scores["accuracy"].value < 0.6


@pytest.mark.parametrize("with_validation", [False, True])
def test_scores_equal_a_loop(tmp_path, with_validation):
    splits = {"train": 12, "test": 9} | ({"val": 6} if with_validation else {})
    write(tmp_path, splits, classes=[f"class {k}" for k in range(6)])
    strengths = (0.1, 10.0, 1000.0)
    result = LinearProbe(tmp_path, strengths=strengths).run(ColourModel())

    def embedded(split):
        found, labels = [], []
        for k in range(6):
            for path in sorted((tmp_path / split / f"class {k}").iterdir()):
                vector = ColourModel().encode_images([Image.open(path).convert("RGB")])[0].astype(np.float64)
                found.append(vector / np.linalg.norm(vector))
                labels.append(k)
        return np.stack(found), np.array(labels)

    def right(fit, x, labels):
        found = []
        for row, label in zip(x, labels, strict=True):
            scores = fit[0] @ row + fit[1]
            found.append(all(scores[label] > scores[k] for k in range(6) if k != label))
        return np.mean(found)

    x, y = embedded("train")
    learn, out = (np.arange(72), None) if with_validation else held_out(y, 0)
    held = embedded("val") if with_validation else (x[out], y[out])
    validation = {c: right(fit_logistic(x[learn], y[learn], 6, c), *held) for c in strengths}
    best = max(strengths, key=lambda c: (validation[c], -c))
    assert result.config["strength"] == best
    assert result.config["validation_accuracy"] == pytest.approx(validation[best])
    assert result.scores["accuracy"].value == pytest.approx(right(fit_logistic(x, y, 6, best), *embedded("test")))
    assert "accuracy@5" in result.scores


def test_shots_are_drawn_from_each_class(tmp_path):
    write(tmp_path, {"train": 10, "test": 4})
    task = get_task("linear_probe", data=tmp_path, shots=4)
    assert np.bincount(task.train.labels).tolist() == [4, 4, 4]
    other = LinearProbe(tmp_path, shots=4, seed=1)
    assert task.train.image_names != other.train.image_names
    assert task.train.image_names == LinearProbe(tmp_path, shots=4).train.image_names
    assert task.run(ColourModel()).config["train_images"] == 12
    with pytest.raises(ArgumentError, match="shots=11, but class 'blue' has 10"):
        LinearProbe(tmp_path, shots=11)
    with pytest.raises(ArgumentError, match="shots=1 must be at least 2"):
        LinearProbe(tmp_path, shots=1)
    with pytest.raises(ArgumentError, match="strengths="):
        LinearProbe(tmp_path, strengths=(0.0, 1.0))


def test_splits_must_fit(tmp_path):
    write(tmp_path, {"train": 3, "test": 3})
    (tmp_path / "test" / "red").rename(tmp_path / "test" / "pink")
    with pytest.raises(DataError, match="differ in the classes .*'pink', 'red'"):
        LinearProbe(tmp_path)
    with pytest.raises(DataError, match="nosuch"):
        LinearProbe(tmp_path, split="nosuch")
