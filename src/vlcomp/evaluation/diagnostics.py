"""How much of a score comes from something else than what the benchmark is meant to measure.

A task is measured again, by the same items and the same scoring, on changed inputs (the words of each caption in
another order; each picture in the place of another) or with a language model that sees no picture. The score itself is
broken down by which caption is longer and by how many words the two share.
"""

from __future__ import annotations

import copy
import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import ArgumentError, CheckpointError
from .reference import words
from .task import Score, Task, TaskResult
from .tasks import ScenesWinoground

# Share of words that the true and the false caption have in common, from which on a row belongs to the group.
_OVERLAPS = ((1.0, "same words"), (0.8, "80 % or more"), (0.5, "50 to 80 %"), (0.0, "less than 50 %"))


@dataclass(frozen=True)
class Contents:
    """What a task measures on.

    Args:
        images (`list`):
            Distinct image sources.
        image_names (`list[str]`):
            Name of each image.
        texts (`list[str]`):
            Texts.
        item_ids (`list[str]`):
            Names of the items, where the task has some before it runs.
        kind (`str`):
            `"composition"`, `"retrieval"` or `"classification"`.
    """

    images: list[Any]
    image_names: list[str]
    texts: list[str]
    item_ids: list[str]
    kind: str


def contents(task: Task) -> Contents | None:
    """The images and texts of a task, loaded if they were not yet.

    Args:
        task ([`~vlcomp.evaluation.Task`]):
            The task.

    Returns:
        [`Contents`] or `None`: `None` for a task of one's own that has none of the attributes `prepared`, `items`,
        `pairs` and `labelled`.
    """
    if hasattr(task, "prepared"):
        found = task.prepared
        ids = [item.item_id for item in found.items]
        return Contents(found.sources, found.image_names, found.texts, ids, "composition")
    if hasattr(task, "pairs"):
        found = task.pairs
        return Contents(found.images, found.image_names, found.captions, found.image_of.tolist(), "retrieval")
    if hasattr(task, "labelled"):
        found = task.labelled
        return Contents(found.images, found.image_names, found.class_names, found.labels.tolist(), "classification")
    if hasattr(getattr(task, "test", None), "image_names"):
        found = task.test
        return Contents(found.images, found.image_names, found.class_names, found.labels.tolist(), "classification")
    found = getattr(task, "items", None)
    if hasattr(found, "choices"):
        ids = [f"{c.item_id} {c.text} {c.false_text} {c.image} {c.false_image}" for c in found.choices]
        return Contents(found.images, found.image_names, found.texts, ids, "composition")
    return None


def signature(task: Task) -> str:
    """A short text that differs for tasks that measure on other items or with other options.

    Args:
        task ([`~vlcomp.evaluation.Task`]):
            The task.

    Returns:
        `str`: of its version, its settings, the names of its images, its texts and its items.
    """
    # Scenes in Winoground's form has its settings with its data.
    described = task if callable(getattr(task, "config", None)) else getattr(task, "data", None)
    config = described.config() if callable(getattr(described, "config", None)) else {}
    config = {"limit": getattr(task, "limit", None), **config}
    digest = hashlib.blake2b(f"{task.name} {task.version} {config!r}".encode(), digest_size=16)
    found = contents(task)
    for column in (found.image_names, found.texts, found.item_ids) if found is not None else ():
        digest.update(repr(list(column)).encode(errors="surrogatepass"))
    return digest.hexdigest()


class Changed:
    """A model that is measured on changed inputs.

    Args:
        model (`Any`):
            The model.
        images (`Callable[[list], list]`, *optional*):
            From the distinct images of a task to those that the model sees in their places.
        texts (`Callable[[list[str]], list[str]]`, *optional*):
            From the distinct texts of a task to those that the model reads in their places.
    """

    def __init__(
        self,
        model: Any,
        *,
        images: Callable[[list[Any]], list[Any]] | None = None,
        texts: Callable[[list[str]], list[str]] | None = None,
    ) -> None:
        self.model = model
        if images is not None:
            self.change_images = images
        if texts is not None:
            self.change_texts = texts

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "change_images", "change_texts"):
            raise AttributeError(name)
        return getattr(self.model, name)


