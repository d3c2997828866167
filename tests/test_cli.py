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

"""The command line: what each command prints, and its exit code."""

import os
import re
import subprocess
import sys

import pytest
from cli_kit import run_dir
from test_cli_after_a_run import checkpoint

from trl_diagnostics import __version__, cli
from trl_diagnostics.engine.rulebook import BUILTIN, collect_rules


GOOD = """\
name: boom
trainers: [grpo]
metric: kl
condition: "> 5 for 3 steps"
severity: high
message: "KL at {value:.1f}."
min_steps: 3
tests:
  - name: jumps
    series: 0.1~0.05x10 9~0.5x10
    fires: 13
"""


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as done:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


def rule_file(folder, text=GOOD, name="boom"):
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


def listed(out):
    return {line.split()[0] for line in out.splitlines()[:-1] if line[:1].strip()}


def test_rules_lists_all(capsys):
    code, out, err = run(capsys, "rules")
    rules = collect_rules()
    assert (code, err) == (0, "")
    assert listed(out) == {rule.name for rule in rules}
    assert out.splitlines()[-1] == f"{len(rules)} rules"


@pytest.mark.parametrize("trainer", ["dpo", "online_dpo", "OnlineDPO", "DPOTrainer"])
def test_rules_of_one_trainer(trainer, capsys):
    code, out, _ = run(capsys, "rules", "--trainer", trainer)
    assert code == 0
    names = listed(out)
    assert "grad_norm_zero" in names  # common
    wrong = [r.name for r in collect_rules() if r.name in names and {"kto", "grpo"} >= set(r.trainers)]
    assert names and wrong == []


def test_rules_of_a_trainer_that_does_not_exist(capsys):
    assert run(capsys, "rules", "--trainer", "grop") == (2, "", "--trainer: no trainer 'grop'; did you mean 'grpo'?\n")


def test_rules_by_severity_status_and_name(capsys):
    rules = collect_rules()
    code, out, _ = run(capsys, "rules", "--severity", "critical", "--severity", "low", "--status", "stable")
    wanted = [rule for rule in rules if str(rule.severity) in ("critical", "low") and rule.status == "stable"]
    assert (code, listed(out)) == (0, {rule.name for rule in wanted})
    assert out.split(" ")[0] == min(rule.name for rule in wanted if str(rule.severity) == "critical")
    code, out, _ = run(capsys, "rules", "--trainer", "kto", "kto_*", "lr_zero", "dpo_beta_*")
    assert code == 0 and "kto_beta_zero" in listed(out) and "lr_zero" in listed(out)
    assert "dpo_beta_zero" not in listed(out)
    assert run(capsys, "rules", "list", "--severity", "info", "lr_zero") == (0, "0 rules\n", "")


def test_no_option_of_the_list_is_lost(capsys):
    both = run(capsys, "rules", "list", "--severity", "high", "--severity", "low", "kto_*")
    assert run(capsys, "rules", "kto_*", "--severity", "high", "--severity", "low") == both
    assert " (high" in both[1] and " (low" in both[1]
    code, out, err = run(capsys, "rules", "--severity", "high", "list", "--severity", "low")
    assert (code, out) == (2, "") and err.startswith("rules: no rule 'list'")


