"""Base-to-novel generalisation: train on one half of the classes, measure both halves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.fewshot import base_and_novel
from .prompted import FewShot, resolve_sets
from .results import ProtocolResult, Runs, harmonic_mean

COLUMNS = {"base": "base", "novel": "novel", "harmonic_mean": "harmonic mean"}


def base_to_novel(
    model: str | os.PathLike[str],
    data: Any,
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
    """Train prompts on the first half of a set's classes, and measure each half among its own classes.

    Each set and seed is a run with a file of its own, `<output>/<set>/seed<k>.json`, with the trained prompts beside
    it; a run that has its file is not repeated. The harmonic mean is taken of each run, then averaged.

    Args:
        model (`str` or `os.PathLike`):
            Plain CLIP: folder or Hub repository.
        data (`str`, `os.PathLike`, `ClassificationSet` or a sequence of them):
            Sets by name or folder ([`~vlcomp.data.classification_sets.load_classification_set`]).
        shots (`int`, defaults to 16):
            Training images of each base class.
        seeds (`Sequence[int]`, defaults to `(1, 2, 3)`):
            Seeds of the images, the prompts and the order. Zero-shot runs once.
        output (`str` or `os.PathLike`, *optional*):
            Folder of the files; nothing is kept if not given.
        arguments (`Mapping[str, Any]`, *optional*):
            Fields of [`~vlcomp.CommaTrainingArguments`] (`prompt_variant`, `num_train_epochs`, `kd_weight`, ...);
            `prompt_variant="zero-shot"` measures the plain CLIP.
        split (`str`, defaults to `"test"`):
            `"test"`, or `"validation"` to choose settings on.
        data_root (`str` or `os.PathLike`, *optional*):
            Folder of the sets; `$VLCOMP_DATA` if not given.
        image_size (`int`, defaults to 64):
            For Scenes: side of the pictures in pixels.
        batch_size (`int`, defaults to 100):
            Images in one pass when measuring.
        progress (`bool`, defaults to `False`):
            Show progress bars.
        log (`Callable`, defaults to `print`):
            Receives one line a run.

    Returns:
        [`ProtocolResult`]: `base`, `novel` and `harmonic_mean`.

    Raises:
        ArgumentError: if arguments do not fit each other.
        DataError: if data are missing, a class has fewer images than shots, or a file is of other settings.

    Example:
        >>> import tempfile
        >>> from vlcomp.protocols import base_to_novel
        >>> from vlcomp.testing import make_class_folder, save_tiny_checkpoint
        >>> folder = make_class_folder(tempfile.mkdtemp(), ("cup", "star", "dog", "house"), n=6)
        >>> result = base_to_novel(
        ...     save_tiny_checkpoint(tempfile.mkdtemp()),
        ...     folder,
        ...     shots=2,
        ...     arguments={"prompt_variant": "zero-shot"},
        ...     log=lambda line: None,
        ... )
        >>> sorted(result.metrics)
        ['base', 'harmonic_mean', 'novel']
    """
    how = FewShot(os.fspath(model), dict(arguments or {}), shots, split, batch_size, progress)
    sets = {one.name: one for one in resolve_sets(data, data=data_root, image_size=image_size)}
    halves = {name: base_and_novel(one) for name, one in sets.items()}
    runs = [(name, seed) for name in sets for seed in how.seeds(seeds)]
    identities = [(name, seed, how.identity("base-to-novel", {"source": sets[name]})) for name, seed in runs]

    def run(number: int, folder: Path | None) -> dict[str, Any]:
        name, seed = runs[number]
        base, novel = halves[name]
        prompted = how.train(base, seed, folder)
        first, second = prompted.accuracy(base), prompted.accuracy(novel)
        return {"metrics": {"base": first, "novel": second, "harmonic_mean": harmonic_mean(first, second)}}

    return ProtocolResult("base-to-novel", COLUMNS, Runs(output, log)(identities, run))
