"""Linear probe: logistic regression on frozen image embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import ArgumentError, DataError, check_count
from ..encoding import check_model, embed_images
from ..gallery import build_gallery
from ..ranking import ranking_rows, recall_scores
from ..scoring import rank_candidates
from ..task import Score, Task, TaskResult
from .classification import LabelledImages, ZeroShotClassification

# Inverse strengths of the penalty to choose from, in the units of scikit-learn's `C`.
STRENGTHS = tuple(10.0**k for k in range(-2, 7))
_HELD_OUT = 0.2


class LinearProbe(Task):
    """How well a linear classifier on frozen image embeddings names the class of an image.

    *Source*: a folder with the splits `train` and `test`, each with one subfolder of images for each class.

    *Licence*: that of the data.

    *Convention*: multinomial logistic regression with an L2 penalty on the normalised embeddings of `encode_images`,
    fitted by L-BFGS. The penalty is chosen by accuracy on the split `validation` if there is one, otherwise on a fifth
    of each training class, and the classifier is fitted again on all training images. An image is right if its class
    scores strictly higher than every other. `accuracy` is the headline. (CLIP's own probes use the features before the
    projection, so their numbers are higher.)

    Args:
        data (`str` or `os.PathLike`):
            The folder.
        train_split (`str`, defaults to `"train"`):
            Split to learn from.
        split (`str`, defaults to `"test"`):
            Split to measure on.
        shots (`int`, *optional*):
            Learn from so many images of each class, drawn at random; all if not given.
        seed (`int`, defaults to 0):
            Seed of the draw and of the held-out part.
        strengths (`Sequence[float]`, defaults to 0.01 to 1e6 in powers of ten):
            Inverse strengths of the penalty to choose from, as scikit-learn's `C`.
        name (`str`, defaults to `"linear_probe"`):
            Name in results.
        skip_bad_images (`bool`, defaults to `False`):
            Leave out unreadable images.
        gallery (`bool`, defaults to `True`):
            Keep thumbnails of some items for the report.

    Raises:
        DataError: if the data cannot be read, or the splits have different classes.
        ArgumentError: if there are fewer images of a class than `shots`.
    """

    name = "linear_probe"
    version = "1"
    description = "logistic regression on frozen image embeddings, top-1, top-5 and mean per class"
    source = "your folder of images by class, with splits"
    licence = "that of the data"
    citation = "Radford et al., CLIP, ICML 2021, arXiv:2103.00020 (the protocol)"
    convention = "strictly highest class; penalty chosen on validation images or on a fifth of training"

    def __init__(
        self,
        data: str | os.PathLike[str],
        *,
        train_split: str = "train",
        split: str = "test",
        shots: int | None = None,
        seed: int = 0,
        strengths: Sequence[float] = STRENGTHS,
        name: str = "linear_probe",
        skip_bad_images: bool = False,
        gallery: bool = True,
    ) -> None:
        if shots is not None:
            check_count("shots", shots, least=2, note=" (one to learn from and one to choose the penalty on)")
        if not strengths or not all(isinstance(c, (int, float)) and c > 0 for c in strengths):
            raise ArgumentError(f"strengths={tuple(strengths)!r} must be numbers above 0, at least one")
        self.data, self.train_split, self.split = data, train_split, split
        self.shots, self.seed = shots, seed
        self.strengths = tuple(sorted(map(float, strengths)))
        self.name, self.skip_bad_images, self.gallery = name, skip_bad_images, gallery
        # What is wrong with the folder is told before a model is loaded.
        self.train, self.test = self._read(train_split), self._read(split)
        if self.train.class_names != self.test.class_names:
            odd = sorted(set(self.train.class_names) ^ set(self.test.class_names))
            raise DataError(f"{data}: the splits {train_split!r} and {split!r} differ in the classes {odd[:5]}")
        self.validation: LabelledImages | None = None
        if (Path(data) / "validation").is_dir() or (Path(data) / "val").is_dir():
            self.validation = self._read("validation")
            if self.validation.class_names != self.train.class_names:
                raise DataError(f"{data}: the splits {train_split!r} and 'validation' differ in their classes")
        if shots is not None:
            self._draw(shots)

    def _read(self, split: str) -> LabelledImages:
        reader = ZeroShotClassification(self.data, split=split, skip_bad_images=self.skip_bad_images)
        return reader.load()

    def _draw(self, shots: int) -> None:
        rng = np.random.default_rng(self.seed)
        kept: list[int] = []
        for label, name in enumerate(self.train.class_names):
            at = np.flatnonzero(self.train.labels == label)
            if len(at) < shots:
                raise ArgumentError(f"shots={shots}, but class {name!r} has {len(at)} training images in {self.data}")
            kept += rng.permutation(at)[:shots].tolist()
        images, names = ([column[i] for i in kept] for column in (self.train.images, self.train.image_names))
        self.train = LabelledImages(images, names, self.train.labels[kept], self.train.class_names)

    def config(self) -> dict[str, Any]:
        """What the scores depend on beside the model."""
        return {
            "data": Path(self.data).name,
            "train_split": self.train_split,
            "split": self.split,
            "shots": self.shots,
            "seed": self.seed,
            "train_images": len(self.train.images),
        }

    def run(self, model: Any, *, progress: bool = False) -> TaskResult:
        """Measure a model; see [`Task.run`]."""
        check_model(model)
        warnings: list[str] = []
        data, classes = self.test, len(self.test.class_names)
        train, test = (
            embed_images(model, part.images, part.image_names, warnings, progress=progress)
            for part in (self.train, self.test)
        )
        labels = self.train.labels
        if self.validation is not None:
            learn = np.arange(len(train))
            images, names = self.validation.images, self.validation.image_names
            held, held_labels = embed_images(model, images, names, warnings, progress=progress), self.validation.labels
        else:
            learn, out = held_out(labels, self.seed)
            held, held_labels = train[out], labels[out]
        accuracies = {}
        for strength in self.strengths:
            weights, bias = fit_logistic(train[learn], labels[learn], classes, strength)
            accuracies[strength] = float((_ranks(held @ weights.T + bias, held_labels) == 1).mean())
        # Of several that are equally good, the strongest penalty.
        best = max(self.strengths, key=lambda c: (accuracies[c], -c))
        weights, bias = fit_logistic(train, labels, classes, best)
        ranks = rank_candidates(test @ weights.T + bias, data.labels, np.arange(classes), query_ids=data.image_names)
        clusters = list(range(len(data.images)))
        own = np.ones(len(data.images), dtype=np.int64)
        scores = recall_scores(ranks, clusters, own, classes, (1,), metric="accuracy")
        if classes > 5:
            scores |= recall_scores(ranks, clusters, own, classes, (5,), metric="accuracy@{k}")
        scores["mean_class_accuracy"] = Score.from_values(
            ranks.hits(1), clusters, strata=data.labels.tolist(), ties=scores["accuracy"].ties, chance=1 / classes
        )
        if len(self.strengths) > 1 and best == self.strengths[-1]:
            warnings.append(f"the weakest penalty offered was the best (strength {best:g}); offer weaker ones too")
        rows = ranking_rows(
            self.name,
            ranks,
            item_ids=[str(i) for i in clusters],
            clusters=data.image_names,
            query=data.image_names,
            candidates=data.class_names,
            query_is_image=True,
        )
        chosen = {"strength": best, "validation_accuracy": accuracies[best]}
        return TaskResult(
            task=self.name,
            version=self.version,
            scores=scores,
            items=rows,
            config={**self.config(), **chosen, "images": len(data.images), "classes": classes},
            headline="accuracy",
            gallery=build_gallery(rows, lambda i: [data.images[i]], seed=self.name) if self.gallery else [],
            warnings=warnings,
        )


def held_out(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part a fifth of each class, at least one image, from the others.

    Args:
        labels (`np.ndarray` of shape [images], int):
            Class of each image.
        seed (`int`):
            Seed of the draw.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: positions to learn from, and positions that are held out.

    Raises:
        ArgumentError: if a class has one image only.
    """
    rng = np.random.default_rng(seed)
    learn, out = [], []
    for label in np.unique(labels):
        at = rng.permutation(np.flatnonzero(labels == label))
        if len(at) < 2:
            raise ArgumentError(
                f"class number {label} has one training image; a probe needs at least two of each class"
            )
        count = max(1, int(_HELD_OUT * len(at)))
        out += at[:count].tolist()
        learn += at[count:].tolist()
    return np.sort(learn), np.sort(out)


def fit_logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression: `strength` x sum of cross-entropies + half the squared weights.

    Args:
        features (`np.ndarray` of shape [images, dimensions]):
            Embeddings.
        labels (`np.ndarray` of shape [images], int):
            Class of each.
        classes (`int`):
            Number of classes.
        strength (`float`):
            Inverse strength of the penalty; the bias is not penalised.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: weights [classes, dimensions] and bias [classes], float64.

    Example:
        >>> import numpy as np
        >>> from vlcomp.evaluation.tasks.linear_probe import fit_logistic
        >>> weights, bias = fit_logistic(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]), 2, 100.0)
        >>> (np.eye(2) @ weights.T + bias).argmax(axis=1).tolist()
        [0, 1]
    """
    x, y = torch.from_numpy(np.asarray(features, dtype=np.float64)), torch.from_numpy(np.asarray(labels))
    weights = torch.zeros(classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    # Divided by the number of images, so that the tolerances mean the same for any of them.
    penalty = 1.0 / (strength * len(x))
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=500,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x @ weights.T + bias, y) + 0.5 * penalty * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return weights.detach().numpy(), bias.detach().numpy()


def _ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return rank_candidates(scores, labels, np.arange(scores.shape[1])).rank
