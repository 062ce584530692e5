"""From any image a user may have to the pixel tensors a model reads."""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import math
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_processing_backends import PilBackend

from ..errors import ArgumentError, DataError

logger = logging.getLogger(__name__)

FITS = ("crop", "squash", "pad")
_ORIENTATION = 0x0112
_ORIENTATION_CARRIERS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_URL_TIMEOUT = 30.0


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture of any mode to RGB, as a person would see it on a white page.

    Transparency (an alpha channel, a transparent palette entry or a transparent colour) is flattened onto white:
    PIL's own `convert("RGB")` shows whatever colour lies under the transparent pixels, often black. 16-bit values are
    scaled, where PIL saturates everything above 255 to white. The EXIF orientation is applied.

    Args:
        image (`PIL.Image.Image`):
            Any mode. `"I"` with a value above 255 is taken as 16-bit (as 32-bit, scaled by its maximum, if a value
            is above 65,535); `"F"` is taken as fractions if its maximum is at most 1, as bytes if at most 255, and is
            otherwise scaled by its maximum.

    Returns:
        `PIL.Image.Image`: mode `"RGB"`; the picture itself if nothing had to be done.

    Example:
        >>> from PIL import Image
        >>> from vlcomp.data.images import to_rgb
        >>> to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if _may_be_rotated(image):
        image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode.startswith("I;16") or mode in ("I", "F"):
        return _from_wide(image)
    if mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert("LA" if mode == "La" else "RGBA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def _may_be_rotated(image: Image.Image) -> bool:
    """Tell from the metadata, without parsing it where there is none (the usual case)."""
    if not any(key in image.info for key in _ORIENTATION_CARRIERS) and not hasattr(image, "tag_v2"):
        return False
    try:
        return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # a damaged EXIF block says nothing about the picture, which is still good
        return False


def _from_wide(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values.astype(np.float64), nan=0.0)
        top = values.max(initial=0.0)
        scale = 255.0 if top <= 1 else 1.0 if top <= 255 else 255.0 / top
    else:
        top = int(values.max(initial=0))
        if image.mode == "I" and top <= 255:
            scale = 1.0
        else:
            scale = 255.0 / max(65535, top)
    grey = np.clip(np.rint(values * scale), 0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey = np.where(values == transparent, np.uint8(255), grey)
    return Image.fromarray(grey).convert("RGB")


def load_image(source: Any, *, name: str | None = None) -> Image.Image:
    """Read an image from wherever it is and convert it with [`to_rgb`].

    Args:
        source (`str`, `Path`, `bytes`, `dict`, `PIL.Image.Image` or `numpy.ndarray`):
            A path, an http(s) URL, the bytes of an image file, an undecoded `datasets.Image`
            (`{"bytes": ..., "path": ...}`), a PIL image, or an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of
            uint8, uint16 (scaled), bool, or floats within 0..1. Of an animation the first frame is read.
        name (`str`, *optional*):
            What to call the image in an error, where `source` has no path of its own.

    Returns:
        `PIL.Image.Image`: mode `"RGB"`, loaded into memory.

    Raises:
        DataError: if the image is missing, empty, truncated or not an image; the message names it and the cause.

    Example:
        >>> import numpy as np
        >>> from vlcomp.data.images import load_image
        >>> load_image(np.zeros((4, 6), dtype=np.uint8)).size
        (6, 4)
    """
    if isinstance(source, Image.Image):
        name = name or getattr(source, "filename", "") or "a PIL image"
        return _decoded(lambda: source, name)
    if isinstance(source, Mapping):
        path, content = source.get("path"), source.get("bytes")
        if content is None and path is None:
            raise DataError(
                f"{name or 'an image'} has neither 'bytes' nor 'path'; the image is missing from this row "
                f"(keys: {', '.join(map(str, source)) or 'none'})"
            )
        if content is None:
            return load_image(path, name=name)
        return load_image(content, name=name or path)
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = name or "image bytes"
        if not len(source):
            raise DataError(f"cannot read {name}: it is empty (0 bytes)")
        return _decoded(lambda: Image.open(io.BytesIO(source)), name)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if path.startswith(("http://", "https://")):
            return load_image(_download(path), name=name or path)
        name = name or path
        if not os.path.isfile(path):
            what = "it is a folder" if os.path.isdir(path) else "there is no such file"
            raise DataError(f"cannot read {name}: {what}")
        if not os.path.getsize(path):
            raise DataError(f"cannot read {name}: it is empty (0 bytes)")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {name}: {error.strerror or error}") from error
        return _decoded(lambda: Image.open(io.BytesIO(content)), name)
    if isinstance(source, np.ndarray):
        return to_rgb(_from_array(source, name or "an image array"))
    if source is None:
        raise DataError(f"{name or 'an image'} is None; the image is missing from this row")
    raise DataError(
        f"cannot read {name or 'an image'} of type {type(source).__name__}; pass a path, URL, bytes, PIL image or "
        "an array [H, W, 3] of uint8"
    )


def image_key(source: Any) -> int:
    """Tell images apart without decoding them: a number of 63 bits that is equal for equal images.

    Args:
        source:
            Anything that [`load_image`] reads. Embedded bytes and pixels are told apart by content, files by path.

    Returns:
        `int`: the same in every process.

    Raises:
        DataError: if there is no image.
    """
    if isinstance(source, Mapping):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        return stable_hash(path if "://" in path else os.path.abspath(path))
    if isinstance(source, Image.Image):
        palette = source.getpalette() if source.mode in ("P", "PA") else None
        return stable_hash(f"{source.mode} {source.size} {palette}".encode() + source.tobytes())
    if isinstance(source, np.ndarray):
        return stable_hash(f"{source.dtype} {source.shape}".encode() + source.tobytes())
    if source is None:
        raise DataError("an image is missing: it is None, or has neither 'bytes' nor 'path'")
    return stable_hash(bytes(source))


def stable_hash(value: str | bytes) -> int:
    """Hash to 63 bits, equal in every process (Python's own `hash` of a string is not), fit for an int64 column.

    Args:
        value (`str` or `bytes`):
            What to hash.

    Returns:
        `int`: within 0..2**63 - 1.
    """
    content = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


def _decoded(opened: Any, name: str) -> Image.Image:
    try:
        image = opened()
        image.load()
        image = to_rgb(image)
    except MemoryError:
        raise
    # Decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, DecompressionBombError ... for
    # damaged files; whichever it is, the person needs to know which file it was.
    except Exception as error:
        raise DataError(f"cannot read {name}: {_cause(error)}") from error
    if not all(image.size):
        raise DataError(f"cannot read {name}: its size is {image.width} x {image.height} pixels")
    return image


def _cause(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image, or of a format that PIL does not know"
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} (raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file)"
    text = str(error) or type(error).__name__
    if "truncated" in text.lower():
        return f"the file is cut short ({text})"
    return f"the file is damaged ({text})"


def _download(url: str) -> bytes:
    from huggingface_hub import get_session

    try:
        response = get_session().get(url, timeout=_URL_TIMEOUT, follow_redirects=True)
        response.raise_for_status()
    except Exception as error:
        raise DataError(f"cannot fetch {url}: {error}") from error
    return response.content


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or array.ndim == 3 and shape[2] in (2, 3, 4)) or 0 in shape:
        hint = (
            "; it looks channel-first, pass array.transpose(1, 2, 0)"
            if len(shape) == 3
            and shape[0]
            in (
                1,
                3,
                4,
            )
            else ""
        )
        raise DataError(f"{name} has shape {list(shape)}; expected [H, W], [H, W, 3] or [H, W, 4]{hint}")
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype == np.uint16:
        array = np.rint(array * (255.0 / 65535.0)).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise DataError(
                f"{name} is {array.dtype} with values {array.min():.4g}..{array.max():.4g}; floats must lie within "
                "0..1, or pass uint8"
            )
        array = np.rint(array * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise DataError(f"{name} is of dtype {array.dtype}; expected uint8, uint16, bool or floats within 0..1")
    return Image.fromarray(np.ascontiguousarray(array))


def process_images(image_processor: Any, images: Sequence[Any], *, fit: str | None = None) -> dict[str, torch.Tensor]:
    """Turn images into what the vision tower reads.

    The values are those of the Hugging Face image processor itself; its plain PIL form (resize, centre crop, rescale,
    normalise) is computed in one pass over the bytes, several times as fast.

    Args:
        image_processor (`BaseImageProcessor` or `ProcessorMixin`):
            Of CLIP, SigLIP, SigLIP2 or another model with one image input.
        images (`Sequence`):
            Anything that [`load_image`] reads.
        fit (`str`, *optional*):
            How a picture of another shape is fitted. `None` does as the processor is configured. `"crop"` resizes the
            shorter edge and cuts the centre, `"squash"` resizes to height and width and so keeps all of the picture,
            `"pad"` adds borders in the processor's mean colour (zero after normalisation) and resizes. SigLIP2
            processors keep the shape of each picture unless `fit` makes it square first, with as many patches as fit
            into `max_num_patches`.

    Returns:
        `dict[str, torch.Tensor]`: `pixel_values` [B, 3, H, W] float32; for SigLIP2 `pixel_values` [B, patches,
        patch_size * patch_size * 3], `pixel_attention_mask` [B, patches] and `spatial_shapes` [B, 2].

    Raises:
        ArgumentError: if `fit` is unknown or the processor's size cannot be told.
        DataError: if there is no image, an image cannot be read, or images come out in different sizes.

    Example:
        >>> from PIL import Image
        >>> from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        >>> from vlcomp.data.images import process_images
        >>> process_images(CLIPImageProcessorPil(), [Image.new("L", (300, 100))], fit="pad")["pixel_values"].shape
        torch.Size([1, 3, 224, 224])
    """
    processor = getattr(image_processor, "image_processor", image_processor)
    if fit is not None and fit not in FITS:
        raise ArgumentError(
            f"fit={fit!r} is not one of {', '.join(map(repr, FITS))} or None (as the processor is set)"
        )
    if isinstance(images, (str, os.PathLike, bytes, Mapping, Image.Image)):
        images = [images]
    pictures = [load_image(image) for image in images]
    if not pictures:
        raise DataError("there is no image to process: `images` is empty")
    overrides: dict[str, Any] = {}
    if fit is not None:
        pictures, overrides = _fitted(processor, pictures, fit)
    if _is_plain(processor):
        return {"pixel_values": _process_plain(processor, pictures, overrides)}
    try:
        out = processor(pictures, return_tensors="pt", **overrides)
    except (ValueError, TypeError) as error:
        sizes = sorted({picture.size for picture in pictures})
        raise DataError(
            f"{type(processor).__name__} cannot process {len(pictures)} images of sizes (width, height) "
            f"{sizes[:4]}{'...' if len(sizes) > 4 else ''}: {error}"
        ) from error
    return {key: torch.as_tensor(value) for key, value in out.items()}


def keep_fit(processor: Any, fit: str | None) -> Any:
    """Make a processor that fits pictures by itself in the given way, as far as it can be told to.

    What a model was trained on is then what everyone gets who loads it with its processor.

    Args:
        processor (`ProcessorMixin`):
            Has an `image_processor`; not changed.
        fit (`str`, *optional*):
            As in [`process_images`].

    Returns:
        `ProcessorMixin`: a copy; or the processor itself if it does so already, or cannot (`"pad"`, or pictures of any
        shape), of which a warning is logged.

    Example:
        >>> from vlcomp.data.images import keep_fit
        >>> from vlcomp.testing import tiny_processor
        >>> keep_fit(tiny_processor(), "squash").image_processor.do_center_crop
        False
    """
    if fit is None:
        return processor
    pictures = [Image.linear_gradient("L").resize(size).convert("RGB") for size in ((90, 60), (60, 90))]
    wanted = process_images(processor, pictures, fit=fit)
    changed, reader = copy.copy(processor), processor.image_processor
    changed.image_processor = type(reader).from_dict({**reader.to_dict(), **_fitted(reader, pictures, fit)[1]})
    for candidate in (processor, changed):
        found = process_images(candidate, pictures)
        if all(found[name].shape == value.shape and torch.equal(found[name], value) for name, value in wanted.items()):
            return candidate
    logger.warning(
        "fit=%r cannot be written into a %s: pass fit=%r (--fit %s) wherever the model reads pictures",
        fit,
        type(processor.image_processor).__name__,
        fit,
        fit,
    )
    return processor


def target_size(image_processor: Any) -> tuple[int, int]:
    """Height and width in pixels that a processor of fixed size produces (for SigLIP2 the largest square).

    Args:
        image_processor (`BaseImageProcessor` or `ProcessorMixin`):
            The processor.

    Returns:
        `tuple[int, int]`: height, width.

    Raises:
        ArgumentError: if the processor has no size.
    """
    processor = getattr(image_processor, "image_processor", image_processor)
    patches, patch_size = getattr(processor, "max_num_patches", None), getattr(processor, "patch_size", None)
    if patches and patch_size:
        side = math.isqrt(patches) * (patch_size if isinstance(patch_size, int) else patch_size["height"])
        return side, side
    for size in (
        getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None,
        getattr(processor, "size", None),
    ):
        if size is None:
            continue
        if isinstance(size, int):
            return size, size
        size = dict(size)
        if size.get("height") and size.get("width"):
            return int(size["height"]), int(size["width"])
        if size.get("shortest_edge"):
            return int(size["shortest_edge"]), int(size["shortest_edge"])
    raise ArgumentError(
        f"cannot tell the image size of {type(processor).__name__}; `fit` needs a processor with `size` or `crop_size`"
    )


def _fitted(processor: Any, pictures: list[Image.Image], fit: str) -> tuple[list[Image.Image], dict[str, Any]]:
    """Return the pictures and the processor arguments that together carry out `fit`."""
    height, width = target_size(processor)
    native_shape = bool(getattr(processor, "max_num_patches", None))
    if fit == "pad":
        mean = getattr(processor, "image_mean", None) if getattr(processor, "do_normalize", False) else None
        colour = tuple(int(round(255 * value)) for value in mean) if mean is not None else (0, 0, 0)
        pictures = [_padded(picture, height, width, colour) for picture in pictures]
    if native_shape:
        resample = getattr(processor, "resample", None)
        resample = Image.Resampling.BILINEAR if resample is None else Image.Resampling(int(resample))
        if fit == "crop":
            pictures = [_centre(picture, height, width) for picture in pictures]
        return [picture.resize((width, height), resample=resample) for picture in pictures], {}
    overrides = {"do_resize": True, "do_center_crop": fit == "crop"}
    if fit == "crop":
        overrides["size"] = {"shortest_edge": max(height, width)}
        overrides["crop_size"] = {"height": height, "width": width}
    else:
        overrides["size"] = {"height": height, "width": width}
    return pictures, overrides


def _padded(picture: Image.Image, height: int, width: int, colour: tuple[int, ...]) -> Image.Image:
    """Add borders until the picture has the shape height : width."""
    new_width = max(picture.width, round(picture.height * width / height))
    new_height = max(picture.height, round(picture.width * height / width))
    if (new_width, new_height) == picture.size:
        return picture
    canvas = Image.new("RGB", (new_width, new_height), colour)
    canvas.paste(picture, ((new_width - picture.width) // 2, (new_height - picture.height) // 2))
    return canvas


def _centre(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Cut the largest centre part of the shape height : width."""
    new_width = min(picture.width, max(1, round(picture.height * width / height)))
    new_height = min(picture.height, max(1, round(picture.width * height / width)))
    left, top = (picture.width - new_width) // 2, (picture.height - new_height) // 2
    return picture.crop((left, top, left + new_width, top + new_height))


_PLAIN_METHODS = (
    "__call__", "preprocess", "process_image", "_preprocess", "_preprocess_image_like_inputs",
    "_prepare_image_like_inputs", "_prepare_images_structure", "fetch_images", "_standardize_kwargs",
    "_validate_preprocess_kwargs", "resize", "center_crop", "rescale", "normalize", "convert_to_rgb", "pad",
)  # fmt: skip


@lru_cache(maxsize=64)
def _is_plain_class(cls: type) -> bool:
    return issubclass(cls, PilBackend) and all(
        getattr(cls, name, None) is getattr(PilBackend, name, None) for name in _PLAIN_METHODS
    )


def _is_plain(processor: Any) -> bool:
    """Whether the processor is exactly resize, centre crop, rescale and normalise by PIL and NumPy."""
    if not _is_plain_class(type(processor)) or getattr(processor, "do_pad", None):
        return False
    if not (processor.do_rescale or processor.do_normalize):  # the processor then returns bytes, not floats
        return False
    if processor.do_normalize and (processor.image_mean is None or processor.image_std is None):
        return False
    return not processor.do_resize or _size_rule(processor) in (("height", "width"), ("shortest_edge",))


def _size_rule(processor: PilBackend) -> tuple[str, ...]:
    return tuple(key for key, value in dict(processor.size or {}).items() if value)


def _process_plain(processor: PilBackend, pictures: list[Image.Image], overrides: dict[str, Any]) -> torch.Tensor:
    """Do what `PilBackend` does, on whole images of bytes.

    Every value depends on a byte and its channel alone, so rescaling and normalising are the 3 x 256 results that the
    processor itself gives, looked up.
    """
    settings = processor._standardize_kwargs(
        size=overrides.get("size", processor.size),
        crop_size=overrides.get("crop_size", processor.crop_size),
        default_to_square=processor.default_to_square,
    )
    size, crop_size = settings["size"], settings["crop_size"]
    do_resize = overrides.get("do_resize", processor.do_resize)
    do_center_crop = overrides.get("do_center_crop", processor.do_center_crop)
    resample = Image.Resampling.BILINEAR if processor.resample is None else Image.Resampling(int(processor.resample))
    arrays = []
    for picture in pictures:
        if do_resize:
            new_size = _resized_shape(picture, size)
            if new_size != picture.size:
                picture = picture.resize(new_size, resample=resample)
        array = np.asarray(picture)
        if do_center_crop:
            height, width = int(crop_size.height), int(crop_size.width)
            if height <= array.shape[0] and width <= array.shape[1]:
                top, left = (array.shape[0] - height) // 2, (array.shape[1] - width) // 2
                array = array[top : top + height, left : left + width]
            else:  # smaller than the crop: the processor adds black borders
                array = processor.center_crop(np.moveaxis(array, -1, 0), crop_size).transpose(1, 2, 0)
        arrays.append(array)
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise DataError(
            f"{type(processor).__name__} as configured gives images of different sizes "
            f"{sorted((a, b) for a, b, _ in shapes)[:4]} (height, width), which cannot form one batch; "
            "pass fit='crop', 'squash' or 'pad'"
        )
    height, width, _ = arrays[0].shape
    tables = _tables(processor)
    out = np.empty((len(arrays), 3, height, width), dtype=np.float32)
    for index, array in enumerate(arrays):
        for channel in range(3):
            np.take(tables[channel], array[:, :, channel], out=out[index, channel], mode="clip")
    return torch.from_numpy(out)


def _tables(processor: PilBackend) -> np.ndarray:
    """What the processor makes of each of the 256 bytes in each channel, [3, 256] float32."""
    values = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :], 3, axis=0)
    if processor.do_rescale:
        values = processor.rescale(values, processor.rescale_factor)
    if processor.do_normalize:
        values = processor.normalize(values, processor.image_mean, processor.image_std)
    return np.ascontiguousarray(values[:, 0, :], dtype=np.float32)


def _resized_shape(picture: Image.Image, size: Any) -> tuple[int, int]:
    """Width and height after resizing, by the rules of `PilBackend.resize`."""
    width, height = picture.size
    if not size.shortest_edge:
        return size.width, size.height
    short, long = (width, height) if width <= height else (height, width)
    other = int(size.shortest_edge * long / short)
    return (size.shortest_edge, other) if width <= height else (other, size.shortest_edge)
