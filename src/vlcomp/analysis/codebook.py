"""Codebook report: for the codes that matter most, the image patches and words that activate them."""

from __future__ import annotations

import base64
import io
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from ..data.images import load_image, process_images
from ..data.tokenization import text_padding
from ..errors import ArgumentError, DataError, check_count
from ..evaluation.page import STYLE
from ..files import check_output, write_atomic


@dataclass(frozen=True)
class CodeUse:
    """What one code is used for.

    Args:
        code (`int`):
            Its number in the codebook.
        image_share (`float`):
            Its mean share in the embeddings of the images.
        text_share (`float`):
            Its mean share in those of the texts.
        images (`list[tuple[int, int, float]]`):
            Row of each image that uses it most, the patch that owns it there, and its share.
        words (`list[tuple[str, float, int]]`):
            Words that own it, the sum of its shares there over the texts as a part of that over all words, and in how
            many texts the word owned it.
    """

    code: int
    image_share: float
    text_share: float
    images: list[tuple[int, int, float]]
    words: list[tuple[str, float, int]]


@dataclass(frozen=True)
class CodebookReport:
    """How the codes of a model are used on some images and texts.

    Args:
        codes (`list[CodeUse]`):
            The codes with the largest mean share over images and texts, the largest first.
        codebook_size (`int`):
            Number of codes.
        used (`dict[str, int]`):
            How many codes any image (`"image"`) or text (`"text"`) uses, and how many both use (`"both"`).
        active (`dict[str, float]`):
            Mean number of codes of an `"image"` and a `"text"`.
        grid (`tuple[int, int]`):
            Rows and columns of patches.
        pictures (`dict[int, str]`):
            The images that are shown, as the model reads them, by row: PNG as a `data:` address.
        num_images (`int`):
            Number of images.
        num_texts (`int`):
            Number of texts.
    """

    codes: list[CodeUse]
    codebook_size: int
    used: dict[str, int]
    active: dict[str, float]
    grid: tuple[int, int]
    pictures: dict[int, str]
    num_images: int
    num_texts: int


def codebook_report(
    model: PreTrainedModel,
    processor: Any,
    images: Sequence[Any],
    texts: Sequence[str],
    *,
    top: int = 24,
    examples: int = 6,
    batch_size: int = 64,
) -> CodebookReport:
    """Find what the codes of an Iterated-CLIP are used for.

    A code's score is the maximum over patches or tokens, so that each use of a code is owed to one patch or token; a
    token counts for the word that it is part of.

    Args:
        model ([`~vlcomp.IteratedCLIPModel`]):
            With a codebook.
        processor (`ProcessorMixin`):
            Its processor.
        images (`Sequence`):
            Pictures; they need not belong to the texts.
        texts (`Sequence[str]`):
            Texts.
        top (`int`, defaults to 24):
            At most how many codes to report.
        examples (`int`, defaults to 6):
            At most how many images and words for each.
        batch_size (`int`, defaults to 64):
            Images or texts at a time.

    Returns:
        [`CodebookReport`]

    Raises:
        ArgumentError: for a model without a codebook, or a setting out of range.
        DataError: if there is no image or no text, or a picture cannot be read.

    Example:
        >>> from vlcomp.analysis import codebook_report
        >>> from vlcomp.testing import tiny_captions, tiny_images, tiny_iterated_clip, tiny_processor
        >>> report = codebook_report(
        ...     tiny_iterated_clip(), tiny_processor(), tiny_images(4), tiny_captions(4), top=3, examples=2
        ... )
        >>> len(report.codes), report.grid
        (3, (4, 4))
    """
    for name, value in (("top", top), ("examples", examples), ("batch_size", batch_size)):
        check_count(name, value)
    require_codebook(model)
    if not len(images) or not len(texts):
        raise DataError(f"there are {len(images)} images and {len(texts)} texts; the report needs some of both")
    was_training = model.training
    model.eval()
    try:
        image_weights, image_owners = _image_codes(model, processor, images, batch_size)
        text_weights, words = _text_codes(model, processor, texts, batch_size)
    finally:
        model.train(was_training)
    shares = image_weights.mean(0), text_weights.mean(0)
    order = np.argsort(-(shares[0] + shares[1]), kind="stable")[:top]
    codes = []
    for code in order.tolist():
        if shares[0][code] + shares[1][code] == 0:
            break
        best = np.argsort(-image_weights[:, code], kind="stable")[:examples].tolist()
        shown = [(row, int(image_owners[row, code]), float(image_weights[row, code])) for row in best]
        total = sum(share for share, _ in words[code].values())
        ranked = sorted(words[code].items(), key=lambda entry: -entry[1][0])[:examples]
        codes.append(
            CodeUse(
                code,
                float(shares[0][code]),
                float(shares[1][code]),
                [entry for entry in shown if entry[2] > 0],
                [(word, share / total, count) for word, (share, count) in ranked],
            )
        )
    image_used, text_used = (weights > 0 for weights in (image_weights, text_weights))
    both = image_used.any(0) & text_used.any(0)
    rows = {row for use in codes for row, _, _ in use.images}
    return CodebookReport(
        codes=codes,
        codebook_size=model.config.codebook_size,
        used={"image": int(image_used.any(0).sum()), "text": int(text_used.any(0).sum()), "both": int(both.sum())},
        active={"image": float(image_used.sum(1).mean()), "text": float(text_used.sum(1).mean())},
        grid=_grid(model),
        pictures={row: _as_read(processor, images[row]) for row in sorted(rows)},
        num_images=len(images),
        num_texts=len(texts),
    )


