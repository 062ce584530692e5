"""Runs to make reports of: random but fixed models, and photographs in the layout of SugarCrepe."""

import json
import zlib

import numpy as np
from PIL import Image

from .common import HashModel

SUBSETS = ("replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att", "add_obj", "add_att")


class SeededHashModel(HashModel):
    """Another model for every seed."""

    def __init__(self, seed, dimensions=16):
        super().__init__(dimensions)
        self.seed = seed

    def vector(self, content):
        return np.random.default_rng([self.seed, zlib.crc32(content)]).normal(size=self.dimensions).astype(np.float32)


def photographs_as_sugarcrepe(root, per_subset=8, pictures=20):
    """Files and images made on the fly; returns the folder of the official files."""
    folder, images = root / "sugarcrepe", root / "coco" / "val2017"
    folder.mkdir(parents=True)
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{number:012d}.jpg" for number in range(pictures)]
    for number, name in enumerate(names):
        noise = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        noise.resize((640, 427) if number % 3 else (427, 640), Image.Resampling.BICUBIC).save(images / name)
    for position, subset in enumerate(SUBSETS):
        rows = {
            str(i): {
                "filename": names[(position + 3 * i) % pictures],
                "caption": f"{subset} item {i}: a dog on a mat",
                "negative_caption": f"{subset} item {i}: a mat on a dog",
            }
            for i in range(per_subset)
        }
        (folder / f"{subset}.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder
