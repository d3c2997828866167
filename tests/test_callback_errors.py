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

"""Whatever is logged and whatever fails: training goes on, and it is said once."""

import json
import logging
import math

import numpy as np
import pytest
import tiny
import torch
from callback_kit import KL_ALERT, LOSS_ALERT, Stage, findings, messages, records, replay, started, train
from transformers import TrainerCallback

from trl_diagnostics import DiagnosticsCallback, Engine
from trl_diagnostics.sinks import run_dir


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on", "info_messages")


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
    head, *_, last = error.getMessage().splitlines()
    assert head == "TRL diagnostics: rules switched off after an error; training goes on"
    assert last == "ZeroDivisionError: division by zero"
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


def test_a_disk_that_is_full_at_the_start_costs_only_what_is_written_then(tmp_path, monkeypatch):
    real, full = run_dir.write_file, [True]

    def write(file, data, sync=True):
        if full:
            raise OSError(28, "No space left on device")
        real(file, data, sync)

    class Frees(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            full.clear()

    train("sft", tmp_path, DiagnosticsCallback(), max_steps=1)
    (tmp_path / "diagnostics" / "postmortem.json").unlink()  # the end of this one has to be written first
    beat = tmp_path / "diagnostics" / "heartbeat.json"
    beat.write_text(beat.read_text().replace('"process_started": ', '"process_started": -'))
    monkeypatch.setattr(run_dir, "write_file", write)
    callback = DiagnosticsCallback()
    train("sft", tmp_path, callback, [Frees()], max_steps=3)
    assert list(callback.broken) == ["end of the run before", "watchdog", "coverage.json", "provenance", "preflight"]
    assert [record.step for record in records(tmp_path)] == [1, 2, 3, 3]
    assert json.loads((tmp_path / "diagnostics" / "postmortem.json").read_text())["last_step"] == 3
    assert beat.exists()


def test_a_file_that_cannot_be_written_leaves_the_others(tmp_path, monkeypatch):
    def fail(self, coverage):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(run_dir.RunDir, "write_coverage", fail)
    callback = DiagnosticsCallback()
    train("sft", tmp_path, callback, max_steps=2)
    assert list(callback.broken) == ["coverage.json"]
    assert len(records(tmp_path)) == 3 and (tmp_path / "diagnostics" / "run_metadata_final.json").exists()


def test_what_cannot_be_moved_out_of_the_way_is_not_mixed_with_the_new_run(tmp_path):
    folder = tmp_path / "diagnostics"
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=3)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    (folder / "attempts").write_text("a file of the user")
    callback = DiagnosticsCallback()
    train("sft", tmp_path, callback, max_steps=2)
    assert list(callback.broken) == ["run directory"]
    assert callback.broken["run directory"] == (
        f"DiagnosticsError: [Errno 17] File exists: '{folder / 'attempts'}'; nothing of this run is written down, and what "
        "is there stays as it is. For a record make room there, or choose another run_dir, and start again"
    )
    after = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    assert after == before | {"attempts": b"a file of the user"}


def test_a_secret_in_the_name_of_a_metric_is_hidden(tmp_path):
    secret = "hf_" + "aB3" * 12
    Stage(DiagnosticsCallback(), tmp_path).log({f"score {secret}": 1.0})
    assert secret not in (tmp_path / "diagnostics" / "metrics.jsonl").read_text()
    assert [record.metrics for record in records(tmp_path)] == [{"score <redacted>": 1.0}]


def test_a_run_dir_that_cannot_be_made_does_not_end_training(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    callback = DiagnosticsCallback(run_dir=tmp_path / "file" / "diagnostics", custom_alerts=[LOSS_ALERT])
    trainer = train("sft", tmp_path / "out", callback, max_steps=32)
    assert trainer.state.global_step == 32
    assert list(callback.broken) == ["run directory"]
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

    monkeypatch.setattr("trl_diagnostics.sources.probes.nonfinite_parameters", fail)
    callback = DiagnosticsCallback()
    train("sft", tmp_path, callback, max_steps=3)
    assert list(callback.broken) == ["weights probe"]
    assert [record.metrics.get("nonfinite_parameters", 0) for record in records(tmp_path)] == [None, None, None, 0]


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_an_error_that_cannot_be_printed_ends_no_training(tmp_path):
    def fail(finding):
        raise Unprintable

    callback = DiagnosticsCallback(custom_alerts=["sft: loss > 0 for 1 step -> low: high"], on_finding=fail)
    assert train("sft", tmp_path, callback, max_steps=40).state.global_step == 40
    assert callback.broken == {"on_finding": "Unprintable: it cannot be printed"}
