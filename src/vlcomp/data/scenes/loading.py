"""`load_scenes`: the data sets of the Scenes world, made from a seed and cached on disk."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from ...errors import ArgumentError
from .captions import annotated_caption, long_caption, sample_caption, training_negatives
from .items import CATEGORIES, SYSTEMATIC_CATEGORIES, sample_pair
from .render import STYLES, encode_png, render
from .world import SHAPES, TRAINING_OBJECTS, WORLD_VERSION, Scene, sample_scene

_IMAGE = datasets.Image()
_CAPTIONED = {"image": _IMAGE, "caption": datasets.Value("string"), "image_id": datasets.Value("int64")}
_SCENE = {"scene": datasets.Value("string")}
_STRINGS = datasets.List(datasets.Value("string"))
_FEATURES = {
    "train": {
        **_CAPTIONED,
        "long_caption": datasets.Value("string"),
        "negative_captions": _STRINGS,
        "negative_types": _STRINGS,
        **_SCENE,
    },
    "retrieval": {**_CAPTIONED, "long_caption": datasets.Value("string"), **_SCENE},
    "choice": {
        **_CAPTIONED,
        "negative_caption": datasets.Value("string"),
        "pair_id": datasets.Value("int64"),
        **_SCENE,
    },
    "winoground": {
        "image_0": _IMAGE,
        "image_1": _IMAGE,
        "caption_0": datasets.Value("string"),
        "caption_1": datasets.Value("string"),
        "kind": datasets.Value("string"),
    },
}
_DEFAULT_SIZES = {"train": 40_000, "retrieval": 1_000, "choice": 4_000, "winoground": 1_000, "classification": 2_000}
SPLITS = ("train", "validation", "test")


def list_scenes() -> list[str]:
    """Names that :func:`load_scenes` takes.

    Returns:
        `list[str]`
    """
    return [
        "train",
        "train/annotated",
        "retrieval",
        *CATEGORIES,
        *(f"systematic/{name}" for name in SYSTEMATIC_CATEGORIES),
        "winoground",
        *(f"classification/{style}" for style in STYLES),
    ]


def load_scenes(
    name: str = "train",
    *,
    size: int | None = None,
    image_size: int = 64,
    seed: int = 0,
    split: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> datasets.Dataset:
    """Make (or read from the cache) a data set of the Scenes world.

    Scenes are coloured, textured objects of three sizes on one of four backgrounds: one to three of them in the
    training set, two or three in the test sets. The same arguments
    give the same bytes in every process and on every machine. A larger `size` begins with the rows of a smaller one.

    Args:
        name (`str`, defaults to `"train"`):
            One of :func:`list_scenes`:

            - `"train"`: columns `image`, `caption`, `image_id`, `long_caption`, `negative_captions`, `negative_types`,
              `scene`.
            - `"train/annotated"`: the same columns, other scenes, and captions as annotators write them: every object
              that is named has its colour, and half of the captions say how two objects stand to each other. What
              captions of people (COCO) are to those of the web; for fine-tuning.
            - `"retrieval"`: captions that name and colour every object.
            - the seven categories of caption choice and `"systematic/<category>"` (colour-noun pairs that training
              never shows, in true and false captions): columns `image`, `caption`, `negative_caption`, `image_id`,
              `pair_id`, `scene`. The two rows of a `pair_id` are mirrored: the false caption of one is the true
              caption of the other.
            - `"winoground"`: `image_0`, `image_1`, `caption_0`, `caption_1`, `kind`.
            - `"classification/<style>"`: one object a picture, `image`, `label`, `scene`; styles `clean`, `outline`,
              `noise`, `palette`, `sketch`.
        size (`int`, *optional*):
            Number of rows; if not given 40,000 for each training set, 4,000 for each category, 1,000 for retrieval and
            Winoground-style pairs, 2,000 for classification.
        image_size (`int`, defaults to 64):
            Side of the pictures in pixels, at least 24.
        seed (`int`, defaults to 0):
            Seed of the world's contents.
        split (`str`, *optional*):
            `"train"`, `"validation"` (to choose settings on) or `"test"`: disjoint draws. `"train"` for the training
            sets, otherwise `"test"`, if not given.
        cache_dir (`str` or `os.PathLike`, *optional*):
            Where data sets are kept; `$VLCOMP_CACHE/scenes`, or `scenes` below the `vlcomp` folder of the Hugging Face
            home, if not given.

    Returns:
        `datasets.Dataset`

    Raises:
        ArgumentError: for an unknown name or split, or a size out of range.

    Example:
        >>> from vlcomp.data.scenes import load_scenes
        >>> rows = load_scenes("swap_attribute", size=2)
        >>> rows[0]["caption"] == rows[1]["negative_caption"]
        True
    """
    names = list_scenes()
    if name not in names:
        close = get_close_matches(name, names, 3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else f"; known: {', '.join(names)}"
        raise ArgumentError(f"name={name!r} is not a data set of Scenes{hint}")
    kind = _kind(name)
    split = split or ("train" if kind == "train" else "test")
    if split not in SPLITS:
        raise ArgumentError(f"split={split!r} is not one of {', '.join(SPLITS)}")
    size = _DEFAULT_SIZES[kind] if size is None else size
    for argument, value in (("size", size), ("image_size", image_size), ("seed", seed)):
        if not isinstance(value, int):
            raise ArgumentError(f"{argument}={value!r} must be an integer")
    if size < 1:
        raise ArgumentError(f"size={size} must be at least 1")
    if image_size < 24:
        raise ArgumentError(f"image_size={image_size}: below 24 pixels the shapes cannot be told apart")
    key = f"{name.replace('/', '-')}-{split}-{size}-{image_size}px-{seed}"
    folder = _cache_root(cache_dir) / f"v{WORLD_VERSION}" / key
    if not (folder / "dataset_info.json").exists():
        features = datasets.Features(_features(name, kind))
        rows = partial(_rows, name, kind, split, size, image_size, seed)
        _write(folder, rows(), features)
    return datasets.load_from_disk(str(folder))


def _kind(name: str) -> str:
    if name in ("retrieval", "winoground"):
        return name
    if name.partition("/")[0] == "train":
        return "train"
    return "classification" if name.startswith("classification/") else "choice"


def _features(name: str, kind: str) -> dict[str, Any]:
    if kind == "classification":
        return {"image": _IMAGE, "label": datasets.ClassLabel(names=list(SHAPES)), **_SCENE}
    return _FEATURES[kind]


def _cache_root(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    if "VLCOMP_CACHE" in os.environ:
        return Path(os.environ["VLCOMP_CACHE"]) / "scenes"
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "vlcomp" / "scenes"


def _write(folder: Path, rows: Iterator[dict[str, Any]], features: datasets.Features) -> None:
    """Write beside the final place and rename: an interrupted or parallel call never leaves half a data set."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with datasets.arrow_writer.ArrowWriter(path=str(temporary / "data.arrow"), features=features) as writer:
            for row in rows:
                writer.write(row)
            writer.finalize()
        dataset = datasets.Dataset.from_file(str(temporary / "data.arrow"))
        progress = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            dataset.save_to_disk(str(temporary / "saved"))
        finally:
            if not progress:
                datasets.enable_progress_bars()
        try:
            os.replace(temporary / "saved", folder)
        except OSError:
            # Another process was quicker; its folder holds the same bytes.
            if not (folder / "dataset_info.json").exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rows(name: str, kind: str, split: str, size: int, image_size: int, seed: int) -> Iterator[dict[str, Any]]:
    def stream(index: int) -> random.Random:
        # Seeding by a string goes through SHA-512: streams of different names and indices do not correlate.
        return random.Random(f"scenes/{seed}/{split}/{name}/{index}")

    makers: dict[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "train": lambda: (
            _training_row(stream(i), i, image_size, annotated=name == "train/annotated") for i in range(size)
        ),
        "retrieval": lambda: (_retrieval_row(stream(i), i, image_size) for i in range(size)),
        "choice": lambda: (
            row for i in range((size + 1) // 2) for row in _choice_rows(stream(i), name, i, image_size)
        ),
        "winoground": lambda: (_winoground_row(stream(i), i, image_size) for i in range(size)),
        "classification": lambda: (_classification_row(stream(i), name, i, image_size) for i in range(size)),
    }
    return islice(makers[kind](), size)


def _image(scene: Scene, image_size: int, style: str = "clean", seed: str = "") -> dict[str, Any]:
    return {"bytes": encode_png(render(scene, image_size, style, seed)), "path": None}


def _training_row(rng: random.Random, index: int, image_size: int, *, annotated: bool) -> dict[str, Any]:
    count = rng.choices(tuple(TRAINING_OBJECTS), tuple(TRAINING_OBJECTS.values()))[0]
    scene = sample_scene(rng, num_objects=count)
    caption = annotated_caption(rng, scene) if annotated else sample_caption(rng, scene)
    negatives = training_negatives(rng, scene, caption)
    return {
        "image": _image(scene, image_size),
        "caption": caption.text(),
        "image_id": index,
        "long_caption": long_caption(rng, scene),
        "negative_captions": [text for _, text in negatives],
        "negative_types": [kind for kind, _ in negatives],
        "scene": scene.to_json(),
    }


def _retrieval_row(rng: random.Random, index: int, image_size: int) -> dict[str, Any]:
    scene = sample_scene(rng)
    caption = sample_caption(rng, scene, kind="attributed", num_mentions=len(scene.objects), colour_all=True)
    return {
        "image": _image(scene, image_size),
        "caption": caption.text(),
        "image_id": index,
        "long_caption": long_caption(rng, scene),
        "scene": scene.to_json(),
    }


def _choice_rows(rng: random.Random, name: str, index: int, image_size: int) -> Iterator[dict[str, Any]]:
    category = name.removeprefix("systematic/")
    pair = sample_pair(rng, category, held_out=name.startswith("systematic/"))
    texts = [caption.text() for caption in pair.captions]
    for side in (0, 1):
        yield {
            "image": _image(pair.scenes[side], image_size),
            "caption": texts[side],
            "image_id": 2 * index + side,
            "negative_caption": texts[1 - side],
            "pair_id": index,
            "scene": pair.scenes[side].to_json(),
        }


_WINOGROUND_KINDS = ("swap_attribute", "swap_object")


def _winoground_row(rng: random.Random, index: int, image_size: int) -> dict[str, Any]:
    kind = _WINOGROUND_KINDS[index % len(_WINOGROUND_KINDS)]
    pair = sample_pair(rng, kind)
    return {
        "image_0": _image(pair.scenes[0], image_size),
        "image_1": _image(pair.scenes[1], image_size),
        "caption_0": pair.captions[0].text(),
        "caption_1": pair.captions[1].text(),
        "kind": kind,
    }


def _classification_row(rng: random.Random, name: str, index: int, image_size: int) -> dict[str, Any]:
    # Every class equally often. The picture of an index differs between styles, so no style can be
    # recognised from the others' test pictures.
    shape = SHAPES[index % len(SHAPES)]
    scene = sample_scene(rng, num_objects=1, shape=shape)
    image = _image(scene, image_size, name.removeprefix("classification/"), str(zlib.crc32(name.encode())))
    return {"image": image, "label": SHAPES.index(shape), "scene": scene.to_json()}
