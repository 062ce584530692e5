"""No image and no variant of a caption on both sides of a split."""

from __future__ import annotations

import datasets
import pytest

from vlcomp.data import load_captioned, split_captioned
from vlcomp.errors import ArgumentError, DataError


def _rows(captions: list[str], ids: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"caption": captions, "image_id": ids, "row": list(range(len(ids)))})


def _both(dataset: datasets.Dataset, **options) -> tuple[datasets.Dataset, datasets.Dataset]:
    train, test = split_captioned(dataset, **options)
    assert sorted([*train["row"], *test["row"]]) == list(range(len(dataset)))  # nothing lost, nothing twice
    assert list(train["row"]) == sorted(train["row"]) and list(test["row"]) == sorted(test["row"])
    assert len(train) and len(test)
    return train, test


def test_images_never_straddle_and_the_fraction_is_met():
    ids = [row // 3 for row in range(300)]
    dataset = _rows([f"c{row}" for row in range(300)], ids)
    for fraction in (0.1, 0.25, 0.9):
        train, test = _both(dataset, test_fraction=fraction)
        assert not set(train["image_id"]) & set(test["image_id"])
        assert abs(len(test) / 300 - fraction) < 0.01


def test_same_seed_same_split_other_seed_another():
    dataset = _rows([f"c{row}" for row in range(100)], list(range(100)))
    first, again, other = (_both(dataset, test_fraction=0.3, seed=seed)[1]["row"][:] for seed in (0, 0, 1))
    assert first == again != other


def test_pattern_keeps_variants_together_and_falls_back_to_the_whole_caption():
    captions = [f"{name}{tone}" for name in ("wave", "fist", "nose", "hand") for tone in ("", ": light", ": dark")]
    dataset = _rows([*captions, ":odd", ":even"], list(range(14)))
    seen = set()
    for seed in range(20):
        train, test = _both(dataset, test_fraction=0.3, seed=seed, group_by="caption", pattern=r"^[^:]*")
        bases = [{caption.split(":")[0] for caption in part["caption"]} - {""} for part in (train, test)]
        assert not bases[0] & bases[1]
        # ":odd" and ":even" match an empty text, which must not make one group of them
        seen.add((":odd" in test["caption"][:], ":even" in test["caption"][:]))
    assert {(True, False), (False, True)} & seen
    assert (
        _both(dataset, test_fraction=0.3, pattern=r"^[^:]*")[1]["row"][:]
        == (_both(dataset, test_fraction=0.3, group_by="caption", pattern=r"^[^:]*")[1]["row"][:])
    )


def test_chains_of_images_and_captions_form_one_group():
    # 0-1 share an image, 1-2 a caption, 2-3 an image; 4 and 5 are free.
    dataset = _rows(["a", "b", "b", "c", "d", "e"], [1, 1, 2, 2, 3, 4])
    for seed in range(10):
        _, test = _both(dataset, test_fraction=0.4, seed=seed, group_by="caption")
        assert set(test["row"]) == {4, 5}


def test_a_group_larger_than_the_test_part_stays_in_training():
    dataset = _rows([f"c{row}" for row in range(20)], [0] * 18 + [1, 2])
    for seed in range(10):
        assert set(_both(dataset, test_fraction=0.1, seed=seed)[1]["row"]) == {18, 19}
    _, test = _both(_rows(list("abcde"), [0, 0, 0, 1, 1]), test_fraction=0.05)
    assert test["row"][:] == [3, 4]  # the smallest group, where every group is too large


def test_without_image_id_rows_are_their_own_images():
    dataset = _rows(list("abcd"), [0, 0, 0, 0]).remove_columns("image_id")
    assert len(_both(dataset, test_fraction=0.5)[1]) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"test_fraction": 0}, ArgumentError, "test_fraction=0 "),
        ({"test_fraction": 1.0}, ArgumentError, "test_fraction=1.0 "),
        ({"test_fraction": 0.5, "pattern": "("}, ArgumentError, "not a regular expression.*position 0"),
        ({"test_fraction": 0.5, "group_by": "kind"}, ArgumentError, "'kind' is not a column; columns: caption"),
        ({"test_fraction": 0.5, "pattern": "^."}, DataError, "4 rows: they form one group"),
    ],
)
def test_bad_arguments(options, error, message):
    dataset = _rows(["aa", "ab", "ac", "ad"], [1, 2, 3, 4])
    with pytest.raises(error, match=message):
        split_captioned(dataset, **options)


def test_a_stream_cannot_be_split():
    with pytest.raises(ArgumentError, match="streamed"):
        split_captioned(_rows(["a", "b"], [1, 2]).to_iterable_dataset(), test_fraction=0.5)


def test_emoji_by_base_name(data_root):
    dataset = load_captioned(data_root / "noto_emoji")
    train, test = split_captioned(dataset, test_fraction=0.2, group_by="caption", pattern=r"^[^:]*")
    assert len(train) + len(test) == 3270 and abs(len(test) / 3270 - 0.2) < 0.005
    bases = [{caption.split(":")[0] for caption in part["caption"]} for part in (train, test)]
    assert not bases[0] & bases[1]
