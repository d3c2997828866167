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

"""`diagnose`: one run in full, a tree of runs as a table, JSON, reports and exit codes."""

import json
import math
from pathlib import Path

import pytest
from cli_kit import BROKEN, HEALTHY, jsonl, recorded, run, run_dir, run_json, shell, trackio

from trl_diagnostics.diagnosis import diagnose
from trl_diagnostics.engine.finding import Record
from trl_diagnostics.metrics.catalogue import index
from trl_diagnostics.sources.logs import open_run


def test_a_healthy_run(tmp_path, capsys):
    folder = run_dir(tmp_path)
    code, out, err = run(capsys, "diagnose", tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "no findings in 200 logs"
    assert f"Run {folder} (run directory), 200 logs up to step 200" in " ".join(out.split())  # a long path is wrapped
    assert any(line.startswith("Trainer  dpo, TRL ") for line in lines)


def test_the_root_cause_comes_first(tmp_path, capsys):
    run_dir(tmp_path, BROKEN)
    code, out, _ = run(capsys, "diagnose", tmp_path)
    made = diagnose(open_run(tmp_path))
    first = next(finding for finding in made.findings if finding.severity == "critical")
    assert code == 1
    assert " critical" in out.splitlines()[0]
    assert out.splitlines()[1].startswith(f"  1. [CRITICAL] {first.rule}  step {first.first_step}")


@pytest.mark.parametrize(
    ("name", "fail_on", "code"),
    [(HEALTHY, "low", 0), (BROKEN, "critical", 1), (BROKEN, "high", 1), (BROKEN, "never", 0)],
)
def test_exit_code_follows_fail_on(name, fail_on, code, tmp_path, capsys):
    run_dir(tmp_path, name)
    assert run(capsys, "diagnose", tmp_path, "--fail-on", fail_on)[0] == code


def test_a_finding_below_fail_on_is_no_failure(tmp_path, capsys):
    records = recorded()[1]
    for record in records:
        record.metrics["learning_rate"] = 0.0  # high in DPO
    run_dir(tmp_path, records=records)
    assert run(capsys, "diagnose", tmp_path, "--fail-on", "high")[0] == 1
    assert run(capsys, "diagnose", tmp_path, "--fail-on", "critical")[0] == 0


def test_an_experimental_rule_sets_no_exit_code(tmp_path, capsys):
    """As the README of the rules says."""
    path, rules = run_dir(tmp_path), tmp_path / "rules"
    rules.mkdir()
    rule = "name: mine\ntrainers: [dpo]\nmetric: loss\ncondition: '> 0 for 2 steps'\nseverity: high\nmessage: x\n"
    (rules / "mine.yaml").write_text(f"{rule}status: experimental\n")
    start = json.loads((path / "run_metadata_start.json").read_text())
    start["diagnostics"]["custom_heuristics_dir"] = str(rules)
    (path / "run_metadata_start.json").write_text(json.dumps(start))
    code, document = run_json(capsys, "diagnose", tmp_path)
    assert (code, document["runs"][0]["root"], document["runs"][0]["verdict"]) == (0, "mine", "high")
    (rules / "mine.yaml").write_text(rule)
    assert run(capsys, "diagnose", tmp_path)[0] == 1


def test_the_spelling_of_the_user(tmp_path, capsys, monkeypatch):
    run_dir(tmp_path / "my_run")
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "diagnose", "--input", "./my_run", "--make-plots")
    reports = tmp_path / "my_run" / "diagnostics" / "reports"
    assert (code, err) == (0, "")
    assert "Report   my_run/diagnostics/reports/run_report.html" in out
    assert (reports / "run_report.md").is_file() and list((reports / "plots").glob("*.png"))


def test_report_without_plots(tmp_path, capsys):
    run_dir(tmp_path / "a")
    assert run(capsys, "diagnose", tmp_path / "a", "--report", tmp_path / "r", "--no-plots")[0] == 0
    assert {file.name for file in (tmp_path / "r").iterdir()} == {"run_report.md", "run_report.html"}


def test_report_beside_a_log_file(tmp_path, capsys):
    file = jsonl(tmp_path / "log.jsonl", recorded()[1])
    assert run(capsys, "diagnose", file, "--plots")[0] == 0
    assert (tmp_path / "log.jsonl_report" / "run_report.html").is_file()


