"""load_captioned on every kind of data, and the text of every error a user's data can cause."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from vlcomp.data import load_captioned, load_image
from vlcomp.data.images import stable_hash
from vlcomp.errors import ArgumentError, DataError
from vlcomp.testing import make_captioned_folder, make_class_folder, tiny_images


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf_cache")
    monkeypatch.setenv("VLCOMP_CACHE", str(tmp_path / "vlcomp_cache"))
    datasets.disable_progress_bars()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


PNGS = [_png(image) for image in tiny_images(4)]


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def _write(folder: Path, rows: list) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "metadata.jsonl").write_text(text + "\n")
    return folder


def _tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def _parquet(path: Path, **columns) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def _structs(*contents: bytes) -> list[dict]:
    return [{"bytes": content, "path": None} for content in contents]


def _check(dataset, rows: int) -> None:
    """What every result has to satisfy."""
    assert len(dataset) == rows
    assert dataset.column_names[0] == "image" and {"caption", "image_id"} <= set(dataset.column_names)
    assert dataset.features["image"] == datasets.Image(decode=False)
    assert dataset.features["caption"] == datasets.Value("string")
    assert dataset.features["image_id"] == datasets.Value("int64")
    for row in dataset:
        assert row["caption"].strip()
        assert load_image(row["image"]).size == (40, 32)


# --- image folders -----------------------------------------------------------------------------------------------


def test_folder_with_jsonl_keeps_other_columns(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 4)
    _write(folder, [{**row, "group": f"g{i}", "label": i} for i, row in enumerate(_lines(folder))])
    dataset = load_captioned(folder)
    _check(dataset, 4)
    assert dataset["group"][:] == ["g0", "g1", "g2", "g3"] and dataset["label"][:] == [0, 1, 2, 3]
    assert len(set(dataset["image_id"])) == 4
    assert isinstance(dataset.cast_column("image", datasets.Image())[0]["image"], Image.Image)


def test_lists_of_captions_become_rows_of_one_image(tmp_path):
    dataset = load_captioned(make_captioned_folder(tmp_path / "f", 3, captions_per_image=2))
    _check(dataset, 6)
    ids = dataset["image_id"][:]
    assert ids[0] == ids[1] != ids[2] == ids[3] and len(set(dataset["caption"])) == 6


def test_same_file_has_the_same_id_wherever_it_is_named(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 2)
    rows = _lines(folder)
    _write(folder, [*rows, {"file_name": "./0000.png", "caption": "again"}])
    ids = load_captioned(folder)["image_id"][:]
    assert ids[0] == ids[2] != ids[1]
    assert load_captioned(folder)["image_id"][:] == ids


def test_image_id_column_integers_are_kept_and_texts_hashed(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 3)
    rows = _lines(folder)
    _write(folder, [{**row, "image_id": i} for i, row in enumerate([*rows[:2], rows[0]], start=7)])
    assert load_captioned(folder)["image_id"][:] == [7, 8, 9]
    _write(folder, [{**row, "image_id": key} for key, row in zip("aba", rows, strict=True)])
    assert load_captioned(folder)["image_id"][:] == [stable_hash(key) for key in "aba"]
    _write(folder, [{**row, "image_id": [1]} for row in rows])
    with pytest.raises(DataError, match=r"line 1 of .*image_id is \[1\]"):
        load_captioned(folder)


def test_csv_and_parquet_metadata(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 3)
    rows = _lines(folder)
    (folder / "metadata.jsonl").unlink()
    text = "file_name,caption\n" + "".join(f'{row["file_name"]},"{row["caption"]}, indeed"\n' for row in rows)
    (folder / "metadata.csv").write_text("\ufeff" + text)
    dataset = load_captioned(folder)
    _check(dataset, 3)
    assert dataset[0]["caption"] == rows[0]["caption"] + ", indeed"
    (folder / "metadata.csv").write_text('file_name,caption\n0000.png,"[""a, b"", ""c""]"\n')
    assert load_captioned(folder)["caption"][:] == ["a, b", "c"]
    (folder / "metadata.csv").unlink()
    pq.write_table(pa.Table.from_pylist(rows), folder / "metadata.parquet")
    _check(load_captioned(folder), 3)
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match="two metadata files"):
        load_captioned(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,caption\n0000.png,a red, round cup\n", "line 2 of .*more fields than the header"),
        ("file_name,caption\n0000.png,a\n0001.png\n", "line 3 of .*no field 'caption'"),
        ('file_name,caption\n0000.png,"open\n', "line 2 of .*not valid CSV"),
    ],
)
def test_broken_csv(tmp_path, text, message):
    folder = make_captioned_folder(tmp_path / "f", 2)
    (folder / "metadata.jsonl").unlink()
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_captioned(folder)


def test_split_folders_and_their_synonyms(tmp_path):
    make_captioned_folder(tmp_path / "f" / "train", 3)
    make_captioned_folder(tmp_path / "f" / "val", 2, seed=1)
    assert len(load_captioned(tmp_path / "f")) == 3
    assert len(load_captioned(tmp_path / "f", split="validation")) == 2
    assert len(load_captioned(tmp_path / "f", split="val")) == 2
    with pytest.raises(DataError, match="no split 'test'; it has 'train', 'validation'"):
        load_captioned(tmp_path / "f", split="test")


def test_one_metadata_file_above_split_folders(tmp_path):
    make_captioned_folder(tmp_path / "f" / "train", 3)
    make_captioned_folder(tmp_path / "f" / "test", 2)
    rows = [
        {**row, "file_name": f"{part}/{row['file_name']}"}
        for part in ("train", "test")
        for row in _lines(tmp_path / "f" / part)
    ]
    for part in ("train", "test"):
        (tmp_path / "f" / part / "metadata.jsonl").unlink()
    _write(tmp_path / "f", rows)
    assert len(load_captioned(tmp_path / "f")) == 3 and len(load_captioned(tmp_path / "f", split="test")) == 2


def test_metadata_file_itself(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 3)
    (folder / "metadata.jsonl").rename(folder / "mine.jsonl")
    _check(load_captioned(folder / "mine.jsonl"), 3)
    _check(load_captioned(str(folder / "mine.jsonl")), 3)


def test_negatives_and_long_captions(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 3, captions_per_image=2)
    extra = [
        {"negative_captions": ["a", "b"], "negative_types": ["object", "relation"], "long_caption": "long"},
        {"negative_captions": [["a"], ["b", "c"]]},  # one list per caption
        {},
    ]
    _write(folder, [{**row, **more} for row, more in zip(_lines(folder), extra, strict=True)])
    dataset = load_captioned(folder)
    assert dataset["negative_captions"][:] == [["a", "b"]] * 2 + [["a"], ["b", "c"]] + [[], []]
    assert dataset["negative_types"][0] == ["object", "relation"] and dataset["negative_types"][2] == []
    assert dataset["long_caption"][:] == ["long"] * 2 + [None] * 4
    assert dataset.features["negative_captions"] == datasets.List(datasets.Value("string"))


# --- long captions without short ones ------------------------------------------------------------------------------

# One row has both, one a long caption alone.
LONG = [{"caption": "a cup", "long_caption": "a cup on a table"}, {"caption": None, "long_caption": "a star, alone"}]


def _long(source: str, tmp_path: Path, rows: list[dict]) -> str | datasets.Dataset:
    rows = [dict(row) for row in rows]
    columns = {key: [row.get(key) for row in rows] for key in rows[0]}
    if source in ("dataset", "parquet"):
        data = datasets.Dataset.from_dict({"image": _structs(*PNGS[: len(rows)]), **columns})
        if source == "parquet":
            data.to_parquet(tmp_path / "rows.parquet")
            return str(tmp_path / "rows.parquet")
        return data
    if source == "shard":
        members = [
            (f"{i}.{end}", content)
            for i, row in enumerate(rows)
            for end, content in (("png", PNGS[i]), ("json", json.dumps(row).encode()))
        ]
        return str(_tar(tmp_path / "rows.tar", members))
    folder = make_captioned_folder(tmp_path / "folder", n=len(rows))
    rows = [{"file_name": f"{i:04d}.png", **row} for i, row in enumerate(rows)]
    if source == "csv":
        (folder / "metadata.jsonl").unlink()
        lines = [",".join(rows[0]), *(",".join(f'"{value or ""}"' for value in row.values()) for row in rows)]
        (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    else:
        _write(folder, rows)
    return str(folder)


@pytest.mark.parametrize("source", ["folder", "csv", "dataset", "parquet", "shard"])
@pytest.mark.parametrize("empty", [None, " "])
def test_a_caption_may_be_missing_beside_a_long_one(source, empty, tmp_path):
    rows = [LONG[0], {**LONG[1], "caption": empty}]
    loaded = load_captioned(_long(source, tmp_path, rows))
    assert loaded["caption"][:] == ["a cup", None]
    assert loaded["long_caption"][:] == ["a cup on a table", "a star, alone"]
    assert loaded.features["caption"] == datasets.Value("string") and len(set(loaded["image_id"])) == 2
    if source in ("parquet", "shard"):
        streamed = list(load_captioned(_long(source, tmp_path, rows), streaming=True))
        assert [row["caption"] for row in streamed] == ["a cup", None]


@pytest.mark.parametrize("source", ["folder", "csv", "dataset", "parquet"])
def test_long_captions_alone_are_data_without_captions(source, tmp_path):
    rows = [{"long_caption": "a cup on a table"}, {"long_caption": "a star, alone"}]
    data = _long(source, tmp_path, rows)
    loaded = load_captioned(data)
    assert "caption" not in loaded.column_names and loaded["long_caption"][1] == "a star, alone"
    if source == "parquet":
        streamed = load_captioned(data, streaming=True)
        assert [set(row) for row in streamed] == [{"image", "image_id", "long_caption"}] * 2
    with pytest.raises(DataError, match="has no column 'text'; its columns are .*'long_caption'"):
        load_captioned(data, caption_column="text")


def test_a_sample_of_a_shard_needs_no_caption_beside_a_long_one(tmp_path):
    data = _long("shard", tmp_path, [LONG[0], {"long_caption": "a star, alone"}])
    for streaming in (False, True):
        rows = list(load_captioned(data, streaming=streaming))
        assert [row["caption"] for row in rows] == ["a cup", None] and rows[1]["long_caption"] == "a star, alone"


def test_rows_without_captions_are_used_by_the_one_trainer_that_can_and_refused_by_others(tmp_path):
    from vlcomp.data import CaptionsByLengthCollator, ContrastiveCollator
    from vlcomp.evaluation.tasks import Retrieval
    from vlcomp.testing import tiny_clip, tiny_processor
    from vlcomp.training import ContrastiveTrainer

    loaded = load_captioned(_long("folder", tmp_path, LONG))
    rows = [loaded[i] for i in range(2)]
    batch = CaptionsByLengthCollator(tiny_processor(), short_below=4, long_from=4, long_to=20)(rows)
    assert batch["short_mask"].tolist() == [True, False]
    assert batch["caption_attention_mask"].any(dim=1).tolist() == [True, True]
    with pytest.raises(DataError, match="row 1 of a batch has no caption"):
        ContrastiveCollator(tiny_processor())(rows)
    trainer = {"args": None, "processing_class": tiny_processor()}
    with pytest.raises(DataError, match="row 1 of train_dataset has no caption, only a long one; .*caption_column"):
        ContrastiveTrainer(tiny_clip(), train_dataset=loaded, **trainer)
    # What is selected counts, not what lies beside it in the file.
    ContrastiveTrainer(tiny_clip(), train_dataset=loaded.select([0]), **trainer)
    with pytest.raises(DataError, match="row 1 of the data of task 'retrieval' has no caption"):
        len(Retrieval(loaded).pairs.captions)
    as_captions = load_captioned(loaded, caption_column="long_caption")
    assert as_captions["caption"][:] == [row["long_caption"] for row in LONG]
    alone = load_captioned(_long("dataset", tmp_path, [{"long_caption": row["long_caption"]} for row in LONG]))
    with pytest.raises(DataError, match="train_dataset has no column 'caption', only image, .*long_caption"):
        ContrastiveTrainer(tiny_clip(), None, alone, processing_class=tiny_processor())
    with pytest.raises(DataError, match="the data of task 'retrieval' has no column 'caption' .*column long_caption"):
        len(Retrieval(alone).pairs.captions)


# --- bad folders: each message names file and line and says what to do -------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("not json", r"line 2 of .*metadata\.jsonl is not valid JSON.*column 1: not json"),
        ('["a"]', "line 2 of .*holds list; expected an object"),
        ({"caption": "x"}, "line 2 of .*names no image.*'file_name'"),
        ({"file_name": 3, "caption": "x"}, "line 2 of .*file_name is 3"),
        ({"file_name": "gone.png", "caption": "x"}, "line 2 of .*does not exist: gone.png.*--skip-bad-images"),
        ({"file_name": "0001.png", "caption": " "}, r"line 2 of .*\(0001.png\) has an empty caption"),
        ({"file_name": "0001.png"}, r"line 2 of .*\(0001.png\) has no caption"),
        ({"file_name": "0001.png", "long_caption": " "}, r"has no caption \('caption'\) and no long_caption; write"),
        ({"file_name": "0001.png", "long_caption": 5}, r"line 2 of .*long_caption is 5 \(int\)"),
        ({"file_name": "0001.png", "caption": ["a", None], "long_caption": "b"}, "line 2 of .* has no caption"),
        ({"file_name": "0001.png", "caption": 5}, r"line 2 of .*'caption' is 5 \(int\)"),
        ({"file_name": "0001.png", "caption": []}, "line 2 of .*empty list of captions"),
        ({"file_name": "0001.png", "caption": ["a", ""]}, "line 2 of .*an empty caption"),
        ({"file_name": "0001.png", "caption": "a", "negative_captions": ["", "b"]}, "line 2 .*negative_captions"),
        (
            {"file_name": "0001.png", "caption": "a", "negative_captions": ["b"], "negative_types": ["x", "y"]},
            "line 2 .*1 negative caption but 2 types",
        ),
        ({"file_name": "0001.png", "caption": "a", "long_caption": 3}, "line 2 .*long_caption is 3"),
    ],
)
def test_bad_line(tmp_path, change, message):
    folder = make_captioned_folder(tmp_path / "f", 3)
    rows = _lines(folder)
    with pytest.raises(DataError, match=message):
        load_captioned(_write(folder, [rows[0], change, rows[2]]))
    _write(folder, rows)
    assert len(load_captioned(folder)) == 3  # the folder is good without the change


def test_line_numbers_count_blank_lines(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 2)
    with pytest.raises(DataError, match="line 4 of"):
        load_captioned(_write(folder, [_lines(folder)[0], "", "", "{"]))


def test_caption_column_absent_names_the_likely_one(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 2)
    _write(folder, [{"file_name": row["file_name"], "text": row["caption"]} for row in _lines(folder)])
    message = "no column 'caption'; its columns are 'file_name', 'text'; did you mean 'text'.*--caption-column text"
    with pytest.raises(DataError, match=message):
        load_captioned(folder)
    _check(load_captioned(folder, caption_column="text"), 2)
    with pytest.raises(DataError, match="did you mean 'text'"):
        load_captioned(folder, caption_column="texte")


def test_zero_rows_wrong_encoding_and_mixed_types(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 3)
    rows = _lines(folder)
    with pytest.raises(DataError, match=r"metadata\.jsonl holds no row"):
        load_captioned(_write(folder, [""]))
    _write(folder, rows)
    path = folder / "metadata.jsonl"
    path.write_bytes(path.read_bytes() + b'{"file_name": "0000.png", "caption": "caf\xe9"}\n')
    with pytest.raises(DataError, match="line 4 of .*not UTF-8"):
        load_captioned(folder)
    _write(folder, [{**row, "extra": value} for row, value in zip(rows, ("a", 1, None), strict=True)])
    with pytest.raises(DataError, match="column 'extra' of .*mixes values of types int, str"):
        load_captioned(folder)


def test_folders_that_are_something_else(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        load_captioned(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="holds no metadata.jsonl.*notes.txt"):
        load_captioned(tmp_path / "empty")
    with pytest.raises(DataError, match="8 images but no captions.*load_image_classes"):
        load_captioned(make_class_folder(tmp_path / "classes"))


@pytest.mark.parametrize("data", ["/nowhere/at/all", "./here", "gone/metadata.jsonl", "a.png", "x/y/z", "~/nothing"])
def test_paths_that_do_not_exist_are_not_asked_of_the_hub(data):
    with pytest.raises(DataError, match="no such file or folder"):
        load_captioned(data)
    with pytest.raises(DataError, match="no such file or folder"):
        load_captioned(Path(data))


def test_hub_name_without_network():
    with pytest.raises(DataError, match="cannot load 'someone/something'.*no such file or folder here.*reached"):
        load_captioned("someone/something")


def test_hub_failures_are_told_apart(monkeypatch):
    def fail(error):
        def load(*args, **kwargs):
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load)

    fail(datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"))
    with pytest.raises(DataError, match="does not exist or is private"):
        load_captioned("a/b")
    fail(ValueError("Unknown split \"train\". Should be one of ['test']."))
    with pytest.raises(DataError, match="Unknown split"):
        load_captioned("a/b")
    calls = []

    def load(*args, **kwargs):
        calls.append((args, kwargs))
        return datasets.Dataset.from_dict({"image": _structs(PNGS[0]), "text": ["x"]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = load_captioned("a/b", name="config", split="test", caption_column="text")
    assert calls == [(("a/b", "config"), {"split": "test", "streaming": False})]
    _check(dataset, 1)


def test_wrong_arguments(tmp_path):
    folder = make_captioned_folder(tmp_path / "f", 2)
    with pytest.raises(ArgumentError, match="name='x'.*hub"):
        load_captioned(folder, name="x")
    with pytest.raises(ArgumentError, match="type int"):
        load_captioned(3)
    with pytest.raises(ArgumentError, match="data is empty"):
        load_captioned("")
    with pytest.raises(DataError, match="is an address"):
        load_captioned("https://example.com/a.parquet")
    (tmp_path / "a.zip").write_text("x")
    with pytest.raises(DataError, match=r"cannot read .*a\.zip: expected"):
        load_captioned(tmp_path / "a.zip")


def test_skip_bad_images_counts_and_lists(tmp_path, caplog):
    folder = make_captioned_folder(tmp_path / "f", 5)
    (folder / "0001.png").unlink()
    (folder / "0002.png").write_text("text")
    cut = (folder / "0003.png").read_bytes()
    (folder / "0003.png").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(DataError, match="0001.png"):
        load_captioned(folder)
    with caplog.at_level(logging.WARNING):
        dataset = load_captioned(folder, skip_bad_images=True)
    _check(dataset, 2)
    text = caplog.text
    assert "skipped 3 of 5 images" in text
    assert text.index("0001.png") < text.index("0002.png") < text.index("0003.png") and "cut short" in text
    for name in ("0000.png", "0004.png"):
        (folder / name).write_text("text")
    with pytest.raises(DataError, match="no image of .* is readable"):
        load_captioned(folder, skip_bad_images=True)


def test_skip_bad_images_is_silent_and_keeps_all_if_all_are_good(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert len(load_captioned(make_captioned_folder(tmp_path / "f", 3), skip_bad_images=True)) == 3
    assert not caplog.records


# --- data set objects ---------------------------------------------------------------------------------------------


def test_dataset_object_of_pil_images_and_renamed_columns():
    images = tiny_images(3)
    source = datasets.Dataset.from_dict(
        {"img": [*images, images[0]], "text": list("abcd"), "image": [1, 2, 3, 4], "w": [1, 2, 3, 4]},
        features=datasets.Features(
            {
                "img": datasets.Image(),
                "text": datasets.Value("large_string"),
                "image": datasets.Value("int32"),
                "w": datasets.Value("int64"),
            }
        ),
    )
    dataset = load_captioned(source, image_column="img", caption_column="text")
    _check(dataset.select_columns(["image", "caption", "image_id", "w"]), 4)
    assert dataset["caption"][:] == list("abcd") and "text" not in dataset.column_names
    ids = dataset["image_id"][:]
    assert ids[0] == ids[3] and len(set(ids)) == 3  # told apart by content


def test_list_captions_and_extra_columns_of_a_dataset_object():
    source = datasets.Dataset.from_dict(
        {
            "image": _structs(*PNGS[:2]),
            "caption": [["a", "b", "c"], ["d"]],
            "w": [5, 6],
            "negative_captions": ["x", "y"],
        }
    )
    for given in (source, source.select([0, 1]), source.select([1, 0]).select([1, 0])):
        dataset = load_captioned(given)
        _check(dataset, 4)
        assert dataset["caption"][:] == list("abcd") and dataset["w"][:] == [5, 5, 5, 6]
        assert dataset["negative_captions"][:] == [["x"]] * 3 + [["y"]]
        assert [row["image"]["bytes"] == PNGS[0] for row in dataset] == [True, True, True, False]


def test_already_canonical_dataset_is_not_rewritten():
    source = datasets.Dataset.from_dict(
        {"image": _structs(*PNGS[:2]), "caption": ["a", "b"], "image_id": [4, 9]},
        features=datasets.Features(
            {"image": datasets.Image(), "caption": datasets.Value("string"), "image_id": datasets.Value("int64")}
        ),
    )
    dataset = load_captioned(load_captioned(source))
    _check(dataset, 2)
    assert dataset["image_id"][:] == [4, 9]


def test_dict_of_splits_and_saved_folder(tmp_path):
    source = datasets.Dataset.from_dict({"image": _structs(PNGS[0]), "caption": ["a"]})
    both = datasets.DatasetDict(train=source, test=source)
    _check(load_captioned(both, split="test"), 1)
    with pytest.raises(DataError, match="no split 'dev'; it has 'train', 'test'"):
        load_captioned(both, split="dev")
    both.save_to_disk(tmp_path / "both")
    source.save_to_disk(tmp_path / "one")
    _check(load_captioned(tmp_path / "both", split="test"), 1)
    _check(load_captioned(tmp_path / "one"), 1)
    with pytest.raises(DataError, match="no split 'dev'"):
        load_captioned(tmp_path / "both", split="dev")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [], "caption": []}, "holds no row"),
        ({"image": [1], "caption": ["a"]}, "holds Value.*not images"),
        ({"image": ["gone.png"], "caption": ["a"]}, "row 0 .*does not exist: gone.png"),
        ({"image": [{"bytes": None, "path": None}], "caption": ["a"]}, "row 0 of the data set: an image is missing"),
        ({"image": _structs(*PNGS[:2]), "caption": ["a", ""]}, "row 1 of the data set has an empty caption"),
        ({"image": _structs(*PNGS[:2]), "caption": [1, 2]}, r"row 0 of the data set: 'caption' is 1 \(int\)"),
        ({"image": _structs(PNGS[0]), "caption": [None]}, "row 0 of the data set has no caption"),
        ({"img": _structs(PNGS[0]), "caption": ["a"]}, "no column 'image'.*did you mean 'img'"),
        (
            {"image": _structs(PNGS[0]), "caption": [""], "long_caption": [None]},
            "row 0 .* has an empty caption .'caption'. and no long_caption",
        ),
        ({"image": _structs(PNGS[0]), "long_caption": ["a"], "text": ["b"]}, "no column 'caption'.*did you mean"),
        ({"image": _structs(PNGS[0])}, "no column 'caption'; its columns are 'image'; pass caption_column="),
    ],
)
def test_bad_dataset_objects(columns, message):
    with pytest.raises(DataError, match=message):
        load_captioned(datasets.Dataset.from_dict(columns))


def test_scenes():
    from vlcomp.data.scenes import load_scenes

    dataset = load_captioned(load_scenes("train", size=8, image_size=32))
    assert {"image", "caption", "image_id", "negative_captions", "negative_types", "long_caption"} <= set(
        dataset.column_names
    )
    assert load_image(dataset[0]["image"]).size == (32, 32)
    with pytest.raises(ArgumentError, match="swap_atribute.*did you mean 'swap_attribute'"):
        load_captioned("scenes:swap_atribute")


def test_scenes_by_name(monkeypatch):
    import vlcomp.data.scenes as scenes

    calls = []
    real = scenes.load_scenes

    def few(name="train", *, split=None):
        calls.append((name, split))
        return real(name, size=2, image_size=24, split=split)

    monkeypatch.setattr(scenes, "load_scenes", few)
    for text, split in (("scenes", "train"), ("scenes:retrieval", "train"), ("scenes:swap_object", "val")):
        assert len(load_captioned(text, split=split)) == 2
    assert calls == [("train", None), ("retrieval", None), ("swap_object", "validation")]


# --- parquet and shards -------------------------------------------------------------------------------------------


def test_parquet_file_folder_glob_and_splits(tmp_path):
    _parquet(tmp_path / "p" / "train-0.parquet", image=_structs(*PNGS[:2]), caption=["a", "b"])
    _parquet(tmp_path / "p" / "train-1.parquet", image=_structs(PNGS[2]), caption=["c"])
    _parquet(tmp_path / "p" / "test-0.parquet", image=_structs(PNGS[3]), caption=["d"])
    _check(load_captioned(tmp_path / "p"), 3)
    _check(load_captioned(tmp_path / "p", split="test"), 1)
    _check(load_captioned(tmp_path / "p" / "test-0.parquet"), 1)
    _check(load_captioned(str(tmp_path / "p" / "*.parquet"), split="test"), 1)
    with pytest.raises(DataError, match="no split 'validation'; it has 'test', 'train'"):
        load_captioned(tmp_path / "p", split="validation")
    stream = load_captioned(tmp_path / "p", streaming=True)
    rows = list(stream)
    assert [row["caption"] for row in rows] == ["a", "b", "c"] and rows[0]["image"]["bytes"] == PNGS[0]
    assert stream.features["image"] == datasets.Image(decode=False)
    assert [row["image_id"] for row in rows] == load_captioned(tmp_path / "p")["image_id"][:]
    with pytest.raises(DataError, match="no file matches"):
        load_captioned(str(tmp_path / "q" / "*.parquet"))


def test_bad_parquet(tmp_path):
    good = _parquet(tmp_path / "a.parquet", image=_structs(PNGS[0]), caption=["a"])
    other = _parquet(tmp_path / "b.parquet", image=_structs(PNGS[0]), text=["a"])
    with pytest.raises(DataError, match="different columns .caption, text"):
        load_captioned(str(tmp_path / "*.parquet"))
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"b\.parquet has no column 'caption'.*did you mean 'text'"):
            load_captioned(other, streaming=streaming)
    empty = pa.table({"image": pa.array([], pa.binary()), "caption": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="empty.parquet holds no row"):
        load_captioned(tmp_path / "empty.parquet")
    good.write_bytes(good.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        load_captioned(good)
    _parquet(tmp_path / "caption.parquet", image=_structs(*PNGS[:2]), caption=["a", " "])
    for streaming in (False, True):
        with pytest.raises(DataError, match=r"row 1 of .*caption\.parquet has an empty caption"):
            list(load_captioned(tmp_path / "caption.parquet", streaming=streaming))


def _samples(prefix: str, n: int) -> list[tuple[str, bytes]]:
    return [
        member
        for i in range(n)
        for member in (
            (f"{prefix}/{i}.png", PNGS[i]),
            (f"{prefix}/{i}.json", json.dumps({"caption": [f"{prefix}{i}x", f"{prefix}{i}y"], "w": i}).encode()),
        )
    ]


def test_tar_shards_loaded_and_streamed(tmp_path):
    _tar(tmp_path / "t" / "0.tar", _samples("a", 2))
    _tar(tmp_path / "t" / "1.tar", _samples("b", 2))
    wanted = ["a0x", "a0y", "a1x", "a1y", "b0x", "b0y", "b1x", "b1y"]
    dataset = load_captioned(tmp_path / "t")
    _check(dataset, 8)
    assert dataset["caption"][:] == wanted and dataset["w"][:] == [0, 0, 1, 1] * 2
    assert "0.tar/a/0.png" in dataset[0]["image"]["path"]
    rows = list(load_captioned(str(tmp_path / "t" / "*.tar"), streaming=True))
    assert [row["caption"] for row in rows] == wanted
    assert [row["image_id"] for row in rows] == dataset["image_id"][:]
    assert load_image(rows[0]["image"]).size == (40, 32)


def test_tar_shard_written_anew_is_read_anew(tmp_path):
    _tar(tmp_path / "0.tar", [("1.png", PNGS[0]), ("1.txt", b"old")])
    assert load_captioned(tmp_path / "0.tar")["caption"][:] == ["old"]
    _tar(tmp_path / "0.tar", [("1.png", PNGS[0]), ("1.txt", b"new")])
    assert load_captioned(tmp_path / "0.tar")["caption"][:] == ["new"]


def test_stream_is_shared_out_between_loader_workers(tmp_path):
    for shard in "ab":
        _tar(tmp_path / f"{shard}.tar", _samples(shard, 2))
    stream = load_captioned(str(tmp_path / "*.tar"), streaming=True)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2)
    captions = [row["caption"] for row in loader]
    assert sorted(captions) == ["a0x", "a0y", "a1x", "a1y", "b0x", "b0y", "b1x", "b1y"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            [("1.png", PNGS[0]), ("1.cls", b"3")],
            r"sample '1' of .*bad\.tar has no caption.*\.png, \.cls.*caption_column",
        ),
        ([("1.txt", b"x")], r"sample '1' of .*bad\.tar holds no image, only 'txt'"),
        ([("1.png", PNGS[0]), ("1.json", b"{a")], r"sample '1' of .*bad\.tar: its .json is not valid"),
        ([("1.png", PNGS[0]), ("1.json", b"[1]")], "its .json holds list"),
        ([("1.png", PNGS[0]), ("1.txt", b"caf\xe9")], "its caption is not UTF-8"),
        ([("1.png", PNGS[0]), ("1.txt", b" ")], r"bad\.tar/1\.png\) has an empty caption"),
        ([], "holds no row"),
    ],
)
def test_bad_tar(tmp_path, streaming, members, message):
    path = _tar(tmp_path / "bad.tar", members)
    with pytest.raises(DataError, match=message):
        list(load_captioned(path, streaming=streaming))


def test_truncated_tar_and_other_files(tmp_path):
    path = _tar(tmp_path / "0.tar", _samples("a", 2))
    content = path.read_bytes()
    path.write_bytes(content[:1200])
    (tmp_path / "1.tar").write_text("hello")
    for shard, length in (("5.tar", 3 * 512), ("6.tar.gz", 300)):  # at the end of a block; compressed
        whole = gzip.compress(content) if shard.endswith("gz") else content
        (tmp_path / shard).write_bytes(whole[:length])
    (tmp_path / "7.tar.gz").write_bytes(gzip.compress(content))
    assert len(load_captioned(tmp_path / "7.tar.gz")) == 4
    for name in ("0.tar", "1.tar", "5.tar", "6.tar.gz"):
        for streaming in (False, True):
            with pytest.raises(DataError, match=f"{name} is cut short or not a .tar file"):
                list(load_captioned(tmp_path / name, streaming=streaming))
    (tmp_path / "2.txt").write_text("hello")
    with pytest.raises(DataError, match="different kinds, for instance .*2.txt"):
        load_captioned(str(tmp_path / "[0-2].*"))


def test_streamed_folder_and_bad_images_in_a_stream(tmp_path, caplog):
    folder = make_captioned_folder(tmp_path / "f", 3)
    assert len(list(load_captioned(folder, streaming=True))) == 3
    _parquet(tmp_path / "a.parquet", image=_structs(PNGS[0], b"text", PNGS[1]), caption=["a", "b", "c"])
    with caplog.at_level(logging.WARNING):
        rows = list(load_captioned(tmp_path / "a.parquet", streaming=True, skip_bad_images=True))
    assert [row["caption"] for row in rows] == ["a", "c"]
    assert "skipped 1 of 3 images" in caplog.text and "row 1 of" in caplog.text
    with pytest.raises(DataError, match="the first.*row 1|row 1"):
        load_image(list(load_captioned(tmp_path / "a.parquet", streaming=True))[1]["image"], name="row 1")
    skipped = load_captioned(tmp_path / "a.parquet", skip_bad_images=True)
    assert skipped["caption"][:] == ["a", "c"]


# --- real data ----------------------------------------------------------------------------------------------------


def test_emoji(data_root):
    dataset = load_captioned(data_root / "noto_emoji")
    assert len(dataset) == 3270 and dataset.column_names == ["image", "caption", "image_id", "group"]
    assert np.array(load_image(dataset[5]["image"])).shape == (128, 128, 3)


def test_nlvr(data_root):
    dataset = load_captioned(data_root / "nlvr1" / "dev.jsonl", caption_column="sentence")
    assert {"label", "identifier"} <= set(dataset.column_names)
    assert len(set(dataset["image_id"])) == len(dataset) == 989
    assert load_image(dataset[0]["image"]).size == (400, 100)


def test_an_image_column_that_is_asked_for_has_to_be_there(tmp_path):
    folder = make_captioned_folder(tmp_path / "photos", n=3)
    with pytest.raises(DataError, match="has no column 'thumbnail'.*--image-column"):
        load_captioned(folder, image_column="thumbnail")
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    text = "\n".join(json.dumps({**line, "thumbnail": "0000.png"}) for line in lines)
    (folder / "metadata.jsonl").write_text(text)
    images = load_captioned(folder, image_column="thumbnail")["image"]
    assert {os.path.basename(image["path"]) for image in images} == {"0000.png"}


def test_an_extension_that_is_asked_for_has_to_be_in_the_shard(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.png", PNGS[0]), ("0.txt", b"a cup")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert len(list(load_captioned(tmp_path / "a.tar", image_column="png", streaming=True))) == 1
    with pytest.raises(DataError, match="has no .foo, only 'png', 'txt'"):
        list(load_captioned(tmp_path / "a.tar", image_column="foo", streaming=True))
