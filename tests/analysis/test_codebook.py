"""The codebook report: codes, patches and words are those that the model says, and the page shows them."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from vlcomp.analysis import codebook_report, write_codebook_page
from vlcomp.analysis.codebook import _words
from vlcomp.errors import ArgumentError, DataError
from vlcomp.testing import tiny_captions, tiny_clip, tiny_images, tiny_iterated_clip, tiny_processor, tiny_tokenizer

from ..evaluation.test_browser import Browser, find_browser

IMAGES, TEXTS = tiny_images(10, (32, 32)), [*tiny_captions(8), "an unseenword, <b>"]


@pytest.fixture(scope="module")
def model():
    return tiny_iterated_clip(temperature=0.7)


@pytest.fixture(scope="module")
def report(model):
    return codebook_report(model, tiny_processor(), IMAGES, TEXTS, top=12, examples=3, batch_size=4)


def test_the_report_follows_the_model(model, report):
    processor = tiny_processor()
    pixels = processor(images=IMAGES, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        images = model.token_codes(pixel_values=pixels)
        texts = processor(text=TEXTS, padding=True, return_tensors="pt")
        said = model.token_codes(texts["input_ids"], attention_mask=texts["attention_mask"])
    shares = [found.code_weights.mean(0).numpy() for found in (images, said)]
    order = [use.code for use in report.codes]
    total = shares[0] + shares[1]
    assert total[order].tolist() == pytest.approx(sorted(total, reverse=True)[: len(order)], abs=1e-6)
    assert 0 < len(order) <= 12
    for use in report.codes:
        assert (use.image_share, use.text_share) == pytest.approx((shares[0][use.code], shares[1][use.code]), abs=1e-6)
        column = images.code_weights[:, use.code]
        assert [share for _, _, share in use.images] == pytest.approx(
            [value for value in column.sort(descending=True).values[:3].tolist() if value > 0], abs=1e-6
        )
        for row, patch, share in use.images:
            assert share == pytest.approx(column[row].item(), abs=1e-6)
            assert patch == images.code_tokens[row, use.code].item()
        # By hand: which word owns the code in each text.
        expected = {}
        for row, text in enumerate(TEXTS):
            weight = said.code_weights[row, use.code].item()
            if weight > 0:
                token = said.code_tokens[row, use.code].item()
                offsets = processor.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
                begin, end = offsets[token]
                if begin == end:
                    word = "(end)" if token else "(start)"
                else:
                    word = next(m[0] for m in re.finditer(r"\S+", text) if m.start() <= begin < m.end())
                word = word.strip(",") if word != "<b>" else word
                sum_so_far, count = expected.get(word, (0.0, 0))
                expected[word] = sum_so_far + weight, count + 1
        everything = sum(share for share, _ in expected.values())
        assert sum(part for _, part, _ in use.words) <= 1 + 1e-6
        for word, part, count in use.words:
            assert expected[word] == (pytest.approx(part * everything, abs=1e-5), count)
        assert bool(use.words) == bool(expected)
    assert any(use.words for use in report.codes) and any(use.images for use in report.codes)
    used = [(found.code_weights > 0) for found in (images, said)]
    active = [each.sum(1).float().mean().item() for each in used]
    assert report.active == pytest.approx({"image": active[0], "text": active[1]})
    assert report.used["both"] == int((used[0].any(0) & used[1].any(0)).sum())


def test_words_of_tokens():
    tokenizer = tiny_tokenizer()
    text = "a red  zyxwv, cup"
    encoded = tokenizer(text, return_offsets_mapping=True, padding="max_length", max_length=20)
    names = _words(text, encoded["offset_mapping"])
    assert names[0] == "(start)" and names[-1] == "(end)"
    assert list(dict.fromkeys(names)) == ["(start)", "a", "red", "zyxwv", "cup", "(end)"]
    assert names.count("zyxwv") > 1  # several tokens, one word


def test_pictures_are_as_the_model_reads_them(report):
    row, address = next(iter(report.pictures.items()))
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))) as picture:
        assert picture.size == (32, 32)
        difference = np.abs(np.asarray(picture, dtype=int) - np.asarray(IMAGES[row].convert("RGB"), dtype=int))
    assert difference.max() <= 1


def test_the_page_stands_alone_and_escapes(report, tmp_path):
    page = write_codebook_page(report, tmp_path / "new" / "page.html", title="<my> model").read_text(encoding="utf-8")
    assert "<h1>&lt;my&gt; model</h1>" in page and "<my>" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page) and "http" not in page and "<script" not in page
    assert page.count('<section class="code">') == len(report.codes)
    frame = re.search(r"left:([\d.]+)%;top:([\d.]+)%;width:25.000%;height:25.000%", page)
    use = next(use for use in report.codes if use.images)
    y, x = divmod(use.images[0][1], 4)
    assert (float(frame[1]), float(frame[2])) == (25 * x, 25 * y)
    assert "<b>&lt;b&gt;</b>" in page or not any(word == "<b>" for use in report.codes for word, _, _ in use.words)
    with pytest.raises(ArgumentError, match="is a folder; name a file"):
        write_codebook_page(report, tmp_path)


def test_the_page_in_a_browser_on_a_phone(report, tmp_path):
    find_browser()
    page = write_codebook_page(report, tmp_path / "page.html", title="tiny")
    with Browser(tmp_path / "profile", width=390, height=844, mobile=True) as browser:
        browser.open(page.as_uri())
        assert browser.complaints == []
        assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
        assert browser.run("document.documentElement.scrollWidth") == 390
        shown = browser.run(
            "Array.from(document.images).map(function (i) { var r = i.getBoundingClientRect(),"
            " f = i.nextElementSibling.getBoundingClientRect();"
            " return [i.naturalWidth, r.width, f.width / r.width,"
            " f.left >= r.left - 1 && f.right <= r.right + 1 && f.top >= r.top - 1 && f.bottom <= r.bottom + 1]; })"
        )
        assert len(shown) == sum(len(use.images) for use in report.codes)
        for natural, width, part, inside in shown:
            assert natural == 32 and width > 60 and part == pytest.approx(0.25, abs=0.02) and inside


def test_wrong_input_is_named(model):
    processor = tiny_processor()
    for other in (tiny_clip(), tiny_iterated_clip(use_codebook=False)):
        with pytest.raises(ArgumentError, match="without a codebook, so there are no codes to report"):
            codebook_report(other, processor, IMAGES, TEXTS)
    with pytest.raises(DataError, match="0 images and 9 texts"):
        codebook_report(model, processor, [], TEXTS)
    with pytest.raises(ArgumentError, match="top=0"):
        codebook_report(model, processor, IMAGES, TEXTS, top=0)
