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

"""What the user adds, takes away or gets wrong."""

import logging
import math

import pytest
import tiny
from callback_kit import LOSS_ALERT, Stage, findings, messages, started, train, write_rule

from trl_diagnostics import DiagnosticsCallback, DiagnosticsError


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on", "info_messages")


# What the user adds and takes away


def test_custom_alerts(tmp_path, caplog):
    callback = DiagnosticsCallback(custom_alerts=[LOSS_ALERT, "dpo: loss > -1 -> low: not here"])
    train("sft", tmp_path, callback, max_steps=35)
    assert started(findings(tmp_path)) == [("alert_loss_gt_minus_1_for_3_steps", 30)]
    (block,) = messages(caplog, "[HIGH]")
    assert block.splitlines()[0] == "[HIGH] alert_loss_gt_minus_1_for_3_steps  step 30 (since 1)"
    assert block.splitlines()[1].startswith("       loss is ")
    assert len(block.splitlines()) == 2


def test_custom_rule_and_a_replaced_built_in_one(tmp_path):
    folder = tmp_path / "rules"
    write_rule(folder, "boom")
    write_rule(folder, "lr_zero", metric="learning_rate", condition='"> 0 for 1 steps"', severity="low")
    callback = DiagnosticsCallback(custom_heuristics_dir=str(folder))
    stage = Stage(callback, tmp_path)
    for _ in range(5):
        stage.log({"loss": 1.0, "boom": 1.0, "learning_rate": 1e-3})
    assert started(callback.findings) == [("lr_zero", 2), ("boom", 2)] or started(callback.findings) == [
        ("boom", 2),
        ("lr_zero", 2),
    ]
    assert sum(rule.name == "lr_zero" for rule in callback.rules) == 1


def test_disable_takes_names_and_globs(tmp_path):
    write_rule(tmp_path / "rules", "boom", renamed_from="bang")
    everything = DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules")
    names = {rule.name for rule in everything.rules}
    few = DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules", disable=["kto_*", "boom"])
    assert names - {rule.name for rule in few.rules} == {"boom"} | {name for name in names if name.startswith("kto_")}
    with pytest.warns(FutureWarning, match="rule 'bang' is now 'boom'"):
        old = DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules", disable=["bang"])
    assert names - {rule.name for rule in old.rules} == {"boom"}


