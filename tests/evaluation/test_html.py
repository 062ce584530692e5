import base64
import copy
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vlcomp import evaluate
from vlcomp.errors import ArgumentError
from vlcomp.evaluation import Report
from vlcomp.evaluation.html import write_html

from .common import HashModel


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        tasks = ["scenes/swap_attribute", "scenes/retrieval", "scenes/winoground", "scenes/classification/clean"]
        report = evaluate(HashModel(), tasks=tasks, size=30, progress=False, name="runs/first")
        items = [item for item in report.items if item["task"] != "scenes/winoground"]
        other = Report(copy.deepcopy(report.results), items, gallery=report.gallery)
        other.results["model"]["name"] = 'runs/<second> & "more"'
        del other.results["tasks"]["scenes/winoground"]
        return report, other


class Page(HTMLParser):
    VOID = {"meta", "link", "img", "input", "br"}

    def __init__(self, text):
        super().__init__()
        self.references, self.tags, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_needs_nothing_else_and_is_well_formed(reports, tmp_path):
    text = write_html(reports, tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.references and all(reference.startswith("data:") for reference in page.references)
    assert not re.search(r"https?://|@import|url\(", text)
    # Names of models are text, not markup.
    assert "<second>" not in text and "&lt;second&gt;" in text


def test_page_shows_scores_references_and_examples(reports, tmp_path):
    report = reports[0]
    text = report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("scenes/swap_attribute/accuracy", "scenes/retrieval/text_to_image/recall@5"):
        score = report.score(name)
        assert f"{score.value:.3f}" in text and f"{score.low:.3f} to {score.high:.3f}" in text
    for words in ("bag of words", "text only, n-gram", "text only, classifier", "chance", "drawn at random"):
        assert words in text
    figures = [a for tag, a in Page(text).tags if tag == "figure" and a["data-task"] == "scenes/swap_attribute"]
    # Failures come first.
    assert [f["data-c0"] for f in figures] == ["0"] * 6 + ["1"] * 6
    assert [f["class"] for f in figures] == ["example wrong"] * 6 + ["example right"] * 6
    item = report.gallery["scenes/swap_attribute"][0]
    assert item["text"] in text and item["false_text"] in text and item["images"][0] in text
    assert "<figure" not in report.to_html(tmp_path / "b.html", gallery=False).read_text(encoding="utf-8")


def test_examples_are_drawn_at_random_but_repeatably(reports):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlcomp.evaluation.gallery.thumbnail", lambda source: "x")
        from vlcomp.evaluation.gallery import build_gallery

        items = [{"item_id": str(i), "correct": i % 2 == 0, "tie": False} for i in range(200)]
        drawn = [[e["item_id"] for e in build_gallery(items, lambda i: [i], seed=seed)] for seed in ("a", "a", "b")]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 12 and max(map(int, drawn[0])) > 50


def test_a_model_without_a_task_is_left_blank_there(reports, tmp_path):
    text = write_html(reports, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "2 models compared" in text
    figures = [a for tag, a in Page(text).tags if tag == "figure"]
    lacking = [f for f in figures if f["data-task"] == "scenes/winoground"]
    assert lacking and all("data-c0" in f and "data-c1" not in f for f in lacking)
    # Both have the others; an item in both galleries is shown once.
    shared = [f for f in figures if f["data-task"] == "scenes/swap_attribute"]
    assert len(shared) == 12 and all(f["data-c0"] == f["data-c1"] for f in shared)


def test_without_a_table_of_items_a_gallery_speaks_for_itself(reports, tmp_path):
    bare = [Report(report.results, gallery=report.gallery) for report in reports]
    text = write_html(bare, tmp_path / "report.html", names=["A", "B"]).read_text(encoding="utf-8")
    shared = [a for tag, a in Page(text).tags if tag == "figure" and a["data-task"] == "scenes/swap_attribute"]
    assert len(shared) == 12 and all(f["data-c0"] == f["data-c1"] for f in shared)
    assert "no items are saved with B and A" in text


def test_filters_name_every_pair_of_models(reports, tmp_path):
    text = write_html(reports, tmp_path / "report.html", names=["A", "<B>"]).read_text(encoding="utf-8")
    for value, label in (
        ("0+1-", "A right, &lt;B&gt; wrong"),
        ("1+0-", "&lt;B&gt; right, A wrong"),
        ("0-1-", "all wrong"),
    ):
        assert f'<option value="{value}">{label}</option>' in text


def test_runs_of_one_model_are_one_column(reports, tmp_path):
    first, second = reports
    path = write_html([], tmp_path / "report.html", groups={"CLIP": [first, second]})
    text = path.read_text(encoding="utf-8")
    assert "mean of 2 runs" in text and "over runs" in text
    # The second lacks a task; that is told and not averaged over one run.
    assert "left out scenes/winoground: not all 2 runs have it" in text
    assert "Scenes: two pictures" not in text
    assert "2 of 2 runs right" in text and "0 of 2 runs right" in text


def test_differences_stand_with_their_intervals(reports, tmp_path):
    first, second = reports
    other = Report(copy.deepcopy(second.results), [dict(item) for item in first.items])
    wrong = [item for item in other.items if item["task"] == "scenes/swap_attribute" and item["correct"]][:5]
    for item in wrong:
        item["correct"] = False
    text = write_html([first, other], tmp_path / "report.html", names=["A", "B"]).read_text(encoding="utf-8")
    assert "B minus A, item by item" in text and '<th scope="col">only A right</th>' in text
    row = re.search(r"B minus A, item by item</summary>.*?<tr><th scope=\"row\">(.*?)</tr>", text, re.S).group(1)
    assert "<b>-0.167</b>" in row
    assert re.sub("<[^>]*>", " ", row).split()[-3:] == ["0", "5", "0.062"]


def test_photographs_are_jpeg_and_drawings_png():
    from vlcomp.evaluation.examples import picture_url
    from vlcomp.evaluation.gallery import thumbnail

    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    photograph = Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC)
    drawing = Image.new("RGB", (64, 64), "red")
    for source, kind, size in ((photograph, "jpeg", (267, 200)), (drawing, "png", (64, 64))):
        data = thumbnail(source)
        assert picture_url(data) == f"data:image/{kind};base64,{data}"
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (picture.format.lower(), picture.size) == (kind, size) and len(data) < 40_000


def test_warnings_come_before_the_numbers_and_once(reports, tmp_path):
    both = [Report(copy.deepcopy(report.results)) for report in reports]
    for report in both:
        report.results["tasks"]["scenes/retrieval"]["warnings"] = ["the embeddings have collapsed"]
    both[0].results["tasks"]["scenes/swap_attribute"]["warnings"] = ["only with the first"]
    text = write_html(both, tmp_path / "report.html", names=["A", "B"]).read_text(encoding="utf-8")
    assert text.count("all models: scenes/retrieval: the embeddings have collapsed") == 1
    assert "A: scenes/swap attribute: only with the first" in text
    assert text.index("have collapsed") < text.index('class="cards"')


def test_collapsed_embeddings_are_one_warning_a_kind_and_other_numbers_stay(reports, tmp_path):
    report = Report(copy.deepcopy(reports[0].results))
    tasks = list(report.results["tasks"])[:3]
    for number, task in enumerate(tasks, 1):
        report.results["tasks"][task]["warnings"] = [
            f"the embeddings of {number}00 different images are nearly the same (mean cosine 0.99{number}0)",
            f"the embeddings of {number}00 different texts are nearly the same (mean cosine 0.99{number}0)",
            f"{number} of its 400 images are among the training images",
            "3 images could not be read",
        ]
    shown = [line for line in report.to_markdown().splitlines() if line.startswith("warning: ")]
    assert len(shown) == 8
    assert shown[0] == (
        f"warning: {tasks[0]} and 2 more tasks: the embeddings of 100 different images are nearly the same "
        "(mean cosine 0.9910)"
    )
    assert shown[1].startswith(f"warning: {tasks[0]} and 2 more tasks: the embeddings of 100 different texts")
    assert [line.split(": ")[-1][0] for line in shown[2:]] == ["1", "3", "2", "3", "3", "3"]
    text = write_html([report], tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("nearly the same") == 2 and text.count("are among the training images") == 3


def test_nothing_to_show_and_a_folder_as_path_are_refused(reports, tmp_path):
    with pytest.raises(ArgumentError, match="no report"):
        write_html([], tmp_path / "report.html")
    with pytest.raises(ArgumentError, match="is a folder"):
        write_html(reports, tmp_path)