def shuffled_words(text: str) -> str:
    """The words of a text in another order, the same one each time.

    Args:
        text (`str`):
            A caption.

    Returns:
        `str`: the text itself if there is no other order.

    Example:
        >>> from vlcomp.evaluation.diagnostics import shuffled_words
        >>> sorted(shuffled_words("a red cup on a table").split())
        ['a', 'a', 'cup', 'on', 'red', 'table']
        >>> shuffled_words("a red cup on a table") == "a red cup on a table"
        False
    """
    parts = text.split()
    if len(set(parts)) < 2:
        return text
    order = list(parts)
    rng = random.Random(f"vlcomp words {text}")
    while order == parts:
        rng.shuffle(order)
    return " ".join(order)


def exchanged(images: list[Any]) -> list[Any]:
    """Each image in the place of another one, the same way each time.

    Args:
        images (`list`):
            Distinct images.

    Returns:
        `list`: of the same images; none is in its own place if there are at least two.
    """
    circle = list(range(len(images)))
    random.Random("vlcomp images").shuffle(circle)
    out = list(images)
    for here, there in zip(circle, circle[1:] + circle[:1], strict=True):
        out[here] = images[there]
    return out


class TextOnly:
    """A scorer of texts as a model that never looks at the picture.

    Args:
        scorer (`Callable[[list[str]], Sequence[float]]`):
            Gives each text a number, such as its log-probability.
    """

    reads_images = False

    def __init__(self, scorer: Callable[[list[str]], Any]) -> None:
        self.scorer = scorer
        self._known: dict[str, float] = {}

    def score_pairs(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        """Scores of the texts; see `vlcomp.evaluation.encoding.raw_pairs`."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, np.asarray(self.scorer(new), dtype=np.float64).tolist(), strict=True))
        return np.array([self._known[text] for text in texts])


class LanguageModel:
    """Log-probability of a text under a causal language model.

    Args:
        model (`str` or `PreTrainedModel`):
            Folder or hub name of any causal language model of transformers, or the model.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Its tokenizer; loaded with the model if not given.
        batch_size (`int`, defaults to 32):
            Texts in one forward pass.
        device (`str` or `torch.device`, *optional*):
            Where to run.

    Raises:
        CheckpointError: if it cannot be loaded.
        ArgumentError: if a model object comes without a tokenizer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        batch_size: int = 32,
        device: str | torch.device | None = None,
    ) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.name = model if isinstance(model, str) else type(model).__name__
        if isinstance(model, str):
            try:
                tokenizer = tokenizer or AutoTokenizer.from_pretrained(model)
                model = AutoModelForCausalLM.from_pretrained(model)
            except (OSError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"text_scorer={self.name!r} cannot be loaded as a causal language model: "
                    f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
                ) from error
        elif tokenizer is None:
            raise ArgumentError("tokenizer is missing; LanguageModel(model, tokenizer) needs it with a model object")
        self.model = model.eval() if device is None else model.eval().to(device)
        self.tokenizer, self.batch_size = tokenizer, batch_size

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Score texts.

        Args:
            texts (`Sequence[str]`):
                The texts.

        Returns:
            `np.ndarray` of shape [texts]: natural log-probabilities; of all tokens if the tokenizer has a token that
            begins a text, otherwise of all but the first.
        """
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        head = [] if start is None else [start]
        rows = [head + self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        scores = np.zeros(len(rows))
        device = next(self.model.parameters()).device
        for at in range(0, len(order), self.batch_size):
            batch = order[at : at + self.batch_size]
            width = max(2, max(len(rows[i]) for i in batch))
            # On the right, and under a causal mask: padding changes nothing that comes before it.
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            mask = torch.zeros(len(batch), width, dtype=torch.long)
            for row, i in enumerate(batch):
                ids[row, : len(rows[i])] = torch.tensor(rows[i], dtype=torch.long)
                mask[row, : len(rows[i])] = 1
            ids, mask = ids.to(device), mask.to(device)
            logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
            each = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            scores[batch] = (each * mask[:, 1:]).sum(dim=1).double().cpu().numpy()
        return scores


def text_scorer(scorer: Any, *, device: Any = None) -> TextOnly:
    """A model that never looks at the picture.

    Args:
        scorer (`str` or `Callable`):
            Folder or hub name of a causal language model, or a function from texts to numbers.
        device (`str` or `torch.device`, *optional*):
            Where a language model runs.

    Returns:
        [`TextOnly`]

    Raises:
        ArgumentError: if it is neither.
        CheckpointError: if the language model cannot be loaded.
    """
    if isinstance(scorer, TextOnly):
        return scorer
    if isinstance(scorer, str):
        return TextOnly(LanguageModel(scorer, device=device))
    if callable(scorer):
        return TextOnly(scorer)
    raise ArgumentError(
        f"text_scorer={scorer!r} is neither the name of a causal language model nor a function of texts"
    )


def diagnose(task: Task, model: Any, *, shuffle: bool = True, scorer: TextOnly | None = None) -> dict[str, dict]:
    """Scores of a task on changed inputs.

    Scores are strict as those of the model itself: a tie is wrong.

    Args:
        task ([`~vlcomp.evaluation.Task`]):
            The task.
        model (`Any`):
            The model that was measured; should remember its embeddings (`vlcomp.evaluation.cache.remembered`).
        shuffle (`bool`, defaults to `True`):
            Measure the model on captions with their words in another order, and on exchanged images.
        scorer ([`TextOnly`], *optional*):
            A scorer that sees no image.

    Returns:
        `dict[str, dict[str, Score]]`: by `"shuffled_words"`, `"shuffled_images"` and `"language_model"`; empty for
        tasks that do not ask for composition (retrieval, classification).
    """
    if not compositional(task):
        return {}
    found = contents(task)
    quiet = copy.copy(task)
    for name in ("gallery", "references"):
        if hasattr(quiet, name):
            setattr(quiet, name, False)
    models: dict[str, Any] = {}
    if shuffle:
        models["shuffled_words"] = Changed(model, texts=lambda texts: [shuffled_words(text) for text in texts])
        if found is None or len(found.images) > 1:
            models["shuffled_images"] = Changed(model, images=exchanged)
    if scorer is not None and not compares_texts(task):
        models["language_model"] = scorer
    return {name: quiet.run(changed).scores for name, changed in models.items()}


def compositional(task: Task) -> bool:
    """Whether a task compares pairs of image and text, and is neither retrieval nor classification.

    Args:
        task ([`~vlcomp.evaluation.Task`]):
            The task.

    Returns:
        `bool`: `False` for a task of one's own that does not tell what it measures on.
    """
    found = contents(task)
    return isinstance(task, ScenesWinoground) if found is None else found.kind == "composition"


def compares_texts(task: Task) -> bool:
    """Whether a task compares captions with captions, as a part of SugarCrepe++ does.

    Args:
        task ([`~vlcomp.evaluation.Task`]):
            The task.

    Returns:
        `bool`
    """
    rules = getattr(task, "rules", None) or {}
    shapes = {(len(item.images), len(item.texts)) for item in getattr(getattr(task, "prepared", None), "items", ())}
    return any(
        cell[0] == "tt" for rule in rules.values() for shape in shapes for pair in rule(*shape) for cell in pair
    )


def breakdown(result: TaskResult) -> list[dict[str, Any]]:
    """Accuracy by which caption is longer, and by how many words the two share.

    Args:
        result ([`~vlcomp.evaluation.TaskResult`]):
            A result with its table of items.

    Returns:
        `list[dict]`: `metric`, `by` (`"length of the true caption"` or `"words in common"`), `group` and the numbers
        of a [`~vlcomp.evaluation.Score`]; empty for tasks without pairs of captions.
    """
    headline = result.headline or next(iter(result.scores))
    metric = headline.rpartition("/")[2]
    # A task of several metrics has a row for each of them.
    own = [row for row in result.items if str(row["item_id"]).endswith(f"/{metric}")]
    rows = [row for row in own or result.items if row.get("text") and row.get("false_text")]
    if not rows:
        return []
    groups: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        true, false = words(row["text"]), words(row["false_text"])
        longer = "longer" if len(true) > len(false) else "shorter" if len(true) < len(false) else "as long"
        groups.setdefault(("length of the true caption", longer), []).append(row)
        groups.setdefault(("words in common", _overlap(true, false)), []).append(row)
    order = [("length of the true caption", name) for name in ("shorter", "as long", "longer")]
    order += [("words in common", name) for _, name in _OVERLAPS]
    return [
        {
            "metric": metric,
            "by": by,
            "group": group,
            **Score.from_values(
                [float(row["correct"]) for row in groups[by, group]],
                [row["cluster"] for row in groups[by, group]],
                ties=sum(bool(row["tie"]) for row in groups[by, group]),
            ).to_dict(),
        }
        for by, group in order
        if (by, group) in groups
    ]


def _overlap(true: list[str], false: list[str]) -> str:
    """Group of a pair of captions by the words that both have, counted as often as they occur."""
    a, b = Counter(true), Counter(false)
    total = (a | b).total()
    share = (a & b).total() / total if total else 1.0
    return next(name for least, name in _OVERLAPS if share >= least or math.isclose(share, least))