def test_an_entry_of_the_list(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert run(capsys, "rules", "list", "nonfinite_loss") == (
        0,
        "nonfinite_loss (critical): all\n    The loss itself is NaN or infinite\n1 rule\n",
        "",
    )


def test_list_of_an_unknown_rule(capsys):
    assert run(capsys, "rules", "list", "lr_zer") == (2, "", "rules: no rule 'lr_zer'; did you mean 'lr_zero'?\n")


def test_explain(capsys):
    code, out, err = run(capsys, "explain", "dpo_loss_random")
    assert (code, err) == (0, "note: rule 'dpo_loss_random' is now 'dpo_stuck_at_start'\n")
    assert out.startswith("dpo_stuck_at_start: ") and "\nWhat to do\n" in out
    assert run(capsys, "explain", "rewards/margins")[1].startswith("reward_margin (")
    assert run(capsys, "explain", "kl", "--trainer", "KTOTrainer")[1].startswith("kl_reference_point (")


def test_explain_of_nothing_known(capsys):
    assert run(capsys, "explain", "reward_margn") == (
        2,
        "",
        "explain: no rule or metric 'reward_margn'; did you mean 'reward_margin'?\n",
    )
    assert run(capsys, "explain", "kl", "--trainer", "kot")[2] == "--trainer: no trainer 'kot'; did you mean 'kto'?\n"


def test_explain_of_what_the_trainer_does_not_log(capsys):
    loggers = "bco, cpo, dpo, kto, nashmd, onlinedpo, orpo, tpo, xpo"
    assert run(capsys, "explain", "rewards/margins", "--trainer", "grpo") == (
        2,
        "",
        f"explain: grpo does not log rewards/margins; {loggers} do\n",
    )
    code, out, err = run(capsys, "explain", "kl", "--trainer", "DPOTrainer")
    assert (code, out) == (2, "") and err.startswith("explain: dpo does not log kl; asyncgrpo, ") and "grpo" in err
    assert run(capsys, "explain", "objective/scores_margin", "--trainer", "sft")[2].endswith("; onlinedpo, xpo do\n")
    code, _, err = run(capsys, "explain", "kl", "--trainer", "")
    assert code == 2 and err.startswith("--trainer: no trainer ''; known are a2po, ")
    assert run(capsys, "rules", "--trainer", "")[::2] == (2, err)


def test_explain_of_a_rule_file(tmp_path, capsys):
    file = rule_file(tmp_path, GOOD + "unless: [lr_zero]\n")
    code, out, err = run(capsys, "explain", file, "lr_zero")
    assert (code, err) == (0, "")
    mine, builtin = out.split("\n\n\n")
    assert mine.startswith("boom: ") and "\n  lr_zero: " in mine and builtin.startswith("lr_zero: ")
    assert "Measured on" not in mine
    bad = rule_file(tmp_path, GOOD.replace("severity: high", "severity: hihg"), "bad")
    code, out, err = run(capsys, "explain", bad)
    assert (code, out) == (2, "") and err.startswith(f"{bad}:1:7: name: ") and "severity: 'hihg' is not one of" in err
    assert run(capsys, "explain", tmp_path / "no.yaml") == (2, "", f"{tmp_path}/no.yaml: no such file or folder\n")


def test_a_rule_of_ones_own_has_no_measured_accuracy(tmp_path, capsys):
    out = run(capsys, "explain", rule_file(tmp_path, GOOD.replace("name: boom", "name: lr_zero"), "lr_zero"))[1]
    assert out.startswith("lr_zero: ") and "Measured on" not in out


def test_explain_of_several(capsys):
    code, out, err = run(capsys, "explain", "lr_zero", "kto_beta_*", "rewards/mar*", "--trainer", "dpo")
    assert (code, err) == (0, "")
    assert [part.split()[0] for part in out.split("\n\n\n")] == ["lr_zero:", "kto_beta_zero:", "reward_margin"]
    assert run(capsys, "explain", "lr_zero", "qqq*") == (2, "", "explain: no rule or metric 'qqq*'\n")


def test_test_of_built_in_rules(capsys):
    code, out, err = run(capsys, "rules", "test", "kto_*", "lr_zero")
    assert (code, err) == (0, "")
    tests = {rule.name: len(rule.tests) for rule in collect_rules() if rule.name.startswith("kto_")}
    assert f"kto_beta_zero: {tests['kto_beta_zero']} tests, ok" in out.splitlines()
    assert {line.split(":")[0] for line in out.splitlines()[:-1]} == {*tests, "lr_zero"}
    assert out.splitlines()[-1].startswith(f"{len(tests) + 1} rules, ") and out.endswith(" tests, 0 failed\n")


def test_test_of_files(tmp_path, capsys):
    bad = GOOD.replace("fires: 13", "fires: [13, 15]").replace("name: boom", "name: bad")
    file = rule_file(tmp_path, bad + "  - name: quiet\n    series: 1~0.1x9\n    fires: never\n", "bad")
    rule_file(tmp_path)
    rule_file(tmp_path, GOOD.replace("name: boom", "name: untested").partition("tests:")[0], "untested")
    assert run(capsys, "rules", "test", tmp_path) == (
        1,
        "bad: 2 tests, 1 FAILED\n"
        f"    {file}:9:5: tests: 'jumps': fires at 13, expected 13, 15\n"
        "boom: 1 test, ok\n"
        "untested: 0 tests, none\n"
        "3 rules, 3 tests, 1 failed\n",
        "",
    )


def test_test_of_a_file_that_cannot_be_read(tmp_path, capsys):
    first = rule_file(tmp_path, GOOD.replace("severity: high", "severity: hihg"))
    rule_file(tmp_path, GOOD.replace("name: boom", "name: bang"), "bang")
    assert run(capsys, "rules", "test", tmp_path) == (
        1,
        "bang: 1 test, ok\n"
        f"{first}:5:11: severity: 'hihg' is not one of critical, high, medium, low, info; did you mean 'high'?\n"
        "1 rule, 1 test, 0 failed\n",
        "",
    )


def test_the_name_of_a_rule_is_never_that_of_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr_zero").mkdir()
    code, out, _ = run(capsys, "rules", "test", "lr_zero")
    assert code == 0 and out.startswith("lr_zero: ")
    rule_file(tmp_path)
    for path in (".", "./", "boom.yaml", f"..{os.sep}{tmp_path.name}"):
        assert run(capsys, "rules", "test", path)[1] == "boom: 1 test, ok\n1 rule, 1 test, 0 failed\n"
    assert run(capsys, "rules", "test", "boom.yaml", "lr_zero")[1].splitlines()[-1].startswith("2 rules, ")


def test_test_of_what_is_not_there(tmp_path, capsys):
    assert run(capsys, "rules", "test", tmp_path / "a.yaml")[::2] == (
        2,
        f"{tmp_path}/a.yaml: no such file or folder\n",
    )
    assert run(capsys, "rules", "test", "a.yaml")[::2] == (2, "rules test: no rule 'a.yaml'\n")
    assert run(capsys, "rules", "test", "kto_beta_zer")[::2] == (
        2,
        "rules test: no rule 'kto_beta_zer'; did you mean 'kto_beta_zero'?\n",
    )


def test_check_of_a_built_in_rule_wants_it_fit_to_be_built_in(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("trl_diagnostics.rule_files.BUILTIN", tmp_path)
    file = rule_file(tmp_path)
    code, out, _ = run(capsys, "rules", "check", file)
    assert code == 1
    assert out.splitlines() == [
        f"{file}:9:3: tests: needs a silent test on noisy data",
        f"{file}:1:1: reference: needs a URL",
        f"{file}:1:1: status: say stable or experimental",
        f"{file}:1:1: status: a stable rule needs 'why' and 'fix'",
        "1 rule, 1 test, 4 problems",
    ]


def test_show(capsys):
    code, out, err = run(capsys, "rules", "show", "grad_norm_zero")
    assert (code, err) == (0, "")
    assert out.startswith("grad_norm_zero: ")
    for field in ("severity", "trainers", "metric", "condition", "says", "why", "fix", "reference"):
        assert f"\n  {field}: " in out


def test_show_by_an_earlier_name(capsys):
    code, out, err = run(capsys, "rules", "show", "dpo_loss_random")
    assert (code, err) == (0, "note: rule 'dpo_loss_random' is now 'dpo_stuck_at_start'\n")
    assert out.startswith("dpo_stuck_at_start: ")


def test_a_closed_pipe_is_no_error():
    code = "from trl_diagnostics.cli import main; main(['rules'])"
    done = subprocess.run(f'{sys.executable} -c "{code}" | head -1', shell=True, capture_output=True, text=True)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1


def shell(command, **environment):
    arguments = command.replace("trl-diagnostics", f'"{sys.executable}" -m trl_diagnostics')
    return subprocess.run(arguments, shell=True, capture_output=True, env=os.environ | environment)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("trl-diagnostics rules >&-", b"there is nowhere to write to: the standard output is closed\n"),
        ("trl-diagnostics rules >/dev/full", b"trl-diagnostics: [Errno 28] No space left on device\n"),
        ("trl-diagnostics explain kl >/dev/full", b"trl-diagnostics: [Errno 28] No space left on device\n"),
        ("trl-diagnostics explain klll 2>/dev/full", b""),
    ],
)
def test_output_that_cannot_be_written(command, said, unbuffered):
    done = shell(command, PYTHONUNBUFFERED=unbuffered)
    assert (done.returncode, done.stderr) == (2, said)


