"""What is known about a benchmark before a model sees it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class OfficialFile:
    """A file that the authors of a benchmark publish.

    Args:
        name (`str`):
            Path below the benchmark's folder, with `/`.
        items (`int`, *optional*):
            Number of items that it holds, where known.
        sha256 (`str`, *optional*):
            Checksum of the official file, where known.
        size (`int`, *optional*):
            Size of the official file in bytes, where known.
        subset (`str`, *optional*):
            Category of its items.
    """

    name: str
    items: int | None = None
    sha256: str | None = None
    size: int | None = None
    subset: str | None = None


@dataclass(frozen=True)
class ImageSource:
    """Where the images of a benchmark come from.

    Args:
        what (`str`):
            What they are.
        url (`str`):
            Where to get them.
        licence (`str`):
            Their licence.
        folders (`tuple[str, ...]`):
            Folders below the data root in which they are looked for, beside the benchmark's own folder.
        below (`tuple[str, ...]`):
            Folders within an image folder in which they may lie.
        count (`int`, *optional*):
            Number of distinct images that the benchmark uses, where known.
        size (`str`, *optional*):
            Size of the download, for people.
        where (`str`, *optional*):
            What to put into the benchmark's own folder, if not a folder `images`.
    """

    what: str
    url: str
    licence: str
    folders: tuple[str, ...] = ()
    below: tuple[str, ...] = ("",)
    count: int | None = None
    size: str = ""
    where: str = ""


@dataclass(frozen=True)
class Published:
    """Scores that somebody published.

    Args:
        model (`str`):
            Model, or `"human"`.
        scores (`Mapping[str, float]`):
            Values between 0 and 1, by the name of the task's metric.
        source (`str`):
            Where they are published.
    """

    model: str
    scores: Mapping[str, float]
    source: str


@dataclass(frozen=True)
class Benchmark:
    """Facts about a benchmark, for the loader, the report and a check of what is installed.

    Args:
        name (`str`):
            Name of the task.
        title (`str`):
            Name as its authors write it.
        folder (`str`):
            Folder below the data root.
        url (`str`):
            Where the official files are.
        licence (`str`):
            Licence of the official files.
        citation (`str`):
            What to cite.
        images ([`ImageSource`]):
            Where the images come from.
        files (`tuple[OfficialFile, ...]`):
            The official files that the task reads.
        items (`int`, *optional*):
            Number of items in all, where known.
        published (`tuple[Published, ...]`):
            Reference numbers.
        human ([`Published`], *optional*):
            Human scores.
        gated (`str`, *optional*):
            What has to be agreed to before the files can be had; empty if nothing.
        notes (`str`, *optional*):
            What is uncertain about these facts, or differs from the official evaluation.
    """

    name: str
    title: str
    folder: str
    url: str
    licence: str
    citation: str
    images: ImageSource
    files: tuple[OfficialFile, ...]
    items: int | None = None
    published: tuple[Published, ...] = field(default=())
    human: Published | None = None
    gated: str = ""
    notes: str = ""

    def expected(self) -> str:
        """The official files as a short list for messages."""
        names = [file.name for file in self.files]
        shown = ", ".join(names[:8])
        return shown if len(names) <= 8 else f"{shown} ... ({len(names)} files)"


_COCO_LICENCE = "COCO terms of use, cocodataset.org/#termsofuse"

COCO_VAL2017 = ImageSource(
    "the COCO 2017 validation images",
    "http://images.cocodataset.org/zips/val2017.zip",
    _COCO_LICENCE,
    folders=("coco/val2017", "coco"),
    below=("", "val2017"),
    size="1 GB",
)
COCO_2017 = ImageSource(
    "the COCO 2017 training and validation images",
    "http://images.cocodataset.org/zips/train2017.zip and http://images.cocodataset.org/zips/val2017.zip",
    _COCO_LICENCE,
    folders=("coco",),
    below=("", "train2017", "val2017"),
    size="19 GB",
)
COCO_2014 = ImageSource(
    "the COCO 2014 validation images",
    "http://images.cocodataset.org/zips/val2014.zip",
    _COCO_LICENCE,
    folders=("coco",),
    below=("", "val2014"),
    size="6 GB",
)
FLICKR30K = ImageSource(
    "the Flickr30k images",
    "https://forms.illinois.edu/sec/229675",
    "pictures under the licences of their Flickr owners; research and education only, by request",
    folders=("flickr30k",),
    below=("", "flickr30k-images"),
    size="4 GB",
)
VISUAL_GENOME = ImageSource(
    "the Visual Genome images",
    "https://homes.cs.washington.edu/~ranjay/visualgenome/api.html",
    "CC-BY-4.0 (Visual Genome); pictures under the licences of their Flickr owners",
    folders=("visual_genome", "vg"),
    below=("", "VG_100K", "VG_100K_2"),
    size="15 GB",
)
