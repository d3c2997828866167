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

import subprocess
import sys

import pytest

from trl_diagnostics import cli
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
        f"{file}:9:5: tests: 'jumps': fires at [13], expected never\n1 rule, 1 test, 1 problem\n",
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
    first = rule_file(tmp_path, GOOD.replace("condition: \"> 5", "condition: \"dropp(5)"), "boom")
    wrong = GOOD.replace("name: boom", "name: fails").replace("fires: 13", "fires: 12")
    second = rule_file(tmp_path, wrong.replace("severity: high", "severity: high\nwhen: {bta: 1}"), "fails")
    code, out, err = run(capsys, "rules", "check", tmp_path)
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        f"{first}:4:13: condition: unknown function 'dropp'; did you mean 'drop'?",
        "      dropp(5) for 3 steps",
        "      ^",
        f"{second}:6:7: when: no training argument 'bta'; did you mean 'beta'?",
        f"{second}:10:5: tests: 'jumps': fires at never, expected [12]",
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


@pytest.mark.parametrize("arguments", [[], ["ruels"], ["rules", "show"], ["rules", "check"], ["rules", "--trainer"]])
def test_usage_errors(arguments, capsys):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and err.startswith("usage: trl-diagnostics")


def test_help(capsys):
    assert run(capsys, "--help")[0] == 0
    assert run(capsys, "rules", "check", "--help")[0] == 0


def test_check_loads_no_training_library():
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sorted({'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)), 'end'))\n"
        f"from trl_diagnostics.cli import main\nmain(['rules', 'check', {str(BUILTIN / 'kto')!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "end"