def test_text_that_the_terminal_cannot_show(tmp_path):
    file = rule_file(tmp_path, GOOD.replace("name: jumps", "name: \u00fcber").replace("fires: 13", "fires: 9"))
    done = shell(f"trl-diagnostics rules check {file}", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"tests: '\\xfcber': fires at 13, expected 9" in done.stdout


def test_a_path_that_is_no_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    (tmp_path / os.fsdecode(b"\xff") / "boom.yaml").write_text(GOOD.replace("severity: high", "severity: hihg"))
    command = [sys.executable, "-m", "trl_diagnostics", "rules", "check"]
    done = subprocess.run([*command, folder], capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"") and b"\\udcff/boom.yaml:5:11: severity: " in done.stdout
    strict = os.environ | {"PYTHONIOENCODING": "utf-8"}  # which takes what Python itself has against it away
    done = subprocess.run([*command, folder + b"/a.yaml"], capture_output=True, env=strict)
    assert (done.returncode, done.stdout) == (2, b"") and done.stderr.endswith(b"a.yaml: no such file or folder\n")


def test_every_rule_can_be_shown(capsys):
    code, out, _ = run(capsys, "rules", "show", "*")
    assert code == 0
    assert all(f"\n{rule.name}: " in f"\n{out}" for rule in collect_rules())


def test_show_of_an_unknown_rule(capsys):
    assert run(capsys, "rules", "show", "grad_norm_zer") == (
        2,
        "",
        "rules show: no rule 'grad_norm_zer'; did you mean 'grad_norm_zero'?\n",
    )


def test_check_of_a_good_file(tmp_path, capsys):
    assert run(capsys, "rules", "check", rule_file(tmp_path)) == (0, "1 rule, 1 test, 0 problems\n", "")


def test_check_of_the_built_in_rules(capsys):
    code, out, _ = run(capsys, "rules", "check", BUILTIN)
    assert code == 0, out


def test_check_of_a_failing_test(tmp_path, capsys):
    file = rule_file(tmp_path, GOOD.replace("fires: 13", "fires: never"))
    assert run(capsys, "rules", "check", tmp_path) == (
        1,
        f"{file}:9:5: tests: 'jumps': fires at 13, expected never\n1 rule, 1 test, 1 problem\n",
        "",
    )


def test_check_of_misspelt_trainers_and_arguments(tmp_path, capsys):
    text = GOOD.replace("trainers: [grpo]", "trainers: [gpro, grpo]").replace(
        "severity: high", "severity: high\nwhen: {bta: 1}"
    )
    file = rule_file(tmp_path, text + "")
    code, out, _ = run(capsys, "rules", "check", file)
    assert code == 1
    assert f"{file}:2:11: trainers: TRL has no trainer 'gpro'; did you mean 'grpo'?" in out
    assert f"{file}:6:7: when: no training argument 'bta'; did you mean 'beta'?" in out


def test_check_reports_all_problems_of_all_files(tmp_path, capsys):
    first = rule_file(tmp_path, GOOD.replace("severity: high", "severity: hihg"), "boom")
    second = rule_file(tmp_path, GOOD.replace("name: boom", "name: bang").replace("metric: kl", "metric: kll"), "bang")
    code, out, err = run(capsys, "rules", "check", tmp_path)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"{second}:3:9: metric: 'kll' is not logged by any of [grpo]; did you mean 'kl'?",
        f"{first}:5:11: severity: 'hihg' is not one of critical, high, medium, low, info; did you mean 'high'?",
        "0 rules, 0 tests, 2 problems",
    ]


