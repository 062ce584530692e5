"""Train on one set, measure others (cross-dataset) or the same classes elsewhere (domain generalisation)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.classification_facts import ELEVEN, VARIANTS
from ..data.classification_sets import ClassificationSet
from ..errors import ArgumentError
from .prompted import FewShot, resolve_set, resolve_sets, with_depth
from .results import ProtocolResult, Runs

# The paper's settings of both protocols, where they differ from those of base-to-novel.
TRAINING = {"learning_rate": 0.0026, "num_train_epochs": 2.0}
PROMPT_DEPTH = 3
CROSS_DATASET = {
    "imagenet": tuple(name for name in ELEVEN if name != "imagenet"),
    "scenes/attribute-noun": ("scenes/noun", "scenes/colour", "scenes/background"),
}
DOMAINS = {
    "imagenet": VARIANTS,
    "scenes/noun": tuple(f"scenes/noun/{style}" for style in ("outline", "noise", "palette", "sketch")),
}


def cross_dataset(
    model: str | os.PathLike[str],
    data: Any = "imagenet",
    targets: Sequence[Any] | None = None,
    *,
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    output: str | os.PathLike[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    split: str = "test",
    data_root: str | os.PathLike[str] | None = None,
    image_size: int = 64,
    batch_size: int = 100,
    progress: bool = False,
    log: Callable[[str], None] = print,
) -> ProtocolResult:
    """Train prompts on all classes of one set, and measure other sets.

    The learned prompts stand before the class names of every set; a variant without learned text reads the
    hand-crafted template of the set that is measured. Where `arguments` says nothing else, the settings are those of
    the paper's transfer protocols: a learning rate of 0.0026, 2 epochs, prompts in 3 layers.

    Args:
        model (`str` or `os.PathLike`):
            Plain CLIP: folder or Hub repository.
        data (`str`, `os.PathLike` or `ClassificationSet`, defaults to `"imagenet"`):
            Set to train on.
        targets (`Sequence`, *optional*):
            Sets to measure; for `"imagenet"` the other ten of the literature, for `"scenes/attribute-noun"` nouns,
            colours and backgrounds, if not given.
        shots, seeds, output, arguments, split, data_root, image_size, batch_size, progress, log:
            As in [`base_to_novel`].

    Returns:
        [`ProtocolResult`]: `source`, each target by name, and `mean` of the targets.

    Raises:
        ArgumentError: if arguments do not fit each other, or targets are missing.
        DataError: if data are missing, a class has fewer images than shots, or a file is of other settings.

    Example:
        >>> import tempfile
        >>> from vlcomp.protocols import cross_dataset
        >>> from vlcomp.testing import make_class_folder, save_tiny_checkpoint
        >>> sets = [make_class_folder(f"{tempfile.mkdtemp()}/{name}", ("cup", "star"), n=6) for name in ("a", "b")]
        >>> result = cross_dataset(
        ...     save_tiny_checkpoint(tempfile.mkdtemp()),
        ...     sets[0],
        ...     [sets[1]],
        ...     shots=2,
        ...     arguments={"prompt_variant": "zero-shot"},
        ...     log=lambda line: None,
        ... )
        >>> sorted(result.metrics)
        ['b', 'mean', 'source']
    """
    how = _how(model, arguments, shots, split, batch_size, progress)
    options = {"data": data_root, "image_size": image_size}
    source, others = _sets(data, targets, CROSS_DATASET, "targets", options)
    return _transfer("cross-dataset", how, source, others, seeds, output, log)


def domain_generalization(
    model: str | os.PathLike[str],
    data: Any = "imagenet",
    domains: Sequence[Any] | None = None,
    *,
    shots: int = 16,
    seeds: Sequence[int] = (1, 2, 3),
    output: str | os.PathLike[str] | None = None,
    arguments: Mapping[str, Any] | None = None,
    split: str = "test",
    data_root: str | os.PathLike[str] | None = None,
    image_size: int = 64,
    batch_size: int = 100,
    progress: bool = False,
    log: Callable[[str], None] = print,
) -> ProtocolResult:
    """Train prompts on all classes of one set, and measure the same classes in other domains.

    Args:
        model (`str` or `os.PathLike`):
            Plain CLIP: folder or Hub repository.
        data (`str`, `os.PathLike` or `ClassificationSet`, defaults to `"imagenet"`):
            Set to train on.
        domains (`Sequence`, *optional*):
            Sets of the same classes, or some of them; for `"imagenet"` V2, Sketch, A and R, for `"scenes/noun"` four
            other styles of drawing, if not given.
        shots, seeds, output, arguments, split, data_root, image_size, batch_size, progress, log:
            As in [`base_to_novel`], with the settings of [`cross_dataset`].

    Returns:
        [`ProtocolResult`]: `source`, each domain by name, and `mean` of the domains.

    Raises:
        ArgumentError: if arguments do not fit each other, or a domain has a class that the source does not.
        DataError: if data are missing, a class has fewer images than shots, or a file is of other settings.

    Example:
        >>> import tempfile
        >>> from vlcomp.protocols import domain_generalization
        >>> from vlcomp.testing import make_class_folder, save_tiny_checkpoint
        >>> sets = [make_class_folder(f"{tempfile.mkdtemp()}/{name}", ("cup", "star"), n=6) for name in ("a", "b")]
        >>> result = domain_generalization(
        ...     save_tiny_checkpoint(tempfile.mkdtemp()),
        ...     sets[0],
        ...     [sets[1]],
        ...     shots=2,
        ...     arguments={"prompt_variant": "zero-shot"},
        ...     log=lambda line: None,
        ... )
        >>> sorted(result.metrics)
        ['b', 'mean', 'source']
    """
    how = _how(model, arguments, shots, split, batch_size, progress)
    options = {"data": data_root, "image_size": image_size}
    source, others = _sets(data, domains, DOMAINS, "domains", options)
    for other in others:
        unknown = [name for name in other.class_names if name not in source.class_names]
        if unknown:
            raise ArgumentError(
                f"domain {other.name!r} has the class {unknown[0]!r}, which {source.name!r} has not; for sets of "
                "other classes use cross_dataset (--protocol cross-dataset)"
            )
    return _transfer("domain-generalization", how, source, others, seeds, output, log)


def _how(
    model: str | os.PathLike[str],
    arguments: Mapping[str, Any] | None,
    shots: int,
    split: str,
    batch_size: int,
    progress: bool,
) -> FewShot:
    given = {**TRAINING, **(arguments or {})}
    if "max_steps" in given:
        given.pop("num_train_epochs")
    name = os.fspath(model)
    return FewShot(name, with_depth(name, given, PROMPT_DEPTH), shots, split, batch_size, progress)


def _sets(
    data: Any, others: Sequence[Any] | None, usual: Mapping[str, Sequence[str]], what: str, options: dict[str, Any]
) -> tuple[ClassificationSet, list[ClassificationSet]]:
    if others is None:
        name = data.name if isinstance(data, ClassificationSet) else os.fspath(data)
        if name not in usual:
            raise ArgumentError(
                f"{what} is missing: pass the sets to measure (--targets SET ...); only "
                f"{' and '.join(map(repr, usual))} have usual ones"
            )
        others = usual[name]
    source = resolve_set(data, **options)
    found = resolve_sets(list(others), **options)
    if any(other.name in (source.name, "source", "mean") for other in found):
        raise ArgumentError(f"{what}={[other.name for other in found]!r} must not hold the source {source.name!r}")
    return source, found


def _transfer(
    protocol: str,
    how: FewShot,
    source: ClassificationSet,
    others: list[ClassificationSet],
    seeds: Sequence[int],
    output: str | os.PathLike[str] | None,
    log: Callable[[str], None],
) -> ProtocolResult:
    for one in (source, *others):
        one.split(how.split)  # a missing split should not be found after training
    wanted = how.seeds(seeds)
    identity = how.identity(protocol, {"source": source, **{other.name: other for other in others}})

    def run(number: int, folder: Path | None) -> dict[str, Any]:
        prompted = how.train(source, wanted[number], folder)
        found = {other.name: prompted.accuracy(other) for other in others}
        mean = sum(found.values()) / len(found)
        return {"metrics": {"source": prompted.accuracy(source), **found, "mean": mean}}

    records = Runs(output, log)([(source.name, seed, identity) for seed in wanted], run)
    named = {other.name: other.name.removeprefix("scenes/") for other in others}
    columns = {"source": "source", **named, "mean": "mean of others"}
    return ProtocolResult(protocol, columns, records)