def test_on_finding_is_called_for_each_start_and_end(tmp_path):
    seen = []
    write_rule(tmp_path / "rules", "boom", window=2)
    stage = Stage(DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules", on_finding=seen.append), tmp_path)
    for value in [1.0, 1.0, 0.0, 0.0, 0.0]:
        stage.log({"loss": 1.0, "boom": value})
    assert [(finding.rule, finding.state, finding.step) for finding in seen] == [
        ("boom", "started", 2),
        ("boom", "resolved", 4),
    ]


def test_on_finding_that_raises_is_switched_off_and_training_goes_on(tmp_path, caplog):
    word = "zq7hunter"

    def broken(finding):
        raise KeyError("mine", f"password={word}")

    callback = DiagnosticsCallback(custom_alerts=[LOSS_ALERT], on_finding=broken)
    trainer = train("sft", tmp_path, callback, [tiny.PoisonWeights(32)], max_steps=36)
    assert trainer.state.global_step == 36
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    head, *trace = error.getMessage().splitlines()
    assert head == "TRL diagnostics: on_finding switched off after an error; training goes on"
    assert trace[0] == "Traceback (most recent call last):" and any(line.endswith("in broken") for line in trace)
    assert trace[-1] == "KeyError: ('mine', 'password=<redacted>')"
    assert word not in caplog.text
    assert len(findings(tmp_path)) >= 2  # the files and the other findings are not affected
    summary = messages(caplog, "TRL diagnostics: ")[-1]
    assert summary.endswith(
        "\n  Error of the diagnostics themselves: on_finding (KeyError: ('mine', 'password=<redacted>'))"
    )


def test_live_warnings_can_be_switched_off(tmp_path, caplog):
    train("sft", tmp_path, DiagnosticsCallback(custom_alerts=[LOSS_ALERT], enable_live_warnings=False), max_steps=32)
    assert messages(caplog, "[") == []
    assert messages(caplog, "TRL diagnostics: 1 high finding in 32 logs")
    assert len(findings(tmp_path)) == 1


def test_another_run_dir(tmp_path):
    callback = DiagnosticsCallback(run_dir=tmp_path / "there")
    train("sft", tmp_path / "out", callback, max_steps=2)
    assert (tmp_path / "there" / "metrics.jsonl").read_text().count("\n") == 4
    assert not (tmp_path / "out" / "diagnostics").exists()


def test_options_of_none_are_the_defaults():
    assert DiagnosticsCallback(custom_alerts=None, disable=None).rules == DiagnosticsCallback().rules


# Wrong arguments


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"stop_severity": "hihg"}, "stop_severity: 'hihg' is not one of critical, high, medium, low"),
        ({"stop_severity": "info"}, "stop_severity: 'info' is not one of critical, high, medium, low"),
        ({"stop_severity": None}, "stop_severity: None is not one of critical, high, medium, low"),
        (
            {"stop_on_critical": "yes"},
            "stop_on_critical: expected True or False, found 'yes'",
        ),
        (
            {"custom_alerts": ["gpro: reward > 1 -> high: x"]},
            "custom_alerts[0]:1: trainers: TRL has no trainer 'gpro'; did you mean 'grpo'?\n"
            "      gpro: reward > 1 -> high: x\n"
            "      ^",
        ),
        (
            {"custom_alerts": ["dpo: loss > config.beat -> high: x"]},
            "custom_alerts[0]:13: condition: no training argument 'beat'; did you mean 'beta'?\n"
            "      dpo: loss > config.beat -> high: x\n"
            "                  ^",
        ),
        (
            {"custom_alerts": "dpo: loss > 1 -> high: x"},
            "custom_alerts: expected a list of texts, found 'dpo: loss > 1 -> high: x'; put it in brackets",
        ),
        ({"custom_alerts": [3]}, "custom_alerts[0]: expected a text, found 3"),
        ({"disable": "kto_*"}, "disable: expected a list of texts, found 'kto_*'; put it in brackets"),
        ({"disable": [None]}, "disable[0]: expected a text, found None"),
        ({"disable": ["grad_norm_zer"]}, "disable: no rule 'grad_norm_zer'; did you mean 'grad_norm_zero'?"),
        ({"hang_timeout": 0}, "hang_timeout: expected a positive number of seconds, found 0"),
        ({"hang_timeout": "5 min"}, "hang_timeout: expected a positive number of seconds, found '5 min'"),
        ({"hang_timeout": True}, "hang_timeout: expected a positive number of seconds, found True"),
        ({"hang_timeout": math.nan}, "hang_timeout: expected a positive number of seconds, found nan"),
        ({"save_git_diff": "yes"}, "save_git_diff: expected True or False, found 'yes'"),
        ({"checkpoint_on_sigterm": 1}, "checkpoint_on_sigterm: expected True or False, found 1"),
        ({"fail_on_resume_mismatch": None}, "fail_on_resume_mismatch: expected True or False, found None"),
        ({"on_finding": "print"}, "on_finding: expected a function of one finding, found 'print'"),
        ({"run_dir": 3}, "run_dir: expected a path, found 3"),
        ({"custom_heuristics_dir": ["a", "b"]}, "custom_heuristics_dir: expected a path, found ['a', 'b']"),
        ({"custom_heuristics_dir": "/no/such/folder"}, "/no/such/folder: no such file or folder"),
        (
            {"custom_alerts": ["dpo: loss > -> high: x"]},
            "custom_alerts[0]:12: condition: expected a number, a metric or '(', found the end\n"
            "      dpo: loss > -> high: x\n"
            "                 ^",
        ),
        (
            {"custom_alerts": ["dpo loss > 1", "dpo: loss > 1 -> hihg: x"]},
            "custom_alerts[0]: expected '<trainer>: <condition> -> <severity>: <message>', found 'dpo loss > 1'\n"
            "custom_alerts[1]:18: severity: 'hihg' is not one of critical, high, medium, low, info; did you mean 'high'?\n"
            "      dpo: loss > 1 -> hihg: x\n"
            "                       ^",
        ),
    ],
)
def test_wrong_arguments_raise_at_construction(arguments, text):
    with pytest.raises(DiagnosticsError) as error:
        DiagnosticsCallback(**arguments)
    assert str(error.value) == text


def test_a_metric_that_nobody_logs_raises_with_the_nearest_name():
    with pytest.raises(DiagnosticsError) as error:
        DiagnosticsCallback(custom_alerts=["dpo: reward/margins < 0 -> high: x"])
    assert "'reward/margins' is not logged by any of [dpo]; did you mean 'rewards/margins' (reward_margin)?" in str(
        error.value
    )


def test_a_broken_rule_file_is_located(tmp_path):
    write_rule(tmp_path, "boom", severity="hihg")
    with pytest.raises(DiagnosticsError) as error:
        DiagnosticsCallback(custom_heuristics_dir=tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/boom.yaml:3:11: severity: 'hihg' is not one of ")