def test_check_goes_on_after_a_file_that_cannot_be_read(tmp_path, capsys):
    first = rule_file(tmp_path, GOOD.replace('condition: "> 5', 'condition: "dropp(5)'), "boom")
    wrong = GOOD.replace("name: boom", "name: fails").replace("fires: 13", "fires: 12")
    second = rule_file(tmp_path, wrong.replace("severity: high", "severity: high\nwhen: {bta: 1}"), "fails")
    code, out, err = run(capsys, "rules", "check", tmp_path)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"{first}:4:13: condition: unknown function 'dropp'; did you mean 'drop'?",
        "      dropp(5) for 3 steps",
        "      ^",
        f"{second}:6:7: when: no training argument 'bta'; did you mean 'beta'?",
        f"{second}:10:5: tests: 'jumps': never fires, expected 12; the rule does not apply, for bta is None: "
        "give the test a config",
        "1 rule, 1 test, 3 problems",
    ]


def test_check_of_a_rule_silenced_by_no_rule(tmp_path, capsys):
    file = rule_file(tmp_path, GOOD + "unless: [grad_norm_zer]\n")
    assert run(capsys, "rules", "check", file) == (
        1,
        f"{file}:12:9: unless: no rule 'grad_norm_zer'; did you mean 'grad_norm_zero'?\n1 rule, 1 test, 1 problem\n",
        "",
    )
    assert run(capsys, "rules", "check", rule_file(tmp_path, GOOD + "unless: [grad_norm_zero]\n"))[0] == 0


