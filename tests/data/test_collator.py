"""Batches of rows: shapes, values, masks and what happens to rows that lack something."""

from __future__ import annotations

import io
import logging
import pickle

import datasets
import pytest
import torch
from PIL import Image

from vlcomp.data import NEGATIVE_TYPES, ContrastiveCollator, NegativeGenerator, load_captioned, process_images
from vlcomp.errors import ArgumentError, DataError
from vlcomp.testing import (
    make_captioned_folder,
    tiny_captions,
    tiny_images,
    tiny_model,
    tiny_processor,
    tiny_tokenizer,
)

IMAGES, CAPTIONS = tiny_images(4), tiny_captions(4)


def _rows(n: int = 4, **columns: list) -> list[dict]:
    rows = [{"image": image, "caption": caption} for image, caption in zip(IMAGES[:n], CAPTIONS[:n], strict=True)]
    for key, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            if value is not ...:
                row[key] = value
    return rows


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
def test_values_are_those_of_the_processor(kind):
    processor = tiny_processor(kind)
    collator = ContrastiveCollator(processor)
    batch = collator(_rows(image_id=[5, 6, 5, 7]))
    images = processor.image_processor(IMAGES, return_tensors="pt")
    texts = processor.tokenizer(CAPTIONS, return_tensors="pt", **collator.text_kwargs)
    for key, value in {**images, **texts}.items():
        assert torch.equal(batch[key], value) and batch[key].dtype == value.dtype, key
    assert batch["image_ids"].tolist() == [5, 6, 5, 7] and batch["image_ids"].dtype == torch.int64
    assert set(batch) == {*images, *texts, "image_ids"}
    model = tiny_model(kind)
    with torch.no_grad():
        out = model(**{key: value for key, value in batch.items() if key != "image_ids"})
    assert out.logits_per_image.shape == (4, 4) and out.logits_per_image.isfinite().all()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_negatives(kind):
    processor = tiny_processor(kind)
    collator = ContrastiveCollator(processor)
    negatives = [["a red cup", "a blue dog left of a tree"], [], ["a cat"], None]
    types = [["replace_object", "swap_attribute"], [], ["negation"], None]
    batch = collator(_rows(negative_captions=negatives, negative_types=types))
    length = batch["input_ids"].shape[1]
    assert batch["negative_input_ids"].shape == (4, 2, length)
    assert batch["negative_mask"].tolist() == [[True, True], [False, False], [True, False], [False, False]]
    assert batch["negative_mask"].dtype == torch.bool and batch["negative_type_ids"].dtype == torch.int64
    assert batch["negative_type_ids"][0].tolist() == [0, NEGATIVE_TYPES.index("swap_attribute")]
    assert batch["negative_type_ids"][2, 0] == NEGATIVE_TYPES.index("negation")
    decode = processor.tokenizer.decode
    assert decode(batch["negative_input_ids"][0, 1], skip_special_tokens=True).strip() == negatives[0][1]
    assert decode(batch["negative_input_ids"][2, 0], skip_special_tokens=True).strip() == "a cat"
    if kind == "clip":  # a filler is an empty text, not padding alone: attention over nothing gives NaN
        assert batch["negative_attention_mask"].shape == (4, 2, length)
        assert (batch["negative_attention_mask"].sum(-1) >= 2).all()
        empty = processor.tokenizer("").input_ids
        assert batch["negative_input_ids"][1, 0, :2].tolist() == empty
    with torch.no_grad():
        features = tiny_model(kind).get_text_features(input_ids=batch["negative_input_ids"].flatten(0, 1))
    assert features.pooler_output.isfinite().all()


def test_negative_keys_depend_on_the_column_not_on_the_batch():
    collator = ContrastiveCollator(tiny_processor())
    batch = collator(_rows(2, negative_captions=[[], []]))
    assert batch["negative_mask"].shape == (2, 1) and not batch["negative_mask"].any()
    assert not any("negative" in key for key in collator(_rows(2)))
    without = ContrastiveCollator(tiny_processor(), negatives=False)
    assert not any("negative" in key for key in without(_rows(2, negative_captions=[["a"], ["b"]])))
    assert collator(_rows(2, negative_captions=[["a"], ...]))["negative_mask"].tolist() == [[True], [False]]


