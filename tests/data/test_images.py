"""Every kind of image, every kind of damage, and the values of the Hugging Face processors."""

from __future__ import annotations

import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from transformers import AutoProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from vlcomp.data.images import image_key, keep_fit, load_image, process_images, target_size, to_rgb
from vlcomp.errors import ArgumentError, DataError
from vlcomp.testing import tiny_images, tiny_processor

RED, WHITE = (255, 0, 0), (255, 255, 255)


def _encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _noise(width: int = 48, height: int = 36) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _near(pixel: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 3) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, wanted, strict=True))


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "HSV", "CMYK", "LAB", "RGBX"])
def test_colour_survives_every_colour_mode(mode):
    image = Image.new("RGB", (4, 3), (200, 60, 30))
    if mode == "LAB":
        pytest.importorskip("PIL.ImageCms")
    out = to_rgb(image.convert(mode))
    assert out.mode == "RGB" and out.size == (4, 3)
    assert _near(out.getpixel((1, 1)), (200, 60, 30), 6)


@pytest.mark.parametrize(("mode", "value", "grey"), [("L", 77, 77), ("1", 1, 255), ("1", 0, 0)])
def test_grey(mode, value, grey):
    assert to_rgb(Image.new(mode, (2, 2), value)).getpixel((0, 0)) == (grey, grey, grey)


def test_transparency_becomes_white_not_what_lies_under_it():
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == WHITE
    assert to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0)) == WHITE
    assert _near(to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0)), (255, 127, 127), 1)
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0)).convert("RGBa")).getpixel((0, 0)) == WHITE
    assert to_rgb(Image.new("LA", (1, 1), (0, 0)).convert("La")).getpixel((0, 0)) == WHITE


def test_palettes_with_and_without_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putdata([0, 1])
    assert to_rgb(palette).getpixel((0, 0)) == RED
    reread = load_image(_encoded(palette, transparency=1))
    assert reread.getpixel((0, 0)) == RED and reread.getpixel((1, 0)) == WHITE
    assert load_image(_encoded(palette, transparency=bytes([255, 0]))).getpixel((1, 0)) == WHITE
    assert load_image(_encoded(palette, "gif", transparency=1)).getpixel((1, 0)) == WHITE
    with_alpha = Image.new("PA", (1, 1))
    assert to_rgb(with_alpha).getpixel((0, 0)) == WHITE


def test_transparent_colour_of_rgb_and_grey_png():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (0, 0, 9))
    out = load_image(_encoded(image, transparency=(0, 0, 9)))
    assert out.getpixel((0, 0)) == RED and out.getpixel((1, 0)) == WHITE
    grey = Image.fromarray(np.array([[1000, 30000]], dtype=np.uint16))
    out = load_image(_encoded(grey, transparency=1000))
    assert out.getpixel((0, 0)) == WHITE and out.getpixel((1, 0)) == (117, 117, 117)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_are_scaled_not_clipped(mode):
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    if mode == "I":
        image = Image.fromarray(values.astype(np.int32))
    elif mode == "I;16B":
        image = Image.frombytes("I;16B", (3, 1), values.astype(">u2").tobytes())
    else:
        image = Image.fromarray(values)
    assert image.mode == mode
    assert [to_rgb(image).getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_sixteen_bit_files_and_arrays():
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    for kind in ("png", "tiff"):
        assert np.array(load_image(_encoded(Image.fromarray(values), kind)))[0, :, 0].tolist() == [0, 100, 255]
    assert np.array(load_image(values))[0, :, 0].tolist() == [0, 100, 255]


def test_mode_i_with_bytes_and_with_32_bits():
    assert to_rgb(Image.new("I", (1, 1), 200)).getpixel((0, 0)) == (200, 200, 200)
    assert np.array(to_rgb(Image.fromarray(np.array([[0, 2**30]], np.int32))))[0, :, 0].tolist() == [0, 255]


def test_float_images():
    for values in ([0, 0.5, 1], [0, 127.5, 255], [0, 500, 1000]):
        out = np.array(to_rgb(Image.fromarray(np.array([values], np.float32))))[0, :, 0]
        assert out.tolist() in ([0, 127, 255], [0, 128, 255])
    assert to_rgb(Image.fromarray(np.array([[np.nan, 1]], np.float32))).getpixel((0, 0)) == (0, 0, 0)


def test_exif_orientation_is_applied_once():
    image = Image.new("RGB", (6, 4), RED)
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("jpeg", "png", "tiff"):
        out = load_image(_encoded(image, kind, exif=exif))
        assert out.size == (4, 6), kind
        assert to_rgb(out).size == (4, 6), kind


def test_damaged_exif_does_not_lose_the_picture():
    info = PngImagePlugin.PngInfo()
    info.add(b"eXIf", b"MM\x00*garbage")
    assert load_image(_encoded(Image.new("RGB", (3, 2)), pnginfo=info)).size == (3, 2)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (2, 2), colour) for colour in (RED, (0, 0, 255))]
    for kind in ("gif", "png"):
        content = _encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert load_image(content).getpixel((0, 0)) == RED