def test_check_of_paths_with_blanks(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / " a b"
    folder.mkdir()
    rule_file(folder, GOOD.replace('condition: "> 5', 'condition: "dropp(5)'))
    assert run(capsys, "rules", "check", " a b") == (
        1,
        " a b/boom.yaml:4:13: condition: unknown function 'dropp'; did you mean 'drop'?\n"
        "      dropp(5) for 3 steps\n      ^\n0 rules, 0 tests, 1 problem\n",
        "",
    )


def test_check_takes_a_file_once(tmp_path, capsys):
    file = rule_file(tmp_path)
    assert run(capsys, "rules", "check", file, file, tmp_path, f"{tmp_path}/../{tmp_path.name}") == (
        0,
        "1 rule, 1 test, 0 problems\n",
        "",
    )
    (tmp_path / "other").mkdir()
    second = rule_file(tmp_path / "other")
    assert f"{second}:1:7: name: 'boom' is also in {file}\n" in run(capsys, "rules", "check", tmp_path)[1]


def test_check_believes_unless_while_a_file_cannot_be_read(tmp_path, capsys):
    rule_file(tmp_path, GOOD.replace("name: boom", "name: fine") + "unless: [broken]\n", "fine")
    broken = rule_file(tmp_path, "name: broken\n", "broken")
    code, out, _ = run(capsys, "rules", "check", tmp_path)
    assert code == 1 and out.count(f"{broken}:1:1: field ") == 5 and "no rule 'broken'" not in out
    broken.unlink()
    assert ": unless: no rule 'broken'" in run(capsys, "rules", "check", tmp_path)[1]


def test_check_of_what_is_wrong_in_tests(tmp_path, capsys):
    tests = """\
tests:
  - {name: a, series: 1x9, fires: never, trainer: nope}
  - {name: b, series: "", fires: never}
  - {name: c, series: {kl: 1x9, reward: 1x0}, fires: never}
  - {name: d, series: 1e400x9, fires: never}
  - {name: e, series: 1x9, fires: never, trainer: 5}
  - {name: f, series: 1x9, fires: never, config: {logging_steps: all}}
"""
    file = rule_file(tmp_path, GOOD.partition("tests:")[0] + tests)
    assert run(capsys, "rules", "check", file)[1].splitlines() == [
        f"{file}:9:5: tests: 'a': trainer: TRL has no trainer 'nope'",
        f"{file}:10:5: tests: 'b': series: no points of 'kl'",
        f"{file}:11:5: tests: 'c': series: no points of 'reward'",
        f"{file}:12:5: tests: 'd': series: number 1e400 is too large",
        f"{file}:13:5: tests: 'e': trainer: expected a text, found 5",
        f"{file}:14:5: tests: 'f': config: logging_steps: expected a number, found 'all'",
        "1 rule, 6 tests, 6 problems",
    ]


def test_check_of_numbers_that_are_too_large(tmp_path, capsys):
    huge = "1" + "0" * 400
    text = GOOD.replace("severity: high", 'severity: high\nwhen: {beta: "> 1e400"}')
    tests = f"  - {{name: a, series: 1.0e+400, fires: never}}\n  - {{name: b, series: {huge}, fires: never}}\n"
    file = rule_file(tmp_path, text + tests)
    assert run(capsys, "rules", "check", file)[1].splitlines() == [
        f"{file}:6:7: when: beta: expected a finite number, found '1e400'",
        f"{file}:13:23: number 1.0e+400 is too large",
        f"{file}:14:23: number {huge} is too large",
        "0 rules, 0 tests, 3 problems",
    ]


def test_check_of_nothing(tmp_path, capsys):
    assert run(capsys, "rules", "check", tmp_path / "a.yaml", tmp_path / "b") == (
        2,
        "",
        f"{tmp_path}/a.yaml: no such file or folder\n{tmp_path}/b: no such file or folder\n",
    )
    assert run(capsys, "rules", "check", tmp_path) == (
        1,
        f"{tmp_path}: no rule files (*.yaml) in this folder\n0 rules, 0 tests, 1 problem\n",
        "",
    )


def test_an_error_of_our_own_is_no_finding(capsys, monkeypatch):
    monkeypatch.setattr("trl_diagnostics.commands.rules.list_rules", lambda args: {}["key"])
    code, out, err = run(capsys, "rules")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"trl-diagnostics: KeyError: 'key' \(test_cli.py, line \d+\); please report this error\n", err)