def test_reports_of_several_runs_have_folders_of_their_own(tmp_path, capsys):
    for name in ("a", "b"):
        run_dir(tmp_path / "runs" / name)
    assert run(capsys, "diagnose", tmp_path / "runs", "--report", tmp_path / "r", "--no-plots")[0] == 0
    assert sorted(str(file.relative_to(tmp_path / "r")) for file in tmp_path.glob("r/**/*.md")) == [
        "a/diagnostics/run_report.md",
        "b/diagnostics/run_report.md",
    ]


@pytest.mark.parametrize("report", [["--report", "r"], ["--report"]])
def test_no_two_runs_in_one_report(report, tmp_path, capsys, monkeypatch):
    """Files in one folder, files that differ in their ending, folders beside each other, and what they hold."""
    monkeypatch.chdir(tmp_path)
    records = recorded()[1][:60]
    files = [jsonl(Path(name), records) for name in ("a.jsonl", "b.jsonl", "b.json")]
    folders = [run_dir(Path(name), records=records) for name in ("c", "c/diagnostics/x")]
    state = {"global_step": 60, "log_history": [{"step": r.step, **r.metrics} for r in records]}
    for step in (30, 60):
        Path(f"out/checkpoint-{step}").mkdir(parents=True)
        Path(f"out/checkpoint-{step}/trainer_state.json").write_text(json.dumps(state))
    code, document = run_json(capsys, "diagnose", *files, *folders, "out", "--no-plots", *report)
    pages = [Path(path) for run in document["runs"] for path in run["report"]]
    assert code == 0 and len(set(pages)) == 2 * 6 and all(page.is_file() for page in pages)
    for entry in document["runs"]:
        assert f"`{entry['path']}" in Path(entry["report"][0]).read_text()
    assert not list(Path("out").glob("checkpoint-*/*report*"))


def test_paths_of_both_kinds_and_both_spellings(tmp_path, capsys, monkeypatch):
    """An absolute and a relative path, with `--input` and without; a run named in two ways is judged once."""
    monkeypatch.chdir(tmp_path)
    for name in "abc":
        run_dir(tmp_path / name)
    code, document = run_json(
        capsys, "diagnose", "a", tmp_path / "b", "--input", "c", tmp_path / "a", "--input", "./b"
    )
    assert (code, [entry["path"] for entry in document["runs"]]) == (
        0,
        ["a/diagnostics", f"{tmp_path}/b/diagnostics", "c/diagnostics"],
    )
    assert "\nb/diagnostics  dpo" in run(capsys, "diagnose", "a", tmp_path / "b")[1]


def test_pictures_are_left_out_of_a_report_that_is_asked_for(tmp_path, capsys):
    path = run_dir(tmp_path)
    assert run(capsys, "diagnose", path, "--no-plots")[0] == 0 and not (path / "reports").exists()
    assert run(capsys, "diagnose", path, "--plots", "--no-plots")[0] == 0
    assert {file.name for file in (path / "reports").iterdir()} == {"run_report.md", "run_report.html"}


def test_runs_of_a_trackio_project(tmp_path, capsys):
    file = trackio(tmp_path / "project.db", run1=recorded()[1][:60], run2=recorded(BROKEN)[1])
    code, out, err = run(capsys, "diagnose", file / "run1", "--report", "--no-plots")
    assert (code, err) == (0, "") and f"Run {file}/run1 (trackio), 60 logs up to step 60 " in " ".join(out.split())
    assert (tmp_path / "project.db_run1_report" / "run_report.md").is_file()
    assert run(capsys, "compare", file / "run1", file / "run2")[0] == 1
    assert run(capsys, "watch", file / "run1", "--once")[0] == 0
    assert run(capsys, "diagnose", file / "run3") == (2, "", f"{file}: no run 'run3', it has run1, run2\n")


def test_a_tree_of_runs_the_worst_first(tmp_path, capsys):
    run_dir(tmp_path / "good")
    run_dir(tmp_path / "bad", BROKEN, ended="exception")
    run_dir(tmp_path / "killed", ended="killed")
    jsonl(tmp_path / "short.jsonl", recorded()[1][:3])
    code, out, err = run(capsys, "diagnose", tmp_path)
    lines = out.splitlines()
    assert (code, err) == (1, "")
    assert lines[0] == "4 runs: 1 critical, 1 killed, 1 too short, 1 healthy"
    assert lines[2].split() == ["run", "trainer", "logs", "verdict", "first", "finding"]
    ordered = ["bad/diagnostics", "killed/diagnostics", "short.jsonl", "good/diagnostics"]
    assert [line.split()[0] for line in lines[3:7]] == ordered
    assert lines[3].endswith("; crashed at step 200") and lines[3].split()[3] == "critical"
    assert lines[4].split()[3:] == ["killed", *"killed at step 200".split()]
    assert lines[5].split()[2:5] == ["3", "too", "short"]
    assert " none by " in lines[6]
    assert lines[-1] == f"One of them in full: trl-diagnostics diagnose {tmp_path}/bad/diagnostics"
    for line in lines[3:7]:  # aligned
        assert line.index(line.split()[1]) == lines[2].index("trainer")