def test_all_sources_give_the_same_picture(tmp_path: Path):
    image = _noise()
    path = tmp_path / "a.png"
    image.save(path)
    content = path.read_bytes()
    sources = [
        image,
        path,
        str(path),
        content,
        bytearray(content),
        {"bytes": content, "path": None},
        {"bytes": None, "path": str(path)},
        {"bytes": content, "path": "elsewhere.png"},
        np.array(image),
        Image.open(path),
    ]
    for source in sources:
        assert np.array_equal(np.array(load_image(source)), np.array(image)), type(source)


def test_url_over_loopback(monkeypatch):
    content = _encoded(Image.new("RGB", (5, 4), RED))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/a.png"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(content if found else b"")

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    try:
        assert load_image(f"{address}/a.png").size == (5, 4)
        with pytest.raises(DataError, match=f"cannot fetch {address}/b.png.*404"):
            load_image(f"{address}/b.png")
    finally:
        server.shutdown()
        server.server_close()


def test_damaged_files_are_named_with_the_cause(tmp_path: Path):
    jpeg, png = _encoded(_noise(), "jpeg"), _encoded(_noise())
    middle = len(png) // 2
    damaged = {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "cut short"),
        "cut.png": (png[:middle], "cut short"),
        "text.png": (b"hello, this is text", "not an image"),
        "empty.png": (b"", "0 bytes"),
        "flipped.png": (png[:50] + bytes([png[50] ^ 255]) + png[51:], "damaged"),
    }
    for name, (content, cause) in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: .*{cause}"):
            load_image(tmp_path / name)
        with pytest.raises(DataError, match=f"row 7: .*{cause}"):
            load_image(content, name="row 7")
    with pytest.raises(DataError, match="gone.png: there is no such file"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="it is a folder"):
        load_image(tmp_path)


def test_decompression_bomb_is_named(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    _noise().save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="bomb.png.*MAX_IMAGE_PIXELS"):
        load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "None"),
        (3, "of type int"),
        ({"bytes": None, "path": None}, "neither 'bytes' nor 'path'"),
        (np.zeros((3, 8, 8), np.uint8), "channel-first"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.full((8, 8, 3), 7.0), "within 0..1"),
        (np.full((8, 8), np.nan), "within 0..1"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
    ],
)
def test_what_is_no_image(source, message):
    with pytest.raises(DataError, match=message):
        load_image(source)


PROCESSORS = {
    "clip": CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    "clip-squash": CLIPImageProcessorPil(size={"height": 32, "width": 24}, do_center_crop=False),
    "clip-wide-crop": CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": 32, "width": 32}),
    "clip-no-normalise": CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False),
    "clip-odd": CLIPImageProcessorPil(
        size={"shortest_edge": 33}, crop_size={"height": 30, "width": 31}, resample=2, image_mean=[0.1, 0.2, 0.3]
    ),
    "clip-longest": CLIPImageProcessorPil(
        size={"shortest_edge": 33, "longest_edge": 50}, crop_size={"height": 30, "width": 31}
    ),
    "siglip": SiglipImageProcessorPil(size={"height": 32, "width": 32}),
    "siglip2": Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_values_are_those_of_the_processor(name):
    processor = PROCESSORS[name]
    images = [_noise(48, 36), _noise(36, 48), _noise(32, 32), _noise(31, 200), _noise(7, 5), *tiny_images(3)]
    wanted = processor(images, return_tensors="pt")
    out = process_images(processor, images)
    assert set(out) == set(wanted)
    for key, value in wanted.items():
        assert out[key].dtype == value.dtype and out[key].shape == value.shape
        assert torch.equal(out[key], value), key


