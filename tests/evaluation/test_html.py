import copy
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

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
        other = Report(copy.deepcopy(report.results), gallery=report.gallery)
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
    assert [f["data-outcome"] for f in figures] == ["right"] * 6 + ["wrong"] * 6
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
    assert text.count('<option value="1">') == 1
    assert "2 models compared" in text


def test_nothing_to_show_and_a_folder_as_path_are_refused(reports, tmp_path):
    with pytest.raises(ArgumentError, match="no report"):
        write_html([], tmp_path / "report.html")
    with pytest.raises(ArgumentError, match="is a folder"):
        write_html(reports, tmp_path)


def test_opens_in_a_browser_without_complaint(reports, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on PATH: the page is not opened in a browser")
    page = write_html(reports, tmp_path / "report.html")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0"]
    done = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "CONSOLE" not in done.stderr
    # The script ran: one task is selected, and its examples are counted.
    assert re.search(r'id="f-count">24 of \d+</output>', done.stdout)
    assert done.stdout.count('hidden=""') > 0
