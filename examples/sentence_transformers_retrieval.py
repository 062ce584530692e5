"""Search pictures by text with a vlcomp model, in the interface of sentence-transformers.

    python examples/sentence_transformers_retrieval.py CHECKPOINT FOLDER_OF_PICTURES "a red cup left of a star"

`Encoder` has the methods that code written for `SentenceTransformer("clip-ViT-B-32")` calls: `encode` of texts and PIL
images, `similarity`, the dimension and the device. sentence-transformers itself is not needed for it; where it is
installed, its `util.semantic_search` does the search.
"""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vlcomp import load_embedder
from vlcomp.data.images import load_image

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}


class Encoder:
    """A dual encoder with the methods of a `SentenceTransformer`.

    Args:
        checkpoint (`str`):
            Folder or hub name.
        device (`str`, *optional*):
            Where to compute.
    """

    def __init__(self, checkpoint: str, device: str | None = None):
        self.embedder = load_embedder(checkpoint, device=device)

    @property
    def device(self) -> torch.device:
        return self.embedder.device

    def get_sentence_embedding_dimension(self) -> int:
        return self.embedder.encode_texts(["a"]).shape[1]

    def encode(
        self,
        sentences: Any,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = True,
        **kwargs: Any,
    ) -> np.ndarray | torch.Tensor | list[torch.Tensor]:
        """Embed texts and pictures, in any mixture; one input gives one vector.

        Embeddings are always L2-normalised, as cosine is what the models are trained for.

        Args:
            sentences (`str`, `PIL.Image.Image` or a list of them):
                Inputs.
            batch_size (`int`, defaults to 32):
                Inputs in one pass.
            show_progress_bar (`bool`, *optional*):
                Whether to show progress.
            convert_to_numpy (`bool`, defaults to `True`):
                Whether to return an array.
            convert_to_tensor (`bool`, defaults to `False`):
                Whether to return a tensor; goes before `convert_to_numpy`.
            normalize_embeddings (`bool`, defaults to `True`):
                Must be `True`.
            **kwargs:
                Others that `SentenceTransformer.encode` has are refused by name.

        Returns:
            `np.ndarray` `(inputs, dim)`, a tensor, or with neither a list of tensors.
        """
        if kwargs:
            raise TypeError(f"encode() does not take {', '.join(sorted(kwargs))}")
        if not normalize_embeddings:
            raise ValueError("normalize_embeddings=False: embeddings of this encoder are always normalised")
        single = isinstance(sentences, (str, Image.Image))
        inputs: Sequence[Any] = [sentences] if single else list(sentences)
        texts = [index for index, value in enumerate(inputs) if isinstance(value, str)]
        images = [index for index, value in enumerate(inputs) if not isinstance(value, str)]
        self.embedder.batch_size, self.embedder.progress = batch_size, bool(show_progress_bar)
        parts = []
        if texts:
            parts.append((texts, self.embedder.encode_texts([inputs[index] for index in texts])))
        if images:
            parts.append((images, self.embedder.encode_images([inputs[index] for index in images])))
        embeds = torch.empty(len(inputs), parts[0][1].shape[1] if parts else self.get_sentence_embedding_dimension())
        for indices, values in parts:
            embeds[indices] = values
        if single:
            embeds = embeds[0]
        if convert_to_tensor:
            return embeds
        return embeds.numpy() if convert_to_numpy else (embeds if single else list(embeds))

    def similarity(self, one: Any, other: Any) -> torch.Tensor:
        """Cosines of every row of one with every row of the other."""
        return self.embedder.similarity(*(torch.atleast_2d(torch.as_tensor(embeds)) for embeds in (one, other)))


def search(encoder: Encoder, folder: str, query: str, top_k: int = 5) -> list[tuple[str, float]]:
    """The pictures of a folder that fit a text best: names and cosines."""
    files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in PICTURES)
    if not files:
        raise SystemExit(f"{folder}: no pictures ({', '.join(sorted(PICTURES))}) in it")
    pictures = [load_image(file) for file in files]
    corpus, wanted = encoder.encode(pictures, convert_to_tensor=True), encoder.encode([query], convert_to_tensor=True)
    if importlib.util.find_spec("sentence_transformers") is None:
        print("sentence-transformers is not installed (pip install sentence-transformers); searching with torch")
        scores, order = encoder.similarity(wanted, corpus)[0].topk(min(top_k, len(files)))
        hits = list(zip(order.tolist(), scores.tolist(), strict=True))
    else:
        from sentence_transformers import util

        found = util.semantic_search(wanted, corpus, top_k=min(top_k, len(files)))[0]
        hits = [(hit["corpus_id"], hit["score"]) for hit in found]
    return [(str(files[index].relative_to(folder)), score) for index, score in hits]


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(f'usage: python {sys.argv[0]} CHECKPOINT FOLDER_OF_PICTURES "a text"')
    for name, score in search(Encoder(sys.argv[1]), *sys.argv[2:]):
        print(f"{score:.3f}  {name}")
