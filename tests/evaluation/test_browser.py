"""The report in headless Chromium, over its debugging pipe: nothing but the standard library is needed."""

import base64
import json
import os
import shutil
import struct
import subprocess
import time

import pytest

from vlcomp import evaluate
from vlcomp.evaluation.html import write_html

from .runs import SeededHashModel, photographs_as_sugarcrepe


def find_browser() -> str:
    """Path of a Chromium; skips the test if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(names)} is on PATH: the page is not opened in a browser")
    return browser


class Browser:
    """One page; `requests`, `errors` and `complaints` hold what it asked for and what went wrong."""

    def __init__(self, profile, *, width=1200, height=900, mobile=False):
        command = [find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        command += ["--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]
        command += ["--disable-sync", "--disable-extensions", "--hide-scrollbars", f"--user-data-dir={profile}"]
        to_read, self._to_write = os.pipe()
        self._to_read, to_write = os.pipe()
        # The browser reads commands from descriptor 3 and writes answers to 4.
        script = f'exec "$@" 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        os.set_blocking(self._to_read, False)
        self._number, self._buffer, self._session = 0, b"", None
        self.requests, self.complaints, self.events = [], [], []
        target = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")
        self.resize(width, height, mobile=mobile)

    def __call__(self, method, **parameters):
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self, seconds):
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            try:
                data = os.read(self._to_read, 1 << 20)
                assert data, "the browser has gone"
                self._buffer += data
            except BlockingIOError:
                assert time.monotonic() < end, f"no answer from the browser in {seconds} s"
                time.sleep(0.01)
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        kind = message.get("method")
        if kind == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif kind in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(message["params"])
        if kind:
            self.events.append(kind)
        return message

    def resize(self, width, height, *, mobile=False):
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )

    def open(self, url):
        self.events.clear()
        self("Page.navigate", url=url)
        while "Page.loadEventFired" not in self.events:
            self._next(60)

    def run(self, script):
        """Value of a JavaScript expression."""
        result = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path, *, whole=True):
        shot = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path):
        path.write_bytes(base64.b64decode(self("Page.printToPDF", printBackground=False)["data"]))

    def close(self):
        for end in (self._to_write, self._to_read):
            os.close(end)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of three runs: a benchmark with photographs, Scenes, retrieval and classification."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLCOMP_CACHE", str(folder / "cache"))
        data = photographs_as_sugarcrepe(folder / "data")
        tasks = ["sugarcrepe", "scenes/swap_attribute", "scenes/retrieval", "scenes/classification/clean"]
        settings = {"data": {"sugarcrepe": data}, "size": 30, "allow_partial": True, "progress": False}
        reports = [evaluate(SeededHashModel(seed), tasks=tasks, **settings) for seed in range(3)]
    return write_html(reports, folder / "report.html", names=["first", "second", "<third> & last"])


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    find_browser()
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(page.as_uri())
        yield opened
        # Whatever the tests did, nothing was said on the console and nothing was asked of a network.
        assert opened.complaints == []
        assert [url[:60] for url in opened.requests if not url.startswith(("file:", "data:"))] == []


def shown(browser):
    return browser.run("document.querySelectorAll('figure[data-task]:not([hidden])').length")


def choose(browser, control, value):
    browser.run(
        f"(function () {{ var c = document.getElementById({control!r}); c.value = {value!r};"
        "c.dispatchEvent(new Event('change')); return c.value; })()"
    )
    assert browser.run(f"document.getElementById({control!r}).value") == value


def test_opens_without_complaint_and_without_a_network(page, browser):
    assert browser.complaints == []
    # The file itself, and nothing else but what lies within it.
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.run("document.title") == "3 models compared - vlcomp report"


def test_an_error_or_a_request_would_be_seen(browser, tmp_path):
    """The two tests above could not fail if the browser did not tell."""
    bad = tmp_path / "bad.html"
    bad.write_text('<script>console.error("x")</script><img src="http://127.0.0.1:9/x.png">', encoding="utf-8")
    with Browser(tmp_path / "profile") as other:
        other.open(bad.as_uri())
        assert other.complaints and "http://127.0.0.1:9/x.png" in other.requests


def test_pictures_are_visible(browser):
    choose(browser, "f-task", "")
    choose(browser, "f-outcome", "")
    sizes = browser.run(
        "Promise.all(Array.from(document.images).map(function (i) { return i.decode().then(function () {"
        "var r = i.getBoundingClientRect(); return [i.naturalWidth, r.width, r.height]; }); }))"
    )
    assert len(sizes) >= 60 and all(n >= 32 and w > 20 and h > 20 for n, w, h in sizes)
    # Photographs are kept as JPEG, drawings as PNG.
    kinds = browser.run("Array.from(document.images).map(function (i) { return i.src.slice(0, 15); })")
    assert set(kinds) == {"data:image/jpeg", "data:image/png;"}


def test_filters_show_what_they_say(browser):
    choose(browser, "f-task", "")
    choose(browser, "f-outcome", "")
    everything = shown(browser)
    for task in ("sugarcrepe", "scenes/retrieval", "sugarcrepe|swap_obj"):
        choose(browser, "f-task", task)
        name, _, subset = task.partition("|")
        selector = f"figure[data-task='{name}']" + (f"[data-subset='{subset}']" if subset else "")
        assert 0 < shown(browser) == browser.run(f'document.querySelectorAll("{selector}").length') < everything
    choose(browser, "f-task", "")
    # The first is right, the second is wrong.
    choose(browser, "f-outcome", "0+1-")
    said = browser.run(
        "Array.from(document.querySelectorAll('figure:not([hidden]) .verdicts')).map(function (v) {"
        "return Array.from(v.querySelectorAll('b')).map(function (b) { return b.className; }).join(); })"
    )
    assert 0 < len(said) < everything and all(text.startswith("good,bad") for text in said)
    assert browser.run("document.getElementById('f-count').textContent") == f"{len(said)} of {everything}"
    label = browser.run("document.getElementById('f-outcome').selectedOptions[0].textContent")
    assert label == "first right, second wrong"
    choose(browser, "f-task", "scenes/classification/clean")
    choose(browser, "f-outcome", "0+1+2+")
    assert (shown(browser) == 0) == (not browser.run("document.getElementById('f-none').hidden"))
    choose(browser, "f-task", "")
    choose(browser, "f-outcome", "")


def png_size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


def lines_of_labels(browser):
    """The most lines that a number beside a bar takes."""
    return browser.run(
        "Math.max.apply(null, Array.from(document.querySelectorAll('.bar b, .axis span')).map(function (e) {"
        "var r = document.createRange(); r.selectNodeContents(e); return r.getClientRects().length; }))"
    )


def test_readable_on_a_phone(browser, tmp_path):
    browser.resize(390, 844, mobile=True)
    try:
        # Wide tables scroll by themselves; the page does not.
        assert browser.run("document.documentElement.scrollWidth") == 390
        small = browser.run(
            "Array.from(document.querySelectorAll('main *')).filter(function (e) {"
            "return e.children.length === 0 && e.textContent.trim() && e.getBoundingClientRect().width &&"
            "!e.closest('svg') && parseFloat(getComputedStyle(e).fontSize) < 11; }).length"
        )
        assert small == 0
        assert lines_of_labels(browser) == 1
        browser.screenshot(tmp_path / "phone.png")
    finally:
        browser.resize(1200, 900)
    width, height = png_size(tmp_path / "phone.png")
    assert width == 780 and height > 5000
    assert lines_of_labels(browser) == 1
    browser.screenshot(tmp_path / "desktop.png")
    assert png_size(tmp_path / "desktop.png")[0] == 1200


def test_text_has_contrast(browser):
    """Every text against its background, by the formula of WCAG 2: 4.5 and more."""
    low = browser.run(
        """
        (function () {
          function light(colour) {
            var parts = colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map(function (v) {
              v /= 255; return v <= 0.03928 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4);
            });
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          }
          function behind(e) {
            for (; e; e = e.parentElement) {
              var c = getComputedStyle(e).backgroundColor;
              if (!/, 0\\)$/.test(c)) { return c; }
            }
            return "rgb(255, 255, 255)";
          }
          return Array.from(document.querySelectorAll("main *")).filter(function (e) {
            return Array.from(e.childNodes).some(function (n) { return n.nodeType === 3 && n.textContent.trim(); })
              && e.tagName !== "title";
          }).map(function (e) {
            var style = getComputedStyle(e), svg = e.closest("svg");
            var a = light(svg ? style.fill : style.color), b = light(behind(e));
            return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName, e.textContent.slice(0, 30)];
          }).filter(function (x) { return x[0] < 4.5; });
        })()
        """
    )
    assert low == []


def test_prints_with_everything_unfolded(browser, tmp_path):
    browser.pdf(tmp_path / "report.pdf")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-") and len(content) > 50_000
    assert browser.run("document.querySelectorAll('.task details:not([open])').length") == 0
    assert browser.run("document.querySelectorAll('.task details').length") > 5


def test_works_by_keyboard(browser):
    browser.run("document.getElementById('f-task').focus()")
    assert browser.run("document.activeElement.id") == "f-task"
    # Tables that scroll can be reached, and say what they are.
    assert browser.run(
        "Array.from(document.querySelectorAll('.task .scroll')).every(function (e) {"
        "return e.tabIndex === 0 && e.getAttribute('aria-label'); })"
    )
    assert browser.run("Array.from(document.images).every(function (i) { return i.alt; })")
