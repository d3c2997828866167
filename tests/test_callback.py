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

"""`DiagnosticsCallback` on real trainings of tiny models: what it says, what it writes, and what it leaves alone."""

import json
import logging
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_data
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, GRPOConfig, SFTConfig

from trl_diagnostics import DiagnosticsCallback, DiagnosticsError, Engine, Finding, Record
from trl_diagnostics.sinks import run_dir


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on")

KL_ALERT = "all: `boom` > 0.5 for 1 steps -> high: boom at {value:.1f}"
LOSS_ALERT = "all: loss > -1 for 3 steps -> high: loss is {value:.1f}"
CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1}


@pytest.fixture(autouse=True)
def info_messages(caplog):
    caplog.set_level(logging.INFO, "trl_diagnostics")


def train(kind, folder, callback=None, others=(), resume=None, **overrides):
    trainer = tiny.make_trainer(kind, folder, [*([callback] if callback else []), *others], **overrides)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def lines(folder, name):
    file = Path(folder) / "diagnostics" / name
    return (
        [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
        if file.exists()
        else []
    )


def records(folder):
    return [Record.from_json(line) for line in lines(folder, "metrics.jsonl")]


def findings(folder):
    return [Finding.from_json(line) for line in lines(folder, "findings.jsonl")]


def started(found):
    return [(finding.rule, finding.step) for finding in found if finding.state == "started"]


def without_resume(found):
    """Without those about the resume itself, for a changed folder or a new commit."""
    return [finding for finding in found if not finding.rule.startswith("resume_")]


def messages(caplog, start=""):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(start)]


def replay(callback, folder):
    """What a new engine says about the records on disk."""
    engine = Engine(callback.rules, callback.engine.trainer, callback.engine.config, callback.metric_map)
    return [finding.to_json() for record in records(folder) for finding in engine.update(record)]


def bad(found, least=("critical", "high", "medium", "low")):
    return [finding.rule for finding in found if finding.severity in least]


def problems(found):
    """Without those that say that something is normal."""
    return [finding for finding in found if finding.severity != "info"]


class Stage:
    """A training run without a trainer: logs are handed to the callback as the Trainer hands them."""

    def __init__(self, callback, folder, config=SFTConfig, **overrides):
        self.callback, self.step = callback, 0
        self.args = config(output_dir=str(folder), **(CPU | overrides))
        self.state = TrainerState(max_steps=1000, logging_steps=self.args.logging_steps, num_train_epochs=3)
        self.control = TrainerControl()
        callback.on_train_begin(self.args, self.state, self.control)

    def log(self, logs, **kwargs):
        self.state.global_step += 1
        self.callback.on_log(self.args, self.state, self.control, logs=logs, **kwargs)

    def end(self):
        self.callback.on_train_end(self.args, self.state, self.control)


