"""Embeddings and pair scores that were computed before, on disk.

They are kept by what they depend on: the weights, the processor and the settings of the model (its fingerprint), and
the content of the image file or text. A model that was trained further, or a picture that was replaced under the same
name, is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tqdm.auto import tqdm

from ..embeddings import Embedder, content_key
from ..errors import ArgumentError, DataError
from ..files import check_output, write_atomic
from .encoding import is_pair_scorer, raw_images, raw_pairs, raw_texts

# Inputs that are encoded, and then written, at a time: what a killed process has to compute again at most.
CHUNK = 512
_KEY_BYTES = 16


def fingerprint(model: Any) -> str | None:
    """Something that differs for models that give different embeddings.

    Args:
        model (`Any`):
            An [`~vlcomp.Embedder`], of which all weights, the processor, `fit` and the kind of device count; or any
            object with an attribute or method `fingerprint` of its own.

    Returns:
        `str` or `None`: `None` for an object that does not tell.

    Raises:
        ArgumentError: if the object's own fingerprint is no text.

    Example:
        >>> from vlcomp import Embedder
        >>> from vlcomp.evaluation.cache import fingerprint
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> first, second = (Embedder(tiny_clip(seed=seed), tiny_processor()) for seed in (0, 1))
        >>> fingerprint(first) == fingerprint(first), fingerprint(first) == fingerprint(second)
        (True, False)
    """
    if not isinstance(model, Embedder):
        own = getattr(model, "fingerprint", None)
        own = own() if callable(own) else own
        if own is not None and (not isinstance(own, str) or not own):
            raise ArgumentError(f"the fingerprint of {type(model).__name__} is {own!r}; it must be a text, not empty")
        return own
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    tokenizer = model.processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    about = {
        "model": type(model.model).__name__,
        "config": json.loads(model.model.config.to_json_string(use_diff=False)),
        "images": [type(model.processor.image_processor).__name__, model.processor.image_processor.to_json_string()],
        "texts": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
        "padding": {key: str(value) for key, value in model.text_kwargs.items()},
        "fit": model.fit,
        "device": model.device.type,
        "transformers": transformers.__version__,
    }
    # Where it was loaded from does not change what it computes.
    about["config"].pop("_name_or_path", None)
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    return digest.hexdigest()


class Store:
    """Arrays by key in a folder: parts of a few hundred rows, each written at once or not at all.

    Several processes may write to one folder.

    Args:
        folder (`str` or `os.PathLike`):
            Where to; made if missing.

    Raises:
        ArgumentError: if the folder cannot be written.
        DataError: if a part is damaged.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from vlcomp.evaluation.cache import Store
        >>> folder = tempfile.mkdtemp()
        >>> Store(folder).add([b"0123456789abcdef"], np.ones((1, 3)))
        >>> Store(folder).get([b"0123456789abcdef", None])
        [array([1., 1., 1.], dtype=float32), None]
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = check_output(folder)
        self._place: dict[bytes, tuple[str, int]] = {}
        self._rows = lru_cache(maxsize=16)(self._read_rows)
        for file in sorted(self.folder.glob("*.keys.npy")):
            keys = _read(file)
            if keys.dtype != np.uint8 or keys.ndim != 2 or keys.shape[1] != _KEY_BYTES:
                raise _damaged(file, "it holds no keys")
            part = file.name.removesuffix(".keys.npy")
            self._place.update((key.tobytes(), (part, row)) for row, key in enumerate(keys))

    def __len__(self) -> int:
        return len(self._place)

    def _read_rows(self, part: str) -> np.ndarray:
        return _read(self.folder / f"{part}.npy")

    def get(self, keys: Sequence[bytes | None]) -> list[np.ndarray | None]:
        """Look keys up.

        Args:
            keys (`Sequence[bytes]`):
                Keys of 16 bytes; `None` is never known.

        Returns:
            `list`: a float32 array for each key that is known, `None` for others.
        """
        found: list[np.ndarray | None] = []
        for key in keys:
            part, row = self._place.get(key, ("", -1)) if key is not None else ("", -1)
            if not part:
                found.append(None)
                continue
            rows = self._rows(part)
            if row >= len(rows):
                raise _damaged(self.folder / f"{part}.npy", f"it has {len(rows)} rows only")
            found.append(rows[row])
        return found

    def add(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """Keep rows.

        Args:
            keys (`Sequence[bytes]`):
                Keys of 16 bytes.
            rows (`np.ndarray` of shape [keys, dimensions]):
                Kept as float32.
        """
        if not keys:
            return
        part = uuid.uuid4().hex
        array = np.ascontiguousarray(rows, dtype=np.float32)
        table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), _KEY_BYTES)
        # Keys last: where there are keys, their rows are complete.
        for name, content in ((f"{part}.npy", array), (f"{part}.keys.npy", table)):
            write_atomic(self.folder / name, lambda path, content=content: _write(path, content))
        self._place.update((key, (part, row)) for row, key in enumerate(keys))