def test_max_negatives_first_and_random():
    processor = tiny_processor()
    rows = _rows(1, negative_captions=[["a cup", "a star", "a girl", "a man"]])

    def texts(collator):
        ids = collator(rows)["negative_input_ids"][0]
        return [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    first = ContrastiveCollator(processor, max_negatives=2)
    assert texts(first) == ["a cup", "a star"] == texts(first)
    drawn = ContrastiveCollator(processor, max_negatives=2, negative_choice="random")
    torch.manual_seed(0)
    draws = [tuple(texts(drawn)) for _ in range(20)]
    assert len(set(draws)) > 3 and all(len(set(draw)) == 2 for draw in draws)
    torch.manual_seed(0)
    assert [tuple(texts(drawn)) for _ in range(20)] == draws


def test_types_are_left_out_where_the_data_has_none():
    collator = ContrastiveCollator(tiny_processor())
    batch = collator(_rows(2, negative_captions=[["a cup"], ["a star", "a man"]]))
    assert batch["negative_mask"].sum() == 3 and "negative_type_ids" not in batch
    # A column of nothing is none; no negative in this batch says nothing about the others.
    assert "negative_type_ids" not in collator(_rows(2, negative_captions=[["a"], []], negative_types=[None, None]))
    assert "negative_type_ids" in collator(_rows(2, negative_captions=[[], []], negative_types=[[], []]))
    assert "negative_type_ids" not in collator(_rows(2, negative_captions=[[], []]))
    typed = collator(_rows(2, negative_captions=[["a"], []], negative_types=[["object"], None]))
    assert typed["negative_type_ids"].tolist() == [[NEGATIVE_TYPES.index("object")], [0]]
    with pytest.raises(DataError, match="row 1 of a batch has negative_captions without .*those of row 0 have types"):
        collator(_rows(2, negative_captions=[["a"], ["b"]], negative_types=[["object"], None]))


GENERATED = ["a red cup", "a blue cup", "a green plate", "a white plate", "a black cup", "a red plate", "a grey cup"]


def _generated(collator, rows):
    ids = collator(rows)["negative_input_ids"]
    decode = collator.processor.tokenizer.batch_decode
    return [[text.strip() for text in decode(row, skip_special_tokens=True)] for row in ids]


def test_generator_makes_negatives_that_change_with_the_epoch():
    processor = tiny_processor()
    generator = NegativeGenerator(["object", "attribute"], seed=3).fit(GENERATED)
    collator = ContrastiveCollator(processor, generator=generator)
    rows = [{"image": IMAGES[i], "caption": GENERATED[i]} for i in range(4)]
    batch = collator(rows)
    ids = [NEGATIVE_TYPES.index("object"), NEGATIVE_TYPES.index("attribute")]
    assert batch["negative_mask"].all() and batch["negative_type_ids"].tolist() == [ids] * 4
    epochs = []
    for epoch in range(8):
        collator.set_epoch(epoch)
        texts = _generated(collator, rows)
        assert texts == [[n.text for n in generator(row["caption"], variant=epoch)] for row in rows]
        assert _generated(collator, rows[::-1])[::-1] == texts  # whatever else is in the batch
        epochs.append(texts)
    assert len({str(texts) for texts in epochs}) > 2
    collator.set_epoch(2)
    assert _generated(collator, rows) == epochs[2]
    copy = pickle.loads(pickle.dumps(collator))
    assert torch.equal(copy(rows)["negative_input_ids"], collator(rows)["negative_input_ids"])
    one = ContrastiveCollator(processor, generator=generator, max_negatives=1)
    assert one(rows)["negative_type_ids"].tolist() == [ids[:1]] * 4


def test_generator_leaves_given_negatives_and_true_captions_alone():
    processor = tiny_processor()
    generator = NegativeGenerator("attribute").fit(GENERATED)
    collator = ContrastiveCollator(processor, generator=generator)
    given = {"negative_captions": ["a man"], "negative_types": ["swap_object"]}
    rows = [{**row, "caption": "a red cup"} for row in _rows(3)]
    rows[0].update(given)
    rows[1].update(negative_captions=[], negative_types=[])
    rows[2].update(negative_captions=None, negative_types=None)
    batch = collator(rows)
    assert batch["negative_mask"].tolist() == [[True], [False], [True]]
    assert batch["negative_type_ids"][[0, 2], 0].tolist() == [
        NEGATIVE_TYPES.index("swap_object"),
        NEGATIVE_TYPES.index("attribute"),
    ]
    # What is true of the image is no negative.
    rows = [{"image": IMAGES[0], "caption": "a red cup", "captions": ["a red cup", "A blue cup.", "a black cup"]}]
    made = set()
    for epoch in range(30):
        collator.set_epoch(epoch)
        made.update(_generated(collator, rows)[0])
    assert made and not made & {"a red cup", "a blue cup", "a black cup"}
    with pytest.raises(DataError, match="column 'captions'; expected a list"):
        collator([{**rows[0], "captions": "a red cup"}])
    with pytest.raises(DataError, match="without negative_types, but those of the generator have types"):
        collator([{**rows[0], "negative_captions": ["a man"]}])
    # A caption of which nothing can be made false.
    batch = collator([{"image": IMAGES[0], "caption": "hello"}])
    assert batch["negative_mask"].tolist() == [[False]] and batch["negative_type_ids"].tolist() == [[0]]


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_that_stay_see_the_epoch(start):
    generator = NegativeGenerator(["object", "attribute"], seed=1).fit(GENERATED)
    collator = ContrastiveCollator(tiny_processor(), generator=generator)
    rows = [{"image": IMAGES[i], "caption": GENERATED[i]} for i in range(4)]
    loader = torch.utils.data.DataLoader(
        rows, batch_size=2, collate_fn=collator, num_workers=2, persistent_workers=True, multiprocessing_context=start
    )
    seen = []
    for epoch in range(4):
        collator.set_epoch(epoch)
        batches = list(loader)
        for k, batch in enumerate(batches):
            wanted = collator(rows[2 * k : 2 * k + 2])
            assert torch.equal(batch["negative_input_ids"], wanted["negative_input_ids"])
        seen.append([batch["negative_input_ids"].tolist() for batch in batches])
    assert any(ids != seen[0] for ids in seen[1:])


def test_generator_must_be_ready_and_known():
    processor = tiny_processor()
    fitted = NegativeGenerator("attribute").fit(GENERATED)
    with pytest.raises(ArgumentError, match="knows no corpus"):
        ContrastiveCollator(processor, generator=NegativeGenerator("attribute"))
    with pytest.raises(ArgumentError, match="'attribute', which negative_types"):
        ContrastiveCollator(processor, generator=fitted, negative_types=["noun"])
    with pytest.raises(ArgumentError, match="negatives=False"):
        ContrastiveCollator(processor, generator=fitted, negatives=False)
    with pytest.raises(ArgumentError, match="epoch=-1"):
        ContrastiveCollator(processor, generator=fitted).set_epoch(-1)
    ContrastiveCollator(processor).set_epoch(5)  # nothing to do


def test_own_types_and_unknown_ones():
    rows = _rows(1, negative_captions=[["a cup"]], negative_types=[["colour"]])
    with pytest.raises(DataError, match="'colour' is unknown; known: replace_object.*negative_types="):
        ContrastiveCollator(tiny_processor())(rows)
    collator = ContrastiveCollator(tiny_processor(), negative_types=["noun", "colour"])
    assert collator(rows)["negative_type_ids"].tolist() == [[1]]
    rows[0]["negative_types"] = ["noun", "colour"]
    with pytest.raises(DataError, match="two lists of one length"):
        collator(rows)


def test_ids_of_the_first_types_never_change():
    assert NEGATIVE_TYPES[:7] == (
        "replace_object",
        "replace_attribute",
        "replace_relation",
        "swap_object",
        "swap_attribute",
        "add_object",
        "add_attribute",
    )


def test_image_ids_without_a_column_come_from_the_image():
    collator = ContrastiveCollator(tiny_processor())
    rows = _rows(3)
    rows.append({**rows[0], "caption": "another caption of the first"})
    ids = collator(rows)["image_ids"].tolist()
    assert ids[0] == ids[3] and len(set(ids)) == 3


def test_texts_are_cut():
    processor = tiny_processor()
    rows = _rows(1)
    rows[0]["caption"] = "a red cup left of a blue star " * 20
    assert ContrastiveCollator(processor)(rows)["input_ids"].shape == (1, 32)
    batch = ContrastiveCollator(processor, max_text_length=8)(rows)
    assert batch["input_ids"].shape == (1, 8) and batch["input_ids"][0, -1] == processor.tokenizer.eos_token_id
    own = ContrastiveCollator(processor, text_kwargs={"padding": "max_length", "max_length": 12, "truncation": True})
    assert own(_rows(2))["input_ids"].shape == (2, 12)
    assert ContrastiveCollator(tiny_processor("siglip"))(_rows(2))["input_ids"].shape == (2, 64)


def test_fit_is_applied():
    processor = tiny_processor()
    wide = [{"image": Image.new("RGB", (90, 30)), "caption": "x"}]
    wide[0]["image"].paste((255, 255, 255), (30, 0, 60, 30))
    crop = ContrastiveCollator(processor, fit="crop")(wide)["pixel_values"]
    assert torch.equal(crop, process_images(processor, [wide[0]["image"]], fit="crop")["pixel_values"])
    assert crop.mean() > ContrastiveCollator(processor)(wide)["pixel_values"].mean()


def test_undecoded_decoded_and_path_rows_give_one_batch(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 4)
    dataset = load_captioned(folder)
    collator = pickle.loads(pickle.dumps(ContrastiveCollator(tiny_processor())))
    decoded = dataset.cast_column("image", datasets.Image())
    paths = [{**row, "image": row["image"]["path"]} for row in dataset]
    wanted = collator(list(dataset))
    for rows in (list(decoded), paths):
        batch = collator(rows)
        assert all(torch.equal(batch[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])  # spawn imports all anew
def test_in_loader_workers(tmp_path, start):
    dataset = load_captioned(make_captioned_folder(tmp_path / "f", 4))
    collator = ContrastiveCollator(tiny_processor())
    wanted = collator(list(dataset))
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, collate_fn=collator, num_workers=1, multiprocessing_context=start
    )
    (batch,) = loader
    assert all(torch.equal(batch[key], wanted[key]) for key in wanted)


def test_bad_images_are_named_or_skipped(tmp_path, caplog):
    folder = make_captioned_folder(tmp_path / "f", 3)
    dataset = load_captioned(folder)
    content = (folder / "0001.png").read_bytes()
    (folder / "0001.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="0001.png: the file is cut short"):
        ContrastiveCollator(tiny_processor())(list(dataset))
    skipping = ContrastiveCollator(tiny_processor(), skip_bad_images=True)
    with caplog.at_level(logging.WARNING):
        batch = skipping(list(dataset))
    assert batch["input_ids"].shape[0] == batch["pixel_values"].shape[0] == len(batch["image_ids"]) == 2
    assert "skipped 1 of 3 images" in caplog.text and "0001.png" in caplog.text
    with pytest.raises(DataError, match="no image of a batch of 1 is readable"):
        skipping([dataset[1]])
    embedded = {"image": {"bytes": content[: len(content) // 2], "path": None}, "caption": "x", "image_id": 17}
    with pytest.raises(DataError, match="row 0 of a batch .image_id 17."):
        ContrastiveCollator(tiny_processor())([embedded])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"caption": "x"}, "no column 'image'; it has 'caption'"),
        ({"image": None, "caption": "x"}, "row 0 of a batch is None"),
        ({"image": IMAGES[0], "text": "x"}, "no caption .columns: 'image', 'text'"),
        ({"image": IMAGES[0], "caption": ["x"]}, r"the caption \['x'\]"),
        ({"image": IMAGES[0], "caption": "x", "negative_captions": "y"}, "expected two lists"),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(DataError, match=message):
        ContrastiveCollator(tiny_processor())([row])


def test_no_rows():
    with pytest.raises(DataError, match="no rows"):
        ContrastiveCollator(tiny_processor())([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "stretch"}, "fit='stretch'"),
        ({"max_text_length": 2}, "max_text_length=2"),
        ({"max_text_length": 40}, "above the 32 positions"),
        ({"max_negatives": 0}, "max_negatives=0"),
        ({"negative_choice": "last"}, "negative_choice='last'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ArgumentError, match=message):
        ContrastiveCollator(tiny_processor(), **options)


def test_processor_must_be_whole_and_siglip_keeps_its_length():
    with pytest.raises(ArgumentError, match="has no image_processor"):
        ContrastiveCollator(tiny_tokenizer())
    with pytest.raises(ArgumentError, match="must be padded to 64"):
        ContrastiveCollator(tiny_processor("siglip"), max_text_length=16)


def test_embedded_bytes_are_read():
    buffer = io.BytesIO()
    IMAGES[0].save(buffer, "png")
    collator = ContrastiveCollator(tiny_processor())
    row = {"image": {"bytes": buffer.getvalue(), "path": "a.png"}, "caption": "x"}
    assert torch.equal(
        collator([row])["pixel_values"], collator([{"image": IMAGES[0], "caption": "x"}])["pixel_values"]
    )