class At(TrainerCallback):
    """Does something to the model at the begin of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step == self.step - 1:
            self.action(model)


def poison(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)


# Healthy runs


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_healthy_run_is_silent_and_leaves_its_records(kind, tmp_path, caplog):
    callback = DiagnosticsCallback()
    train(kind, tmp_path, callback, max_steps=60)
    (banner,) = messages(caplog, f"TRL diagnostics: {kind} (TRL ")
    assert banner.endswith(f"files in {tmp_path}/diagnostics") and "\n" not in banner
    assert ", 0 rules apply" not in banner
    assert messages(caplog, "[") == []
    assert messages(caplog, "TRL diagnostics: no findings in 60 logs")
    assert callback.broken == {}
    seen = records(tmp_path)
    assert [(record.step, record.phase) for record in seen] == [
        *((step, "train") for step in range(1, 61)),
        (60, "summary"),
    ]
    assert seen[0].metrics["loss"] > 0 and seen[0].metrics["nonfinite_parameters"] == 0.0
    assert bad(callback.findings) == []


def test_every_line_gives_its_record_back(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(), [tiny.PoisonWeights(3)], max_steps=6)
    for line, record in zip(lines(tmp_path, "metrics.jsonl"), records(tmp_path), strict=True):
        assert list(line) == ["step", "time", "phase", "metrics"]
        assert record.to_json() == line
    assert any(math.isnan(value) for value in records(tmp_path)[-2].metrics.values())


def test_a_dpo_run_at_the_default_learning_rate_is_left_alone(tmp_path):
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train("dpo", tmp_path, callback, max_steps=60, learning_rate=1e-6)
    assert trainer.state.global_step == 60
    assert bad(callback.findings) == []


def test_evaluation_is_a_phase_of_its_own(tmp_path):
    rows = tiny.text_dataset(16)
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=4, eval_strategy="steps", eval_steps=2, eval_dataset=rows)
    phases = [(record.step, record.phase) for record in records(tmp_path)]
    assert phases == [(1, "train"), (2, "train"), (2, "eval"), (3, "train"), (4, "train"), (4, "eval"), (4, "summary")]


def test_the_token_count_in_each_log_does_not_make_it_a_summary(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=2, include_num_input_tokens_seen="all")
    assert [record.phase for record in records(tmp_path)] == ["train", "train", "summary"]


def test_a_run_too_short_for_a_rule_is_told_once(tmp_path, caplog):
    train("sft", tmp_path, DiagnosticsCallback(custom_alerts=[LOSS_ALERT]), max_steps=20, logging_steps=10)
    (said,) = messages(caplog, "TRL diagnostics: ")[1:2]
    assert "need more than the 2 logs of this run (max_steps 20, logging_steps 10)" in said


# The NaN truth


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
def test_weights_set_to_nan_stop_the_run_at_once(kind, tmp_path, caplog):
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train(kind, tmp_path, callback, [tiny.PoisonWeights(10)], max_steps=30)
    assert 10 <= trainer.state.global_step <= 12
    first = problems(callback.findings)[0]
    assert (first.severity, first.state) == ("critical", "started") and first.step <= 12
    assert len(messages(caplog, "[CRITICAL]")) == 1
    assert messages(
        caplog, f"[STOP] Training stops because of {first.rule}, found at step {trainer.state.global_step}. "
    )
    assert [line.to_json() for line in findings(tmp_path)] == replay(callback, tmp_path)


def test_the_probe_sees_nan_in_the_log_of_the_same_step(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(stop_on_critical=True), [tiny.PoisonWeights(10)], max_steps=30)
    before, after = (record.metrics["nonfinite_parameters"] for record in records(tmp_path)[8:10])
    assert before == 0.0 and after > 20


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_nan_is_flagged_without_stopping(kind, tmp_path):
    callback = DiagnosticsCallback()
    trainer = train(kind, tmp_path, callback, [tiny.PoisonWeights(10)], max_steps=30)
    assert trainer.state.global_step == 30
    first = problems(callback.findings)[0]
    assert first.severity == "critical" and first.step <= 12
    assert [line.to_json() for line in findings(tmp_path)] == replay(callback, tmp_path)


def test_nan_in_grpo_is_flagged_before_sampling_raises(tmp_path):
    callback = DiagnosticsCallback()
    with pytest.raises(RuntimeError, match="probability tensor"):
        train("grpo", tmp_path, callback, [tiny.PoisonWeights(10)], max_steps=30)
    first = problems(findings(tmp_path))[0]
    assert first.severity == "critical" and first.step <= 12


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("sft", {}), ("dpo", {}), ("grpo", {"generation_kwargs": {"remove_invalid_values": True}})],
    ids=["sft", "dpo", "grpo"],
)
def test_nan_in_the_middle_of_a_step(kind, overrides, tmp_path):
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train(kind, tmp_path, callback, [At(10, poison)], max_steps=30, **overrides)
    assert 10 <= trainer.state.global_step <= 12
    assert problems(callback.findings)[0].severity == "critical"


def test_grpo_with_a_constant_reward_names_its_cause(tmp_path):
    callback = DiagnosticsCallback()
    train(
        "grpo", tmp_path, callback, max_steps=30, reward_funcs=lambda completions, **kwargs: [0.5] * len(completions)
    )
    first, worst, *more = [finding for finding in problems(callback.findings) if finding.state == "started"]
    assert (first.rule, first.severity) == ("reward_constant_so_far", "medium") and first.step <= 10
    assert (worst.rule, worst.severity, more) == ("reward_constant", "high", [])
    assert [line.to_json() for line in findings(tmp_path)] == replay(callback, tmp_path)


# Stopping


def test_stop_names_the_last_checkpoint_from_before(tmp_path, caplog):
    callback = DiagnosticsCallback(stop_on_critical=True)
    saving = {"max_steps": 30, "save_strategy": "steps", "save_steps": 4}
    trainer = train("sft", tmp_path, callback, [tiny.PoisonWeights(12)], **saving)
    assert trainer.state.global_step <= 14
    (said,) = messages(caplog, "[STOP]")
    # checkpoint-12 is written after the weights broke and is as worthless as the run
    assert (tmp_path / "checkpoint-12").is_dir()
    assert said.endswith(f"Resume from {tmp_path}/checkpoint-8.")


def test_a_checkpoint_between_two_logs_is_not_trusted(tmp_path, caplog):
    callback = DiagnosticsCallback(stop_on_critical=True)
    saving = {"max_steps": 40, "save_strategy": "steps", "save_steps": 4, "logging_steps": 10}
    train("sft", tmp_path, callback, [tiny.PoisonWeights(13)], **saving)
    (said,) = messages(caplog, "[STOP]")
    assert (tmp_path / "checkpoint-16").is_dir()
    assert said.endswith(f"Resume from {tmp_path}/checkpoint-8.")
    ended = json.loads((tmp_path / "diagnostics" / "postmortem.json").read_text())
    assert ended["last_verified_finite_checkpoint"] == f"{tmp_path}/checkpoint-12"
    assert ended["resume_command"].startswith(
        f'set trainer.train(resume_from_checkpoint="{tmp_path}/checkpoint-8") in '
    )


def test_stop_without_a_checkpoint_says_so(tmp_path, caplog):
    (tmp_path / "checkpoint-best").mkdir(parents=True)  # not a step
    callback = DiagnosticsCallback(stop_on_critical=True, custom_alerts=[KL_ALERT])
    stage = Stage(callback, tmp_path)
    for _ in range(40):
        stage.log({"loss": 1.0, "boom": 0.0})
    assert not stage.control.should_training_stop
    stage.log({"loss": 1.0, "boom": 1.0})
    assert stage.control.should_training_stop
    assert messages(caplog, "[STOP]") == [
        "[STOP] Training stops because of alert_boom_gt_0_5_for_1_steps, found at step 41. No checkpoint on disk is known to be from before it."
    ]
    assert callback.broken == {}


@pytest.mark.parametrize(
    ("severity", "floor", "status", "stops"),
    [
        ("high", "high", "stable", True),
        ("critical", "high", "stable", True),
        ("medium", "high", "stable", False),
        ("medium", "medium", "stable", True),
        ("high", "critical", "stable", False),
        ("critical", "low", "experimental", False),
    ],
)
def test_what_stops(severity, floor, status, stops, tmp_path):
    write_rule(tmp_path / "rules", "boom", severity=severity, status=status)
    callback = DiagnosticsCallback(
        stop_on_critical=True, stop_severity=floor, custom_heuristics_dir=tmp_path / "rules"
    )
    stage = Stage(callback, tmp_path)
    for _ in range(3):
        stage.log({"loss": 1.0, "boom": 1.0})
    assert started(callback.findings) == [("boom", 2)]
    assert stage.control.should_training_stop is stops


def test_nothing_stops_by_default(tmp_path):
    stage = Stage(DiagnosticsCallback(custom_alerts=[KL_ALERT]), tmp_path)
    for _ in range(40):
        stage.log({"loss": 1.0, "boom": 1.0})
    assert not stage.control.should_training_stop


def test_a_trainer_that_ignores_the_stop_is_told_once(tmp_path, caplog):
    stage = Stage(DiagnosticsCallback(custom_alerts=[KL_ALERT], stop_on_critical=True), tmp_path)
    for _ in range(40):
        stage.log({"loss": 1.0, "boom": 1.0})
    assert len(messages(caplog, "TRL diagnostics: this trainer does not look at control.should_training_stop")) == 1


def test_a_callback_that_stopped_one_run_starts_fresh_in_the_next(tmp_path):
    callback = DiagnosticsCallback(stop_on_critical=True, custom_alerts=[KL_ALERT])
    for _ in range(2):
        stage = Stage(callback, tmp_path)
        for _ in range(29):
            stage.log({"loss": 1.0, "boom": 1.0})
        assert not stage.control.should_training_stop
        stage.log({"loss": 1.0, "boom": 1.0})
        assert stage.control.should_training_stop
        assert started(callback.findings) == started(findings(tmp_path)) == [("alert_boom_gt_0_5_for_1_steps", 30)]


# What the user adds and takes away


def write_rule(folder, name, **fields):
    folder.mkdir(exist_ok=True)
    fields = {
        "severity": "high",
        "status": "stable",
        "metric": "'`boom`'",
        "condition": '"> 0.5 for 1 steps"',
    } | fields
    body = "\n".join(f"{key}: {value}" for key, value in fields.items())
    text = f'name: {name}\ntrainers: [all]\n{body}\nmin_steps: 2\nmessage: "boom at {{value:.1f}}"\n'
    (folder / f"{name}.yaml").write_text(text)


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
    def broken(finding):
        raise KeyError("mine")

    callback = DiagnosticsCallback(custom_alerts=[LOSS_ALERT], on_finding=broken)
    trainer = train("sft", tmp_path, callback, [tiny.PoisonWeights(32)], max_steps=36)
    assert trainer.state.global_step == 36
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "TRL diagnostics: on_finding switched off after an error; training goes on"
    assert error.exc_info[0] is KeyError
    assert len(findings(tmp_path)) >= 2  # the files and the other findings are not affected
    summary = messages(caplog, "TRL diagnostics: ")[-1]
    assert summary.endswith("\n  Error of the diagnostics themselves: on_finding (KeyError: 'mine')")


def test_live_warnings_can_be_switched_off(tmp_path, caplog):
    train("sft", tmp_path, DiagnosticsCallback(custom_alerts=[LOSS_ALERT], enable_live_warnings=False), max_steps=32)
    assert messages(caplog, "[") == []
    assert messages(caplog, "TRL diagnostics: 1 high finding in 32 logs")
    assert len(findings(tmp_path)) == 1


def test_another_run_dir(tmp_path):
    callback = DiagnosticsCallback(run_dir=tmp_path / "there")
    train("sft", tmp_path / "out", callback, max_steps=2)
    assert (tmp_path / "there" / "metrics.jsonl").read_text().count("\n") == 3
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


# Whatever is logged, training goes on


MALFORMED = {
    "none": None,
    "text": "text",
    "number as text": "0.5",
    "nested dict": {"a": {"b": 1}},
    "list": [1.0, 2.0],
    "tensor 0-d": torch.tensor(0.5),
    "tensor 1-d": torch.tensor([0.5, 1.0]),
    "tensor 1-d of one": torch.tensor([0.5]),
    "tensor with gradient": torch.tensor(0.5, requires_grad=True),
    "tensor bfloat16": torch.tensor(0.5, dtype=torch.bfloat16),
    "tensor of ints": torch.tensor(3),
    "tensor of bools": torch.tensor(True),
    "tensor empty": torch.tensor([]),
    "tensor meta": torch.empty((), device="meta"),
    "numpy float32": np.float32(0.5),
    "numpy int64": np.int64(3),
    "numpy bool": np.bool_(True),
    "numpy array": np.zeros(3),
    "numpy nan": np.float64("nan"),
    "huge int": 10**400,
    "bool": True,
    "bytes": b"0.5",
    "complex": 1j,
    "object": object(),
    "function": print,
    "inf": math.inf,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_value_never_raises_and_spoils_nothing_else(name, tmp_path):
    callback = DiagnosticsCallback(custom_alerts=[KL_ALERT])
    stage = Stage(callback, tmp_path)
    for _ in range(35):
        stage.log({"loss": 1.0, "odd": MALFORMED[name], "entropy": MALFORMED[name], "boom": 1.0})
    stage.end()
    assert callback.broken == {}
    assert ("alert_boom_gt_0_5_for_1_steps", 30) in started(callback.findings)
    assert len(records(tmp_path)) == 35
    assert all(record.metrics["boom"] == 1.0 for record in records(tmp_path))
    assert [finding.to_json() for finding in findings(tmp_path)] == replay(callback, tmp_path)


@pytest.mark.parametrize("key", [1, None, ("a", "b"), b"loss", "", "a" * 10_000, "eval_", "rewards//x", "\ud800"])
def test_a_malformed_key_never_raises_and_spoils_nothing_else(key, tmp_path):
    callback = DiagnosticsCallback(custom_alerts=[KL_ALERT])
    stage = Stage(callback, tmp_path)
    for _ in range(35):
        stage.log({"loss": 1.0, key: 0.5, "boom": 1.0})
    assert callback.broken == {}
    assert ("alert_boom_gt_0_5_for_1_steps", 30) in started(callback.findings)
    assert len(records(tmp_path)) == 35


class Raises:
    """Raises whatever one asks of it."""

    def __str__(self):
        raise RuntimeError("no text")

    def __float__(self):
        raise RuntimeError("no number")

    @property
    def __class__(self):
        raise RuntimeError("no class")


@pytest.mark.parametrize(
    "logs",
    [torch.ones(3), "hello", [1], 5, None, {}, {Raises(): 1.0}, {"x": Raises()}],
    ids=lambda logs: str(type(logs)),
)
def test_a_log_without_a_number(logs, tmp_path):
    callback = DiagnosticsCallback()
    stage = Stage(callback, tmp_path)
    stage.log(logs)
    stage.log({"loss": 1.0})
    assert callback.broken == {}
    assert [record.metrics for record in records(tmp_path)] == [{}, {"loss": 1.0}]


class LogsNonsense(TrainerCallback):
    """Puts odd things into the logs before the diagnostics see them."""

    def on_log(self, args, state, control, logs, **kwargs):
        logs |= {name: value for name, value in MALFORMED.items() if not isinstance(value, complex)}


def test_a_real_run_with_malformed_logs(tmp_path):
    callback = DiagnosticsCallback()
    trainer = tiny.make_trainer("sft", tmp_path, [LogsNonsense(), callback], max_steps=3)
    trainer.train()
    assert trainer.state.global_step == 3
    assert callback.broken == {}
    assert len(records(tmp_path)) == 4


def test_an_error_in_the_engine_is_said_once_and_training_goes_on(tmp_path, caplog, monkeypatch):
    callback = DiagnosticsCallback()

    def fail(self, record):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(Engine, "update", fail)
    trainer = train("sft", tmp_path, callback, max_steps=5)
    assert trainer.state.global_step == 5
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage() == "TRL diagnostics: rules switched off after an error; training goes on"
    assert len(records(tmp_path)) == 6
    assert messages(caplog, "TRL diagnostics: no findings")[0].endswith(
        "  Error of the diagnostics themselves: rules (ZeroDivisionError: division by zero)"
    )


def test_a_full_disk_does_not_end_training(tmp_path, caplog, monkeypatch):
    write = run_dir.RunDir._append

    def full(self, name, data):
        if 2 < data["step"] < 31:
            raise OSError(28, "No space left on device")
        write(self, name, data)

    monkeypatch.setattr(run_dir.RunDir, "_append", full)
    callback = DiagnosticsCallback(custom_alerts=[LOSS_ALERT])
    trainer = train("sft", tmp_path, callback, max_steps=32)
    assert trainer.state.global_step == 32
    assert [record.step for record in records(tmp_path)] == [1, 2, 31, 32, 32]
    assert started(callback.findings) == [("alert_loss_gt_minus_1_for_3_steps", 30)]  # still judged and still said
    assert len(messages(caplog, "[HIGH]")) == 1
    full_disk = "OSError: [Errno 28] No space left on device"
    lost = {"metrics.jsonl": f"28 times {full_disk}", "findings.jsonl": full_disk}
    assert callback.broken == lost
    assert json.loads((tmp_path / "diagnostics" / "run_metadata_final.json").read_text())["broken"] == lost
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        f"TRL diagnostics: {name} failed ({full_disk}) and is tried again each time; training goes on" for name in lost
    ]


def test_a_file_that_cannot_be_written_leaves_the_others(tmp_path, monkeypatch):
    def fail(self, coverage):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(run_dir.RunDir, "write_coverage", fail)
    callback = DiagnosticsCallback()
    train("sft", tmp_path, callback, max_steps=2)
    assert list(callback.broken) == ["coverage.json"]
    assert len(records(tmp_path)) == 3 and (tmp_path / "diagnostics" / "run_metadata_final.json").exists()


def test_a_run_dir_that_cannot_be_made_does_not_end_training(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    callback = DiagnosticsCallback(run_dir=tmp_path / "file" / "diagnostics", custom_alerts=[LOSS_ALERT])
    trainer = train("sft", tmp_path / "out", callback, max_steps=32)
    assert trainer.state.global_step == 32
    assert list(callback.broken) == ["run directory", "coverage.json", "metrics.jsonl", "findings.jsonl"]
    assert started(callback.findings) == [("alert_loss_gt_minus_1_for_3_steps", 30)]


def test_an_error_at_the_start_leaves_the_run_without_diagnostics(tmp_path, caplog, monkeypatch):
    callback = DiagnosticsCallback()
    with monkeypatch.context() as patched:
        patched.setattr(callback, "rules", [None])
        assert train("sft", tmp_path, callback, max_steps=2).state.global_step == 2
    assert list(callback.broken) == ["start"]
    assert records(tmp_path) == []
    train("sft", tmp_path, callback, max_steps=2)  # the next run has them again
    assert callback.broken == {} and len(records(tmp_path)) == 3


def test_a_failing_probe_is_switched_off_alone(tmp_path, monkeypatch):
    def fail(model):
        raise RuntimeError("no such device")

    monkeypatch.setattr("trl_diagnostics.callback.nonfinite_parameters", fail)
    callback = DiagnosticsCallback()
    train("sft", tmp_path, callback, max_steps=3)
    assert list(callback.broken) == ["weights probe"]
    assert [record.metrics.get("nonfinite_parameters", 0) for record in records(tmp_path)] == [None, None, None, 0]


# Resuming


class StopsAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


RESUME_ALERTS = [
    "all: loss > -1 for 8 steps -> low: started before the checkpoint",
    "all: learning_rate > -1 for 36 steps -> medium: streak over the checkpoint",
    "all: grad_norm drop(1%) -> low: baseline from before the checkpoint",
]


def resumable():
    return DiagnosticsCallback(custom_alerts=RESUME_ALERTS)


RESUMED = {"max_steps": 60, "save_strategy": "steps", "save_steps": 33, "logging_steps": 1}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """One run to the end, and one that was stopped at step 40 with a checkpoint at step 33."""
    whole, part = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("part")
    train("sft", whole, resumable(), **RESUMED)
    train("sft", part, resumable(), [StopsAt(40)], **RESUMED)
    assert len(started(findings(whole))) >= 2
    return whole, part


@pytest.mark.parametrize("restore", [False, True])
def test_a_resumed_run_says_what_the_uninterrupted_one_says(restore, interrupted, tmp_path):
    whole, part = interrupted
    folder = tmp_path / "run"
    shutil.copytree(part, folder)
    callback = resumable()
    overrides = RESUMED | {"restore_callback_states_from_checkpoint": restore}
    trainer = train("sft", folder, callback, resume=str(folder / "checkpoint-33"), **overrides)
    (callback,) = [one for one in trainer.callback_handler.callbacks if isinstance(one, DiagnosticsCallback)]
    assert callback.broken == {}
    assert started(without_resume(findings(folder))) == started(findings(whole))
    assert [finding.to_json() for finding in callback.findings] == lines(folder, "findings.jsonl")
    # between them stand the records about the resume itself
    logged = [(r.step, r.phase) for r in records(folder) if r.phase != "resume"]
    assert logged == [(r.step, r.phase) for r in records(whole)]
    assert lines(folder, "findings.jsonl") == replay(callback, folder)
    # what the interrupted run wrote after the checkpoint is kept
    assert [line["step"] for line in lines(folder, "attempts/1/metrics.jsonl")] == [*range(34, 41), 40]


def test_other_arguments_do_not_make_a_resumed_run_forget(interrupted, tmp_path):
    shutil.copytree(interrupted[1], tmp_path / "run")
    callback = DiagnosticsCallback(custom_alerts=RESUME_ALERTS, stop_on_critical=True, disable=["lr_zero"])
    overrides = RESUMED | {"max_steps": 36}
    train("sft", tmp_path / "run", callback, resume=str(tmp_path / "run" / "checkpoint-33"), **overrides)
    assert callback.engine.records == 36
    assert ("alert_loss_gt_minus_1_for_8_steps", 30) in started(callback.findings)


def test_a_function_lost_by_restoring_callbacks_is_said(interrupted, tmp_path, caplog):
    folder = tmp_path / "run"
    overrides = RESUMED | {"max_steps": 6, "save_steps": 3}
    train("sft", folder, DiagnosticsCallback(on_finding=print), **overrides)
    resumed = DiagnosticsCallback(on_finding=print)
    overrides |= {"restore_callback_states_from_checkpoint": True}
    train("sft", folder, resumed, resume=str(folder / "checkpoint-3"), **overrides)
    assert len(messages(caplog, "TRL diagnostics: restore_callback_states_from_checkpoint=True replaces")) == 1


def test_resuming_from_a_checkpoint_without_diagnostics(tmp_path):
    saving = RESUMED | {"max_steps": 6, "save_steps": 2}
    train("sft", tmp_path, **saving)
    callback = DiagnosticsCallback()
    trainer = train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-2"), **saving)
    assert trainer.state.global_step == 6
    assert callback.broken == {}
    assert [record.step for record in records(tmp_path) if record.phase != "resume"] == [3, 4, 5, 6, 6]


def test_two_callbacks_do_not_mix_their_states(tmp_path):
    saving = RESUMED | {"max_steps": 40}

    def both():
        return [
            DiagnosticsCallback(run_dir=tmp_path / "a", custom_alerts=[RESUME_ALERTS[0]]),
            DiagnosticsCallback(run_dir=tmp_path / "b", custom_alerts=[RESUME_ALERTS[1]]),
        ]

    train("sft", tmp_path / "out", others=both(), **saving)
    again = both()
    train("sft", tmp_path / "out", others=again, resume=str(tmp_path / "out" / "checkpoint-33"), **saving)
    assert [started(one.findings) for one in again] == [
        [("alert_loss_gt_minus_1_for_8_steps", 30)],
        [("alert_learning_rate_gt_minus_1_for_36_steps", 36)],
    ]


def test_a_state_of_another_version_is_left_out_and_training_goes_on(tmp_path):
    saving = RESUMED | {"max_steps": 6, "save_steps": 2}
    train("sft", tmp_path, DiagnosticsCallback(), **saving)
    file = tmp_path / "checkpoint-2" / "trainer_state.json"
    stored = json.loads(file.read_text())
    stored["stateful_callbacks"]["DiagnosticsCallback"]["attributes"]["saved"]["engine"]["version"] = 99
    file.write_text(json.dumps(stored))
    callback = DiagnosticsCallback()
    trainer = train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-2"), **saving)
    assert trainer.state.global_step == 6
    assert list(callback.broken) == ["state from the checkpoint"]
    assert callback.engine.records == 4


def test_a_second_training_in_the_same_folder_keeps_the_files_of_the_first(tmp_path):
    for steps in (2, 3):
        train("sft", tmp_path, DiagnosticsCallback(), max_steps=steps)
    assert [record.step for record in records(tmp_path)] == [1, 2, 3, 3]
    assert len(lines(tmp_path, "attempts/1/metrics.jsonl")) == 3


# Which trainer it is


def test_a_subclassed_config_is_that_of_its_base(tmp_path):
    class MyConfig(DPOConfig):
        pass

    assert Stage(DiagnosticsCallback(), tmp_path, MyConfig).callback.metric_map.trainer == "dpo"


def test_plain_training_arguments_get_every_rule_whose_metrics_appear(tmp_path, caplog):
    callback = DiagnosticsCallback(custom_alerts=["grpo: `boom` > 0.5 for 1 steps -> high: boom"])
    stage = Stage(callback, tmp_path, TrainingArguments)
    assert messages(caplog, "TRL diagnostics: unknown (TRL ")
    for _ in range(31):
        stage.log({"loss": 1.0, "boom": 1.0})
    assert started(callback.findings) == [("alert_boom_gt_0_5_for_1_steps", 30)]


# Training is the same as without


class Recorder(TrainerCallback):
    def __init__(self):
        self.losses = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.losses.append(
            {key: value for key, value in logs.items() if "time" not in key and "per_second" not in key}
        )


def outcome(kind, folder, callback):
    recorder = Recorder()
    trainer = train(kind, folder, callback, [recorder], max_steps=12)
    weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    draws = (torch.rand(3).tolist(), random.random(), np.random.rand())
    return weights, recorder.losses, draws


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "grpo"])
def test_weights_losses_and_random_states_are_the_same_with_and_without(kind, tmp_path):
    weights, losses, draws = outcome(kind, tmp_path / "without", None)
    callback = DiagnosticsCallback(custom_alerts=["all: loss > -99 for 2 steps -> low: said"], stop_on_critical=True)
    with_weights, with_losses, with_draws = outcome(kind, tmp_path / "with", callback)
    assert torch.equal(weights, with_weights)
    assert losses == with_losses
    assert draws == with_draws


# What a reviewer of real runs asks for


def test_resuming_from_a_ruined_checkpoint_stops_and_says_what_goes_on(tmp_path, caplog):
    train(
        "sft",
        tmp_path,
        DiagnosticsCallback(),
        [tiny.PoisonWeights(3)],
        max_steps=6,
        save_strategy="steps",
        save_steps=6,
    )
    caplog.clear()
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-6"), max_steps=20)
    assert trainer.state.global_step == 7
    (said,) = messages(caplog, "TRL diagnostics: resumed at step 6, still going on: ")
    assert "nonfinite_weights (since 3)" in said
    assert messages(caplog, "[STOP] Training stops because of nonfinite_weights, found at step 7. ")
    assert messages(caplog, "[CRITICAL] nonfinite_weights") == []  # said before the resume


def test_the_checkpoint_is_from_before_the_window_of_the_rule(tmp_path, caplog):
    """The mean of 20 points crosses the limit long after the first bad one."""
    for step in (10, 30, 40, 50):
        (tmp_path / f"checkpoint-{step}").mkdir(parents=True)
    alert = "all: `boom` > 0.5 -> high: boom at {value:.1f}"
    stage = Stage(DiagnosticsCallback(custom_alerts=[alert], stop_on_critical=True), tmp_path)
    for step in range(1, 60):
        stage.log({"loss": 1.0, "boom": float(step > 32)})
    assert stage.callback.findings[0].first_step == 43
    assert messages(caplog, "[STOP] ")[0].endswith(f"Resume from {tmp_path}/checkpoint-10.")


def test_an_evaluation_between_two_logs_changes_no_verdict(tmp_path):
    alert = "all: `boom` > 0 and delta(step) == 10 for 3 steps -> low: every tenth step"
    stage = Stage(DiagnosticsCallback(custom_alerts=[alert]), tmp_path, logging_steps=10)
    for step in range(5, 405, 5):
        stage.state.global_step = step - 1
        stage.log({"loss": 1.0, "boom": 1.0} if step % 10 == 0 else {"eval_loss": 1.0})
    assert started(stage.callback.findings) == [("alert_boom_gt_0_and_delta_step_eq_10_for_3_steps", 300)]


def test_what_the_user_logs_is_no_training_log(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path)
    stage.log({"loss": 1.0}, model=torch.nn.Linear(1, 1))
    stage.log({"latency": 3.0}, model=torch.nn.Linear(1, 1))
    assert [(record.phase, sorted(record.metrics)) for record in records(tmp_path)] == [
        ("train", ["loss", "nonfinite_parameters"]),
        ("probe", ["latency"]),
    ]
    assert stage.callback.engine.records == 1


def test_a_rule_that_comes_and_goes_fills_neither_screen_nor_checkpoint(tmp_path, caplog):
    stage = Stage(DiagnosticsCallback(custom_alerts=[KL_ALERT]), tmp_path)
    for step in range(1, 1001):
        stage.log({"loss": 1.0, "boom": float(step % 2)})
    stage.end()
    assert len(messages(caplog, "[HIGH] alert_boom")) == 3
    assert len(messages(caplog, "       alert_boom_gt_0_5_for_1_steps has come 3 times; from now on")) == 1
    assert len(stage.callback.findings) == 6
    assert len(started(findings(tmp_path))) == 485
    assert len(json.dumps(stage.callback.state())) < 60_000
    assert "and 482 more times" in caplog.text


def test_loss_alone_does_not_make_a_plain_run_a_distillation(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path, TrainingArguments)
    for step in range(1, 101):
        stage.log({"loss": 0.05 if step < 50 else 0.3, "grad_norm": 1.0})
    assert bad(stage.callback.findings) == []
    assert "teacher_equals_student" not in stage.callback.engine.coverage()


def test_what_an_option_turns_off_does_not_apply_from_the_start(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path, GRPOConfig)
    before = stage.callback.engine.coverage()
    assert before["kl_runaway"] == before["importance_sampling_ratio_low"] == "not applicable"
    stage = Stage(DiagnosticsCallback(), tmp_path, GRPOConfig, beta=0.04, use_vllm=True)
    assert stage.callback.engine.coverage()["kl_runaway"] == "too few logs"


def test_the_checkpoint_is_found_by_the_logs_not_by_logging_steps(tmp_path, caplog):
    """With one log per epoch the last log that was good is an epoch ago."""
    for step in (2, 8, 10, 64, 126):
        (tmp_path / f"checkpoint-{step}").mkdir(parents=True)
    callback = DiagnosticsCallback(stop_on_critical=True)
    stage = Stage(callback, tmp_path, logging_strategy="epoch")
    ruined = torch.nn.Linear(1, 1)
    poison(ruined)
    for step, model in ((64, torch.nn.Linear(1, 1)), (128, ruined)):
        stage.state.global_step = step - 1
        stage.log({"loss": 1.0}, model=model)
    assert messages(caplog, "[STOP] ")[0].endswith(f"Resume from {tmp_path}/checkpoint-64.")


def test_the_checkpoint_one_came_from_is_not_recommended_when_it_is_ruined(tmp_path, caplog):
    train("sft", tmp_path, None, [tiny.PoisonWeights(3)], max_steps=6, save_strategy="steps", save_steps=6)
    callback = DiagnosticsCallback(stop_on_critical=True)
    train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-6"), max_steps=20)
    assert messages(caplog, "[STOP] ")[0].endswith("No checkpoint on disk is known to be from before it.")


def test_an_evaluation_after_the_checkpoint_does_not_tell_its_story_twice(tmp_path):
    rule = "name: ev\ntrainers: [all]\nmetric: eval_loss\ncondition: '> 0 for 2 steps'\nmin_steps: 1\nseverity: low\nmessage: x\n"
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "ev.yaml").write_text(rule)
    options = {"eval_dataset": tiny_data.text_dataset(8), "eval_strategy": "steps", "eval_steps": 5, "max_steps": 10}
    options |= {"save_strategy": "steps", "save_steps": 5, "lr_scheduler_type": "constant"}
    first = train("sft", tmp_path, DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules"), **options)
    first.evaluate()
    callback = DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules")
    train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-10"), **(options | {"max_steps": 20}))
    assert started(without_resume(findings(tmp_path))) == [("ev", 10)]
    assert replay(callback, tmp_path) == lines(tmp_path, "findings.jsonl")


def test_weights_are_looked_at_in_evaluation_too(tmp_path, caplog):
    options = {"eval_dataset": tiny_data.text_dataset(8), "eval_strategy": "steps", "eval_steps": 5}
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train("sft", tmp_path, callback, [tiny.PoisonWeights(3)], max_steps=20, logging_strategy="no", **options)
    assert trainer.state.global_step == 5
    assert started(callback.findings) == [("nonfinite_weights", 5)]


def test_a_train_loss_of_the_users_own_is_no_summary(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path)
    stage.log({"loss": 1.0, "train_loss": 2.0})
    stage.log({"train_loss": 2.0, "train_runtime": 1.0})
    assert [record.phase for record in records(tmp_path)] == ["train", "summary"]


def test_a_new_name_in_each_log_does_not_grow_without_end(tmp_path):
    alert = "grpo: rewards/*/std > 100 -> low: x"
    stage = Stage(DiagnosticsCallback(custom_alerts=[alert]), tmp_path, GRPOConfig)
    for step in range(3000):
        stage.log({"loss": 1.0, f"rewards/f_{step}/std": 1.0})
    assert len(stage.callback.engine.seen) == 1000
    assert len(stage.callback.engine.histories) < 2500
