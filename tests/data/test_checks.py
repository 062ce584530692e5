import datasets
import pytest
from PIL import Image

from vlcomp.data import check_images, load_captioned
from vlcomp.data import checks as module
from vlcomp.errors import DataError
from vlcomp.testing import make_captioned_folder, tiny_captions, tiny_images


@pytest.fixture
def photos(tmp_path):
    return make_captioned_folder(tmp_path / "photos", n=6, captions_per_image=2)


def _jpeg(folder, name, keep=1.0):
    noise = Image.effect_noise((120, 120), 60).convert("RGB")
    noise.save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    return folder / name


def test_whole_files_are_not_decoded(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_image", lambda *args, **kwargs: pytest.fail("decoded"))
    check_images(load_captioned(photos), "photos")
    check_images([str(_jpeg(tmp_path, "a.jpg")), _jpeg(tmp_path, "b.jpg").read_bytes()], "pictures")


def test_bad_files_are_named_and_counted_once_a_picture(photos):
    rows = load_captioned(photos)
    (photos / "0002.png").write_text("no picture")
    (photos / "0004.png").write_bytes((photos / "0004.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"0002.png: it is not an image.*; 2 pictures of photos cannot be read"):
        check_images(rows, "photos")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_jpeg_that_is_cut_short(tmp_path, keep):
    with pytest.raises(DataError, match=r"cut.jpg.*; 1 picture of those here cannot be read: replace or remove it"):
        check_images([_jpeg(tmp_path, "cut.jpg", keep)], "those here")


def test_what_follows_a_whole_picture_does_no_harm(tmp_path):
    path = _jpeg(tmp_path, "phone.jpg")
    path.write_bytes(path.read_bytes() + b"a film that the phone appended")
    check_images([path], "pictures")


def test_embedded_images_and_pictures_in_memory():
    rows = datasets.Dataset.from_dict({"image": tiny_images(3), "caption": tiny_captions(3)})
    undecoded = rows.cast_column("image", datasets.Image(decode=False))
    check_images(undecoded, "rows")
    check_images(rows, "rows")
    content = undecoded[1]["image"]["bytes"][:-30]
    with pytest.raises(DataError, match="the image of row 1 of rows"):
        check_images([undecoded[0]["image"], {"bytes": content, "path": None}], "rows")


def test_addresses_are_not_fetched():
    check_images(["https://example.org/a.png"], "links")