@pytest.mark.parametrize(
    ("logs", "verdict", "status"), [(10, "too short", "Not enough logs"), (60, "healthy", "Healthy")]
)
def test_diagnose_watch_and_the_report_agree_on_health(logs, verdict, status, tmp_path, capsys):
    path = run_dir(tmp_path, records=recorded()[1][:logs])
    document = run_json(capsys, "diagnose", path, "--report", "--no-plots")[1]
    assert document["runs"][0]["verdict"] == verdict
    assert run(capsys, "watch", path, "--once")[1].startswith(f"[{verdict.upper()}]")
    assert f" {status}\n" in (path / "reports" / "run_report.md").read_text().replace("**", "")


def test_a_run_that_died_before_its_first_log_is_a_run(tmp_path, capsys):
    path = run_dir(tmp_path, records=[], ended="oom")
    (path / "run_metadata_start.json").unlink()
    code, out, err = run(capsys, "diagnose", tmp_path)
    assert (code, err) == (1, "") and out.startswith("no findings in 0 logs; the run ran out of memory at step 200\n")
    assert run_json(capsys, "diagnose", path)[1]["runs"][0]["verdict"] == "out of memory"


@pytest.mark.parametrize(
    ("ended", "code", "verdict"),
    [
        *(("exception", 1, "crashed"), ("oom", 1, "out of memory"), ("killed", 1, "killed"), ("hang", 1, "hung")),
        *(("segfault", 1, "crashed"), ("interrupted", 0, "healthy"), ("sigterm", 0, "healthy")),
    ],
)
def test_a_run_that_failed_is_not_healthy(ended, code, verdict, tmp_path, capsys):
    path = run_dir(tmp_path, ended=ended)
    found = run_json(capsys, "diagnose", path, "--fail-on", "critical")
    assert (found[0], found[1]["runs"][0]["verdict"]) == (code, verdict)
    assert run(capsys, "diagnose", path, "--fail-on", "never")[0] == 0
    assert run(capsys, "watch", path, "--once")[1].startswith(f"[{verdict.upper()}] ")


def test_the_table_has_the_step_of_the_first_episode(tmp_path, capsys):
    values = [0.5] * 60 + [math.nan] * 5 + [0.5] * 40 + [math.nan] * 5
    records = [Record(i, 1e9 + i, "train", {"loss": value, "grad_norm": 1.0}) for i, value in enumerate(values, 1)]
    for name in "ab":
        run_dir(tmp_path / name, records=records)
    lines = run(capsys, "diagnose", tmp_path)[1].splitlines()
    assert lines[3].endswith("  nonfinite_loss, step 61")


def test_a_run_given_twice_is_judged_once(tmp_path, capsys):
    run_dir(tmp_path)
    code, document = run_json(capsys, "diagnose", tmp_path, tmp_path, tmp_path / "diagnostics")
    assert (code, len(document["runs"])) == (0, 1)


def test_a_file_that_cannot_be_read_among_others(tmp_path, capsys):
    run_dir(tmp_path / "good")
    (tmp_path / "bad.json").write_text('{"log_history": [{"loss": 1')
    code, out, _ = run(capsys, "diagnose", tmp_path / "good", tmp_path / "bad.json")
    assert code == 2
    assert out.startswith("2 runs: 1 unreadable, 1 healthy\n")
    code, document = run_json(capsys, "diagnose", tmp_path / "good", tmp_path / "bad.json")
    entries = {Path(entry["path"]).name: entry for entry in document["runs"]}
    assert (code, document["exit_code"]) == (2, 2)
    assert entries["bad.json"]["verdict"] == "unreadable" and entries["bad.json"]["error"]
    assert entries["diagnostics"]["verdict"] == "healthy"


