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

"""A resumed training says what the uninterrupted one says."""

import json
import shutil

import pytest
import tiny
from callback_kit import Stage, StopsAt, findings, lines, messages, records, replay, started, train, without_resume

from trl_diagnostics import DiagnosticsCallback


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on", "info_messages")


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
    assert len(lines(tmp_path, "attempts/1/metrics.jsonl")) == 4


def test_a_resume_of_the_branch_that_was_given_up_goes_on_in_its_record(tmp_path, caplog):
    options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}
    train("sft", tmp_path, resumable(), [StopsAt(6)], **options)
    first = [line for line in lines(tmp_path, "metrics.jsonl") if line["phase"] == "train"]
    train("sft", tmp_path, resumable(), [StopsAt(4)], resume=str(tmp_path / "checkpoint-2"), **options)
    callback = resumable()
    train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-6"), **options)
    logs = [line for line in lines(tmp_path, "metrics.jsonl") if line["phase"] == "train"]
    assert logs[:6] == first and [line["step"] for line in logs] == list(range(1, 9))
    assert [finding.to_json() for finding in findings(tmp_path)] == replay(callback, tmp_path)
    assert messages(caplog, "TRL diagnostics: 2 of ") == []
    shutil.rmtree(tmp_path / "diagnostics" / "attempts")
    train("sft", tmp_path, resumable(), [StopsAt(6)], resume=str(tmp_path / "checkpoint-4"), **options)
    folder = tmp_path / "diagnostics"
    said = f"in {folder / 'metrics.jsonl'}. What else was in the folder is in {folder / 'attempts'}."
    assert messages(caplog, "TRL diagnostics: 0 of ") == [
        f"TRL diagnostics: 0 of 7 records before this resume are {said}"
    ]


def test_two_callbacks_in_one_training_do_not_write_into_one_folder(tmp_path, caplog):
    for _ in range(2):
        tiny.make_trainer("sft", tmp_path, [DiagnosticsCallback(), DiagnosticsCallback()], max_steps=2).train()
    for folder in (tmp_path / "diagnostics", tmp_path / "diagnostics-2"):
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
        assert sorted(path.name for path in (folder / "attempts").iterdir()) == ["1"]
    said = f"another training writes into {tmp_path / 'diagnostics'}, this is {tmp_path / 'diagnostics-2'}"
    assert messages(caplog, "TRL diagnostics: another") == [f"TRL diagnostics: {said}"] * 2


def test_a_training_that_was_left_does_not_keep_the_next_one_out(tmp_path):
    for _ in range(2):
        assert Stage(DiagnosticsCallback(), tmp_path).callback.files.path == tmp_path / "diagnostics"
