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

"""Calibration: arithmetic on runs made by hand, public logs, how a rule is varied, what is written."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import calibrate
import pytest
from calibration import roc
from calibration.measures import faults, healthy, named_within, never_named, of_rule, wilson
from calibration.pages import accuracy_page, hidden_section
from calibration.public import judge_folder
from calibration.runs import HELD_OUT, TUNED, Judged, files, judge_all, with_causes
from calibration.tables import by_logs, measured, table
from failure_lab import corpus
from scipy.stats import binomtest

from trl_diagnostics.engine.condition import parse_condition
from trl_diagnostics.engine.finding import Finding, Record, Severity
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.engine.rulebook import collect_rules


def said(rule: str, step: int, severity: str = "high", status: str = "stable") -> Finding:
    return Finding(rule, severity, "started", step, step, "loss", 0.0, "m", status=status)


def faulty(*findings: Finding, **fields) -> Judged:
    common = {"name": "f__sft", "seed": 0, "trainer": "sft", "fault": "f", "expected": ("right",), "onset": 10}
    return Judged(**common | {"symptoms": ("follows",), "logs": tuple(range(1, 31)), "findings": findings} | fields)


def fine(*findings: Finding, **fields) -> Judged:
    common = {"name": "healthy__sft", "seed": 0, "trainer": "sft", "records": 100}
    return Judged(**common | {"findings": findings} | fields)


def rule(condition: str, metric: str = "loss", severity: Severity = Severity.HIGH, **fields) -> Rule:
    return Rule("right", ("sft",), metric, parse_condition(condition), severity, "m", **fields)


@pytest.mark.parametrize(("hits", "total"), [(0, 7), (7, 7), (1, 2), (95, 100), (388, 388), (3, 1000)])
def test_the_interval_is_wilsons(hits, total):
    theirs = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(hits, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("findings", "caught", "remarked", "named_first", "false", "delay"),
    [
        ([], False, False, False, [], None),
        ([said("right", 10)], True, False, True, [], (0, 0)),
        ([said("right", 13)], True, False, True, [], (3, 3)),
        ([said("right", 9)], False, False, False, ["right"], None),  # before the fault nothing is wrong
        ([said("right", 12, "low")], False, True, False, [], (2, 2)),
        ([said("right", 12, "info")], False, False, False, [], None),
        ([said("follows", 11), said("right", 12)], True, False, False, [], (2, 2)),
        ([said("other", 11, "low"), said("right", 12)], True, False, True, [], (2, 2)),
        ([said("other", 11), said("right", 12)], True, False, False, ["other"], (2, 2)),
        ([said("follows", 9), said("right", 12)], True, False, False, ["follows"], (2, 2)),
    ],
)
def test_a_faulty_run_is_judged(findings, caught, remarked, named_first, false, delay):
    run = faulty(*findings)
    assert (run.caught, run.remarked, run.named_first) == (caught, remarked, named_first)
    assert [one.rule for one in run.false] == false
    assert run.delay == delay


@pytest.mark.parametrize(
    ("findings", "a_warning_can_be_asked_for", "only_a_remark_can"),
    [
        ([], False, False),
        ([said("right", 12, "low")], False, True),
        ([said("follows", 11, "low"), said("right", 12, "low")], False, False),
        ([said("follows", 11, "info"), said("right", 12, "low")], False, True),
        ([said("right", 12, "low"), said("follows", 13)], False, True),
        ([said("follows", 11, "low"), said("right", 12)], True, False),
        ([said("right", 9, "low"), said("right", 12, "low")], False, False),  # before the fault nothing is wrong
    ],
)
def test_what_counts_as_right_first(findings, a_warning_can_be_asked_for, only_a_remark_can):
    assert faulty(*findings).right_first == a_warning_can_be_asked_for
    assert faulty(*findings, low_only=True).right_first == only_a_remark_can


def test_the_delay_counts_logs_and_steps_from_the_first_log_that_can_show_the_fault():
    run = faulty(said("right", 40), onset=11, logging_steps=10, logs=(10, 20, 30, 40, 50))
    assert run.delay == (2, 20)


def test_faulty_runs_are_summed_up():
    runs = [
        faulty(said("right", 10)),
        faulty(said("right", 14, status="experimental")),
        faulty(said("other", 11), said("right", 30), name="f__dpo", logging_steps=10, logs=(10, 20, 30)),
        faulty(said("right", 10, "low"), name="g__sft", fault="g"),
        fine(said("other", 3)),
    ]
    one = faults(runs)
    assert (one.caught.hits, one.caught.total) == (3, 4)
    assert one.caught.raw == 0.75
    assert one.caught.by_recipe == pytest.approx(2 / 3)  # f__sft 1, f__dpo 1, g__sft 0
    assert one.caught.by_kind == 0.5  # f 1, g 0
    assert (one.by_stable.hits, one.noticed.hits, one.misled.hits) == (2, 4, 1)
    assert (one.right_first.hits, one.named_first.hits) == (2, 2)
    assert faults([replace(run, low_only=True) for run in runs]).right_first.hits == 3
    assert one.delays == {1: (0.0, 0.0, 3), 10: (2.0, 20.0, 1)}
    assert (one.delay, one.false) == (1.0, 1)
    assert never_named([*runs, faulty(said("right", 5), fault="h"), faulty(said("right", 10, "info"), fault="i")]) == [
        "h",
        "i",
    ]


def test_the_first_log_that_can_show_the_fault_is_log_1():
    runs = [faulty(said("right", step)) for step in (10, 11, 12, 13, 30)] + [faulty(said("other", 10)), fine()]
    assert [named_within(runs, logs).hits for logs in (1, 2, 3, 10, 20, 21, math.inf)] == [1, 2, 3, 4, 4, 5, 5]
    assert named_within(runs, 1).total == 6


def test_a_table_says_how_soon():
    late = {"logging_steps": 10, "seed": 9, "onset": 1, "logs": tuple(range(10, 301, 10))}
    runs = [faulty(said("right", 11)), faulty()]
    runs += [faulty(said("right", step, "low"), **late) for step in (10, 30, 120)] + [faulty(**late)]
    header, _, *rows = [line.strip("| ").split(" | ") for line in by_logs(runs).splitlines()]
    assert [cell.strip() for cell in header[3:]] == [
        "within 1 log",
        "within 3 logs",
        "within 10 logs",
        "later",
        "never",
    ]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["1", "held-out", "0", "-", "-", "-", "-", "-"],
        ["1", "tuned", "2", "0.0 %", "50.0 %", "50.0 %", "0.0 %", "50.0 %"],
        ["10", "held-out", "4", "25.0 %", "50.0 %", "50.0 %", "25.0 %", "25.0 %"],
        ["10", "tuned", "0", "-", "-", "-", "-", "-"],
    ]


def test_each_recipe_counts_once():
    runs = [faulty(said("right", 10), seed=seed) for seed in range(9)] + [faulty(name="f__dpo")]
    assert faults(runs).caught.raw == 0.9
    assert faults(runs).caught.by_recipe == 0.5


def test_healthy_runs_are_summed_up():
    runs = [
        fine(said("a", 1), said("b", 2, "medium"), said("c", 3, "low"), said("d", 4, "info")),
        fine(said("a", 1, status="experimental"), seed=2),
        fine(name="healthy__dpo", records=300),
        faulty(said("right", 10)),
    ]
    one = healthy(runs)
    assert (one.stopped.hits, one.stopped.total) == (1, 3)  # an experimental rule stops nothing
    assert (one.records, one.warnings, one.remarks) == (500, 3, 1)
    assert one.per_1000 == 6.0
    assert one.by_recipe == 7.5  # 20 and 10 of one recipe, 0 of the other
    assert one.interval[0] < 6.0 < one.interval[1]


def test_a_rule_is_summed_up():
    runs = [
        faulty(said("right", 12), said("right", 20)),
        faulty(said("right", 5)),  # fired, but before the fault
        faulty(),
        faulty(said("right", 12), expected=("other",), symptoms=("right",)),
        faulty(said("right", 12), expected=("other",), symptoms=()),
        fine(said("right", 3)),
    ]
    one = of_rule(rule("> 1"), runs)
    assert (one.precision.hits, one.precision.total) == (3, 5)
    assert (one.recall.hits, one.recall.total) == (1, 3)
    assert one.healthy == 1


def test_explain_shows_what_the_table_says_of_a_rule():
    healthy = [fine(said("right", 3)), fine(seed=2), fine(trainer="gkd"), fine(trainer="dpo")]  # GKD is an SFT trainer
    runs = [faulty(said("right", 12)), faulty(), *healthy]
    numbers = {
        "right when it fired": "1 of 2",
        "fired when expected": "1 of 2",
        "fired in healthy runs of its trainers": "1 of 3",
    }
    assert measured(runs, [rule("> 1")]) == {"right": numbers}
    assert measured(runs, [rule("> 1", severity=Severity.INFO)])["right"]["right when it fired"] == "-"
    assert measured([fine()], [rule("> 1")]) == {}


def test_no_runs_have_no_rate():
    assert math.isnan(faults([]).caught.raw) and math.isnan(healthy([]).per_1000) and math.isnan(faults([]).delay)


@pytest.mark.parametrize(
    ("condition", "factor", "expected"),
    [
        ("> 3", 2, "> 6"),
        ("> 1.2 * baseline(loss, 5)", 2, "> 1.4 * baseline(loss, 5)"),
        (">= 0.96", 0.25, ">= 0.99"),
        ("value - best(loss, 5) > 2.5 * std(loss, 9) and value > 2.5", 2, "value - best(loss, 5) > 5 * std(loss, 9) and value > 5"),
        ("step > 10 and entropy > 4 and loss < 0.3", 0.5, "step > 10 and entropy > 4 and loss < 0.15"),
        ("< 0.5 - 3 / sqrt(20 * config.n)", 2, "< 0.5 - 6 / sqrt(20 * config.n)"),
        ("last(loss) > 5 or not mean(loss, 2) <= 5", 2, "last(loss) > 10 or not mean(loss, 2) <= 10"),
        ("value == 7 and count(loss, 5) > 3 and drop(50%)", 0.5, "value == 7 and count(loss, 5) > 3 and drop(25%)"),
        ("outside(0.8, 1.25) for 3 steps", 2, "outside(0.6, 1.5) for 3 steps"),
    ],
)  # fmt: skip
def test_the_tuned_number_is_scaled(condition, factor, expected):
    varied = roc.variant(rule(condition), factor).condition
    wanted = parse_condition(expected)
    assert varied.test == wanted.test
    assert (varied.streak, varied.of) == (wanted.streak, wanted.of)


@pytest.mark.parametrize(
    "condition", ["== 0 for 3 steps", "nonfinite", "max(loss, 3) < 1e-6", "entropy > 4", "loss missing"]
)
def test_a_rule_without_a_tuned_number_has_no_curve(condition):
    assert roc.decisive(rule(condition)) is None


def test_the_chosen_number_is_the_rule_itself():
    one = rule("> 3")
    assert roc.variant(one, 1.0) == one
    assert roc.variant(one, 2.0).name == "right x2"


def test_a_curve_counts_what_each_variant_does():
    runs = [
        faulty(said("right", 12), said("right x0.5", 11)),
        faulty(said("right x0.5", 9), said("right x0.5", 30)),
        faulty(said("right x0.5", 11), expected=("other",), symptoms=()),
        fine(said("right x0.5", 1)),
        fine(trainer="dpo"),
    ]
    points = {point.factor: point for point in roc.curve(rule("> 3"), runs)}
    assert [points[1.0].number, points[0.5].number] == [3.0, 1.5]
    assert [(one.hits, one.total) for one in (points[1.0].caught, points[0.5].caught)] == [(1, 2), (2, 2)]
    assert [(one.hits, one.total) for one in (points[1.0].healthy, points[0.5].healthy)] == [(0, 1), (1, 1)]
    assert [(one.hits, one.total) for one in (points[1.0].elsewhere, points[0.5].elsewhere)] == [(0, 1), (1, 1)]


def test_most_built_in_rules_with_a_factor_have_a_curve():
    named = {one.name for one in collect_rules() if roc.decisive(one)}
    assert {"grad_norm_explosion", "loss_divergence", "entropy_collapse"} <= named
    assert named.isdisjoint({"lr_zero", "nonfinite_loss", "nonfinite_weights"})


def write_runs(folder, seeds=(0, 9)):
    """A learning rate of 0, found; the same fault, not to be seen; and a healthy run."""
    label = {"trainer": "sft", "trl_version": "1.16.0", "config": {"logging_steps": 1}, "replayed": False}
    for seed in seeds:
        for name, rate in (("found", 0.0), ("hidden", 1e-4), ("healthy", 1e-4)):
            fault = None if name == "healthy" else name
            one = label | {"name": f"{name}__made_up", "seed": seed, "fault": fault, "onset": fault and 2}
            one |= {"expected": ["lr_zero", "loss_divergence"] if fault else [], "symptoms": []}
            metrics = {"loss": 2.0, "grad_norm": 1.0, "learning_rate": rate}
            records = [Record(step, 0.0, "train", metrics) for step in range(1, 9)]
            corpus.write_run(folder / f"{name}__made_up__{seed}{corpus.SUFFIX}", one, records)


@pytest.fixture
def recorded(tmp_path):
    write_runs(tmp_path)
    return tmp_path


def test_what_the_logs_hide_has_a_section_of_its_own():
    shown = faulty(said("right", 10), seed=9)
    seen = faulty(said("right", 0), name="g__sft", fault="g", seed=9, onset=0, logs=tuple(range(31)), hidden=True)
    text = accuracy_page([shown, fine(seed=9), seen], [], "")
    summary, _, rest = text.partition("## What the logs hide")
    assert "The held-out half has 1 faulty runs of 1 kinds and 1 healthy runs" in summary and "| g " not in summary
    assert "The held-out half has 1 such runs of 1 kinds." in rest and "| g " in rest
    assert seen.delay == (0, 0) and "healthy runs that would" not in rest
    assert hidden_section([]) == ""


def test_files_are_chosen_by_name_and_half(recorded):
    assert [path.name for path in files(recorded, "f*")] == [
        "found__made_up__0.jsonl.gz",
        "found__made_up__9.jsonl.gz",
    ]
    assert {run.half for run in judge_all(recorded, [], half=TUNED)} == {TUNED}
    assert {run.half for run in judge_all(recorded, [], half=HELD_OUT)} == {HELD_OUT}


def test_a_run_is_replayed(recorded):
    runs = list(judge_all(recorded, collect_rules(), half=TUNED))
    assert [(run.name, run.caught, run.delay, run.records) for run in runs] == [
        ("found__made_up", True, (0, 0), 8),
        ("healthy__made_up", False, None, 8),
        ("hidden__made_up", False, None, 8),
    ]


@pytest.mark.parametrize(
    ("severities", "low_only"), [(("LOW", "LOW"), True), (("LOW", "MEDIUM"), False), (("LOW",), True), ((), False)]
)
def test_a_warning_can_be_asked_for_unless_all_right_answers_are_low(recorded, severities, low_only):
    names = ("lr_zero", "loss_divergence")
    rules = [
        replace(rule("> 9"), name=name, severity=Severity[one]) for name, one in zip(names, severities, strict=False)
    ]
    found, healthy_run, _ = judge_all(recorded, rules, half=TUNED)
    assert (found.low_only, healthy_run.low_only) == (low_only, False)


def test_what_is_not_needed_is_not_imported():
    command = (
        "import sys, calibrate; sys.exit(sorted({'torch', 'transformers', 'datasets', 'trl'} & sys.modules.keys()))"
    )
    scripts = calibrate.ROOT / "scripts"
    assert (
        subprocess.run([sys.executable, "-c", command], cwd=scripts, capture_output=True, check=False).stderr
        == b"[]\n"
    )


def test_only_chosen_rules_count_and_their_causes_come_along(recorded):
    rules = collect_rules()
    names = {one.name for one in with_causes(rules, {"lr_zero_late"})}
    assert names >= {"lr_zero_late", *next(one for one in rules if one.name == "lr_zero_late").unless}
    run = next(judge_all(recorded, rules, "found*", only_for={"loss_divergence"}))
    assert run.findings == ()


def test_the_summary_names_only_the_tuned_half(recorded, capsys):
    assert calibrate.main(["--runs", str(recorded), "--corpus", str(recorded / "none")]) == 0
    out = capsys.readouterr().out
    assert "| 1 of 2 (50.0 %) |" in out
    assert "By kind of fault, tuned" in out


def test_misses_are_of_the_tuned_half(recorded, capsys):
    assert calibrate.main(["--runs", str(recorded), "--misses"]) == 0
    assert capsys.readouterr().out == (
        "MISSED    hidden__made_up__0: 8 logs; onset 2, expected lr_zero or loss_divergence; fired: nothing\n"
    )


def test_misses_come_with_what_fired():
    runs = [
        faulty(said("right", 25)),
        faulty(said("right", 12), said("other", 20)),
        faulty(said("follows", 11), said("right", 12)),
        faulty(said("right", 12, "low")),
        faulty(said("right", 12, "low"), low_only=True),
        fine(said("other", 3)),
        fine(said("other", 3, "low")),
        faulty(said("right", 12)),
    ]
    lines = calibrate.misses(runs).splitlines()
    assert [line[:9].strip() for line in lines] == ["ALARM", "FALSE", "NOT FIRST", "LOW ONLY", "LATE"]
    assert lines[1] == "FALSE     f__sft__0: 30 logs; onset 10, expected right; fired: right(high)@12 other(high)@20"


def test_right_answers_that_no_rule_gives_are_told():
    assert calibrate.unwritten([faulty(), faulty(seed=9), fine()], [rule("> 1")]) == "follows, of f"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """What is written goes to a folder of the test."""
    monkeypatch.setattr(calibrate, "ROOT", tmp_path)
    monkeypatch.setattr(calibrate, "ACCURACY", tmp_path / "docs" / "accuracy.md")
    monkeypatch.setattr(calibrate, "MEASURED", tmp_path / "rules" / "accuracy.json")
    monkeypatch.setattr(calibrate, "ROC", tmp_path / "docs" / "accuracy_roc.md")


def test_page_and_numbers_are_written_and_found_stale(recorded, elsewhere, capsys):
    arguments = ["--runs", str(recorded), "--corpus", str(recorded / "none")]
    assert calibrate.main([*arguments, "--check"]) == 1
    assert calibrate.main([*arguments, "--write"]) == 0
    assert calibrate.main([*arguments, "--check"]) == 0
    text = calibrate.ACCURACY.read_text()
    assert "The held-out half has 2 faulty runs of 2 kinds and 1 healthy runs with 8 records." in text
    assert "Not named in any run, of either half: `hidden`." in text
    assert max(map(len, text.partition("## Summary")[0].splitlines())) <= 119
    assert json.loads(calibrate.MEASURED.read_text())["lr_zero"] == {
        "right when it fired": "1 of 1",
        "fired when expected": "1 of 2",
        "fired in healthy runs of its trainers": "0 of 1",
    }
    (recorded / "hidden__made_up__9.jsonl.gz").unlink()
    assert calibrate.main([*arguments, "--check"]) == 1
    unseen = f", but not verified is what it says about public logs: none in {recorded / 'none'}"
    assert capsys.readouterr().out.splitlines() == [
        "docs/accuracy.md is stale: run make calibrate",
        "rules/accuracy.json is stale: run make calibrate",
        f"wrote docs/accuracy.md{unseen}",
        "wrote rules/accuracy.json",
        f"docs/accuracy.md is up to date{unseen}",
        "rules/accuracy.json is up to date",
        "docs/accuracy.md is stale: run make calibrate",
        "rules/accuracy.json is stale: run make calibrate",
    ]


@pytest.mark.parametrize("written", ["ACCURACY", "MEASURED"])
def test_one_stale_file_is_enough_to_fail(recorded, elsewhere, written):
    arguments = ["--runs", str(recorded), "--corpus", str(recorded / "none")]
    calibrate.main([*arguments, "--write"])
    getattr(calibrate, written).write_text("# old")
    assert calibrate.main([*arguments, "--check"]) == 1


def test_what_the_page_says_about_public_logs_stays_where_there_are_none(tmp_path):
    page = tmp_path / "accuracy.md"
    assert "None were at hand" in calibrate.kept_public(page)
    page.write_text("# Accuracy\n\n## Public logs\n\n12 logs\n")
    assert calibrate.kept_public(page) == "## Public logs\n\n12 logs\n"


def test_what_the_page_says_about_public_logs_is_verified_where_there_are_some(recorded, elsewhere, capsys):
    public = recorded / "public"
    public.mkdir()
    (public / "a.json").write_text(json.dumps([{"step": step, "loss": 2.0} for step in range(1, 9)]))
    row = {"id": "a", "repo": "some/one", "trainer": "sft", "looks": "healthy", "documented": None}
    (public / "index.jsonl").write_text(json.dumps(row | {"file": "a.json", "trl_version": None}))
    arguments = ["--runs", str(recorded), "--corpus"]
    calibrate.main([*arguments, str(public), "--write"])
    assert calibrate.main([*arguments, str(public), "--check"]) == 0
    assert "not verified" not in capsys.readouterr().out
    assert calibrate.main([*arguments, str(recorded / "none"), "--check"]) == 0
    assert "not verified" in capsys.readouterr().out
    (public / "index.jsonl").write_text(json.dumps(row | {"file": "a.json", "trl_version": None, "looks": "unsure"}))
    assert calibrate.main([*arguments, str(public), "--check"]) == 1


def test_public_logs_are_looked_for_beside_the_repository():
    assert calibrate.PUBLIC == calibrate.ROOT.parent / "shared" / "corpus"


def test_the_page_of_curves_is_written(recorded, elsewhere):
    assert calibrate.main(["--runs", str(recorded), "--roc", "--write"]) == 0
    text = calibrate.ROC.read_text()
    assert "## loss_divergence" in text and "3 (chosen)" in text
    assert "## lr_zero\n" not in text


@pytest.mark.parametrize("flags", [[], ["--misses"], ["--roc"], ["--check"], ["--roc", "--check"]])
def test_no_runs_are_told(tmp_path, capsys, flags):
    assert calibrate.main(["--runs", str(tmp_path), "--corpus", str(tmp_path / "none"), *flags]) == 1
    assert capsys.readouterr().out == f"no runs in {tmp_path}: record them with `make lab`\n"


def test_no_runs_of_a_name_are_told(recorded, capsys):
    assert calibrate.main(["--runs", str(recorded), "--only", "gone*"]) == 1
    assert capsys.readouterr().out == f"no runs named gone* in {recorded}: record them with `make lab`\n"


def test_a_page_is_about_all_rules(capsys):
    with pytest.raises(SystemExit):
        calibrate.main(["--write", "--rules", "lr_*"])
    assert "a page is about all runs and all rules: leave --only and --rules away" in capsys.readouterr().err


def test_a_table_is_aligned():
    assert table(["a", "n"], [["long name", "1"], ["b", "22"]]) == (
        "| a         |  n |\n| --------- | -: |\n| long name |  1 |\n| b         | 22 |"
    )


def test_a_public_folder_is_judged(tmp_path):
    rows = [{"step": step, "loss": 0.5, "learning_rate": 0.0, "grad_norm": 1.0} for step in range(1, 9)]
    (tmp_path / "a.json").write_text(json.dumps({"max_steps": 100, "log_history": rows}))
    (tmp_path / "b.json").write_text("{}")
    about = {
        "id": "x",
        "repo": "r/x",
        "trainer": "sft",
        "trl_version": "==1.16.0",
        "looks": "broken",
        "documented": "so",
    }
    lines = [about | {"file": "a.json"}, about | {"file": "b.json", "trl_version": ">=0.9", "documented": None}]
    (tmp_path / "index.jsonl").write_text("\n".join(map(json.dumps, lines)))
    first, second = judge_folder(tmp_path, collect_rules())
    assert [one.rule for one in first.findings] == ["lr_zero"]
    assert (first.records, first.documented, first.warned, first.alarmed) == (8, True, True, True)
    assert second == replace(first, documented=False, records=0, findings=())
