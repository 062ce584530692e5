"""What is there of a benchmark on this machine, without loading it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .facts import Benchmark, OfficialFile
from .files import ImageFinder, candidate_folders, sha256_of


@dataclass(frozen=True)
class FileStatus:
    """An official file as it is here.

    Args:
        file ([`OfficialFile`]):
            What it should be.
        path (`Path`):
            Where it is looked for.
        size (`int`, *optional*):
            Its size in bytes; `None` if it is not there.
        official (`bool`, *optional*):
            Whether its checksum is the official one; `None` if it is not there or no checksum is known.
    """

    file: OfficialFile
    path: Path
    size: int | None
    official: bool | None


@dataclass(frozen=True)
class Installed:
    """What there is of a benchmark.

    Args:
        facts ([`Benchmark`]):
            The benchmark.
        looked_in (`tuple[Path, ...]`):
            Folders in which its files were looked for; empty if nothing says where data are.
        files (`tuple[FileStatus, ...]`):
            Its official files, in the first folder that has one of them, otherwise in the first of all.
        image_folders (`tuple[Path, ...]`):
            Folders in which its images are looked for, those that exist.
    """

    facts: Benchmark
    looked_in: tuple[Path, ...]
    files: tuple[FileStatus, ...]
    image_folders: tuple[Path, ...]

    @property
    def missing(self) -> tuple[FileStatus, ...]:
        """Official files that are not there."""
        return tuple(status for status in self.files if status.size is None)

    @property
    def changed(self) -> tuple[FileStatus, ...]:
        """Files that are not the official ones, byte by byte."""
        return tuple(status for status in self.files if status.official is False)


def find_installed(
    facts: Benchmark,
    data: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    *,
    checksums: bool = True,
) -> Installed:
    """Look for the files of a benchmark.

    Args:
        facts ([`Benchmark`]):
            The benchmark.
        data (`str` or `os.PathLike`, *optional*):
            Folder of the official files, or above it; `$VLCOMP_DATA` if not given.
        images (`str` or `os.PathLike`, *optional*):
            Folder of the images.
        checksums (`bool`, defaults to `True`):
            Compare checksums, where known; this reads the files.

    Returns:
        [`Installed`]

    Raises:
        DataError: if `images` is not a folder.

    Example:
        >>> import tempfile
        >>> from vlcomp.evaluation.benchmarks import SugarCrepe, find_installed
        >>> len(find_installed(SugarCrepe.facts, tempfile.mkdtemp()).missing)
        7
    """
    folders = candidate_folders(facts, data)
    if not folders:
        return Installed(facts, (), (), ())
    folder = next((f for f in folders if any((f / file.name).is_file() for file in facts.files)), folders[0])
    found = []
    for file in facts.files:
        path = folder / file.name
        size = path.stat().st_size if path.is_file() else None
        known = checksums and size is not None and file.sha256 is not None
        found.append(FileStatus(file, path, size, sha256_of(path) == file.sha256 if known else None))
    roots = ImageFinder(facts, folder, images).roots
    return Installed(facts, tuple(folders), tuple(found), tuple(root for root in roots if root.is_dir()))
