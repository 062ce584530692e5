"""Writing files: folders are tried before work begins, and no reader sees half a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .errors import ArgumentError


def check_output(folder: str | os.PathLike[str], name: str = "output") -> Path:
    """Make a folder and see that it can be written, before hours of work depend on it.

    Args:
        folder (`str` or `os.PathLike`):
            The folder.
        name (`str`, defaults to `"output"`):
            The argument that the error names.

    Returns:
        `Path`

    Raises:
        ArgumentError: if it cannot be made or written.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ArgumentError(
            f"{name}={os.fspath(folder)!r} cannot be written: {error.strerror or error}; choose another folder"
        ) from error
    return place


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside `path` and rename, so that a reader never sees half a file.

    Args:
        path (`Path`):
            The file.
        write (`Callable`):
            `write(temporary)` makes it under another name in the same folder.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes files that only their owner can read; results are meant to be shared.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
