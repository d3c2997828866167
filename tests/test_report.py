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

"""The report: what it says in which words, that it is complete at once, and that a run's texts stay texts."""

import math
import re
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from engine_kit import rule
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from report_kit import MemoryRun, diagnosed, lab_run

from trl_diagnostics.engine.finding import Finding, Record
from trl_diagnostics.sinks import report, report_text
from trl_diagnostics.sinks.report import plain, prose, write_report
from trl_diagnostics.sources.advice import advise, judge_checkpoints
from trl_diagnostics.sources.checkpoints import Checkpoint
from trl_diagnostics.words import number


HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}`]('\"|*\n# x"


def finding(name="r", first=10, state="started", severity="high", **fields):
    texts = {"step": first + 1, "metric": "loss", "value": 1.0, "message": f"{name} is wrong.", **fields}
    return Finding(name, severity, state, first_step=first, **texts)


def over(name="r", first=10, end=20, **fields):
    return finding(name, first, "resolved", step=end, **fields)


def plain_run(n=30, **fields):
    return MemoryRun([Record(i, float(i), "train", {"loss": 1 / i}) for i in range(1, n + 1)], **fields)


def told(*findings, n=30, rules=(), **fields):
    """A diagnosis with these findings."""
    made = diagnosed(plain_run(n), list(rules))
    return replace(made, findings=findings, coverage={"a": "active", "b": "blind"}, **fields)


def verdict(*findings, **fields):
    made = told(*findings, **fields)
    return report_text.verdict(made, report_text.problems(made.findings))


def pages(diagnosis, folder, plots=False):
    files = write_report(folder, diagnosis, plots)
    return [file.read_text(encoding="utf-8") for file in files[:2]]


class Page(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


# What is said


def test_a_root_cause_has_its_cascade_inside():
    found = [finding("weights", severity="critical"), finding("kl", 12, cascade_of="weights"), finding("length", 5)]
    heads = report_text.problems(found)
    assert [head.finding.rule for head in heads] == ["length", "weights"]
    assert [follower.finding.rule for follower in heads[1].followers] == ["kl"]
    assert [problem.finding.rule for problem in report_text.everything(heads)] == ["length", "weights", "kl"]


def test_nothing_is_lost_when_a_cause_follows_itself_or_is_unknown():
    found = [finding("a", cascade_of="gone"), finding("b", cascade_of="c"), finding("c", cascade_of="b")]
    assert {problem.finding.rule for problem in report_text.everything(report_text.problems(found))} == {"a", "b", "c"}


def test_episodes_of_a_rule_are_one_problem():
    (problem,) = report_text.problems([finding(), over(), finding("r", 30), over("r", 30, 35), finding("r", 40)])
    assert problem.when == "step 10 to 20, 30 to 35, 40 to the end"
    assert problem.goes_on
    many = [item for i in range(10, 90, 10) for item in (finding("r", i), over("r", i, i + 5))]
    assert report_text.problems(many)[0].when == "step 10 to 15, 20 to 25, 30 to 35 and 5 more times"


@pytest.mark.parametrize(
    "findings, expected",
    [
        ([], "No problem was found in 30 logs, 1 rule watched."),
        ([finding()], "The run is probably wasted (since step 10): r is wrong."),
        ([finding(severity="critical")], "The run is ruined (since step 10): r is wrong."),
        ([finding(severity="medium")], "The result will suffer (since step 10): r is wrong."),
        ([finding(severity="low")], "The run looks healthy; worth knowing (since step 10): r is wrong."),
        ([finding(severity="info")], "No problem was found in 30 logs, 1 rule watched."),
        ([finding(), over()], "Something went wrong and was over later (step 10 to 20): r is wrong."),
        (
            [finding(severity="critical"), finding("kl", cascade_of="r"), finding("x", 20)],
            "The run is ruined (since step 10): r is wrong, and 1 finding follows from it; 1 other finding is listed "
            "below.",
        ),
        (
            [finding(severity="critical"), *(finding(f"k{i}", cascade_of="r") for i in range(2))],
            "The run is ruined (since step 10): r is wrong, and 2 findings follow from it.",
        ),
    ],
)
def test_the_verdict_is_one_sentence(findings, expected):
    assert verdict(*findings) == expected


@pytest.mark.parametrize(
    "reason, said",
    [
        ("completed", "No problem was found in 30 logs, 1 rule watched."),
        ("unfinished", "No problem was found in 30 logs, 1 rule watched."),
        ("interrupted", "No problem was found in 30 logs, 1 rule watched; it was interrupted by hand at step 31."),
        ("oom", "The run ran out of memory at step 31. Before that: no problem was found in 30 logs, 1 rule watched."),
        (
            "hang",
            "The run hung (no step came any more) at step 31. Before that: no problem was found in 30 logs, 1 rule "
            "watched.",
        ),
    ],
)
def test_the_verdict_says_how_a_run_ended_badly(reason, said):
    ended = {"exit_reason": reason, "last_step": 31}
    assert verdict(postmortem=ended) == said


def test_a_failed_run_is_ruined_by_its_worst_finding_or_by_its_end():
    ended = {"exit_reason": "killed", "last_step": 30}
    low, high = finding(severity="low"), finding(severity="high")
    assert verdict(low, postmortem=ended) == (
        "The run was killed from outside at step 30. Before that: the run looks healthy; worth knowing (since step 10): "
        "r is wrong."
    )
    assert verdict(high, postmortem=ended) == (
        "The run is probably wasted (since step 10): r is wrong; it was killed from outside at step 30."
    )


def test_the_headline_has_the_step_of_the_first_episode():
    assert verdict(finding(), over(), finding("r", 25)) == "The run is probably wasted (since step 10): r is wrong."


def test_a_crash_is_no_green_page(tmp_path):
    ended = {"exit_reason": "exception", "what": "ValueError: bad batch\nand more", "last_step": 31, "hangs": []}
    ended |= {"traceback": "Traceback:\n  <b>x</b>\nValueError: bad batch", "resume_command": "python train.py"}
    text, html = pages(told(postmortem=ended), tmp_path)
    assert "**Status:** Crashed at step 31: ValueError: bad batch\n" in text
    assert "## Key Insights\n\nNo finding came before the end.\n" in text
    assert (
        "## Recommended Actions\n\n1. Look at the traceback below: it says what to mend.\n\n"
        "2. To go on: `python train.py`\n" in text
    )
    assert "\n    Traceback:\n      <b>x</b>\n    ValueError: bad batch\n" in text
    assert "Nothing needs" not in text and "No problem" not in text.partition("## Key Insights")[2]
    assert "--tone: var(--high)" in html and "card ok" not in html


def test_a_hang_that_passed_is_named(tmp_path):
    hangs = [{"seconds": 25.1, "step": 14}]
    ended = {"exit_reason": "completed", "what": "Training reached its end, step 30.", "last_step": 30, "hangs": hangs}
    assert report_text.ended(told(postmortem=ended)) == (
        "The run came to its end at step 30. Before, it stood still for 25 s after step 14, and went on."
    )


def test_silence_is_no_health_without_enough_logs():
    made = replace(told(n=1), coverage={"a": "too few logs"})
    assert report_text.verdict(made, []) == "Nothing can be said: 1 log is too few for every rule."
    assert report_text.status(made, []) == "Not enough logs"
    whole = lab_run("healthy__sft__0")
    made = diagnosed(replace(whole, kept=whole.kept[:4]))
    assert re.fullmatch(
        r"No problem was found in 4 logs, \d+ rules? watched, \d+ need more logs to speak.",
        report_text.verdict(made, []),
    )
    assert report_text.status(made, []) == "Not enough logs"


@pytest.mark.parametrize(
    "findings, ended, expected",
    [
        ([], "completed", "Healthy"),
        ([], "sigterm", "Healthy, sigterm"),
        ([finding()], "completed", "Unhealthy (1 high finding)"),
        (
            [finding(), finding("b", severity="low")],
            "oom",
            "Unhealthy, out of memory at step 1 (1 high, 1 low findings)",
        ),
        ([finding(severity="low")], "killed", "Killed at step 1 (1 low finding)"),
        (
            [finding(severity="critical"), finding("k", cascade_of="r")],
            "completed",
            "Failed (1 critical, 1 high findings)",
        ),
    ],
)
def test_the_status(findings, ended, expected):
    made = told(*findings, postmortem={"exit_reason": ended, "last_step": 1})
    assert report_text.status(made, report_text.problems(findings)) == expected


def checkpoint(step=20, finite=True, note="", missing=(), suspect=()):
    parts = tuple(p for p in ("weights", "optimizer", "scheduler", "trainer state") if p not in missing)
    return Checkpoint(
        step, Path(f"out/checkpoint-{step}"), finite, note, parts, tuple(missing), suspect=tuple(suspect)
    )


@pytest.mark.parametrize(
    "found, expected",
    [
        ([], ("None", "There is no checkpoint on disk.")),
        ([checkpoint()], ("Yes", "`checkpoint-20`: all weights are finite and no finding speaks against it.")),
        (
            [checkpoint(missing=["optimizer"])],
            (
                "Yes",
                "`checkpoint-20`: all weights are finite and no finding speaks against it. To go on training it lacks "
                "optimizer.",
            ),
        ),
        (
            [checkpoint(finite=None, note="no time")],
            ("Probably", "`checkpoint-20`: no finding speaks against it. Its weights were not read: no time."),
        ),
        ([checkpoint(suspect=["b", "c"])], ("Doubtful", "`checkpoint-20`: b; c.")),
        ([checkpoint(suspect=["a since step 3", "b"])], ("No", "`checkpoint-20`: a since step 3; b.")),
        ([replace(checkpoint(), foreign="from another run")], ("None", "There is no checkpoint of this run on disk.")),
        (
            [checkpoint(10), checkpoint(finite=False, note="lm_head is NaN")],
            ("No", "`checkpoint-20`: its weights are not finite (lm_head is NaN)."),
        ),
        ([checkpoint(missing=["weights"])], ("No", "`checkpoint-20`: its weights are missing or damaged.")),
    ],
)
def test_whether_the_last_checkpoint_is_good(found, expected):
    made = told(finding("a"), checkpoints=tuple(found))
    assert report_text.last_checkpoint(made) == expected


def test_the_settings_that_a_fix_speaks_of():
    one = finding(fix="Lower `learning_rate`, set `beta=0.1` or `missing`. Use `optim`, `lora`.")
    config = {"learning_rate": 5e-5, "beta": 2, "optim": "adamw", "other": 1, "lora": list(range(90))}
    long = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16..."
    assert report_text.settings(one, config) == f"`learning_rate=5e-05`, `beta=2`, `optim='adamw'`, `lora={long}`"


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "null"),
        (math.nan, "NaN"),
        (math.inf, "infinite"),
        (-math.inf, "-infinite"),
        (3.0, "3"),
        (12345.0, "12,345"),
    ]
    + [(0.123456, "0.1235"), (1e300, "1e+300"), (True, "1"), (7, "7")],
)
def test_numbers_for_people(value, text):
    assert number(value) == text


def test_how_often_a_rule_was_right():
    assert re.fullmatch(
        r"Right in \d+ of \d+ recorded runs in which it fired.*\.", report_text.accuracy("nonfinite_weights")
    )
    assert report_text.accuracy("no_such_rule") == ""


def test_the_user_s_own_rule_is_not_said_to_be_measured(tmp_path):
    own = rule("> 0", name="nonfinite_weights", metric="loss", window=1)
    _, html = pages(diagnosed(plain_run(), [own]), tmp_path)
    assert "nonfinite_weights" in html and "Right in" not in html


def test_provenance_is_flat():
    data = {"git": {"commit": "abc", "dirty": False}, "empty": {}, "none": None, "seeds": [1, 2], "long": "x" * 600}
    assert report_text.flat(data) == [
        ("git.commit", "abc"),
        ("git.dirty", "false"),
        ("seeds", "[1, 2]"),
        ("long", "x" * 500 + " ..."),
    ]


# The files


def test_the_markdown_keeps_its_shape(tmp_path):
    made = told(
        finding(
            severity="critical",
            message="Loss `x`\nis 5.",
            why="It broke.",
            fix="Lower `beta`.",
            reference=["https://a.b/c"],
        ),
        finding("kl", 12, message="KL is high.", cascade_of="r", reference=["not a link"]),
        finding("odd", severity="info", message="Odd but normal."),
        checkpoints=(checkpoint(),),
        postmortem={
            "exit_reason": "oom",
            "what": "CUDA",
            "last_step": 30,
            "resume_command": "python a.py",
            "traceback": None,
        },
    )
    made = replace(made, run=replace(made.run, config={"beta": 0.5}, metadata={"git": {"commit": "abc"}}))
    text, _ = pages(made, tmp_path)
    assert text.startswith(
        "# RLHF Run Diagnostic Report\n\n**Trainer:** dpo (TRL 1.16.0) **Status:** Failed, out of memory at step 30 (1 critical, 1 high findings)\n\n"
        "The run is ruined (since step 10): Loss `x` is 5, and 1 finding follows from it; it ran out of memory at step 30.\n"
    )
    assert "\n## Key Insights\n\n[CRITICAL] r: Loss `x` is 5. (step 10 to the end)\n" in text
    assert "\n*Ref*: <https://a.b/c>\n" in text and "\n*Ref*: not a link\n" in text
    assert "\n[HIGH] kl: KL is high. (step 12 to the end) Follows r.\n" in text
    assert "\n## Recommended Actions\n\n1. **r**: Lower `beta`. Now: `beta=0.5`.\n\n2. Use less memory: " in text
    assert "\n## How the run ended\n\nThe run ran out of memory at step 30. CUDA\n" in text
    assert "\n- odd (step 10): Odd but normal.\n" in text
    assert "\n- git.commit: abc\n" in text
    assert "\n## Settings\n\n`beta=0.5`\n" in text
    assert re.search(r"\n\n\n", text) is None
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# RLHF Run Diagnostic Report",
        *(f"## {name}" for name in ("Key Insights", "Recommended Actions", "Is my last checkpoint good?")),
        *(
            f"## {name}"
            for name in ("How the run ended", "Normal here", "Settings", "Metrics", "Coverage", "Provenance")
        ),
    ]


def test_the_html_has_all_sections(tmp_path):
    made = told(finding(severity="critical"), finding("kl", 12, cascade_of="r"), checkpoints=(checkpoint(),))
    advice = advise(judge_checkpoints(made.checkpoints))
    text, html = pages(replace(made, advice=advice), tmp_path)
    assert "\nTo go on training: checkpoint-20. " in text and "\nTo ship: checkpoint-20. " in text
    page = Page(html)
    assert ("details", {"class": "cascade"}) in page.tags
    for text in ("Root cause", "1 finding that follows from it", "To ship:", "Active: 1", "Blind: a metric they need"):
        assert text in page.text
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "form"})
    for section in ("Distributed", "Timing", "How the run ended", "Normal here"):
        assert section not in page.text  # nothing to say


def test_distributed_and_timing_are_there_when_their_records_are(tmp_path):
    records = [Record(i, float(i), "train", {"loss": 1.0, "step_time": i / 10}) for i in range(1, 31)]
    records += [Record(30, 30.0, "rank", {"rank_step_time_max": 4.5, "rank_skew": 2.0})]
    text, html = pages(diagnosed(MemoryRun(records)), tmp_path, plots=True)
    assert "\n## Distributed\n\n| metric | unit | mean | lowest | highest |\n" in text
    assert "\n| rank_step_time_max |  | 4.5 | 4.5 | 4.5 |\n" in text
    assert "\n## Timing\n" in text and "\n| step_time | s | 1.55 | 0.1 | 3 |\n" in text
    assert "rank_skew" in html and "Timing" in html


def test_plots_are_in_the_folder_and_in_the_page(tmp_path):
    made = diagnosed(lab_run("nan_batch__dpo__0"))
    files = write_report(tmp_path, made)
    assert [file.relative_to(tmp_path).as_posix() for file in files[:3]] == [
        "run_report.md",
        "run_report.html",
        "plots/key_metrics.png",
    ]
    text, html = (file.read_text() for file in files[:2])
    for file in files[2:]:
        assert f"(plots/{file.name})" in text
        with Image.open(file) as picture:
            picture.verify()
    sources = [attributes["src"] for tag, attributes in Page(html).tags if tag == "img"]
    assert len(sources) == len(files) - 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_at_most_ten_findings_are_drawn_and_the_rest_is_named(tmp_path):
    made = told(*(finding(f"rule{i}", 10 + i) for i in range(13)))
    start = time.process_time()
    files = write_report(tmp_path, made)
    assert time.process_time() - start < 5
    assert len(list((tmp_path / "plots").iterdir())) == 11 == len(files) - 2
    for file in files[:2]:
        assert "Not drawn, to keep the report short:" in file.read_text()
    assert "`rule10`, `rule11`, `rule12`." in files[0].read_text()


def test_a_metric_with_one_point_is_not_drawn(tmp_path):
    records = [Record(i, float(i), "train", {"loss": 1.0} | ({"once": 1.0} if i == 5 else {})) for i in range(1, 31)]
    made = replace(told(finding("a", 5, metric="once"), finding("b")), run=MemoryRun(records))
    write_report(tmp_path, made)
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == ["b__loss.png", "key_metrics.png"]


def test_what_matters_of_the_arguments_and_of_the_provenance(tmp_path):
    config = {
        "learning_rate": 5e-6,
        "beta": 0.0,
        "loss_type": ["sigmoid"],
        "max_steps": -1,
        "bf16": True,
        "fp16": False,
    }
    config |= {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "save_steps": 50,
        "max_length": None,
    }
    metadata = {"arguments": config, "world_size": 2, "packages": {"torch": "2.9", "numpy": "2.4"}}
    text, html = pages(diagnosed(plain_run(config=config, metadata=metadata)), tmp_path)
    chosen = "`effective_batch_size=16`, `learning_rate=5e-06`, `beta=0`, `loss_type=['sigmoid']`, `bf16=True`"
    assert f"\n## Settings\n\n{chosen}\n" in text
    assert "<code>learning_rate=5e-06</code>" in html
    assert "- packages.torch: 2.9\n" in text and "numpy" not in text and "packages.numpy" in html
    assert "\nAll 3 entries and 9 training arguments are in `run_report.html`.\n" in text


def test_without_matplotlib_the_report_says_how_to_get_plots(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    files = write_report(tmp_path, told(finding()))
    assert [file.name for file in files] == ["run_report.md", "run_report.html"]
    for file in files:
        assert "matplotlib is not installed" in file.read_text()
    assert "`pip install matplotlib`." in files[0].read_text()


def test_a_report_is_complete_or_the_old_one_stays(tmp_path, monkeypatch):
    write_report(tmp_path, told(), plots=False)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert [file.suffix for file in sorted(before)] == [".html", ".md"]
    with monkeypatch.context() as patch:
        patch.setattr(report.report_text, "verdict", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_report(tmp_path, told(finding()), plots=False)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    write_report(tmp_path, told(finding()), plots=False)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()}.keys() == before.keys()


def test_an_empty_run_has_a_report(tmp_path):
    text, _ = pages(diagnosed(MemoryRun([])), tmp_path, plots=True)
    assert "Nothing can be said: 0 logs are too few for every rule." in text


def test_a_guessed_trainer_and_what_was_not_read_are_said(tmp_path):
    run = plain_run(kind="CSV", trainer_how="its columns", confidence=0.7, trl_version=None, notes=("3 rows | torn",))
    text, html = pages(diagnosed(run), tmp_path)
    assert "The trainer was guessed: its columns (confidence 70 %).\n" in text
    assert "\nNote: 3 rows \\| torn\n" in text and "3 rows | torn" in html


# Texts stay texts


def hostile_diagnosis():
    own = rule(
        "> 0",
        name="own",
        metric=HOSTILE,
        message=f"{{metric}} and {HOSTILE.replace('{', '{{').replace('}', '}}')}",
        window=1,
    )
    own = replace(own, why=HOSTILE, fix=HOSTILE, reference=(HOSTILE, "javascript:alert(1)"))
    records = [Record(i, float(i), "train", {HOSTILE: 1.0, "loss": 1.0}) for i in range(1, 31)]
    metadata = {"command": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}}
    run = MemoryRun(
        records, metadata=metadata, path=Path(HOSTILE), notes=(HOSTILE,), trainer_how=HOSTILE, confidence=0.5
    )
    ended = {
        "exit_reason": "exception",
        "what": HOSTILE,
        "last_step": 30,
        "traceback": HOSTILE,
        "resume_command": HOSTILE,
    }
    return diagnosed(run, [own], broken={HOSTILE: HOSTILE}, postmortem=ended)


def test_hostile_texts_stay_text_in_html(tmp_path):
    write_report(tmp_path, hostile_diagnosis())
    html = (tmp_path / "run_report.html").read_text()
    page = Page(html)
    assert "<img src=x onerror=alert(1)>{{7*7}}" in page.text and "49" not in page.text
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert all(a["src"].startswith("data:image/png;") for tag, a in page.tags if tag == "img")
    assert not any(a.get("href", "https:").startswith("javascript:") for _, a in page.tags)


def test_hostile_texts_stay_text_in_markdown(tmp_path):
    text, _ = pages(hostile_diagnosis(), tmp_path, plots=True)
    tokens = [
        child
        for token in MarkdownIt("gfm-like", {"linkify": False}).parse(text)
        for child in (token, *(token.children or ()))
    ]
    assert {t.type for t in tokens}.isdisjoint({"html_block", "html_inline"})
    pictures = [t.attrs["src"] for t in tokens if t.type == "image"]
    assert pictures and all(re.fullmatch(r"plots/[\w-]+\.png", source) for source in pictures)
    assert [t.attrs["href"] for t in tokens if t.type == "link_open"] == []
    assert {t.content for t in tokens if t.type == "heading_open"} == {""}
    assert len([t for t in tokens if t.type == "heading_open"]) == len(re.findall(r"^#+ ", text, re.MULTILINE)) == 8


def test_a_path_and_a_message_that_are_no_text(tmp_path):
    run = plain_run(path=Path("out/\udcff"))
    ended = {"exit_reason": "exception", "what": "ValueError: \udc80", "last_step": 30, "traceback": ""}
    for text in pages(diagnosed(run, [], postmortem=ended | {"resume_command": ""}), tmp_path):
        assert "out/\\udcff" in text and "ValueError: \\udc80" in text


@settings(max_examples=150)
@given(st.text(alphabet="a `<>![]()*_|\\\"'&{}#\n-:/1.xé"))
def test_any_text_is_one_harmless_line_of_markdown(text):
    shown = plain(text)
    assert "\n" not in shown
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parseInline(f"x {shown}")
    kinds = {child.type for token in tokens for child in token.children}
    assert kinds <= {"text", "code_inline", "text_special", "em_open", "em_close", "strong_open", "strong_close"}


@given(st.text())
def test_any_text_is_text_in_html(text):
    page = Page(f"<p>{prose(text)}</p>")
    assert {tag for tag, _ in page.tags} <= {"p", "code"}
    kept = re.sub(r"`([^`\n]+)`", r"\1", text)
    assert page.text == kept


# Speed


class LongRun(MemoryRun):
    def records(self):
        pytest.fail("there is no time to read them again")


def test_a_report_without_plots_takes_no_half_second_however_long_the_run(tmp_path):
    made = diagnosed(lab_run("labels_swapped_later__dpo__0"))
    made = replace(made, run=LongRun(**vars(made.run)))
    write_report(tmp_path, made, plots=False)  # templates are compiled once
    start = time.process_time()
    write_report(tmp_path, made, plots=False)
    assert time.process_time() - start < 0.5
    assert "Written in haste, without pictures and timing" in (tmp_path / "run_report.md").read_text()
