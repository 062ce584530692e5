"""Captions are used as their length allows, and none is lost without being counted."""

import pytest
import torch
from PIL import Image

from vlcomp.data import CaptionsByLengthCollator
from vlcomp.data.captions_by_length import rows_of_patches, strings_of_patches
from vlcomp.errors import ArgumentError, DataError
from vlcomp.testing import tiny_images, tiny_processor

WORDS = ("cup", "star", "girl", "man", "dog", "cat", "house", "ball", "tree", "car")  # a token each


def text(length):
    return " ".join(WORDS[i % len(WORDS)] for i in range(length))


def collator(**changes):
    return CaptionsByLengthCollator(tiny_processor(), **{"short_below": 4, "long_from": 4, "long_to": 8, **changes})


def route(short=None, long=None, **changes):
    """Tokens of the short and of the long caption that a row gives, and how many captions it loses."""
    image = Image.new("RGB", (32, 32))
    given = {"caption": None if short is None else text(short), "long_caption": None if long is None else text(long)}
    # A second row, so that a row without any use does not stop the batch.
    batch = collator(**changes)([{"image": image, **given}, {"image": image, "caption": text(1)}])
    tokens = int(batch["attention_mask"][0].sum()) - 2 if batch["short_mask"][0] else None
    continued = int(batch["caption_attention_mask"][0].sum()) or None
    return tokens, continued, int(batch["left_out_captions"][0])


@pytest.mark.parametrize(
    ("short", "long", "expected"),
    [
        (3, 6, (3, 6, 0)),
        (3, None, (3, None, 0)),
        (None, 4, (None, 4, 0)),
        (None, 3, (3, None, 0)),  # short by its length, whatever its column is called
        (8, None, (None, 8, 0)),
        (8, 2, (2, 8, 0)),
        (2, 3, (2, None, 1)),  # two short ones
        (5, 6, (None, 6, 1)),  # two long ones
        (3, 9, (3, None, 1)),  # too long
        (9, None, (None, None, 1)),
    ],
)
def test_routing(short, long, expected):
    assert route(short, long) == expected


def test_thresholds_may_overlap_or_leave_a_gap():
    assert route(5, 6, short_below=8, long_from=2) == (5, 6, 0)
    assert route(5, None, short_below=8, long_from=2) == (5, None, 0)  # the column decides
    assert route(None, 5, short_below=8, long_from=2) == (None, 5, 0)
    assert route(5, None, short_below=4, long_from=6) == (None, None, 1)


def test_tensors():
    processor = tiny_processor()
    rows = [
        {"image": picture, "caption": text(2), "long_caption": text(n), "image_id": 7 + n}
        for picture, n in zip(tiny_images(3), (4, 7, 2), strict=True)
    ]
    batch = collator()(rows)
    tokenizer = processor.tokenizer
    assert tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == [text(2)] * 3
    long = [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["caption_input_ids"], batch["caption_attention_mask"], strict=True)
    ]
    assert [found.strip() for found in long] == [text(4), text(7), ""]
    assert batch["caption_input_ids"].shape == (3, 7)
    assert batch["short_mask"].tolist() == [True] * 3 and batch["left_out_captions"].tolist() == [0, 0, 1]
    assert batch["image_ids"].tolist() == [11, 14, 9]
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert {len(value) for value in batch.values()} == {3}  # all can be cut into mini-batches
    # Without any long caption the tensors are there all the same.
    batch = collator()(rows[2:])
    assert batch["caption_input_ids"].shape == (1, 1) and not batch["caption_attention_mask"].any()


def test_patches_of_an_image_are_a_row():
    grid = torch.tensor([[1, 2, 2], [1, 1, 3], [1, 2, 4]])
    patches = torch.arange(15 * 5, dtype=torch.float32).reshape(15, 5)
    batch = rows_of_patches({"pixel_values": patches, "image_grid_thw": grid})
    assert batch["pixel_values"].shape == (3, 8, 5)
    assert torch.equal(strings_of_patches(batch)["pixel_values"], patches)
    part = strings_of_patches({name: value[1:] for name, value in batch.items()})
    assert torch.equal(part["pixel_values"], patches[4:])
    plain = {"pixel_values": patches}
    assert rows_of_patches(plain) is plain and strings_of_patches(plain) is plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_below": 0}, "short_below=0 must be at least 1"),
        ({"long_from": 1.5}, "long_from=1.5 must be a whole number"),
        ({"long_to": 3}, "long_to=3 is below long_from=4"),
        ({"fit": "stretch"}, "fit='stretch'"),
    ],
)
def test_bad_arguments(changes, message):
    with pytest.raises(ArgumentError, match=message):
        collator(**changes)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a cup"}, "row 0 of a batch has neither a 'caption' nor a 'long_caption' .columns: 'image', 'text'"),
        ({"caption": None}, "has neither a 'caption'"),
        ({"caption": ["a cup"]}, r"row 0 of a batch has the caption \['a cup'\]; it must be a text, or None"),
        ({"caption": text(9), "long_caption": text(12)}, "fewer than short_below=4 tokens .* lengths are 9, 12"),
        ({"caption": ""}, "their lengths are 0"),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(DataError, match=message):
        collator()([{"image": Image.new("RGB", (32, 32)), **row}])
    with pytest.raises(DataError, match="no rows"):
        collator()([])