class MemoryStore:
    """Like [`Store`], but gone with the process."""

    def __init__(self) -> None:
        self._known: dict[bytes, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, keys: Sequence[bytes | None]) -> list[np.ndarray | None]:
        """See [`Store.get`]."""
        return [None if key is None else self._known.get(key) for key in keys]

    def add(self, keys: Sequence[bytes], rows: np.ndarray) -> None:
        """See [`Store.add`]."""
        self._known.update(zip(keys, np.asarray(rows, dtype=np.float32), strict=True))


def _write(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def _read(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is no readable part of a cache ({why}); delete the folder {path.parent} and run again")


class Remembered:
    """A model whose embeddings, or pair scores, are looked up before they are computed.

    Inputs are dealt with in chunks of a fixed size, and each chunk is written when it is done: started again after a
    kill, the same inputs are computed in the same batches, so the numbers are the same to the last bit.

    Args:
        model (`Any`):
            The model.
        stores (`Callable[[str], Store]`):
            Makes the store of `"images"`, `"texts"` or `"pairs"`.
        progress (`bool`, defaults to `False`):
            Show progress bars.
    """

    takes_sources = True

    def __init__(self, model: Any, stores: Callable[[str], Any], *, progress: bool = False) -> None:
        self.model = model
        self.progress = progress
        self._stores: dict[str, Any] = {}
        self._make_store = stores
        # A pair scorer has no embeddings, and must not look as if it had.
        if is_pair_scorer(model):
            self.score_pairs = self._score_pairs
        else:
            self.encode_images, self.encode_texts = self._encode_images, self._encode_texts

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "score_pairs", "encode_images", "encode_texts"):
            raise AttributeError(name)
        return getattr(self.model, name)

    def _encode_images(self, images: Any) -> np.ndarray:
        sources = list(images)
        keys = self._keys_of_images(sources)
        return self._looked_up("images", keys, lambda at: raw_images(self.model, [sources[i] for i in at]))

    def _encode_texts(self, texts: Any) -> np.ndarray:
        listed = [texts] if isinstance(texts, str) else list(texts)
        # Texts of like length together: less padding to compute.
        order = sorted(range(len(listed)), key=lambda i: len(listed[i]))
        keys = [_digest(listed[i].encode(errors="surrogatepass")) for i in order]
        rows = self._looked_up("texts", keys, lambda at: raw_texts(self.model, [listed[order[i]] for i in at]))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return rows[back]

    def _score_pairs(self, images: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
        if getattr(self.model, "reads_images", True):
            # The same source follows itself: its content is read once.
            distinct = {id(source): source for source in images}
            known = dict(zip(distinct, self._keys_of_images(list(distinct.values())), strict=True))
            pictures = [known[id(source)] for source in images]
        else:
            pictures = [b""] * len(images)
        keys = [
            None if picture is None else _digest(picture + text.encode(errors="surrogatepass"))
            for picture, text in zip(pictures, texts, strict=True)
        ]

        def score(at: list[int]) -> np.ndarray:
            return raw_pairs(self.model, [images[i] for i in at], [texts[i] for i in at])[:, None]

        # In a store rows are float32; what was just computed is rounded as well, so that both are the same.
        return self._looked_up("pairs", keys, score)[:, 0].astype(np.float32)

    def _keys_of_images(self, sources: list[Any]) -> list[bytes | None]:
        threads = getattr(self.model, "num_workers", 0)
        if not threads:
            return [content_key(source) for source in sources]
        with ThreadPoolExecutor(threads, thread_name_prefix="vlcomp-keys") as pool:
            return list(pool.map(content_key, sources))

    def _looked_up(
        self, kind: str, keys: list[bytes | None], compute: Callable[[list[int]], np.ndarray]
    ) -> np.ndarray:
        if kind not in self._stores:
            self._stores[kind] = self._make_store(kind)
        store = self._stores[kind]
        parts: list[np.ndarray] = []
        with self._quiet(), tqdm(total=len(keys), desc=kind, disable=not self.progress, leave=False) as bar:
            for start in range(0, len(keys), CHUNK):
                part = keys[start : start + CHUNK]
                found = store.get(part)
                absent = [i for i, row in enumerate(found) if row is None]
                # Equal content under two names is computed once.
                first: dict[Any, int] = {}
                for i in absent:
                    first.setdefault(part[i] if part[i] is not None else i, i)
                new = list(first.values())
                if new:
                    rows = np.asarray(compute([start + i for i in new]), dtype=np.float32)
                    sound = np.isfinite(rows).all(axis=1)
                    good = [k for k, i in enumerate(new) if sound[k] and part[i] is not None]
                    store.add([part[new[k]] for k in good], rows[good])
                    of = dict(zip(first, rows, strict=True))
                    for i in absent:
                        found[i] = of[part[i] if part[i] is not None else i]
                parts.append(np.stack(found))
                bar.update(len(part))
        return np.concatenate(parts) if parts else np.asarray(compute([]), dtype=np.float32)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """One bar over all chunks instead of one for each."""
        shown = getattr(self.model, "progress", None)
        if not isinstance(self.model, Embedder):
            yield
            return
        self.model.progress = False
        try:
            yield
        finally:
            self.model.progress = shown


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_KEY_BYTES).digest()


def remembered(
    model: Any, folder: str | os.PathLike[str] | None = None, *, identity: str | None = None, progress: bool = False
) -> Remembered:
    """Let a model look up what it computed before.

    Args:
        model (`Any`):
            An [`~vlcomp.Embedder`], or an object with `encode_images` and `encode_texts`, or with `score_pairs`.
        folder (`str` or `os.PathLike`, *optional*):
            Where to keep embeddings, for any number of models; in memory if not given.
        identity (`str`, *optional*):
            The model's [`fingerprint`], where it is known already.
        progress (`bool`, defaults to `False`):
            Show progress bars.

    Returns:
        [`Remembered`]

    Raises:
        ArgumentError: if the folder cannot be written, or the model has no fingerprint.

    Example:
        >>> import tempfile
        >>> from vlcomp import Embedder
        >>> from vlcomp.evaluation.cache import remembered
        >>> from vlcomp.testing import tiny_clip, tiny_processor
        >>> model = remembered(Embedder(tiny_clip(), tiny_processor()), tempfile.mkdtemp())
        >>> model.encode_texts(["a red cup"]).shape
        (1, 32)
    """
    if folder is None:
        return Remembered(model, lambda kind: MemoryStore(), progress=progress)
    identity = identity or fingerprint(model)
    if identity is None:
        raise ArgumentError(
            f"cache={os.fspath(folder)!r} needs to know which weights a {type(model).__name__} has; give it an "
            "attribute `fingerprint`, a text that changes with whatever changes its output"
        )
    place = check_output(folder) / hashlib.blake2b(identity.encode(), digest_size=12).hexdigest()
    check_output(place)
    about = {"model": str(getattr(model, "name", type(model).__name__)), "fingerprint": identity}
    write_atomic(place / "model.json", lambda path: path.write_text(json.dumps(about) + "\n", encoding="utf-8"))
    return Remembered(model, lambda kind: Store(place / kind), progress=progress)
