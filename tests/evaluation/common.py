"""Models without weights: embeddings that depend on nothing but the content of the input."""

import zlib

import numpy as np
from PIL import Image


class HashModel:
    """A random but fixed unit vector for every picture and every text; counts what it is asked for."""

    name = "hash"

    def __init__(self, dimensions: int = 16):
        self.dimensions = dimensions
        self.images: list[bytes] = []
        self.texts: list[str] = []

    def vector(self, content: bytes) -> np.ndarray:
        return np.random.default_rng(zlib.crc32(content)).normal(size=self.dimensions).astype(np.float32)

    def encode_images(self, images):
        assert all(isinstance(image, Image.Image) and image.mode == "RGB" for image in images)
        contents = [image.tobytes() for image in images]
        self.images += contents
        return np.stack([self.vector(content) for content in contents])

    def encode_texts(self, texts):
        self.texts += texts
        return np.stack([self.vector(text.encode()) for text in texts])

    def score(self, image: Image.Image, text: str) -> float:
        """One pair by itself, as a naive evaluation would score it."""
        a = self.vector(image.convert("RGB").tobytes()).astype(np.float64)
        b = self.vector(text.encode()).astype(np.float64)
        return float((a / np.linalg.norm(a) * (b / np.linalg.norm(b))).sum())


class ConstantModel:
    """A dead model: everything has the same embedding."""

    def encode_images(self, images):
        return np.ones((len(images), 4), dtype=np.float32)

    def encode_texts(self, texts):
        return np.ones((len(texts), 4), dtype=np.float32)
