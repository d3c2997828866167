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

"""A training that a finding stops, and the checkpoint it names to go on from."""

import json

import pytest
import tiny
import torch
from callback_kit import KL_ALERT, Stage, findings, messages, poison, started, train, write_rule

from trl_diagnostics import DiagnosticsCallback


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on", "info_messages")


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
    assert (tmp_path / "checkpoint-12").is_dir()
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
