"""Checkpoints of a training run, in the order in which they were written."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError

_CONFIG = "config.json"


@dataclass(frozen=True)
class Checkpoint:
    """One model of a run.

    Args:
        label (`str`):
            How to call it in a table: `step 400`, `final`, or what the user gave.
        where (`str`):
            Folder, or name on the Hub.
        step (`int`, *optional*):
            Optimiser steps before it; `None` for a model that is not in a run's folder.
        generation (`int`, *optional*):
            The generation at whose end or within which it was saved, as its configuration says.
    """

    label: str
    where: str
    step: int | None = None
    generation: int | None = None


def list_checkpoints(run: str | os.PathLike[str]) -> list[Checkpoint]:
    """The models of a run, or the one model that was given.

    Args:
        run (`str` or `os.PathLike`):
            Folder of a training run with `checkpoint-<step>` folders, folder of a model, or a name on the Hub. A final
            model beside checkpoints is listed too, unless it has the weights of one of them.

    Returns:
        `list[Checkpoint]`: the first steps first.

    Raises:
        CheckpointError: for a folder without any model.

    Example:
        >>> import tempfile
        >>> from vlcomp.analysis import list_checkpoints
        >>> from vlcomp.testing import save_tiny_checkpoint
        >>> folder = tempfile.mkdtemp()
        >>> for step in (4, 12):
        ...     _ = save_tiny_checkpoint(f"{folder}/checkpoint-{step}", seed=step)
        >>> [found.label for found in list_checkpoints(folder)]
        ['step 4', 'step 12']
    """
    folder, name = Path(run), os.fspath(run)
    if not folder.is_dir():
        return [Checkpoint(name, name)]  # loading it tells what is wrong with a name that does not exist
    found = []
    for path in folder.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and (path / _CONFIG).is_file():
            found.append(Checkpoint(f"step {match[1]}", str(path), int(match[1]), _generation(path)))
    found.sort(key=lambda checkpoint: checkpoint.step)
    if (folder / _CONFIG).is_file():
        if not found:
            return [Checkpoint(name, name, None, _generation(folder))]
        if _weights(folder) not in [_weights(Path(checkpoint.where)) for checkpoint in found]:
            found.append(Checkpoint("final", name, None, _generation(folder)))
    if not found:
        raise CheckpointError(
            f"{name}: there is no {_CONFIG} and no checkpoint-<step> with one in this folder, so there is no model"
        )
    return found


def _generation(folder: Path) -> int | None:
    try:
        return json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("generation")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder / _CONFIG} is not a configuration: {error}") from error


def _weights(folder: Path) -> list[str]:
    """Digests of the weight files: large ones are read, but not loaded."""
    digests = []
    for path in sorted(folder.glob("*.safetensors")):
        digest = hashlib.blake2b()
        with path.open("rb") as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
        digests.append(digest.hexdigest())
    return digests


__all__: list[str] = ["Checkpoint", "list_checkpoints"]