@pytest.mark.parametrize("arguments", [[], ["ruels"], ["rules", "show"], ["rules", "check"], ["rules", "--trainer"]])
def test_usage_errors(arguments, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and err.startswith("usage: trl-diagnostics")


def test_a_misspelt_option_has_the_usage_of_its_command(capsys):
    code, out, err = run(capsys, "diagnose", "out", "--raport=x")
    assert (code, out) == (2, "") and err.startswith("usage: trl-diagnostics diagnose ")
    assert err.endswith("diagnose: error: unrecognized arguments: --raport=x; did you mean '--report'?\n")


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"trl-diagnostics {__version__}\n", "")


def test_help(capsys):
    assert run(capsys, "--help")[0] == 0
    assert run(capsys, "rules", "check", "--help")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["rules", "check", str(BUILTIN / "kto")],
        *(["rules", "test", "kto_*"], ["explain", "kl"], ["rules"]),
        *(["postmortem", "."], ["watch", ".", "--once"], ["diagnose", "."], ["checkpoints", "."]),
    ],
)
def test_no_library_is_loaded_that_is_not_needed(arguments, tmp_path):
    """For a report alone Jinja2, for a training alone the rest."""
    checkpoint(tmp_path, 5)
    run_dir(tmp_path)
    code = (
        "import atexit, sys\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'jinja2'}\n"
        "atexit.register(lambda: print(*sorted(heavy & set(sys.modules)), 'end'))\n"
        f"from trl_diagnostics.cli import main\nmain({arguments!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "end"