def require_codebook(model: PreTrainedModel) -> None:
    """Refuse a model that has no codes to report.

    Args:
        model (`PreTrainedModel`):
            The model.

    Raises:
        ArgumentError: for a model without a codebook.
    """
    if getattr(model, "codebook", None) is None:
        raise ArgumentError(
            f"model is a {type(model).__name__} without a codebook, so there are no codes to report; give an "
            "IteratedCLIPModel with use_codebook=True"
        )


def write_codebook_page(report: CodebookReport, path: str | os.PathLike[str], *, title: str = "Codebook") -> Path:
    """Write a codebook report as one HTML page that holds its pictures and needs no network.

    Args:
        report ([`CodebookReport`]):
            The report.
        path (`str` or `os.PathLike`):
            The file.
        title (`str`, defaults to `"Codebook"`):
            Heading, such as the name of the model.

    Returns:
        `Path`

    Raises:
        ArgumentError: if the file cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise ArgumentError(f"path={str(path)!r} is a folder; name a file, for instance {target / 'codebook.html'}")
    check_output(target.parent)
    used, active = report.used, report.active
    facts = (
        f"{report.num_images:,} images use {used['image']:,} of {report.codebook_size:,} codes, {report.num_texts:,} "
        f"texts {used['text']:,}; {used['both']:,} are used by both. An image has {active['image']:.1f} codes, a text "
        f"{active['text']:.1f}."
    )
    codes = "".join(_code(report, use) for use in report.codes)
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)} - vlcomp codebook</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><p class="kicker">codebook report</p><h1>{escape(title)}</h1><p>{facts}</p></header>\n'
        f"<p>The {len(report.codes)} codes with the largest share in embeddings. A frame marks the patch that a code "
        "is owed to, the number below is its share in the image. Behind a word stands its part of what the code has "
        f"in all texts.</p>\n{codes}</main>\n</body>\n</html>\n"
    )
    write_atomic(target, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return target


# An outline inside of the frame would hide what is there, and one colour alone is lost on some pictures.
_STYLE = """
.code { break-inside: avoid; }
.shown { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: .6rem; }
.shown figcaption { padding: .3rem .5rem .45rem; font-size: .8rem; font-variant-numeric: tabular-nums; }
.framed { position: relative; display: block; margin: 4px; }
.framed img { display: block; width: 100%; height: auto; image-rendering: pixelated; }
.framed span { position: absolute; outline: 2px solid #fff; box-shadow: 0 0 0 4px #1d2125; }
.said { list-style: none; margin: .7rem 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; }
.said b { font-weight: 600; }
"""


def _code(report: CodebookReport, use: CodeUse) -> str:
    rows, columns = report.grid
    figures = []
    for row, patch, share in use.images:
        y, x = divmod(patch, columns)
        place = (
            f"left:{100 * x / columns:.3f}%;top:{100 * y / rows:.3f}%;"
            f"width:{100 / columns:.3f}%;height:{100 / rows:.3f}%"
        )
        alt = f"image {row}, patch in row {y + 1}, column {x + 1}"
        figures.append(
            f'<figure><span class="framed"><img src="{report.pictures[row]}" alt="{alt}"><span style="{place}">'
            f"</span></span><figcaption>{_percent(share)}</figcaption></figure>"
        )
    words = "".join(
        f'<li><b>{escape(word)}</b> <span class="quiet">{_percent(part)} in {count:,} '
        f"text{'s' * (count != 1)}</span></li>"
        for word, part, count in use.words
    )
    return (
        f'<section class="code"><h2>Code {use.code}</h2><h3>share: images {_percent(use.image_share)}, texts '
        f'{_percent(use.text_share)}</h3>\n<div class="shown">{"".join(figures) or "no image uses it"}</div>\n'
        f'<ul class="said">{words or "<li>no text uses it</li>"}</ul></section>\n'
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"


def _grid(model: PreTrainedModel) -> tuple[int, int]:
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size
    return side, side


@torch.no_grad()
def _image_codes(
    model: PreTrainedModel, processor: Any, images: Sequence[Any], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    weights, owners = [], []
    for start in range(0, len(images), batch_size):
        batch = [images[row] for row in range(start, min(start + batch_size, len(images)))]
        pixels = process_images(processor.image_processor, batch)["pixel_values"].to(model.device, model.dtype)
        found = model.token_codes(pixel_values=pixels, top_k=1)
        weights.append(found.code_weights.float().cpu().numpy())
        owners.append(found.code_tokens.cpu().numpy())
    return np.concatenate(weights), np.concatenate(owners)


@torch.no_grad()
def _text_codes(
    model: PreTrainedModel, processor: Any, texts: Sequence[str], batch_size: int
) -> tuple[np.ndarray, dict[int, dict[str, tuple[float, int]]]]:
    """Shares of the codes in each text, and for each code the words: sum of shares, and number of texts."""
    padding = text_padding(processor, model.config)
    weights, words = [], defaultdict(dict)
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        encoded = processor.tokenizer(batch, return_offsets_mapping=True, return_tensors="pt", **padding)
        offsets = encoded.pop("offset_mapping").tolist()
        found = model.token_codes(
            encoded["input_ids"].to(model.device), attention_mask=encoded["attention_mask"].to(model.device), top_k=1
        )
        shares, owners = found.code_weights.float().cpu().numpy(), found.code_tokens.cpu().numpy()
        weights.append(shares)
        for row, text in enumerate(batch):
            names = _words(text, offsets[row])
            in_text: dict[tuple[int, str], float] = defaultdict(float)
            for code in shares[row].nonzero()[0].tolist():
                in_text[code, names[owners[row, code]]] += float(shares[row, code])
            for (code, word), share in in_text.items():
                sum_so_far, count = words[code].get(word, (0.0, 0))
                words[code][word] = sum_so_far + share, count + 1
    return np.concatenate(weights), words


def _words(text: str, offsets: Sequence[Sequence[int]]) -> list[str]:
    """The word that each token is part of; the start and the end of a text are called so."""
    names, seen = [], False
    for begin, end in offsets:
        if begin == end:
            names.append("(end)" if seen else "(start)")
            continue
        seen = True
        while begin > 0 and not text[begin - 1].isspace():
            begin -= 1
        while end < len(text) and not text[end].isspace():
            end += 1
        names.append(text[begin:end].strip().strip(".,;:!?\"'()").lower() or text[begin:end].strip())
    return names


def _as_read(processor: Any, source: Any) -> str:
    """A picture as the model reads it, cropped and resized, so that patches lie where they are for the model."""
    reader = processor.image_processor
    pixels = process_images(reader, [load_image(source)])["pixel_values"][0].numpy()
    mean, std = (np.asarray(values)[:, None, None] for values in (reader.image_mean, reader.image_std))
    levels = np.clip(np.rint((pixels * std + mean) * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


__all__: list[str] = ["CodeUse", "CodebookReport", "codebook_report", "write_codebook_page"]