def test_json_says_what_the_diagnosis_says(tmp_path, capsys):
    folder = run_dir(tmp_path, BROKEN)
    code, document = run_json(capsys, "diagnose", tmp_path)
    made = diagnose(open_run(folder))
    entry = document["runs"][0]
    assert (code, document["schema_version"], document["fail_on"]) == (1, 1, "high")
    assert entry["findings"] == json.loads(json.dumps([finding.to_json() for finding in made.findings]))
    assert entry["coverage"] == made.coverage
    assert (entry["records"], entry["last_step"], entry["verdict"]) == (40, 40, "critical")
    assert entry["root"] in {finding.rule for finding in made.findings if finding.severity == "critical"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "diagnose: no PATH; name a run directory, a log file or a folder with runs: trl-diagnostics diagnose out",
        ),
        ([""], "diagnose: PATH is empty; '.' is the current folder"),
        (["nowhere"], "nowhere: no such file or folder"),
        *(
            (
                ["empty", "--trl-version", text],
                f"--trl-version: {text!r} is no release, expected something like '0.24.0'",
            )
            for text in ("new", "9", "0.24.x", "0.24.0 or so", "")
        ),
        (
            ["empty"],
            "empty: no run in it: no run directory, no trainer_state.json, no log in a format that can be read",
        ),
        (["empty", "--trainer", "dop"], "--trainer: no trainer 'dop'; did you mean 'dpo'?"),
    ],
)
def test_usage(arguments, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert run(capsys, "diagnose", *arguments) == (2, "", said + "\n")


def test_a_release_newer_than_any_known(tmp_path, capsys):
    newest = index()["releases"][-1]
    said = f"TRL 99.9 is newer than {newest}, the newest release whose metrics are known; read as {newest}"
    log = jsonl(tmp_path / "log.jsonl", recorded()[1])
    code, out, _ = run(capsys, "diagnose", log, "--trl-version", "99.9")
    assert code == 0 and f"Note     {said}\n" in out
    for version, notes in [("99.9", [said]), (newest, []), (f"{newest}.dev0", []), ("0.24.0rc1", [])]:
        assert run_json(capsys, "diagnose", log, "--trl-version", version)[1]["runs"][0]["notes"] == notes


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    code, out, err = run(capsys, "diagnose", run_dir(tmp_path), "--report", tmp_path / "file", "--no-plots")
    said = "cannot be written (File exists); name a folder, which is created"
    assert (code, out, err) == (2, "", f"--report: {tmp_path}/file: {said}\n")


def test_a_file_of_a_run_directory_means_the_run(tmp_path, capsys):
    path = run_dir(tmp_path)
    (path / "findings.jsonl").write_text('{"rule": "kl_explosion", "step": 5}\n')
    assert run_json(capsys, "diagnose", path / "findings.jsonl")[1]["runs"][0]["records"] == 200


def test_a_single_log_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "bad.json").write_text('{"log_history": [{"loss": 1')
    code, out, err = run(capsys, "diagnose", tmp_path / "bad.json")
    assert (code, out) == (2, "") and err.startswith(f"{tmp_path}/bad.json: ")


def test_trainer_and_release_can_be_given(tmp_path, capsys):
    file = jsonl(tmp_path / "log.jsonl", recorded()[1])
    _, document = run_json(capsys, "diagnose", file, "--trainer", "KTOTrainer", "--trl-version", "0.24.0")
    assert (document["runs"][0]["trainer"], document["runs"][0]["trl_version"]) == ("kto", "0.24.0")
    assert document["runs"][0]["confidence"] == 1.0


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_lines_are_as_wide_as_the_terminal(columns, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    run_dir(tmp_path / "a_folder_with_a_name" / "x", BROKEN)
    run_dir(tmp_path / "a_folder_with_a_name" / "y")
    for arguments in (["."], ["a_folder_with_a_name/x"]):
        code, out, _ = run(capsys, "diagnose", *arguments)
        assert code == 1 and "\x1b" not in out
        assert max(len(line) for line in out.splitlines() if not line.startswith("One of them")) <= int(columns)


def test_in_a_pipe_no_path_is_cut(tmp_path):
    folders = [tmp_path / ("long_name_" * 12) / name for name in "ab"]
    for folder in (*folders, tmp_path / "c"):
        run_dir(folder)
    done = shell("diagnose", tmp_path, COLUMNS="")
    assert all(f"{folder.relative_to(tmp_path)}/diagnostics  dpo" in done.stdout for folder in folders)


def test_in_full_no_path_is_broken(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    folder = run_dir(tmp_path / ("long_name_" * 12))
    assert str(folder) in run(capsys, "diagnose", folder)[1]


def test_a_name_that_is_markup_stays_text(tmp_path, capsys):
    run_dir(tmp_path / "[red]x[/red]")
    run_dir(tmp_path / "b")
    code, out, _ = run(capsys, "diagnose", tmp_path)
    assert code == 0 and "[red]x[/red]/diagnostics" in out
    assert "[red]x[/red]" in run(capsys, "diagnose", tmp_path / "[red]x[/red]")[1]
