# Copyright 2020-2026 The HuggingFace Team. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""The HTML report in a real browser: nothing is loaded, nothing runs, everything is seen, on a phone and in the dark too."""

from dataclasses import replace
from pathlib import Path

import pytest
from browser_kit import CHROMIUM, Browser
from engine_kit import rule
from report_kit import MemoryRun, diagnosed, lab_run

from trl_diagnostics.engine.finding import Record
from trl_diagnostics.sinks.report import write_report


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "{{7*7}}",
    "</style><script>alert(2)</script>",
    '"><svg/onload=alert(3)>',
    "<img src=https://example.com/pixel.png>",
    "<link rel=stylesheet href=//example.com/a.css>",
    "javascript:alert(4)",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium on the path: apt-get install chromium, or any package that brings chromium or google-chrome",
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


def hostile_diagnosis():
    """Everything that a run, its rules or its data can name is an attack."""
    text = " ".join(HOSTILE)
    completion = f"The model answered: {text}"
    message = f"{{metric}} {completion}".replace("{{7*7}}", "{{{{7*7}}}}")
    own = [rule("> 0", name=f"own{i}", metric=name, message=message, window=1) for i, name in enumerate(HOSTILE)]
    own = [replace(one, why=text, fix=f"`{text}`", reference=HOSTILE) for one in own]
    own += [
        rule(
            "> 0",
            name="odd",
            metric="loss",
            message=completion.replace("{{7*7}}", "{{{{7*7}}}}"),
            severity="info",
            window=1,
        )
    ]
    records = [Record(i, 1.0 * i, "train", {**dict.fromkeys(HOSTILE, 1.0), "loss": 1.0}) for i in range(1, 31)]
    records += [Record(30, 30.0, "rank", dict.fromkeys(HOSTILE, 1.0) | {f"{name}_s": 2.0 for name in HOSTILE})]
    metadata = {"command": text, "dataset": dict.fromkeys(HOSTILE, completion), "arguments": {text: text}}
    run = MemoryRun(
        records, metadata=metadata, path=Path(text), notes=(text,), trainer_how=text, confidence=0.5, kind=text
    )
    ended = {"exit_reason": text, "what": text, "last_step": 30, "traceback": completion, "resume_command": text}
    return replace(diagnosed(run, own, broken={text: text}), postmortem=ended)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("hostile"), hostile_diagnosis())[1]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), diagnosed(lab_run("labels_swapped_later__dpo__0")))[1]


def check_is_clean(browser, page):
    """No message, no error, no dialog, no request but for the file itself, and every picture is there."""
    assert browser.of("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening") == []
    assert browser.of("Log.entryAdded") == []
    asked = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
    assert asked[0] == page.as_uri()
    assert all(url.startswith("data:image/png;base64,") for url in asked[1:])
    widths = browser.evaluate("Array.from(document.images, image => image.naturalWidth)")
    assert widths and min(widths) > 0
    return widths


def test_the_browser_would_notice(browser, tmp_path):
    """The checks below can fail: a page with a script, an error and a foreign picture is seen to have them."""
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://localhost:1/a.png'><script>console.error('x'); undefined_name</script>")
    browser.open(bad.as_uri())
    assert [call["type"] for call in browser.of("Runtime.consoleAPICalled")] == ["error"]
    assert len(browser.of("Runtime.exceptionThrown")) == 1
    assert browser.of("Log.entryAdded")
    assert [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")][1:] == [
        "http://localhost:1/a.png"
    ]
    assert browser.evaluate("document.images[0].naturalWidth") == 0


@pytest.mark.parametrize("width, dark", [(1200, False), (1200, True), (390, False), (390, True)])
def test_a_report_is_seen_whole(browser, report, width, dark):
    browser.open(report.as_uri(), width, dark=dark)
    assert len(check_is_clean(browser, report)) == 6
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    shown = browser.evaluate("Array.from(document.images, image => image.getBoundingClientRect().width)")
    assert min(shown) >= min(width - 80, 500)
    page = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert page == ("rgb(11, 11, 12)" if dark else "rgb(245, 246, 248)")


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_enough_contrast(browser, report, dark):
    """At least 4.5 to 1, as the Web Content Accessibility Guidelines ask for."""
    browser.open(report.as_uri(), dark=dark)
    assert browser.evaluate(CONTRAST) >= 4.5


CONTRAST = """(() => {
  const parts = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = parts(getComputedStyle(element).backgroundColor);
      if (color.length === 3) return color;
    }
    return [255, 255, 255];
  };
  const ratios = Array.from(document.querySelectorAll("p, h1, h2, h4, th, td, a, summary, .badge, strong")).map(element => {
    const [a, b] = [light(parts(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  });
  return Math.min(...ratios);
})()"""


def test_hostile_texts_do_nothing_and_are_all_shown(browser, hostile):
    browser.open(hostile.as_uri(), 390)
    check_is_clean(browser, hostile)
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert (
        browser.evaluate("document.querySelectorAll('script, svg, link, iframe, object, [onerror], [onload]').length")
        == 0
    )
    assert browser.evaluate("document.querySelectorAll('a[href^=\"javascript:\"]').length") == 0
    text = browser.evaluate("document.body.innerText")
    for name in HOSTILE:
        assert text.count(name) > 20
    assert "49" not in text


def test_without_plots_the_page_is_clean_too(browser, tmp_path):
    page = write_report(tmp_path, hostile_diagnosis(), plots=False)[1]
    browser.open(page.as_uri())
    assert browser.of("Log.entryAdded", "Runtime.exceptionThrown") == []
    assert browser.evaluate("document.images.length") == 0