def test_values_of_crop_and_squash_are_those_of_a_processor_configured_so():
    images = tiny_images(2, (60, 30))
    crop = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    squash = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    siglip = SiglipImageProcessorPil(size={"height": 32, "width": 32})
    for a, b in ((crop, squash), (squash, crop)):
        wanted = b(images, return_tensors="pt")["pixel_values"]
        fit = "squash" if b is squash else "crop"
        assert torch.equal(process_images(a, images, fit=fit)["pixel_values"], wanted)
        assert not torch.equal(process_images(a, images)["pixel_values"], wanted)
    wide = [Image.new("RGB", (90, 30), RED)]
    for x, colour in ((0, (0, 255, 0)), (60, (0, 0, 255))):
        wide[0].paste(colour, (x, 0, x + 30, 30))
    cropped = process_images(siglip, wide, fit="crop")["pixel_values"]
    assert cropped.shape == (1, 3, 32, 32)
    assert torch.allclose(cropped[0, :, 16, 16], torch.tensor([1.0, -1.0, -1.0]))
    assert cropped[0, 0].mean() > 0.9  # the sides are gone
    assert process_images(siglip, wide, fit="squash")["pixel_values"][0, 0].mean() < 0


def test_pad_keeps_all_of_the_picture_between_neutral_borders():
    for processor in (PROCESSORS["clip"], PROCESSORS["siglip"]):
        out = process_images(processor, [Image.new("RGB", (64, 16), WHITE)], fit="pad")["pixel_values"][0]
        assert out.shape == (3, 32, 32)
        assert out[:, :8].abs().max() < 0.02 and out[:, -8:].abs().max() < 0.02
        assert torch.allclose(out[:, 16, 0], out[:, 16, 31]) and out[:, 16].min() > 0.9


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2"])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_a_processor_keeps_how_pictures_are_fitted(kind, fit, tmp_path, caplog):
    processor = tiny_processor(kind)
    before = processor.image_processor.to_json_string()
    kept = keep_fit(processor, fit)
    assert processor.image_processor.to_json_string() == before
    images = tiny_images(3, (70, 30))
    wanted = process_images(processor, images, fit=fit)["pixel_values"]
    if fit == "pad" or kind == "siglip2":  # no processor pads, and this one keeps the shape of a picture
        assert kept is processor and f"fit='{fit}' cannot be written into a" in caplog.text
        assert not torch.equal(process_images(processor, images)["pixel_values"], wanted)
        return
    assert not caplog.text
    kept.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert torch.equal(process_images(loaded, images)["pixel_values"], wanted)
    # Without our code too: what the stock pipelines see.
    stock = loaded.image_processor(images, return_tensors="pt")["pixel_values"]
    assert torch.allclose(stock, wanted, atol=1e-6)
    assert keep_fit(loaded, fit) is loaded and keep_fit(loaded, None) is loaded


def test_siglip2_fits_make_squares():
    processor = PROCESSORS["siglip2"]
    wide = [Image.new("RGB", (100, 25), WHITE)]
    assert process_images(processor, wide)["spatial_shapes"].tolist() == [[2, 8]]
    for fit in ("crop", "squash", "pad"):
        out = process_images(processor, wide, fit=fit)
        assert out["spatial_shapes"].tolist() == [[4, 4]] and out["pixel_attention_mask"].sum() == 16
        dark = (out["pixel_values"] < 0.5).float().mean().item()
        assert dark > 0.4 if fit == "pad" else dark == 0


def test_arguments_of_process_images():
    processor = PROCESSORS["clip"]
    with pytest.raises(ArgumentError, match="fit='stretch'"):
        process_images(processor, tiny_images(1), fit="stretch")
    with pytest.raises(DataError, match="empty"):
        process_images(processor, [])
    free = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    with pytest.raises(DataError, match="different sizes.*fit="):
        process_images(free, [_noise(8, 8), _noise(9, 9)])
    assert process_images(processor, tiny_images(1)[0])["pixel_values"].shape[0] == 1
    assert target_size(PROCESSORS["siglip2"]) == (32, 32) and target_size(PROCESSORS["clip-odd"]) == (30, 31)


def test_image_key_tells_pictures_apart(tmp_path: Path):
    first, second = tiny_images(2)
    content = _encoded(first)
    assert image_key(content) == image_key({"bytes": content, "path": "x.png"}) != image_key(_encoded(second))
    assert image_key(first) == image_key(first.copy()) != image_key(second)
    assert image_key(tmp_path / "a.png") == image_key({"bytes": None, "path": str(tmp_path / "a.png")})
    assert image_key(tmp_path / "a.png") != image_key(tmp_path / "b.png")
    assert image_key("some.png") == image_key(str(Path("some.png").absolute()))
    assert all(0 <= image_key(_encoded(image)) < 2**63 for image in tiny_images(8))
    assert image_key(b"fixed") == 7640679937371166185  # the same in every process and release


def test_real_emoji_are_on_white(data_root: Path):
    paths = sorted((data_root / "noto_emoji" / "images").glob("*.png"))[:20]
    assert len(paths) == 20
    for path in paths:
        corner = load_image(path).getpixel((0, 0))
        assert Image.open(path).mode == "RGBA" and corner == WHITE
